package model

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// onnxConfig is a small DINOv2: its heads are 64 wide, as importONNX takes them to be.
func onnxConfig() Config {
	return Config{
		ImageHeight: 24, ImageWidth: 24, Patch: 8, Dim: 64, Depth: 2, Heads: 1, Hidden: 32, Readout: ReadClass,
		PrefixPosition: true, QKVBias: true, LayerScale: true, Epsilon: 1e-6, PositionResize: PositionBicubic,
	}
}

// onnxFile writes a checkpoint as PyTorch's exporter writes a module with a DINOv2 called backbone: vectors
// keep their names, matrices are transposed constants of MatMul nodes, the position embedding is cut in two.
func onnxFile(c *Checkpoint) []byte {
	var graph []byte
	constant := func(name string, shape []int, values []float32) {
		var t []byte
		for _, n := range shape {
			t = protowire.AppendVarint(protowire.AppendTag(t, tensorDims, protowire.VarintType), uint64(n))
		}
		t = protowire.AppendVarint(protowire.AppendTag(t, tensorDataType, protowire.VarintType), onnxFloat)
		t = protowire.AppendString(protowire.AppendTag(t, tensorName, protowire.BytesType), name)
		t = protowire.AppendBytes(protowire.AppendTag(t, tensorRawData, protowire.BytesType), encode(nil, values))
		graph = protowire.AppendBytes(protowire.AppendTag(graph, graphInitializer, protowire.BytesType), t)
	}
	node := func(op, name string, inputs ...string) {
		var n []byte
		for _, input := range inputs {
			n = protowire.AppendString(protowire.AppendTag(n, nodeInput, protowire.BytesType), input)
		}
		n = protowire.AppendString(protowire.AppendTag(n, nodeName, protowire.BytesType), name)
		n = protowire.AppendString(protowire.AppendTag(n, nodeOpType, protowire.BytesType), op)
		graph = protowire.AppendBytes(protowire.AppendTag(graph, graphNode, protowire.BytesType), n)
	}
	find := dinov2Layout(c.Config, "").find
	c.Params.Each(c.Config, func(p Param, v *[]float32) {
		name := find(p.Name).tensor
		switch {
		case name == "embeddings.position_embeddings":
			constant("onnx::Concat_7", []int{1, 1, c.Config.Dim}, (*v)[:c.Config.Dim])
			constant("onnx::Reshape_9", []int{1, p.Shape[1] - 1, c.Config.Dim}, (*v)[c.Config.Dim:])
			node("Reshape", "/backbone/embeddings/Reshape_1", "onnx::Reshape_9", "shape")
			node("Concat", "/backbone/embeddings/Concat_6", "onnx::Concat_7", "activation")
		case len(p.Shape) == 2:
			constant("onnx::MatMul_"+name, []int{p.Shape[1], p.Shape[0]}, transpose(*v, p.Shape[0], p.Shape[1]))
			node("MatMul", "/backbone/"+strings.ReplaceAll(strings.TrimSuffix(name, ".weight"), ".", "/")+"/MatMul", "activation", "onnx::MatMul_"+name)
		default:
			constant("backbone."+name, p.Shape, *v)
		}
	})
	constant("decoder.bn1.weight", []int{2}, []float32{1, 2}) // another part of the file
	node("MatMul", "/backbone/encoder/layer.0/attention/attention/MatMul", "activation", "activation")
	return protowire.AppendBytes(protowire.AppendTag(nil, modelGraph, protowire.BytesType), graph)
}

func TestImportONNX(t *testing.T) {
	want := Random(onnxConfig(), 5)
	// The exporter writes layer.0, not layer/0.
	file := onnxFile(want)
	file = []byte(strings.ReplaceAll(string(file), "layer/", "layer."))
	path := filepath.Join(t.TempDir(), "some.onnx")
	writeFile(t, path, file)
	got, err := ImportONNX(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.Source, "DINOv2 backbone of some.onnx, sha256 ") {
		t.Errorf("source %q", got.Source)
	}
	want.Source, want.Preprocess = got.Source, dinov2Preprocess
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestImportONNXRefuses(t *testing.T) {
	good := strings.ReplaceAll(string(onnxFile(Random(onnxConfig(), 5))), "layer/", "layer.")
	for name, v := range map[string]struct{ file, want string }{
		"empty":          {"", "no constants"},
		"no ONNX":        {"hello, world", "not an ONNX file"},
		"cut short":      {good[:len(good)-1000], "not an ONNX file"},
		"no backbone":    {strings.ReplaceAll(good, "/backbone/", "/resnet50/"), "it is no DINOv2 backbone"},
		"lost matrix":    {strings.Replace(good, "/backbone/encoder/layer.1/mlp/fc1/MatMul", "/backbone/encoder/layer.1/mlp/fc9/MatMul", 1), `tensor "encoder.layer.1.mlp.fc1.weight" is missing`},
		"foreign tensor": {strings.Replace(good, "backbone.encoder.layer.1.norm2.bias", "backbone.encoder.layer.1.norm9.bias", 1), `tensor "encoder.layer.1.norm2.bias" is missing`},
	} {
		path := filepath.Join(t.TempDir(), "some.onnx")
		writeFile(t, path, []byte(v.file))
		if _, err := ImportONNX(path); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, v.want)
		}
	}
	if _, err := ImportONNX(filepath.Join(t.TempDir(), "none.onnx")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// FuzzONNX: any file is read or refused.
func FuzzONNX(f *testing.F) {
	c := onnxConfig()
	c.Depth, c.Hidden, c.Patch, c.ImageHeight, c.ImageWidth = 1, 1, 1, 1, 1
	file := []byte(strings.ReplaceAll(string(onnxFile(Random(c, 5))), "layer/", "layer."))
	f.Add(file)
	f.Add(file[:300])
	f.Fuzz(func(t *testing.T, file []byte) {
		g, err := readONNX(file)
		if err != nil {
			return
		}
		tensors, err := g.dinov2()
		if err != nil {
			return
		}
		l, err := onnxLayout(tensors)
		if err != nil {
			return
		}
		params, err := collect(l, tensors)
		if err == nil && slices.ContainsFunc(params.Flat(l.config), func(v []float32) bool { return len(v) == 0 }) {
			t.Error("a parameter is empty")
		}
	})
}
