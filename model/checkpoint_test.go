package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSaveLoad: what any family brought, our own folder gives back, to the bit.
func TestSaveLoad(t *testing.T) {
	for _, dir := range parityCases(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			want, err := loadNative(dir)
			if err != nil {
				t.Fatal(err)
			}
			want.Source = "made up, CC0-1.0"
			own := filepath.Join(t.TempDir(), "new", "folder")
			if err := want.Save(own); err != nil {
				t.Fatal(err)
			}
			got, err := loadNative(own)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if want.Digest() != got.Digest() {
				t.Error("the digest changed")
			}
			left, err := filepath.Glob(filepath.Join(own, "*"))
			if err != nil || len(left) != 3 {
				t.Errorf("the folder holds %v", left)
			}
			// Over an older one, and again: the same bytes.
			before, _ := os.ReadFile(filepath.Join(own, "model.safetensors"))
			if err := got.Save(own); err != nil {
				t.Fatal(err)
			}
			if after, _ := os.ReadFile(filepath.Join(own, "model.safetensors")); !bytes.Equal(before, after) {
				t.Error("written twice, the weights differ")
			}
		})
	}
}

// TestOwnNamesAreTimm: a checkpoint of timm that is read and saved has the tensors that timm wrote.
func TestOwnNamesAreTimm(t *testing.T) {
	cases, err := filepath.Glob("testdata/parity/timm-*")
	if err != nil || len(cases) < 4 {
		t.Fatal(cases, err)
	}
	for _, dir := range cases {
		c, err := loadNative(dir)
		if err != nil {
			t.Fatal(err)
		}
		own := t.TempDir()
		if err := c.Save(own); err != nil {
			t.Fatal(err)
		}
		want := readTensors(t, filepath.Join(dir, "model.safetensors"))
		got := readTensors(t, filepath.Join(own, "model.safetensors"))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(valued{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", dir, diff)
		}
	}
}

// TestLabels: the classes of a checkpoint keep their names and their order.
func TestLabels(t *testing.T) {
	c, err := Load("testdata/parity/hf-vit")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"bird", "beetle", "spade", "car", "pear"}; !slices.Equal(c.Config.Labels, want) {
		t.Errorf("labels %q, want %q", c.Config.Labels, want)
	}
}

// TestLoadSize: Load lays the position embedding out for the size that the preprocessing gives.
func TestLoadSize(t *testing.T) {
	for dir, want := range map[string][2]int{ // patch 8 everywhere
		"hf-vit":                       {32, 32},   // as its processor
		"hf-dinov2":                    {40, 40},   // as its processor
		"hf-dinov2-other-grid-bf16":    {224, 224}, // no processor: as facebook/dinov2-*
		"timm-dinov2-reg4":             {40, 40},   // as pretrained_cfg
		"hf-vit-without-qkv-bias-wide": {24, 40},   // no processor: as image_size
	} {
		c, err := Load(filepath.Join("testdata/parity", dir))
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		got := [2]int{c.Config.ImageHeight, c.Config.ImageWidth}
		if got != want || c.Preprocess.Height != want[0] || c.Preprocess.Width != want[1] {
			t.Errorf("%s: network of %v, pictures of %d x %d, want %v", dir, got, c.Preprocess.Height, c.Preprocess.Width, want)
		}
		if n := c.Config.positions() * c.Config.Dim; len(c.Params.Position) != n {
			t.Errorf("%s: %d numbers of position, want %d", dir, len(c.Params.Position), n)
		}
	}
	if _, err := LoadAt("testdata/parity/hf-vit", 36, 32); err == nil || !strings.Contains(err.Error(), "36 x 32 is not a multiple of the patch, 8") {
		t.Errorf("error %v", err)
	}
}

// TestDigest: every number and every field of the shape counts, the source does not.
func TestDigest(t *testing.T) {
	base := Random(testConfig(), 1)
	digest := base.Digest()
	if same := Random(testConfig(), 1); same.Digest() != digest {
		t.Error("the same model has two digests")
	}
	base.Source = "elsewhere"
	if base.Digest() != digest {
		t.Error("the source changes the digest")
	}
	base.Params.Each(base.Config, func(p Param, v *[]float32) {
		i := len(*v) - 1
		old := (*v)[i]
		(*v)[i] = math.Nextafter32(old, 9)
		if base.Digest() == digest {
			t.Errorf("%s does not change the digest", p.Name)
		}
		(*v)[i] = old
	})
	base.Config.Epsilon = 1e-5
	if base.Digest() == digest {
		t.Error("epsilon does not change the digest")
	}
}

// TestLoadRefuses: checkpoints that are damaged, hostile or of another kind, each with the words a person
// needs to see what is wrong.
func TestLoadRefuses(t *testing.T) {
	config := func(change string) func(*testing.T, string) { // merges a JSON object into config.json
		return func(t *testing.T, dir string) { mergeJSON(t, filepath.Join(dir, "config.json"), change) }
	}
	tensors := func(change func(map[string]valued)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { rewriteTensors(t, filepath.Join(dir, "model.safetensors"), change) }
	}
	file := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, name), []byte(text)) }
	}
	const query = "vit.encoder.layer.1.attention.attention.query.weight"
	for name, v := range map[string]struct {
		base string
		harm func(t *testing.T, dir string)
		want string
	}{
		"no folder":          {"", func(*testing.T, string) {}, "config.json: no such file"},
		"no config":          {"hf-vit", remove("config.json"), "config.json: no such file"},
		"no weights":         {"hf-vit", remove("model.safetensors"), "neither model.safetensors nor model.safetensors.index.json is there"},
		"config is no JSON":  {"hf-vit", file("config.json", "model_type: vit"), "config.json: invalid character"},
		"endless config":     {"hf-vit", file("config.json", strings.Repeat(" ", 9<<20)), "longer than 8388608 bytes"},
		"BERT":               {"hf-vit", config(`{"model_type":"bert"}`), `model_type "bert" is none that Fovea reads; it reads google/vit-*`},
		"Swin":               {"hf-vit", config(`{"model_type":"swin"}`), `model_type "swin"`},
		"CLIP":               {"hf-vit", config(`{"model_type":"clip"}`), `model_type "clip"`},
		"no model type":      {"hf-vit", file("config.json", `{}`), `model_type ""`},
		"timm ResNet":        {"timm-vit", config(`{"architecture":"resnet50"}`), `architecture "resnet50" is none that Fovea reads; it reads vit_*`},
		"timm Swin":          {"timm-vit", config(`{"architecture":"swin_tiny_patch4_window7_224"}`), `architecture "swin_tiny`},
		"timm mean pool":     {"timm-vit", config(`{"global_pool":"avg"}`), `global_pool is "avg", want "token"`},
		"timm other network": {"timm-vit", config(`{"model_args":{"qk_norm":true}}`), "model_args.qk_norm"},
		"timm heads unknown": {"timm-vit", config(`{"model_args":{"num_heads":null}}`), "number of heads of a network 24 wide is not known"},
		"timm no class token": {
			"timm-vit", tensors(func(m map[string]valued) { delete(m, "cls_token") }),
			`tensor "cls_token" is missing`,
		},
		"timm pre-norm (CLIP)": {
			"timm-vit", tensors(func(m map[string]valued) { m["norm_pre.weight"] = m["norm.weight"] }),
			`tensor "norm_pre.weight" belongs to no part of a plain Vision Transformer`,
		},
		"timm crop mode": {"timm-vit", config(`{"pretrained_cfg":{"crop_mode":"border"}}`), `crop_mode is "border"`},
		"timm empty":     {"timm-vit", tensors(func(m map[string]valued) { clear(m) }), `tensor "patch_embed.proj.weight" is missing`},

		"other activation":  {"hf-vit", config(`{"hidden_act":"quick_gelu"}`), `hidden_act is "quick_gelu", want "gelu"`},
		"grey pictures":     {"hf-vit", config(`{"num_channels":1}`), "num_channels is 1, want 3"},
		"oblong patch":      {"hf-vit", config(`{"patch_size":[8,16]}`), "patch_size is 8 x 16"},
		"patch of nothing":  {"hf-vit", config(`{"patch_size":0}`), "patch_size is 0"},
		"picture of words":  {"hf-vit", config(`{"image_size":"large"}`), `"large" is no size`},
		"huge picture":      {"hf-vit", config(`{"image_size":1000000}`), "image height is 1000000"},
		"huge dim":          {"hf-vit", config(`{"hidden_size":1073741824}`), "dim is 1073741824, want 1 to 4096"},
		"negative depth":    {"hf-vit", config(`{"num_hidden_layers":-1}`), "depth is -1"},
		"huge depth":        {"hf-vit", config(`{"num_hidden_layers":1000000000}`), "depth is 1000000000"},
		"heads of a prime":  {"hf-vit", config(`{"num_attention_heads":7}`), "dim 24 is not a multiple of heads 7"},
		"no heads":          {"hf-vit", config(`{"num_attention_heads":0}`), "heads is 0"},
		"head width":        {"hf-vit", config(`{"head_dim":64}`), "head_dim 64 x 3 heads is not hidden_size, 24"},
		"epsilon":           {"hf-vit", config(`{"layer_norm_eps":0}`), "epsilon is 0"},
		"fewer labels":      {"hf-vit", config(`{"id2label":{"0":"bird"}}`), "id2label names 1 classes, the head has 5"},
		"labels with a gap": {"hf-vit", config(`{"id2label":{"0":"a","1":"b","2":"c","3":"d","9":"e"}}`), "id2label has no class 4"},
		"endless label":     {"hf-vit", config(`{"id2label":{"0":"` + strings.Repeat("a", 600) + `","1":"b","2":"c","3":"d","4":"e"}}`), "label of class 0 is 600 bytes"},
		"mlp ratio":         {"hf-dinov2", config(`{"mlp_ratio":1e300}`), "hidden is"},
		"preprocessor":      {"hf-vit", file("preprocessor_config.json", `{"size":{"height":0}}`), "preprocessor_config.json: size"},

		"one block more":  {"hf-vit", config(`{"num_hidden_layers":3}`), `tensor "vit.encoder.layer.2.layernorm_before.weight" is missing`},
		"one block fewer": {"hf-vit", config(`{"num_hidden_layers":1}`), `tensor "vit.encoder.layer.1.attention.attention.key.bias" belongs to no part`},
		"other width":     {"hf-vit", config(`{"hidden_size":48}`), `tensor "vit.embeddings.patch_embeddings.projection.weight" has shape [24 3 8 8], want [48 3 8 8]`},
		"other grid":      {"hf-vit", config(`{"image_size":40}`), `tensor "vit.embeddings.position_embeddings" has shape [1 17 24], want [1 26 24]`},
		"missing tensor":  {"hf-vit", tensors(func(m map[string]valued) { delete(m, query) }), `tensor "` + query + `" is missing`},
		"extra tensor": {
			"hf-vit", tensors(func(m map[string]valued) { m["vit.encoder.layer.0.adapter"] = m["classifier.bias"] }),
			`tensor "vit.encoder.layer.0.adapter" belongs to no part`,
		},
		"extra bias": {"hf-vit-without-qkv-bias-wide", tensors(func(m map[string]valued) {
			m["vit.encoder.layer.0.attention.attention.key.bias"] = m["vit.layernorm.bias"]
		}), "key.bias\" belongs to no part"},
		"transposed": {"hf-vit", tensors(func(m map[string]valued) {
			x := m["vit.encoder.layer.0.output.dense.weight"]
			m["vit.encoder.layer.0.output.dense.weight"] = valued{[]int{x.shape[1], x.shape[0]}, x.values}
		}), `tensor "vit.encoder.layer.0.output.dense.weight" has shape [48 24], want [24 48]`},
		"flat":     {"hf-vit", tensors(func(m map[string]valued) { m[query] = valued{[]int{576}, m[query].values} }), `"` + query + `" has shape [576], want [24 24]`},
		"NaN":      {"hf-vit", tensors(func(m map[string]valued) { m[query].values[100] = float32(math.NaN()) }), `tensor "` + query + `": element 100 is NaN`},
		"infinity": {"hf-vit", tensors(func(m map[string]valued) { m[query].values[0] = float32(math.Inf(-1)) }), `tensor "` + query + `": element 0 is -Inf`},
		"integers": {"hf-vit", replaceBytes("model.safetensors", `"dtype":"F32"`, `"dtype":"I32"`), "is I32, want F32, F16 or BF16"},
		"cut short": {"hf-vit", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "model.safetensors"), 50_000); err != nil {
				t.Fatal(err)
			}
		}, "model.safetensors: tensor"},
		"weights are a folder": {"hf-vit", func(t *testing.T, dir string) {
			remove("model.safetensors")(t, dir)
			if err := os.Mkdir(filepath.Join(dir, "model.safetensors"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "model.safetensors is not a file"},

		"shard missing":           {"hf-deit-distilled-sharded", remove("model-00002-of-00003.safetensors"), "model-00002-of-00003.safetensors: no such file"},
		"index is empty":          {"hf-deit-distilled-sharded", file("model.safetensors.index.json", `{}`), "weight_map is empty"},
		"index with a path":       {"hf-deit-distilled-sharded", index("a", "../hf-vit/model.safetensors"), `tensor "a" is said to lie in "../hf-vit/model.safetensors"`},
		"index with a root":       {"hf-deit-distilled-sharded", index("a", "/etc/model.safetensors"), `"/etc/model.safetensors"`},
		"index with a folder":     {"hf-deit-distilled-sharded", index("a", "sub/model.safetensors"), `"sub/model.safetensors"`},
		"index with another file": {"hf-deit-distilled-sharded", index("a", "config.json"), `"config.json"`},
		"index with dots":         {"hf-deit-distilled-sharded", index("a", ".."), `".."`},
		"index promises more":     {"hf-deit-distilled-sharded", index("a", "model-00001-of-00003.safetensors"), `tensor "a" is not in model-00001-of-00003.safetensors`},
		"tensor in two shards": {"hf-deit-distilled-sharded", func(t *testing.T, dir string) {
			text, err := os.ReadFile(filepath.Join(dir, "model-00001-of-00003.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, "model-00002-of-00003.safetensors"), text)
		}, "is in another shard too"},

		"ours, newer":               {"own", config(`{"min_reader":2}`), "needs a reader of version 2"},
		"ours, no version":          {"own", config(`{"min_reader":0}`), "min_reader is 0"},
		"ours, other weights":       {"own", flipLastByte("model.safetensors"), "is not the file that config.json was written with"},
		"ours, without preparation": {"own", remove("preprocessor_config.json"), "preprocessor_config.json: no such file"},
		"ours, unknown readout":     {"own", config(`{"config":{"readout":"max"}}`), `readout "max"`},
		"ours, unknown resize":      {"own", config(`{"config":{"position_resize":"nearest"}}`), `position resize "nearest"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "model")
			switch v.base {
			case "":
			case "own":
				if err := Random(testConfig(), 1).Save(dir); err != nil {
					t.Fatal(err)
				}
			default:
				if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata/parity", v.base))); err != nil {
					t.Fatal(err)
				}
			}
			v.harm(t, dir)
			_, err := Load(dir)
			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("error %v,\nwant one that says %q", err, v.want)
			}
		})
	}
}

// TestNewerMinor: a folder of a newer Fovea that an older one may read is read.
func TestNewerMinor(t *testing.T) {
	dir := t.TempDir()
	want := Random(testConfig(), 2)
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	mergeJSON(t, filepath.Join(dir, "config.json"), `{"version":7,"colour":"blue","config":{"tea":true}}`)
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != want.Digest() {
		t.Error("another model was read")
	}
}

// TestIgnoredTensors: what is known to play no part is left out.
func TestIgnoredTensors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.CopyFS(dir, os.DirFS("testdata/parity/hf-vit")); err != nil {
		t.Fatal(err)
	}
	want, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	rewriteTensors(t, filepath.Join(dir, "model.safetensors"), func(m map[string]valued) {
		for _, name := range []string{"vit.embeddings.position_ids", "vit.embeddings.mask_token", "vit.pooler.dense.weight", "vit.pooler.dense.bias"} {
			m[name] = m["classifier.bias"]
		}
	})
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != want.Digest() {
		t.Error("another model was read")
	}
}

// TestSaveFails: a folder that cannot be written leaves the old model whole.
func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	old := Random(testConfig(), 3)
	if err := old.Save(dir); err != nil {
		t.Fatal(err)
	}
	bad := Random(testConfig(), 4)
	bad.Config.Heads = 3
	if err := bad.Save(dir); err == nil {
		t.Error("a shape that cannot be was saved")
	}
	writeFile(t, filepath.Join(dir, "file"), nil)
	if err := old.Save(filepath.Join(dir, "file", "model")); err == nil {
		t.Error("saved inside a file")
	}
	if got, err := Load(dir); err != nil || got.Digest() != old.Digest() {
		t.Errorf("the old model: %v", err)
	}
}

// FuzzConfig: any config.json, beside the tensors of any family, is read or refused.
func FuzzConfig(f *testing.F) {
	var sets []map[string]tensor
	for _, dir := range []string{"hf-vit", "hf-dinov2-backbone-swiglu-wide", "hf-dinov2-registers", "timm-deit-distilled", "timm-dinov2-reg4"} {
		dir = filepath.Join("testdata/parity", dir)
		text, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			f.Fatal(err)
		}
		w, err := openWeights(dir)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(w.Close)
		f.Add(text, uint8(len(sets)))
		sets = append(sets, w.tensors)
	}
	own, err := json.Marshal(ownConfig{ownModelType, 1, 1, "", "", testConfig()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own, uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, set uint8) {
		tensors := sets[int(set)%len(sets)]
		read, err := familyOf(text)
		if err != nil {
			return
		}
		l, err := read(text, tensors)
		if err != nil {
			return
		}
		params, err := collect(l, tensors)
		if err != nil {
			return
		}
		params.Each(l.config, func(p Param, v *[]float32) {
			if len(*v) != p.Size() {
				t.Errorf("%s has %d numbers, want %d", p.Name, len(*v), p.Size())
			}
		})
	})
}

// FuzzPreprocess: any preprocessor_config.json is refused, or makes an input of every picture.
func FuzzPreprocess(f *testing.F) {
	files, err := filepath.Glob("testdata/parity/*/preprocessor_config.json")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, uint16(64), uint16(36))
	}
	f.Add([]byte(`{"size":224,"crop_size":{"height":1,"width":2},"resample":1,"image_mean":[0,0,0]}`), uint16(1), uint16(900))
	f.Fuzz(func(t *testing.T, text []byte, w, h uint16) {
		p, err := readPreprocess(text, dinov2Preprocess)
		if err != nil || w == 0 || h == 0 || int(w)*int(h) > 1<<16 || p.ResizeHeight > 512 || p.ResizeWidth > 512 {
			return
		}
		out := make([]float32, 3*p.Height*p.Width)
		if err := p.Pixels(make([]byte, int(w)*int(h)*3), int(w), int(h), out); err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		if view := p.View(int(w), int(h)); view.Min.X < 0 || view.Min.Y < 0 || view.Max.X > int(w) || view.Max.Y > int(h) {
			t.Fatalf("%+v: view %v of %d x %d", p, view, w, h)
		}
	})
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func index(tensor, shard string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		text, err := json.Marshal(map[string]any{"weight_map": map[string]string{tensor: shard}})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "model.safetensors.index.json"), text)
	}
}

func replaceBytes(name, from, to string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte(from)) {
			t.Fatalf("%s has no %s: %v", path, from, err)
		}
		writeFile(t, path, bytes.Replace(text, []byte(from), []byte(to), 1))
	}
}

func flipLastByte(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)-1] ^= 1
		writeFile(t, path, text)
	}
}

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// mergeJSON puts the fields of an object into a file, those of nested objects too.
func mergeJSON(t *testing.T, path, change string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var whole, part map[string]any
	if err := errors.Join(json.Unmarshal(text, &whole), json.Unmarshal([]byte(change), &part)); err != nil {
		t.Fatal(err)
	}
	var merge func(into, from map[string]any)
	merge = func(into, from map[string]any) {
		for k, v := range from {
			inner, is := v.(map[string]any)
			outer, was := into[k].(map[string]any)
			if is && was && k != "id2label" {
				merge(outer, inner)
			} else {
				into[k] = v
			}
		}
	}
	merge(whole, part)
	if text, err = json.Marshal(whole); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, text)
}

// rewriteTensors changes the tensors of a file of float32.
func rewriteTensors(t *testing.T, path string, change func(map[string]valued)) {
	t.Helper()
	tensors := readTensors(t, path)
	change(tensors)
	var list []namedTensor
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		list = append(list, namedTensor{name, tensors[name].shape, [][]float32{tensors[name].values}})
	}
	var file bytes.Buffer
	if err := writeSafetensors(&file, list); err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint64(file.Bytes()); n%8 != 0 {
		t.Fatalf("header of %d bytes is not aligned", n)
	}
	writeFile(t, path, file.Bytes())
}
