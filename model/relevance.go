package model

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive,staticcheck // graph code reads as formulas
)

// Relevance explains the logits of one pass: what each patch contributed to one class (Chefer, Gur, Wolf
// 2021, arXiv 2103.15679, section 3; as used by Chefer et al. 2022, arXiv 2206.01161, section 3).
type Relevance struct {
	// Gradients is G_l = d(sum_b logit[b, y_b]) / dA_l of each block, shaped as Pass.Attention. It is a
	// constant: no gradient of a loss flows through it.
	Gradients []*Node
	// Cams is C_l = mean over heads of max(G_l * A_l, 0), [B, queries, N].
	Cams []*Node
	// Lowres is r on the patch grid, [B, rows, cols]; not negative, not normalised.
	Lowres *Node
}

// Explain adds to the graph what made each picture's class y likely: classes is [B], an integer type.
// It needs a pass with logits.
func (s *Pass) Explain(classes *Node) *Relevance {
	c := s.Config
	y := OneHot(classes, c.Classes, s.Logits.DType())
	r := &Relevance{Gradients: Gradient(ReduceAllSum(Mul(s.Logits, y)), s.Attention...)}

	// v_L says how the logits read the tokens; v_{l-1} = v_l + v_l C_l is row v_L of the published rollout
	// R_0 = I, R_l = R_{l-1} + C_l R_{l-1} (paper, eq. 5), without ever forming the N x N matrix R.
	b := s.Logits.Shape().Dim(0)
	v := BroadcastPrefix(c.readout(s.Logits.Graph()), b) // [B, N]
	for l := c.Depth - 1; l >= 0; l-- {
		g := StopGradient(r.Gradients[l])
		r.Gradients[l] = g
		cam := ReduceMean(Mul(relu(g), s.Attention[l]), 1) // max(G A, 0), since A is not negative
		r.Cams = append([]*Node{cam}, r.Cams...)

		rows := v
		if q := cam.Shape().Dim(1); q < c.Tokens() { // the last block holds the read tokens alone
			rows = BroadcastPrefix(c.readoutRows(s.Logits.Graph(), q), b)
		}
		v = Add(v, Einsum("bq,bqk->bk", rows, cam))
	}
	rows, cols := c.Grid()
	r.Lowres = Reshape(pick(v, c.Prefix(), c.Tokens()), b, rows, cols)
	return r
}

// ClassOrOwn replaces negative entries of classes [B] by the first guess of logits [B, C].
func ClassOrOwn(classes, logits *Node) *Node {
	own := ArgMax(logits, -1, classes.DType())
	return Where(LessThan(classes, ScalarZero(classes.Graph(), classes.DType())), own, classes)
}

// readout is v_L [N], the share with which the logits read each token. ReadClass is the published case,
// the class row. The others are ours: the mean of two heads reads class and distillation token by halves; a
// head on [class; mean of patches] reads the class token by half and the patch tokens by the other half.
// Registers are read by none.
func (c Config) readout(g *Graph) *Node {
	v := make([]float32, c.Tokens())
	switch c.Readout {
	case ReadDistilled:
		v[0], v[1] = .5, .5
	case ReadClassMean:
		v[0] = .5
		for i := c.Prefix(); i < len(v); i++ {
			v[i] = .5 / float32(c.Patches())
		}
	default:
		v[0] = 1
	}
	return Const(g, v)
}

// readoutRows is readout cut to its first q tokens, the only ones that are not zero after ReadTokens.
func (c Config) readoutRows(g *Graph, q int) *Node {
	v := make([]float32, q)
	for i := range v {
		v[i] = 1 / float32(q)
	}
	return Const(g, v)
}

// Map is the relevance as the loss and a viewer see it: bilinearly enlarged by the patch size
// (align_corners = false), then (r - min) / (max - min) per picture, [B, ImageHeight, ImageWidth] in 0..1. A
// constant map gives zeros.
func (r *Relevance) Map(c Config) *Node { return Normalise(Upsample(c, r.Lowres)) }

// Upsample enlarges [B, rows, cols] to [B, ImageHeight, ImageWidth] bilinearly, align_corners = false: two
// products with constant matrices, whose gradient every backend has.
func Upsample(c Config, r *Node) *Node {
	rows, cols := c.Grid()
	up := Einsum("yr,brc->byc", Const(r.Graph(), bilinear(rows, c.Patch)), r)
	return Einsum("byc,xc->byx", up, Const(r.Graph(), bilinear(cols, c.Patch)))
}

// bilinear returns the matrix [n*by, n] that enlarges n samples by a whole factor, sample centres at half.
func bilinear(n, by int) [][]float32 {
	m := make([][]float32, n*by)
	for i := range m {
		m[i] = make([]float32, n)
		at := max(0, (float64(i)+.5)/float64(by)-.5)
		low := int(at)
		high := min(low+1, n-1)
		m[i][low] += float32(1 - (at - float64(low)))
		m[i][high] += float32(at - float64(low))
	}
	return m
}

// Normalise maps each picture of [B, H, W] to 0..1 by its own minimum and maximum, through which the
// gradient flows; a constant picture becomes zeros, with zero gradient.
func Normalise(r *Node) *Node {
	low, high := extreme(r, ReduceMin), extreme(r, ReduceMax)
	span := Sub(high, low)
	flat := LessOrEqual(span, ScalarZero(r.Graph(), r.DType()))
	out := Div(Sub(r, low), Where(flat, OnesLike(span), span))
	return Where(BroadcastToDims(flat, r.Shape().Dimensions...), ZerosLike(out), out)
}

// extreme returns the minimum or maximum of each picture, [B, 1, 1]. Its gradient is shared among the
// pixels that reach it, as the published program's framework does; GoMLX's own would give each the whole.
func extreme(r *Node, reduce func(*Node, ...int) *Node) *Node {
	x := StopGradient(r)
	at := ConvertDType(Equal(x, ExpandAxes(reduce(x, 1, 2), 1, 2)), r.DType())
	at = Div(at, ReduceAndKeep(at, ReduceSum, 1, 2))
	return ReduceAndKeep(Mul(r, at), ReduceSum, 1, 2)
}

func relu(x *Node) *Node { return Max(x, ScalarZero(x.Graph(), x.DType())) }
