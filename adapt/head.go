package adapt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/optimize"

	"github.com/seed-a98b2d25/fovea/model"
)

// Examples are what a head is fitted on: n rows of width numbers, each with its class and group.
type Examples struct {
	X       []float32 // [n, Width]
	Width   int
	Class   []int    // [n], in 0..Classes-1, or NoClass
	Group   []string // [n]; rows of one group stay together in cross-validation
	Classes int
}

// NoClass is the class of a row that shows none: the head is fitted to be undecided there.
const NoClass = -1

// Head is a linear layer on what the logits read: logits = X Weight^T + Bias.
type Head struct {
	Weight []float32 // [Classes, Width]
	Bias   []float32 // [Classes]
	L2     float64   // the penalty that was chosen
}

// HeadFit is what FitHead found.
type HeadFit struct {
	Head
	Validation *Confusion // every example, judged by a head fitted without its group
	Loss       []float64  // cross-validated cross-entropy at the Penalties that were tried, macro
	Folds      int
}

// Penalties are the values of L2 that are tried, weakest last: a fit begins where the one before it ended.
var Penalties = []float64{10, 3, 1, .3, .1, .03, .01, .003, .001}

const maxFolds = 5

// FitHead fits multinomial logistic regression on standardised features: it minimises
//
//	sum_i w_i CE(W z_i + b, y_i) + L2/2 |W|^2,    z = (x - mean) / deviation,    w_i = 1 / (Classes n_{y_i})
//
// so that each class weighs the same however many pictures it has. Rows of NoClass together weigh as one class
// more, and their cross-entropy is that with the uniform distribution. L2 is the one of Penalties with the least
// cross-entropy in cross-validation over groups, each class spread over the folds; the search ends when two
// weaker ones in a row were worse. The standardisation is then folded into the weights. The same examples and
// seed give the same head. progress, which may be nil, is called after each of steps.
func FitHead(ctx context.Context, e *Examples, labels []string, seed uint64, progress func(step, steps int)) (*HeadFit, error) {
	folds, err := e.folds(labels, seed)
	if err != nil {
		return nil, fmt.Errorf("fit head: %w", err)
	}
	fit := &HeadFit{Folds: slices.Max(folds) + 1}
	steps := len(Penalties) + 1
	step := func(i int) error {
		if progress != nil {
			progress(i, steps)
		}
		return ctx.Err()
	}

	without := make([]*regression, fit.Folds) // the examples of all folds but one
	for f := range without {
		without[f] = newRegression(e, func(i int) bool { return folds[i] != f })
	}
	var held [][]float64 // for each penalty, the logits of every example from the head fitted without its fold
	for p, l2 := range Penalties {
		logits := make([]float64, len(e.Class)*e.Classes)
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0))
		for f, r := range without {
			g.Go(func() error {
				if err := r.minimise(l2); err != nil {
					return err
				}
				head := r.head(l2)
				for i := range folds {
					if folds[i] == f {
						head.logits(e.row(i), logits[i*e.Classes:(i+1)*e.Classes])
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, fmt.Errorf("fit head: %w", err)
		}
		held = append(held, logits)
		fit.Loss = append(fit.Loss, e.macroLoss(logits))
		if err := step(p + 1); err != nil {
			return nil, err
		}
		if best := floats.MinIdx(fit.Loss); p >= best+2 {
			break // weaker penalties cost the most and fit noise
		}
	}
	best := floats.MinIdx(fit.Loss)
	fit.Validation = NewConfusion(labels)
	for i, y := range e.Class {
		if y == NoClass {
			continue
		}
		fit.Validation.Add(y, floats.MaxIdx(held[best][i*e.Classes:(i+1)*e.Classes]))
	}

	all := newRegression(e, func(int) bool { return true })
	for _, l2 := range Penalties[:best+1] {
		if err := all.minimise(l2); err != nil {
			return nil, fmt.Errorf("fit head: %w", err)
		}
	}
	fit.Head = *all.head(Penalties[best])
	return fit, step(steps)
}

// Into puts the head onto a backbone: c gets its classes, labels and weights, and reads them as readout says,
// which is model.ReadClass or model.ReadClassMean.
func (h *Head) Into(c *model.Checkpoint, readout model.Readout, labels []string) error {
	to := c.Config
	to.Classes, to.Labels, to.Readout = len(labels), labels, readout
	if err := to.Validate(); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	width := to.Dim
	if readout == model.ReadClassMean {
		width *= 2
	}
	if len(h.Bias) != len(labels) || len(h.Weight) != len(labels)*width {
		return fmt.Errorf("head: %d weights and %d biases do not fit %d classes of width %d", len(h.Weight), len(h.Bias), len(labels), width)
	}
	c.Config = to
	c.Params.HeadWeight, c.Params.HeadBias = h.Weight, h.Bias
	c.Params.HeadDistWeight, c.Params.HeadDistBias = nil, nil
	return nil
}

// Predict returns the class of one row of features.
func (h *Head) Predict(x []float32) int {
	logits := make([]float64, len(h.Bias))
	h.logits(x, logits)
	return floats.MaxIdx(logits)
}

func (h *Head) logits(x []float32, out []float64) {
	for c := range out {
		sum := float64(h.Bias[c])
		for j, v := range x {
			sum += float64(h.Weight[c*len(x)+j]) * float64(v)
		}
		out[c] = sum
	}
}

func (e *Examples) row(i int) []float32 { return e.X[i*e.Width : (i+1)*e.Width] }

// macroLoss is the mean over classes of the mean cross-entropy of their examples.
func (e *Examples) macroLoss(logits []float64) float64 {
	sum, n := make([]float64, e.Classes), make([]float64, e.Classes)
	for i, y := range e.Class {
		if y == NoClass {
			continue
		}
		l := logits[i*e.Classes : (i+1)*e.Classes]
		sum[y] += floats.LogSumExp(l) - l[y]
		n[y]++
	}
	floats.Div(sum, n)
	return floats.Sum(sum) / float64(e.Classes)
}

// folds gives every example the number of its fold: the groups of each class, shuffled by seed, are dealt out
// one by one. There are as many folds as the smallest class has groups, 2 to maxFolds.
func (e *Examples) folds(labels []string, seed uint64) ([]int, error) {
	groups := make([][]string, e.Classes)
	var none []string
	class := map[string]int{}
	for i, g := range e.Group {
		y, known := class[g]
		if known && y != e.Class[i] {
			return nil, fmt.Errorf("group %q has pictures of two classes", g)
		}
		if !known {
			class[g] = e.Class[i]
			if e.Class[i] == NoClass {
				none = append(none, g)
				continue
			}
			groups[e.Class[i]] = append(groups[e.Class[i]], g)
		}
	}
	if e.Classes < 2 {
		return nil, fmt.Errorf("%d class, want two or more: a folder for each, with pictures", e.Classes)
	}
	k := maxFolds
	for y := range groups {
		if len(groups[y]) == 0 {
			return nil, fmt.Errorf("class %q has no picture to fit on", labels[y])
		}
		k = min(k, max(2, len(groups[y])))
	}
	random := rand.New(rand.NewPCG(seed, 0))
	fold := map[string]int{}
	for y := range groups {
		slices.Sort(groups[y]) // the order of the examples plays no part
		random.Shuffle(len(groups[y]), func(i, j int) { groups[y][i], groups[y][j] = groups[y][j], groups[y][i] })
		for i, g := range groups[y] {
			fold[g] = (i + y) % k // + y: what does not divide evenly does not all fall into the first fold
		}
	}
	slices.Sort(none)
	for i, g := range none {
		fold[g] = i % k
	}
	of := make([]int, len(e.Group))
	for i, g := range e.Group {
		of[i] = fold[g]
	}
	return of, nil
}

// regression is the optimisation problem over some of the examples. Its parameters are one vector: Classes x
// Width weights, then Classes biases.
type regression struct {
	z               blas64.General // [n, width] standardised
	class           []int
	weight          []float64 // of each example
	mean, deviation []float64
	classes         int

	at      []float64      // the parameters
	logits  blas64.General // [n, classes]
	product blas64.General // [classes, width]
}

func newRegression(e *Examples, use func(i int) bool) *regression {
	r := &regression{mean: make([]float64, e.Width), deviation: make([]float64, e.Width), classes: e.Classes}
	count := map[int]float64{}
	for i, y := range e.Class {
		if use(i) {
			for _, v := range e.row(i) {
				r.z.Data = append(r.z.Data, float64(v))
			}
			r.class = append(r.class, y)
			count[y]++
		}
	}
	n, width := len(r.class), e.Width
	r.z.Rows, r.z.Cols, r.z.Stride = n, width, width
	for _, y := range r.class {
		r.weight = append(r.weight, 1/(float64(e.Classes)*count[y]))
	}
	r.standardise()
	r.at = make([]float64, e.Classes*(width+1))
	r.logits = blas64.General{Rows: n, Cols: e.Classes, Stride: e.Classes, Data: make([]float64, n*e.Classes)}
	r.product = blas64.General{Rows: e.Classes, Cols: width, Stride: width}
	return r
}

// standardise gives every column mean 0 and deviation 1; one that hardly varies is only centred.
func (r *regression) standardise() {
	n := float64(r.z.Rows)
	row := func(i int) []float64 { return r.z.Data[i*r.z.Stride : i*r.z.Stride+r.z.Cols] }
	for i := range r.z.Rows {
		floats.AddScaled(r.mean, 1/n, row(i))
	}
	for i := range r.z.Rows {
		floats.Sub(row(i), r.mean)
		for j, v := range row(i) {
			r.deviation[j] += v * v / n
		}
	}
	for j, v := range r.deviation {
		r.deviation[j] = math.Sqrt(v)
		if r.deviation[j] < 1e-6*(1+math.Abs(r.mean[j])) {
			r.deviation[j] = 1
		}
	}
	for i := range r.z.Rows {
		floats.Div(row(i), r.deviation)
	}
}

// loss returns the value at x and, unless gradient is nil, writes the gradient there. It works in the
// regression's own buffers: one call at a time.
func (r *regression) loss(x []float64, l2 float64, gradient []float64) float64 {
	weights := x[:r.classes*r.z.Cols]
	bias := x[r.classes*r.z.Cols:]
	for i := range r.z.Rows {
		copy(r.logits.Data[i*r.classes:], bias)
	}
	r.product.Data = weights
	blas64.Gemm(blas.NoTrans, blas.Trans, 1, r.z, r.product, 1, r.logits)

	value := l2 / 2 * floats.Dot(weights, weights)
	for i, y := range r.class {
		l := r.logits.Data[i*r.classes : (i+1)*r.classes]
		lse := floats.LogSumExp(l)
		if y == NoClass {
			value += r.weight[i] * (lse - floats.Sum(l)/float64(r.classes))
		} else {
			value += r.weight[i] * (lse - l[y])
		}
		for c := range l { // the gradient with respect to the logits takes their place
			l[c] = r.weight[i] * math.Exp(l[c]-lse)
		}
		if y == NoClass {
			floats.AddConst(-r.weight[i]/float64(r.classes), l)
		} else {
			l[y] -= r.weight[i]
		}
	}
	if gradient != nil {
		r.product.Data = gradient[:len(weights)]
		blas64.Gemm(blas.Trans, blas.NoTrans, 1, r.logits, r.z, 0, r.product)
		floats.AddScaled(r.product.Data, l2, weights)
		clear(gradient[len(weights):])
		for i := range r.class {
			floats.Add(gradient[len(weights):], r.logits.Data[i*r.classes:(i+1)*r.classes])
		}
	}
	return value
}

// minimise goes on from where the last call ended, by L-BFGS. The problem is convex: a line search that
// cannot go further at the end of double precision has arrived.
func (r *regression) minimise(l2 float64) error {
	// gonum asks for value and gradient at one place in two calls.
	at, gradient := make([]float64, len(r.at)), make([]float64, len(r.at))
	value := math.NaN()
	evaluate := func(x []float64) {
		if math.IsNaN(value) || !slices.Equal(x, at) {
			copy(at, x)
			value = r.loss(at, l2, gradient)
		}
	}
	problem := optimize.Problem{
		Func: func(x []float64) float64 { evaluate(x); return value },
		Grad: func(g, x []float64) { evaluate(x); copy(g, gradient) },
	}
	settings := &optimize.Settings{
		GradientThreshold: 1e-5,
		MajorIterations:   500,
		Converger:         &optimize.FunctionConverge{Absolute: 1e-7, Relative: 1e-6, Iterations: 4},
	}
	result, err := optimize.Minimize(problem, r.at, settings, &optimize.LBFGS{})
	if result == nil {
		return err
	}
	if math.IsNaN(result.F) || math.IsInf(result.F, 0) {
		return errors.New("the loss is not finite: the backbone gives features that are not numbers")
	}
	r.at = result.X
	return nil
}

// head folds the standardisation into the weights: W (x - mean) / deviation + b.
func (r *regression) head(l2 float64) *Head {
	h := &Head{L2: l2, Weight: make([]float32, r.classes*r.z.Cols), Bias: make([]float32, r.classes)}
	for c := range r.classes {
		bias := r.at[r.classes*r.z.Cols+c]
		for j := range r.z.Cols {
			w := r.at[c*r.z.Cols+j] / r.deviation[j]
			h.Weight[c*r.z.Cols+j] = float32(w)
			bias -= w * r.mean[j]
		}
		h.Bias[c] = float32(bias)
	}
	return h
}
