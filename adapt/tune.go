package adapt

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/seed-a98b2d25/fovea/model"
)

// AdamW are the constants of the optimiser (Loshchilov and Hutter 2019): decay is decoupled.
type AdamW struct {
	Beta1       float64 `json:"beta1"`
	Beta2       float64 `json:"beta2"`
	Epsilon     float64 `json:"epsilon"`
	WeightDecay float64 `json:"weight_decay"` // on every parameter that is trained
}

// Batch is what one step learns from. Slices are row-major.
type Batch struct {
	Pixels  []float32 // [B, 3, H, W], normalised
	Masks   []float32 // [B, H, W] in 0..1, 1 is object
	Classes []int32   // [B] class whose relevance is tuned; negative: the model's own first guess
	Targets []float32 // [B, C] probabilities of the cross-entropy; nil: the model's own first guess, as published
	Weights []float32 // [B] of the relevance terms; nil: all 1
}

// Tuner fine-tunes a Vision Transformer so that its relevance lies on the object. It holds the weights and
// the optimiser's state on the device; one goroutine uses it. A step that fails leaves the weights as they
// were before it.
type Tuner struct {
	config    model.Config
	objective Objective
	adamw     AdamW
	micro     int     // pictures computed at a time; gradients of a batch are summed over its parts
	balance   float64 // scales the cross-entropy, 1 as published
	backend   *model.Backend

	params  []model.Param
	weights []*tensors.Tensor
	groups  []group
	steps   int

	programs map[program]*graph.Exec
	update   *graph.Exec
}

// group is the trained parameters of one block, updated together.
type group struct {
	at            []int             // into Tuner.params
	first, second []*tensors.Tensor // AdamW's moments; nil before the first step
}

// program names a compiled graph of the step.
type program struct {
	gives gives
	parts int  // in how many parts the batch is computed
	loop  bool // over the parts, inside the program
	own   bool // targets are the model's own first guess
}

// gives is what a program returns beside the losses.
type gives int

const (
	givesLosses    gives = iota // nothing
	givesGradients              // d total / d parameter
	givesNorms                  // the squared norms of the gradients of the two halves of the total
)

// TunerOptions say what is trained and in which portions.
type TunerOptions struct {
	Objective Objective
	AdamW     AdamW
	// FreezeBelow keeps the embeddings and the blocks before it as they are; the gradient of the rest stays
	// exact. 0 trains everything, Depth the last LayerNorm and the head alone.
	FreezeBelow int
	// MicroBatch is how many pictures are computed at a time at most; 0 is the whole batch. A batch is cut into
	// equal parts. Results do not depend on it but for rounding (there are no batch statistics), memory does.
	MicroBatch int
}

// NewTuner uploads the weights of c and makes room for the optimiser's state. The key bias is never
// trained: its gradient is zero, and AdamW would turn the rounding noise into moves.
func NewTuner(b *model.Backend, c *model.Checkpoint, o TunerOptions) (*Tuner, error) {
	if c.Config.Classes == 0 {
		return nil, fmt.Errorf("tune: a backbone without a head has no class to explain: fit a head first")
	}
	if o.FreezeBelow < 0 || o.FreezeBelow > c.Config.Depth {
		return nil, fmt.Errorf("tune: freeze below %d, want 0 to %d", o.FreezeBelow, c.Config.Depth)
	}
	if !(o.Objective.Temperature > 0) {
		return nil, fmt.Errorf("tune: temperature %g, want above 0", o.Objective.Temperature)
	}
	t := &Tuner{
		config: c.Config, objective: o.Objective, adamw: o.AdamW, micro: o.MicroBatch, balance: 1, backend: b,
		params: c.Config.List(), programs: map[program]*graph.Exec{},
	}
	model.BoundHeap(model.StepBuffer)
	var err error
	if t.weights, err = model.Upload(b, c.Config, c.Params); err != nil {
		return nil, fmt.Errorf("tune: %w", err)
	}
	if t.update, err = graph.NewExec(b.Compute, t.adamStep); err != nil {
		return nil, fmt.Errorf("tune: %w", err)
	}
	block := -2
	for i, p := range t.params {
		if o.FreezeBelow > 0 && p.Block < o.FreezeBelow || p.KeyBias() {
			continue
		}
		if p.Block != block {
			block = p.Block
			t.groups = append(t.groups, group{})
		}
		g := &t.groups[len(t.groups)-1]
		g.at = append(g.at, i)
	}
	return t, nil
}

// Step moves the weights once, by the mean gradient over the batch, and returns the losses before the move.
func (t *Tuner) Step(b Batch, rate float64) (Losses[float64], error) {
	losses, gradients, err := t.gradients(b)
	if err != nil {
		return losses, err
	}
	if math.IsNaN(losses.Total) || math.IsInf(losses.Total, 0) {
		finalize(gradients)
		return losses, fmt.Errorf("step %d: the loss is %v: the weights are kept as they were", t.steps+1, losses.Total)
	}
	return losses, t.apply(gradients, rate)
}

// Losses evaluates a batch without moving anything.
func (t *Tuner) Losses(b Batch) (Losses[float64], error) {
	losses, _, err := t.run(b, givesLosses)
	return losses, err
}

// GradientNorms returns the Euclidean norms of the gradients of the two halves of the total: of the relevance
// terms, and of the cross-entropy as it is balanced now. Of a batch that is larger than the micro-batch only
// the first part is looked at.
func (t *Tuner) GradientNorms(b Batch) (relevance, classification float64, err error) {
	if n := len(b.Classes); t.micro > 0 && n > t.micro {
		if _, err := t.check(b); err != nil {
			return 0, 0, err
		}
		b = b.slice(t.config, 0, t.micro)
	}
	_, results, err := t.run(b, givesNorms)
	if err != nil {
		return 0, 0, err
	}
	v := tensors.MustCopyFlatData[float32](results[0])
	return math.Sqrt(float64(v[0])), math.Sqrt(float64(v[1])), nil
}

// Balance scales the cross-entropy in the total from now on; it is 1 at first, as published.
func (t *Tuner) Balance(factor float64) { t.balance = factor }

// gradients returns the losses of a batch and d Total / d parameter of every trained parameter, in the
// order of groups.
func (t *Tuner) gradients(b Batch) (Losses[float64], []*tensors.Tensor, error) {
	return t.run(b, givesGradients)
}

// run computes a batch at once, or in equal parts where it is larger than t.micro. The total loss is a mean over
// pictures, so the sum over equal parts is exact.
func (t *Tuner) run(b Batch, what gives) (Losses[float64], []*tensors.Tensor, error) {
	size, err := t.check(b)
	if err != nil {
		return Losses[float64]{}, nil, err
	}
	p := program{gives: what, parts: t.parts(size), own: b.Targets == nil}
	// ONNX Runtime's backend has no loops, and GoMLX's own loses values inside them (gomlx/compute v0.1.3, "not
	// computed yet").
	p.loop = p.parts > 1 && t.backend.Compute.Capabilities().Functions && t.backend.Kind != model.BackendGo
	if p.loop || p.parts == 1 {
		return t.call(p, b.slice(t.config, 0, size))
	}
	var l Losses[float64]
	var sum []*tensors.Tensor
	for part := range p.parts {
		n := size / p.parts
		here, out, err := t.call(p, b.slice(t.config, part*n, (part+1)*n))
		if err != nil {
			return l, nil, err
		}
		l.Background += here.Background
		l.Foreground += here.Foreground
		l.Classification += here.Classification
		l.Total += here.Total
		if sum == nil {
			sum = out
			continue
		}
		for i := range sum {
			add := tensors.MustCopyFlatData[float32](out[i])
			tensors.MustMutableFlatData(sum[i], func(flat []float32) {
				for k := range flat {
					flat[k] += add[k]
				}
			})
		}
		finalize(out)
	}
	return l, sum, nil
}

// call runs a program over b, whose Weights are there.
func (t *Tuner) call(p program, b Batch) (Losses[float64], []*tensors.Tensor, error) {
	var l Losses[float64]
	inputs := t.inputs(b)
	defer finalize(inputs)
	e, err := t.program(p, inputs)
	if err != nil {
		return l, nil, err
	}
	results, err := e.Call(arguments(t.weights, inputs)...)
	if err != nil {
		return l, nil, fmt.Errorf("step %d: %w", t.steps+1, err)
	}
	terms := tensors.MustCopyFlatData[float32](results[0])
	results[0].MustFinalizeAll()
	l.Background, l.Foreground = float64(terms[0]), float64(terms[1])
	l.Classification, l.Total = float64(terms[2]), float64(terms[3])
	return l, results[1:], nil
}

// parts is in how many equal parts, none larger than t.micro, a batch is computed.
func (t *Tuner) parts(size int) int {
	if t.micro <= 0 {
		return 1
	}
	n := (size + t.micro - 1) / t.micro
	for size%n != 0 {
		n++
	}
	return n
}

// inputs lays out what a program takes beside the weights.
func (t *Tuner) inputs(b Batch) []*tensors.Tensor {
	c, n := t.config, len(b.Classes)
	in := []*tensors.Tensor{
		tensors.FromFlatDataAndDimensions(b.Pixels, n, 3, c.ImageHeight, c.ImageWidth),
		tensors.FromFlatDataAndDimensions(b.Masks, n, c.ImageHeight, c.ImageWidth),
		tensors.FromFlatDataAndDimensions(b.Classes, n),
		tensors.FromFlatDataAndDimensions(b.Weights, n),
		tensors.FromScalar(float32(t.balance)),
	}
	if b.Targets != nil {
		in = append(in, tensors.FromFlatDataAndDimensions(b.Targets, n, c.Classes))
	}
	return in
}

// program returns the compiled step for inputs of these shapes. It is compiled before gradients and moments
// take memory: compiling takes as much, and gives it back.
func (t *Tuner) program(p program, inputs []*tensors.Tensor) (*graph.Exec, error) {
	e := t.programs[p]
	if e == nil {
		var err error
		if e, err = graph.NewExec(t.backend.Compute, func(in []*graph.Node) []*graph.Node {
			weights, batch := in[:len(t.weights)], in[len(t.weights):]
			if p.loop {
				return t.loop(p, weights, batch)
			}
			return t.part(p, weights, batch)
		}); err != nil {
			return nil, fmt.Errorf("compile the step: %w", err)
		}
		t.programs[p] = e
	}
	if err := e.PreCompile(arguments(t.weights, inputs)...); err != nil {
		return nil, fmt.Errorf("compile the step: %w", err)
	}
	model.TrimHeap()
	return e, nil
}

// part is the graph of a step over the pictures given: shared forward, one gradient call for every A_l, the
// class-row rollout, a last block for the class query alone, and the gradient of the loss, which counts as one
// of p.parts.
func (t *Tuner) part(p program, weights, batch []*graph.Node) []*graph.Node {
	images, masks, classes, trust, balance := batch[0], batch[1], batch[2], batch[3], batch[4]

	s := model.Forward(t.config, model.ParamsFrom(t.config, weights), images, model.ReadTokens)
	r := s.Explain(model.ClassOrOwn(classes, s.Logits))
	targets := ownGuess(s.Logits)
	if !p.own {
		targets = batch[5]
	}
	l := t.objective.Loss(r.Map(t.config), masks, s.Logits, targets, trust, balance)

	share := 1 / float64(p.parts)
	out := []*graph.Node{graph.MulScalar(graph.Stack([]*graph.Node{l.Background, l.Foreground, l.Classification, l.Total}, 0), share)}
	trained := t.trained(weights)
	switch p.gives {
	case givesGradients:
		out = append(out, graph.Gradient(graph.MulScalar(l.Total, share), trained...)...)
	case givesNorms:
		relevance := t.objective.relevance(l)
		out = append(out, graph.Stack([]*graph.Node{
			squaredNorm(graph.Gradient(relevance, trained...)),
			squaredNorm(graph.Gradient(graph.Sub(l.Total, relevance), trained...)),
		}, 0))
	}
	return out
}

// loop is the graph of a step over a batch in p.parts parts, one after the other in the memory of one. Its state is what a part returns, summed so
// far, then the number of the part, the weights and the batch.
func (t *Tuner) loop(p program, weights, batch []*graph.Node) []*graph.Node {
	g := weights[0].Graph()
	// A constant of its own: GoMLX keeps the scalars that it makes for Zeros, and what is made out here is unknown
	// inside a loop.
	zero := graph.Const(g, float32(0))
	sums := []*graph.Node{graph.BroadcastToDims(zero, 4)}
	if p.gives == givesGradients {
		for _, w := range t.trained(weights) {
			sums = append(sums, graph.BroadcastToDims(zero, w.Shape().Dimensions...))
		}
	}
	state := slices.Concat(sums, []*graph.Node{graph.Const(g, int32(0))}, weights, batch)
	parameters := func(g *graph.Graph) []*graph.Node {
		var in []*graph.Node
		for i, x := range state {
			in = append(in, graph.Parameter(g, fmt.Sprint("state", i), x.Shape()))
		}
		return in
	}
	at := len(sums)
	more := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
		return []*graph.Node{graph.LessThan(parameters(g)[at], graph.Const(g, int32(p.parts)))}
	})
	add := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
		in := parameters(g)
		weights, batch := in[at+1:at+1+len(weights)], in[at+1+len(weights):]
		var here []*graph.Node
		for _, x := range batch {
			here = append(here, pictures(x, in[at], p.parts))
		}
		out := slices.Clone(in)
		for i, x := range t.part(p, weights, here) {
			out[i] = graph.Add(in[i], x)
		}
		out[at] = graph.AddScalar(in[at], 1)
		return out
	})
	return graph.While(more, add, state...)[:at]
}

// pictures cuts part number i out of x, [B, ...], in ways that every backend has; a scalar belongs to every part.
func pictures(x, i *graph.Node, parts int) *graph.Node {
	if x.IsScalar() {
		return x
	}
	dims := x.Shape().Dimensions
	x = graph.Reshape(x, append([]int{parts, dims[0] / parts}, dims[1:]...)...)
	number := graph.Iota(x.Graph(), shapes.Make(i.DType(), x.Shape().Dimensions...), 0)
	here := graph.Equal(number, graph.BroadcastToDims(i, x.Shape().Dimensions...))
	return graph.ReduceSum(graph.Where(here, x, graph.ZerosLike(x)), 0)
}

// arguments lays lists of tensors end to end.
func arguments(lists ...[]*tensors.Tensor) []any {
	var args []any
	for _, list := range lists {
		for _, x := range list {
			args = append(args, x)
		}
	}
	return args
}

// zeros returns a zero on the device for each parameter of g.
func (t *Tuner) zeros(g group) ([]*tensors.Tensor, error) {
	var out []*tensors.Tensor
	for _, i := range g.at {
		z := tensors.FromShape(t.weights[i].Shape())
		if err := z.ToDevice(t.backend.Compute, 0); err != nil {
			return nil, fmt.Errorf("memory for %s: %w", t.params[i].Name, err)
		}
		out = append(out, z)
	}
	return out, nil
}

func squaredNorm(list []*graph.Node) *graph.Node {
	sum := graph.ReduceAllSum(graph.Square(list[0]))
	for _, x := range list[1:] {
		sum = graph.Add(sum, graph.ReduceAllSum(graph.Square(x)))
	}
	return sum
}

// trained picks the trained parameters out of a list in the order of params.
func (t *Tuner) trained(all []*graph.Node) []*graph.Node {
	var out []*graph.Node
	for _, g := range t.groups {
		for _, i := range g.at {
			out = append(out, all[i])
		}
	}
	return out
}

// apply takes one AdamW step group by group. The old weights live until every group is done, so that a
// failure leaves them whole; moments and gradients are given away as they are used.
func (t *Tuner) apply(gradients []*tensors.Tensor, rate float64) error {
	step := float64(t.steps + 1)
	constants := []any{
		float32(1 - rate*t.adamw.WeightDecay),
		float32(rate / (1 - math.Pow(t.adamw.Beta1, step))),
		float32(1 / math.Sqrt(1-math.Pow(t.adamw.Beta2, step))),
	}
	var moved [][]*tensors.Tensor
	for gi := range t.groups {
		g := &t.groups[gi]
		if g.first == nil {
			var err error
			if g.first, err = t.zeros(*g); err != nil {
				return err
			}
			if g.second, err = t.zeros(*g); err != nil {
				return err
			}
		}
		n := len(g.at)
		args := append([]any{}, constants...)
		for _, i := range g.at {
			args = append(args, t.weights[i])
		}
		args, err := t.donate(args, gradients[:n], g.first, g.second)
		if err != nil {
			return err
		}
		gradients = gradients[n:]
		out, err := t.update.Call(args...)
		if err != nil {
			return fmt.Errorf("step %d: %w", t.steps+1, err)
		}
		moved = append(moved, out[:n])
		g.first, g.second = out[n:2*n], out[2*n:]
	}
	for gi, g := range t.groups {
		for k, i := range g.at {
			t.weights[i].MustFinalizeAll()
			t.weights[i] = moved[gi][k]
		}
	}
	if t.steps++; t.steps == 1 {
		model.TrimHeap() // the optimiser was compiled
	}
	return nil
}

// adamStep is the graph of AdamW for one group: in holds 1 - rate decay, rate / (1 - beta1^t),
// 1 / sqrt(1 - beta2^t), then weights, gradients, first and second moments; out the new weights and moments.
func (t *Tuner) adamStep(in []*graph.Node) []*graph.Node {
	keep, rate, unbias := in[0], in[1], in[2]
	n := (len(in) - 3) / 4
	w, g, m, v := in[3:3+n], in[3+n:3+2*n], in[3+2*n:3+3*n], in[3+3*n:]
	out := make([]*graph.Node, 3*n)
	for i := range n {
		m1 := graph.Add(graph.MulScalar(m[i], t.adamw.Beta1), graph.MulScalar(g[i], 1-t.adamw.Beta1))
		v1 := graph.Add(graph.MulScalar(v[i], t.adamw.Beta2), graph.MulScalar(graph.Square(g[i]), 1-t.adamw.Beta2))
		move := graph.Div(graph.Mul(m1, rate), graph.AddScalar(graph.Mul(graph.Sqrt(v1), unbias), t.adamw.Epsilon))
		out[i], out[n+i], out[2*n+i] = graph.Sub(graph.Mul(w[i], keep), move), m1, v1
	}
	return out
}

// donate appends tensors whose memory the backend may reuse; they are not used afterwards.
func (t *Tuner) donate(args []any, lists ...[]*tensors.Tensor) ([]any, error) {
	for _, list := range lists {
		for _, x := range list {
			d, err := graph.DonateTensorBuffer(x, t.backend.Compute, 0)
			if err != nil {
				return nil, fmt.Errorf("step %d: %w", t.steps+1, err)
			}
			args = append(args, d)
		}
	}
	return args, nil
}

// Params copies the weights as they are now.
func (t *Tuner) Params() (*model.Params[[]float32], error) {
	flat := make([][]float32, len(t.weights))
	for i, w := range t.weights {
		v, err := tensors.CopyFlatData[float32](w)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.params[i].Name, err)
		}
		for _, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return nil, fmt.Errorf("%s is not finite after %d steps", t.params[i].Name, t.steps)
			}
		}
		flat[i] = v
	}
	return model.ParamsFrom(t.config, flat), nil
}

// Close gives the device's memory back.
func (t *Tuner) Close() {
	for _, e := range t.programs {
		e.Finalize()
	}
	t.update.Finalize()
	finalize(t.weights)
	for _, g := range t.groups {
		finalize(g.first)
		finalize(g.second)
	}
}

func finalize(list []*tensors.Tensor) {
	for _, x := range list {
		x.MustFinalizeAll()
	}
}

// check returns the batch's size, or what is wrong with it.
func (t *Tuner) check(b Batch) (int, error) {
	c, n := t.config, len(b.Classes)
	pixels := c.ImageHeight * c.ImageWidth
	switch {
	case n == 0:
		return 0, fmt.Errorf("batch: no pictures")
	case len(b.Pixels) != n*3*pixels:
		return 0, fmt.Errorf("batch: %d numbers for %d pictures of 3 x %d x %d", len(b.Pixels), n, c.ImageHeight, c.ImageWidth)
	case len(b.Masks) != n*pixels:
		return 0, fmt.Errorf("batch: %d numbers for %d masks of %d x %d", len(b.Masks), n, c.ImageHeight, c.ImageWidth)
	case b.Targets != nil && len(b.Targets) != n*c.Classes:
		return 0, fmt.Errorf("batch: %d targets for %d pictures and %d classes", len(b.Targets), n, c.Classes)
	case b.Weights != nil && len(b.Weights) != n:
		return 0, fmt.Errorf("batch: %d weights for %d pictures", len(b.Weights), n)
	}
	for i, y := range b.Classes {
		if int(y) >= c.Classes {
			return 0, fmt.Errorf("batch: picture %d has class %d of %d", i, y, c.Classes)
		}
	}
	return n, nil
}

// slice returns pictures from..to of the batch, with weights filled in.
func (b Batch) slice(c model.Config, from, to int) Batch {
	pixels := c.ImageHeight * c.ImageWidth
	part := Batch{
		Pixels:  b.Pixels[from*3*pixels : to*3*pixels],
		Masks:   b.Masks[from*pixels : to*pixels],
		Classes: b.Classes[from:to],
	}
	if b.Targets != nil {
		part.Targets = b.Targets[from*c.Classes : to*c.Classes]
	}
	if b.Weights != nil {
		part.Weights = b.Weights[from:to]
		return part
	}
	part.Weights = make([]float32, to-from)
	for i := range part.Weights {
		part.Weights[i] = 1
	}
	return part
}
