package model

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive,staticcheck // graph code reads as formulas
)

// Letters in shapes and einsums: b batch, t token (N of them), q query token, k key token, h head,
// e width of a head, d dim, o output of a matrix.

// Queries says for which tokens the last block is computed.
type Queries int

const (
	// AllTokens computes every token of the last block: patch features exist.
	AllTokens Queries = iota
	// ReadTokens computes only the tokens that the logits read, which is all that logits and relevance
	// need; ReadClassMean reads every token, so there it is AllTokens.
	ReadTokens
)

// Pass is what one forward pass leaves in the graph.
type Pass struct {
	Config Config
	Logits *Node // [B, C]; nil for a backbone without a head

	// Class is the normalised class token, [B, D]: the input of a ReadClass head.
	Class *Node
	// Features are the normalised patch tokens of the last block, [B, patches, D]; nil after ReadTokens.
	Features *Node
	// Attention is A_l = softmax(q k^T / sqrt e) of each block, [B, H, queries, N]; queries is N but for
	// the last block after ReadTokens.
	Attention []*Node
}

// Forward builds the pass of a Vision Transformer (Dosovitskiy et al. 2021; pre-norm blocks) over images
// [B, 3, ImageHeight, ImageWidth], normalised as the checkpoint wants them.
func Forward(c Config, p *Params[*Node], images *Node, last Queries) *Pass {
	s := &Pass{Config: c}
	x := embed(c, p, images)
	for i := range p.Blocks {
		queries := x
		if i == c.Depth-1 && last == ReadTokens && c.Readout != ReadClassMean {
			queries = pick(x, 0, c.readRows())
		}
		var a *Node
		x, a = block(c, &p.Blocks[i], x, queries)
		s.Attention = append(s.Attention, a)
	}
	x = layerNorm(c, x, p.NormWeight, p.NormBias)

	s.Class = Squeeze(pick(x, 0, 1), 1)
	if x.Shape().Dim(1) == c.Tokens() {
		s.Features = SliceAxis(x, 1, AxisRange(c.Prefix()))
	}
	if c.Classes > 0 {
		s.Logits = readLogits(c, p, x)
	}
	return s
}

// embed turns pictures into tokens [B, N, D]: class, distillation, registers, patches.
func embed(c Config, p *Params[*Node], images *Node) *Node {
	rows, cols := c.Grid()
	b := images.Shape().Dim(0)
	images.AssertDims(b, 3, c.ImageHeight, c.ImageWidth)

	// The convolution whose stride is its size is a matrix product over flattened patches.
	x := Reshape(images, b, 3, rows, c.Patch, cols, c.Patch)
	x = Reshape(TransposeAllDims(x, 0, 2, 4, 1, 3, 5), b, rows*cols, 3*c.Patch*c.Patch)
	x = dense(x, Reshape(p.PatchWeight, c.Dim, 3*c.Patch*c.Patch), p.PatchBias)

	prefix := []*Node{BroadcastToDims(p.ClassToken, b, 1, c.Dim)}
	if c.Distilled {
		prefix = append(prefix, BroadcastToDims(p.DistToken, b, 1, c.Dim))
	}
	if c.PrefixPosition {
		x = Concatenate(append(prefix, x), 1)
		prefix = nil
	}
	x = Add(x, p.Position)
	if prefix != nil {
		x = Concatenate(append(prefix, x), 1)
	}
	if c.Registers > 0 { // registers have no position: they go in after it was added
		n := c.Prefix() - c.Registers
		x = Concatenate([]*Node{
			pick(x, 0, n),
			BroadcastToDims(p.Registers, b, c.Registers, c.Dim),
			pick(x, n, x.Shape().Dim(1)),
		}, 1)
	}
	return x
}

// block computes x += ls1 * proj(A v); x += ls2 * mlp(LN2(x)) for the given query tokens (x itself, or a
// few of its rows) and returns them with A = softmax(q k^T / sqrt e), [B, H, queries, N].
func block(c Config, b *Block[*Node], x, queries *Node) (out, a *Node) {
	h := layerNorm(c, x, b.Norm1Weight, b.Norm1Bias)
	hq := h
	if queries != x {
		hq = layerNorm(c, queries, b.Norm1Weight, b.Norm1Bias)
	}
	q := heads(c, MulScalar(dense(hq, b.QueryWeight, b.QueryBias), 1/math.Sqrt(float64(c.HeadDim()))))
	k := heads(c, dense(h, b.KeyWeight, b.KeyBias))
	v := heads(c, dense(h, b.ValueWeight, b.ValueBias))

	a = Softmax(Einsum("bqhe,bkhe->bhqk", q, k))
	o := Einsum("bhqk,bkhe->bqhe", a, v)
	o = dense(Reshape(o, queries.Shape().Dimensions...), b.ProjWeight, b.ProjBias)
	x = Add(queries, scale(o, b.Scale1))

	h = layerNorm(c, x, b.Norm2Weight, b.Norm2Bias)
	if c.SwiGLU {
		gate := dense(h, b.GateWeight, b.GateBias)
		h = Mul(Mul(gate, Sigmoid(gate)), dense(h, b.FC1Weight, b.FC1Bias))
	} else {
		h = gelu(dense(h, b.FC1Weight, b.FC1Bias))
	}
	h = dense(h, b.FC2Weight, b.FC2Bias)
	return Add(x, scale(h, b.Scale2)), a
}

// readLogits applies the head to the normalised tokens x, [B, tokens, D] (all, or readRows of them).
func readLogits(c Config, p *Params[*Node], x *Node) *Node {
	class := Squeeze(pick(x, 0, 1), 1)
	switch c.Readout {
	case ReadDistilled:
		dist := Squeeze(pick(x, 1, 2), 1)
		return MulScalar(Add(dense(class, p.HeadWeight, p.HeadBias), dense(dist, p.HeadDistWeight, p.HeadDistBias)), .5)
	case ReadClassMean:
		mean := Einsum("btd,t->bd", x, c.patchMean(x.Graph()))
		return dense(Concatenate([]*Node{class, mean}, -1), p.HeadWeight, p.HeadBias)
	default:
		return dense(class, p.HeadWeight, p.HeadBias)
	}
}

// readRows is how many leading tokens the logits read, for the readouts that do not read them all.
func (c Config) readRows() int {
	if c.Readout == ReadDistilled {
		return 2
	}
	return 1
}

// patchMean returns the weights [N] that average the patch tokens.
func (c Config) patchMean(g *Graph) *Node {
	w := make([]float32, c.Tokens())
	for i := c.Prefix(); i < len(w); i++ {
		w[i] = 1 / float32(c.Patches())
	}
	return Const(g, w)
}

// pick returns tokens from to to-1 of x [B, T, ...] by a product with one-hot rows: a slice would have a Pad as its
// gradient, which has none for the second order, and which ONNX Runtime's backend does not have.
func pick(x *Node, from, to int) *Node {
	rows := make([][]float32, to-from)
	for i := range rows {
		rows[i] = make([]float32, x.Shape().Dim(1))
		rows[i][from+i] = 1
	}
	if x.Rank() == 2 {
		return Einsum("qt,bt->bq", Const(x.Graph(), rows), x)
	}
	return Einsum("qt,btd->bqd", Const(x.Graph(), rows), x)
}

// heads splits [B, T, D] into [B, T, H, e].
func heads(c Config, x *Node) *Node {
	return Reshape(x, x.Shape().Dim(0), x.Shape().Dim(1), c.Heads, c.HeadDim())
}

// dense is x W^T + bias over the last axis of x; bias may be nil.
func dense(x, w, bias *Node) *Node {
	y := DotGeneral(x, []int{x.Rank() - 1}, nil, w, []int{1}, nil)
	if bias == nil {
		return y
	}
	return Add(y, ExpandLeftToRank(bias, y.Rank()))
}

func scale(x, gamma *Node) *Node {
	if gamma == nil {
		return x
	}
	return Mul(x, ExpandLeftToRank(gamma, x.Rank()))
}

// layerNorm is y = z weight + bias with z = (x - mean) / sqrt(variance + epsilon) over the last axis. Its gradient is
// the closed form, dx = u - mean(u) - z mean(u z) with u = dy weight / sqrt(variance + epsilon): the rules for mean
// and variance one by one make a step a tenth slower. Mean and deviation are constants to a second order.
func layerNorm(c Config, x, weight, bias *Node) *Node {
	mean := ReduceAndKeep(x, ReduceMean, -1)
	variance := ReduceAndKeep(Square(Sub(x, mean)), ReduceMean, -1)
	inverse := Inverse(Sqrt(AddScalar(variance, c.Epsilon)))

	var z *Node
	x = IdentityWithCustomGradient(x, func(_, u *Node) *Node {
		along := Mul(z, ReduceAndKeep(Mul(u, z), ReduceMean, -1))
		return Sub(Sub(u, ReduceAndKeep(u, ReduceMean, -1)), along)
	})
	z = Mul(Sub(x, StopGradient(mean)), StopGradient(inverse))
	return Add(Mul(z, ExpandLeftToRank(weight, z.Rank())), ExpandLeftToRank(bias, z.Rank()))
}

// gelu is the exact x Phi(x), with erf. It is written as x d - x^2 phi(x) with d = Phi(x) + x phi(x), its derivative,
// and constants but for the first x: so d is computed once, for the gradient of the class as for that of the loss.
func gelu(x *Node) *Node {
	at := StopGradient(x)
	cumulative := MulScalar(AddScalar(Erf(MulScalar(at, 1/math.Sqrt2)), 1), .5)
	rest := Mul(at, MulScalar(Exp(MulScalar(Square(at), -.5)), 1/math.Sqrt(2*math.Pi)))
	return Sub(Mul(x, StopGradient(Add(cumulative, rest))), StopGradient(Mul(at, rest)))
}
