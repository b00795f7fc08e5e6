package model

import (
	"fmt"
	"slices"
)

// Readout says how the logits read the tokens of the last block.
type Readout string

const (
	// ReadClass: logits = head(class token). The default of every head that Fovea fits.
	ReadClass Readout = "class"
	// ReadDistilled: logits = mean of head(class token) and head_dist(distillation token); DeiT distilled.
	ReadDistilled Readout = "distilled"
	// ReadClassMean: logits = head([class token; mean of the patch tokens]); Hugging Face's DINOv2 classifier.
	ReadClassMean Readout = "class+mean"
)

// PositionResize says how a family's own code fits its position embedding to another grid; both are bicubic
// with half-pixel centres, and they differ by as much as the pictures that the model was trained on.
type PositionResize string

const (
	// PositionBicubic: a = -0.75, four taps always. Hugging Face's ViT, DeiT and DINOv2.
	PositionBicubic PositionResize = "bicubic"
	// PositionAntialias: a = -0.5, widened when the grid shrinks. timm; Hugging Face's DINOv2 with registers.
	PositionAntialias PositionResize = "bicubic-antialias"
)

// Config is the shape of a Vision Transformer: all that is needed to build its graph and to know the
// name and shape of each of its parameters. Units are pixels for picture sizes, counts for the rest. It is
// part of a model's digest and of its folder: a new field is left out of the JSON at its old meaning.
type Config struct {
	ImageHeight int `json:"image_height"` // pixels the position embedding is laid out for; a multiple of Patch
	ImageWidth  int `json:"image_width"`
	Patch       int `json:"patch"` // side of a square patch

	Dim    int `json:"dim"`    // D, width of a token
	Depth  int `json:"depth"`  // L, number of blocks
	Heads  int `json:"heads"`  // H; D is a multiple of H
	Hidden int `json:"hidden"` // width of the MLP inside a block

	Classes int     `json:"classes"` // C; 0 is a backbone without a head
	Readout Readout `json:"readout"`

	Distilled      bool    `json:"distilled,omitempty"`       // a distillation token follows the class token
	Registers      int     `json:"registers,omitempty"`       // register tokens between the prefix and the patches
	PrefixPosition bool    `json:"prefix_position,omitempty"` // class and distillation token have a position embedding too
	QKVBias        bool    `json:"qkv_bias,omitempty"`
	LayerScale     bool    `json:"layer_scale,omitempty"`
	SwiGLU         bool    `json:"swiglu,omitempty"` // MLP is fc2(silu(gate(x)) * fc1(x)) instead of fc2(gelu(fc1(x)))
	Epsilon        float64 `json:"epsilon"`          // of every LayerNorm

	PositionResize PositionResize `json:"position_resize"` // how the position embedding is laid out for another grid

	Labels []string `json:"labels,omitempty"` // names of the classes in order; nil where the checkpoint has none
}

// Grid returns the patch grid: rows and columns.
func (c Config) Grid() (rows, cols int) { return c.ImageHeight / c.Patch, c.ImageWidth / c.Patch }

// Patches returns the number of patch tokens, rows times columns of the grid.
func (c Config) Patches() int { r, k := c.Grid(); return r * k }

// Prefix returns P, the number of tokens before the patches: class token, distillation token, registers.
func (c Config) Prefix() int {
	if c.Distilled {
		return 2 + c.Registers
	}
	return 1 + c.Registers
}

// Tokens returns N = P + patches.
func (c Config) Tokens() int { return c.Prefix() + c.Patches() }

// HeadDim returns d, the width of one attention head.
func (c Config) HeadDim() int { return c.Dim / c.Heads }

// positions returns the number of rows of the position embedding.
func (c Config) positions() int {
	if c.PrefixPosition {
		return c.Prefix() - c.Registers + c.Patches()
	}
	return c.Patches()
}

// Label returns the name of class i, "class i" where the checkpoint names none.
func (c Config) Label(i int) string {
	if i >= 0 && i < len(c.Labels) {
		return c.Labels[i]
	}
	return fmt.Sprintf("class %d", i)
}

// Bounds on a shape that we are willing to build: a hostile configuration must not make us take
// memory. ViT-g/14 (1.1 G parameters) is inside them.
const (
	maxDim, maxDepth, maxHidden = 4096, 128, 32768
	maxClasses, maxTokens       = 1 << 17, 1 << 14
	maxLabel                    = 512 // bytes
)

// Validate reports the first value that no checkpoint can have, by its name.
func (c Config) Validate() error {
	for _, f := range []struct {
		name        string
		v, min, max int
	}{
		{"patch", c.Patch, 1, 128},
		{"image height", c.ImageHeight, 1, 1 << 13},
		{"image width", c.ImageWidth, 1, 1 << 13},
		{"dim", c.Dim, 1, maxDim},
		{"depth", c.Depth, 1, maxDepth},
		{"heads", c.Heads, 1, c.Dim},
		{"hidden", c.Hidden, 1, maxHidden},
		{"classes", c.Classes, 0, maxClasses},
		{"registers", c.Registers, 0, 64},
	} {
		if f.v < f.min || f.v > f.max {
			return fmt.Errorf("model configuration: %s is %d, want %d to %d", f.name, f.v, f.min, f.max)
		}
	}
	switch {
	case c.Dim%c.Heads != 0:
		return fmt.Errorf("model configuration: dim %d is not a multiple of heads %d", c.Dim, c.Heads)
	case c.ImageHeight%c.Patch != 0 || c.ImageWidth%c.Patch != 0:
		return fmt.Errorf("model configuration: picture of %d x %d is not a multiple of the patch, %d", c.ImageHeight, c.ImageWidth, c.Patch)
	case c.Tokens() > maxTokens:
		return fmt.Errorf("model configuration: %d tokens, want at most %d", c.Tokens(), maxTokens)
	case !(c.Epsilon > 0 && c.Epsilon < 1):
		return fmt.Errorf("model configuration: LayerNorm epsilon is %g, want between 0 and 1", c.Epsilon)
	case !slices.Contains([]Readout{ReadClass, ReadDistilled, ReadClassMean}, c.Readout):
		return fmt.Errorf("model configuration: readout %q, want %q, %q or %q", c.Readout, ReadClass, ReadDistilled, ReadClassMean)
	case c.PositionResize != PositionBicubic && c.PositionResize != PositionAntialias:
		return fmt.Errorf("model configuration: position resize %q, want %q or %q", c.PositionResize, PositionBicubic, PositionAntialias)
	case c.Readout == ReadDistilled && !c.Distilled:
		return fmt.Errorf("model configuration: readout %q needs a distillation token", c.Readout)
	case c.Labels != nil && len(c.Labels) != c.Classes:
		return fmt.Errorf("model configuration: %d labels for %d classes", len(c.Labels), c.Classes)
	}
	for i, label := range c.Labels {
		if len(label) > maxLabel {
			return fmt.Errorf("model configuration: the label of class %d is %d bytes long, want at most %d", i, len(label), maxLabel)
		}
	}
	return nil
}
