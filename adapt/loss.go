package adapt

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive,staticcheck // graph code reads as formulas
)

// Objective weighs the terms of the loss (Chefer et al. 2022, arXiv 2206.01161, eq. 6 to 9):
//
//	loss = Relevance (Background bg + Foreground fg) + Classification cls
type Objective struct {
	Relevance      float64 `json:"relevance"`      // of the relevance terms together, .8 as published
	Background     float64 `json:"background"`     // 2 as published
	Foreground     float64 `json:"foreground"`     // .3 as published
	Classification float64 `json:"classification"` // .2 as published
	Temperature    float64 `json:"temperature"`    // divides the logits in the cross-entropy alone; above 0
}

// Losses are the terms of one batch, scalars, before they are weighed; Total is the weighed sum.
type Losses[T any] struct {
	Background     T `json:"background"`     // mean((r n)^2), 0..1
	Foreground     T `json:"foreground"`     // mean((r m - m)^2), 0..1
	Classification T `json:"classification"` // mean cross-entropy, nats
	Total          T `json:"total"`
}

// Loss builds the terms for relevance maps r [B, H, W] in 0..1, masks m [B, H, W] in 0..1 (1 is object),
// logits [B, C] and target probabilities [B, C]. weights [B] scales each picture's relevance terms: 1 as
// published, 0 where a picture's map or mask is not to be trusted. balance, a scalar, scales the cross-entropy
// in the total: 1 as published.
func (o Objective) Loss(r, m, logits, targets, weights, balance *Node) Losses[*Node] {
	w := ExpandAxes(weights, 1, 2)
	n := inverse(m)
	var l Losses[*Node]
	l.Background = ReduceAllMean(Mul(w, Square(Mul(r, n))))
	l.Foreground = ReduceAllMean(Mul(w, Square(Sub(Mul(r, m), m))))
	l.Classification = crossEntropy(DivScalar(logits, o.Temperature), targets)
	l.Total = Add(o.relevance(l), Mul(MulScalar(l.Classification, o.Classification), balance))
	return l
}

// relevance is the weighed sum of the relevance terms.
func (o Objective) relevance(l Losses[*Node]) *Node {
	return MulScalar(Add(MulScalar(l.Background, o.Background), MulScalar(l.Foreground, o.Foreground)), o.Relevance)
}

// inverse is the published inverse mask: 1 where m is 0, 0 where m is 1, and m itself where it is
// fractional (not 1 - m: on a soft edge both terms weigh the pixel by m).
func inverse(m *Node) *Node {
	zero, one := ScalarZero(m.Graph(), m.DType()), ScalarOne(m.Graph(), m.DType())
	return Where(Equal(m, zero), OnesLike(m), Where(Equal(m, one), ZerosLike(m), m))
}

// crossEntropy is the mean over the batch of -sum(p log softmax(logits)).
func crossEntropy(logits, p *Node) *Node {
	return Neg(ReduceAllMean(ReduceSum(Mul(p, LogSoftmax(logits)), -1)))
}

// ownGuess is the published target: one-hot at each picture's own first guess, a constant.
func ownGuess(logits *Node) *Node {
	return StopGradient(OneHot(ArgMax(logits, -1), logits.Shape().Dim(-1), logits.DType()))
}
