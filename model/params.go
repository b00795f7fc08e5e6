package model

import (
	"fmt"
	"strings"
)

// Params holds one value for every parameter of a Vision Transformer. T is what the reader needs: the
// numbers on the host ([]float32), a tensor on the device, or a node of a graph. Weight matrices lie as
// checkpoints have them, [out, in]; a field whose parameter the Config has not stays zero.
//
// Letters: D dim, H hidden, p patch, P prefix tokens, N tokens, C classes.
type Params[T any] struct {
	PatchWeight T // [D, 3, p, p]
	PatchBias   T // [D]
	ClassToken  T // [1, 1, D]
	DistToken   T // [1, 1, D]             only Distilled
	Registers   T // [1, registers, D]     only Registers > 0
	Position    T // [1, positions, D]     prefix rows first (only PrefixPosition), then the grid row by row

	Blocks []Block[T] // Depth of them

	NormWeight, NormBias         T // [D]  the LayerNorm after the last block
	HeadWeight, HeadBias         T // [C, D] ([C, 2D] for ReadClassMean), [C]      only Classes > 0
	HeadDistWeight, HeadDistBias T // [C, D], [C]                                  only ReadDistilled
}

// Block holds the parameters of one pre-norm block. Query, key and value are kept apart: a slice in the
// forward pass would become a Pad in its gradient, which has no gradient itself.
type Block[T any] struct {
	Norm1Weight, Norm1Bias T // [D]
	QueryWeight, QueryBias T // [D, D], [D]   heads one after the other in the rows; biases only QKVBias
	KeyWeight, KeyBias     T // [D, D], [D]
	ValueWeight, ValueBias T // [D, D], [D]
	ProjWeight, ProjBias   T // [D, D], [D]
	Scale1                 T // [D]            only LayerScale
	Norm2Weight, Norm2Bias T // [D]
	GateWeight, GateBias   T // [H, D], [H]   only SwiGLU
	FC1Weight, FC1Bias     T // [H, D], [H]
	FC2Weight, FC2Bias     T // [D, H], [D]
	Scale2                 T // [D]            only LayerScale
}

// Param names one parameter.
type Param struct {
	Name  string // as timm names it, but with attn.q, attn.k, attn.v apart and gate for SwiGLU's gate
	Shape []int
	Block int // the block it belongs to; -1 before the first (embeddings), Depth after the last (norm, head)
}

// Size is the number of elements.
func (p Param) Size() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// KeyBias tells whether it is the bias of a key: softmax cancels it, so its gradient is zero.
func (p Param) KeyBias() bool { return strings.HasSuffix(p.Name, "attn.k.bias") }

// NewParams returns Params with room for the blocks of c, every value zero.
func NewParams[T any](c Config) *Params[T] { return &Params[T]{Blocks: make([]Block[T], c.Depth)} }

// Each calls f with every parameter that c has, in the one fixed order that all of Fovea uses, and with
// the place of its value.
func (p *Params[T]) Each(c Config, f func(Param, *T)) {
	at := -1
	visit := func(have bool, v *T, name string, shape ...int) {
		if have {
			f(Param{Name: name, Shape: shape, Block: at}, v)
		}
	}
	visit(true, &p.PatchWeight, "patch_embed.proj.weight", c.Dim, 3, c.Patch, c.Patch)
	visit(true, &p.PatchBias, "patch_embed.proj.bias", c.Dim)
	visit(true, &p.ClassToken, "cls_token", 1, 1, c.Dim)
	visit(c.Distilled, &p.DistToken, "dist_token", 1, 1, c.Dim)
	visit(c.Registers > 0, &p.Registers, "reg_token", 1, c.Registers, c.Dim)
	visit(true, &p.Position, "pos_embed", 1, c.positions(), c.Dim)

	for i := range p.Blocks {
		at = i
		b := &p.Blocks[i]
		in := func(have bool, v *T, name string, shape ...int) {
			visit(have, v, fmt.Sprintf("blocks.%d.%s", i, name), shape...)
		}
		in(true, &b.Norm1Weight, "norm1.weight", c.Dim)
		in(true, &b.Norm1Bias, "norm1.bias", c.Dim)
		in(true, &b.QueryWeight, "attn.q.weight", c.Dim, c.Dim)
		in(c.QKVBias, &b.QueryBias, "attn.q.bias", c.Dim)
		in(true, &b.KeyWeight, "attn.k.weight", c.Dim, c.Dim)
		in(c.QKVBias, &b.KeyBias, "attn.k.bias", c.Dim)
		in(true, &b.ValueWeight, "attn.v.weight", c.Dim, c.Dim)
		in(c.QKVBias, &b.ValueBias, "attn.v.bias", c.Dim)
		in(true, &b.ProjWeight, "attn.proj.weight", c.Dim, c.Dim)
		in(true, &b.ProjBias, "attn.proj.bias", c.Dim)
		in(c.LayerScale, &b.Scale1, "ls1.gamma", c.Dim)
		in(true, &b.Norm2Weight, "norm2.weight", c.Dim)
		in(true, &b.Norm2Bias, "norm2.bias", c.Dim)
		in(c.SwiGLU, &b.GateWeight, "mlp.gate.weight", c.Hidden, c.Dim)
		in(c.SwiGLU, &b.GateBias, "mlp.gate.bias", c.Hidden)
		in(true, &b.FC1Weight, "mlp.fc1.weight", c.Hidden, c.Dim)
		in(true, &b.FC1Bias, "mlp.fc1.bias", c.Hidden)
		in(true, &b.FC2Weight, "mlp.fc2.weight", c.Dim, c.Hidden)
		in(true, &b.FC2Bias, "mlp.fc2.bias", c.Dim)
		in(c.LayerScale, &b.Scale2, "ls2.gamma", c.Dim)
	}

	at = c.Depth
	read := c.Dim
	if c.Readout == ReadClassMean {
		read = 2 * c.Dim
	}
	visit(true, &p.NormWeight, "norm.weight", c.Dim)
	visit(true, &p.NormBias, "norm.bias", c.Dim)
	visit(c.Classes > 0, &p.HeadWeight, "head.weight", c.Classes, read)
	visit(c.Classes > 0, &p.HeadBias, "head.bias", c.Classes)
	visit(c.Classes > 0 && c.Readout == ReadDistilled, &p.HeadDistWeight, "head_dist.weight", c.Classes, c.Dim)
	visit(c.Classes > 0 && c.Readout == ReadDistilled, &p.HeadDistBias, "head_dist.bias", c.Classes)
}

// List returns the parameters of c in order.
func (c Config) List() []Param {
	var list []Param
	NewParams[struct{}](c).Each(c, func(p Param, _ *struct{}) { list = append(list, p) })
	return list
}

// Flat returns the values in the order of Each.
func (p *Params[T]) Flat(c Config) []T {
	var flat []T
	p.Each(c, func(_ Param, v *T) { flat = append(flat, *v) })
	return flat
}

// ParamsFrom is the inverse of Flat; it takes as many values as c has parameters.
func ParamsFrom[T any](c Config, flat []T) *Params[T] {
	p := NewParams[T](c)
	i := 0
	p.Each(c, func(_ Param, v *T) { *v = flat[i]; i++ })
	return p
}
