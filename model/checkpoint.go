package model

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Checkpoint is a model as it lies on disk: shape, weights on the host, and how a picture becomes its input.
type Checkpoint struct {
	Config     Config
	Preprocess Preprocess
	Params     *Params[[]float32]
	Source     string // where the weights came from and under which licence, for people; "" when nobody said
}

// Load reads a model folder: Hugging Face's ViT, DeiT and DINOv2, timm's ViT and DeiT, or Fovea's own. The
// position embedding is laid out for the picture size that the checkpoint's preprocessing gives, as its
// authors' pipeline does. Nothing of the weights is read before the name, type and shape of every tensor
// are known to fit; errors name the tensor.
func Load(dir string) (*Checkpoint, error) {
	c, err := loadNative(dir)
	if err == nil {
		err = c.Resize(c.Preprocess.Height, c.Preprocess.Width)
	}
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", dir, err)
	}
	return c, nil
}

// LoadAt is Load for another size of input, in pixels; Preprocess then gives that size.
func LoadAt(dir string, height, width int) (*Checkpoint, error) {
	c, err := loadNative(dir)
	if err == nil {
		err = c.Resize(height, width)
	}
	if err != nil {
		return nil, fmt.Errorf("load model %s at %d x %d: %w", dir, height, width, err)
	}
	return c, nil
}

// Resize lays the position embedding out for pictures of height x width pixels, in the way of the family,
// and makes Preprocess give that size. Each resize loses a little: start from what Load or LoadAt returned.
func (c *Checkpoint) Resize(height, width int) error {
	to := c.Config
	to.ImageHeight, to.ImageWidth = height, width
	if err := to.Validate(); err != nil {
		return err
	}
	c.Params.Position = resizePosition(c.Params.Position, c.Config, to)
	c.Config = to
	c.Preprocess = c.Preprocess.At(height, width)
	return nil
}

// WithWeights is the checkpoint of the same shape whose weights lie in file, as WriteWeights or Save writes them.
// A tensor more or less than the shape asks for is refused by its name, before memory is taken for it.
func (c *Checkpoint) WithWeights(file string) (*Checkpoint, error) {
	weights := &weightFiles{tensors: map[string]tensor{}}
	defer weights.Close()
	if err := weights.open(filepath.Dir(file), filepath.Base(file)); err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	params, err := collect(layout{config: c.Config, find: timmFind(c.Config)}, weights.tensors)
	if err != nil {
		return nil, fmt.Errorf("weights %s: %w", file, err)
	}
	next := *c
	next.Params = params
	return &next, nil
}

// WriteWeights writes the weights alone, with timm's names, as safetensors: the same weights give the same bytes.
func (c *Checkpoint) WriteWeights(w io.Writer) error {
	if err := writeSafetensors(w, c.stored()); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	return nil
}

// Digest is the SHA-256 over the shape and every weight, in hexadecimal: the same for the same model on any
// machine, whatever file it came from. Preprocess and Source are not in it.
func (c *Checkpoint) Digest() string {
	h := sha256.New()
	shape, err := json.Marshal(c.Config)
	if err != nil {
		panic(err) // a Config holds nothing that JSON lacks once it is valid
	}
	h.Write(shape)
	buffer := make([]byte, 0, 1<<18)
	c.Params.Each(c.Config, func(p Param, v *[]float32) {
		fmt.Fprintf(h, "\n%s %v\n", p.Name, p.Shape)
		for chunk := range slices.Chunk(*v, cap(buffer)/4) {
			h.Write(encode(buffer, chunk))
		}
	})
	return hex.EncodeToString(h.Sum(nil))
}

// BackboneDigest is the digest of all but the head: the same for models that differ by their head alone.
func (c *Checkpoint) BackboneDigest() string {
	backbone, params := *c, *c.Params
	backbone.Params = &params
	backbone.Config.Classes, backbone.Config.Labels = 0, nil
	return backbone.Digest()
}

// layout says how a checkpoint's own names and shapes become a Config and its Params.
type layout struct {
	config     Config
	preprocess Preprocess              // the family's own, for a folder without preprocessor_config.json; zero: it has to be there
	find       func(param string) part // where a parameter of config lies
	ignored    []string                // tensors that are left out on purpose; ".x" matches the end of a name
	source     string
	sha256     string // of model.safetensors, in hexadecimal; "" when nobody said
}

// part is a parameter inside a stored tensor: all of it, or rows [row, row + those of the parameter) of `of`.
type part struct {
	tensor  string
	row, of int
}

// loadNative reads a model folder with the position embedding as it is stored.
func loadNative(dir string) (*Checkpoint, error) {
	text, err := readText(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	read, err := familyOf(text)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	weights, err := openWeights(dir)
	if err != nil {
		return nil, err
	}
	defer weights.Close()
	l, err := read(text, weights.tensors)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if l.sha256 != "" {
		if err := checkSum(weights.files[0], l.sha256); err != nil {
			return nil, err
		}
	}
	text, err = readText(filepath.Join(dir, "preprocessor_config.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && l.preprocess != Preprocess{}:
	case err != nil:
		return nil, err
	default:
		if l.preprocess, err = readPreprocess(text, l.preprocess); err != nil {
			return nil, fmt.Errorf("preprocessor_config.json: %w", err)
		}
	}
	params, err := collect(l, weights.tensors)
	if err != nil {
		return nil, err
	}
	return &Checkpoint{Config: l.config, Preprocess: l.preprocess, Params: params, Source: l.source}, nil
}

// readText reads a small text file of a model folder; ImageNet-21k's labels are 2 MB.
func readText(path string) ([]byte, error) {
	const limit = 8 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && len(text) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return text, err
}

// layoutReader makes a layout of a config.json and the tensors beside it.
type layoutReader func(text []byte, tensors map[string]tensor) (layout, error)

// familyOf recognises the family by config.json.
func familyOf(text []byte) (layoutReader, error) {
	var kind struct {
		ModelType    string `json:"model_type"`
		Architecture string `json:"architecture"` // timm
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return nil, err
	}
	switch kind.ModelType {
	case ownModelType:
		return ownLayout, nil
	case "vit", "deit":
		return hfViTLayout, nil
	case "dinov2", "dinov2_with_registers":
		return hfDINOv2Layout, nil
	case "":
		if kind.Architecture != "" {
			return timmLayout, nil
		}
	}
	return nil, fmt.Errorf("model_type %q is none that Fovea reads; it reads google/vit-*, facebook/deit-*, facebook/dinov2-* and timm's vit_*, deit_* and deit3_*",
		kind.ModelType)
}

// maxParameters bounds the weights, 8 GiB as float32: ViT-g/14 has 1.1 G.
const maxParameters = 1 << 31

// collect checks every tensor against the layout and only then reads them.
func collect(l layout, tensors map[string]tensor) (*Params[[]float32], error) {
	if err := l.config.Validate(); err != nil {
		return nil, err
	}
	total := 0
	used := map[string]bool{}
	for _, p := range l.config.List() {
		at := l.find(p.Name)
		t, have := tensors[at.tensor]
		if !have {
			return nil, fmt.Errorf("tensor %q is missing", at.tensor)
		}
		want := slices.Clone(p.Shape)
		if at.of > 0 {
			want[0] = at.of
		}
		if !slices.Equal(t.shape, want) {
			return nil, fmt.Errorf("tensor %q has shape %v, want %v", at.tensor, t.shape, want)
		}
		if t.dtype != "F32" && t.dtype != "F16" && t.dtype != "BF16" {
			return nil, fmt.Errorf("tensor %q is %s, want F32, F16 or BF16", at.tensor, t.dtype)
		}
		if total += p.Size(); total > maxParameters {
			return nil, fmt.Errorf("more than %d parameters", maxParameters)
		}
		used[at.tensor] = true
	}
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		if !used[name] && !l.ignores(name) {
			return nil, fmt.Errorf("tensor %q belongs to no part of a plain Vision Transformer: this is a variant that Fovea does not run", name)
		}
	}

	params := NewParams[[]float32](l.config)
	var failed error
	params.Each(l.config, func(p Param, v *[]float32) {
		if failed != nil {
			return
		}
		at := l.find(p.Name)
		*v, failed = tensors[at.tensor].read(at.row, p.Shape[0])
		if failed != nil {
			failed = fmt.Errorf("tensor %q: %w", at.tensor, failed)
		}
	})
	return params, failed
}

func (l layout) ignores(name string) bool {
	return slices.ContainsFunc(l.ignored, func(pattern string) bool {
		return name == pattern || strings.HasPrefix(pattern, ".") && strings.HasSuffix("."+name, pattern)
	})
}
