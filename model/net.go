package model

import (
	"fmt"
	"math"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Want says what a call returns beside logits and class token. Each combination is a compiled program of
// its own.
type Want uint8

const (
	WantFeatures       Want = 1 << iota // patch features
	WantClassAttention                  // what the class token attends to in the last block
	WantAttention                       // every A_l
	WantRelevance                       // the relevance map of one class a picture
)

// Output is what the net says of a batch of B pictures. Slices are row-major and the caller's to keep.
type Output struct {
	Logits         []float32   // [B, C]; nil for a backbone without a head
	Class          []float32   // [B, D] normalised class token
	Features       []float32   // [B, patches, D] normalised patch tokens
	ClassAttention []float32   // [B, H, patches]
	Attention      [][]float32 // a slice a block, [B, H, N, N]
	Relevance      []float32   // [B, rows, cols], not negative, not normalised
	Map            []float32   // [B, ImageHeight, ImageWidth] in 0..1, as published
	Classes        []int32     // [B] the class that Relevance explains
}

// Net is a checkpoint on a backend, compiled and ready. One goroutine uses it at a time.
type Net struct {
	Config     Config
	Preprocess Preprocess
	Digest     string // of the checkpoint

	backend  *Backend
	weights  []*tensors.Tensor // in the order of Params.Each, on the device
	programs map[Want]*graph.Exec
}

// NewNet uploads the weights of c. A program is compiled at the first call of its kind: Warm does it ahead.
func NewNet(b *Backend, c *Checkpoint) (*Net, error) {
	n := &Net{Config: c.Config, Preprocess: c.Preprocess, Digest: c.Digest(), backend: b, programs: map[Want]*graph.Exec{}}
	var err error
	n.weights, err = Upload(b, c.Config, c.Params)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Upload copies parameters to the device of b, in the order of Params.Each.
func Upload(b *Backend, c Config, p *Params[[]float32]) ([]*tensors.Tensor, error) {
	var weights []*tensors.Tensor
	var failed error
	p.Each(c, func(q Param, v *[]float32) {
		if failed != nil {
			return
		}
		if len(*v) != q.Size() {
			failed = fmt.Errorf("upload %s: %d numbers for shape %v", q.Name, len(*v), q.Shape)
			return
		}
		t := tensors.FromFlatDataAndDimensions(*v, q.Shape...)
		if err := t.ToDevice(b.Compute, 0); err != nil {
			failed = fmt.Errorf("upload %s: %w", q.Name, err)
			return
		}
		weights = append(weights, t)
	})
	return weights, failed
}

// Warm compiles the program for batches of b pictures and runs it once.
func (n *Net) Warm(want Want, b int) error {
	_, err := n.Run(want, make([]float32, b*3*n.Config.ImageHeight*n.Config.ImageWidth), nil)
	return err
}

// Run classifies a batch: pixels is [B, 3, ImageHeight, ImageWidth], normalised by Preprocess. classes, [B],
// says which class WantRelevance explains; nil or a negative one means the picture's own first guess.
func (n *Net) Run(want Want, pixels []float32, classes []int32) (*Output, error) {
	c := n.Config
	one := 3 * c.ImageHeight * c.ImageWidth
	b := len(pixels) / one
	if b == 0 || len(pixels) != b*one {
		return nil, fmt.Errorf("run: %d numbers are no batch of 3 x %d x %d pictures", len(pixels), c.ImageHeight, c.ImageWidth)
	}
	if want&WantRelevance != 0 && c.Classes == 0 {
		return nil, fmt.Errorf("run: a backbone without a head has no class to explain: fit a head first")
	}
	if classes == nil {
		classes = make([]int32, b)
		for i := range classes {
			classes[i] = -1
		}
	}
	if len(classes) != b {
		return nil, fmt.Errorf("run: %d classes for %d pictures", len(classes), b)
	}

	program, err := n.program(want)
	if err != nil {
		return nil, err
	}
	args := make([]any, 0, len(n.weights)+2)
	for _, w := range n.weights {
		args = append(args, w)
	}
	images, explained := tensors.FromFlatDataAndDimensions(pixels, b, 3, c.ImageHeight, c.ImageWidth), tensors.FromFlatDataAndDimensions(classes, b)
	defer images.MustFinalizeAll()
	defer explained.MustFinalizeAll()
	results, err := program.Call(append(args, images, explained)...)
	if err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	return n.output(want, results)
}

// program returns the graph of that kind; its results are in the order that output takes them.
func (n *Net) program(want Want) (*graph.Exec, error) {
	if e := n.programs[want]; e != nil {
		return e, nil
	}
	c := n.Config
	e, err := graph.NewExec(n.backend.Compute, func(in []*graph.Node) []*graph.Node {
		images, classes := in[len(in)-2], in[len(in)-1]
		queries := ReadTokens
		if want&(WantFeatures|WantClassAttention|WantAttention) != 0 {
			queries = AllTokens
		}
		s := Forward(c, ParamsFrom(c, in[:len(in)-2]), images, queries)

		out := []*graph.Node{s.Class}
		if c.Classes > 0 {
			out = append(out, s.Logits)
		}
		if want&WantFeatures != 0 {
			out = append(out, s.Features)
		}
		if want&WantClassAttention != 0 {
			a := graph.Slice(s.Attention[c.Depth-1], graph.AxisRange(), graph.AxisRange(), graph.AxisElem(0), graph.AxisRange(c.Prefix()))
			out = append(out, a)
		}
		if want&WantAttention != 0 {
			out = append(out, s.Attention...)
		}
		if want&WantRelevance != 0 {
			classes = ClassOrOwn(classes, s.Logits)
			r := s.Explain(classes)
			out = append(out, r.Lowres, r.Map(c), classes)
		}
		return out
	})
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	n.programs[want] = e
	return e, nil
}

func (n *Net) output(want Want, results []*tensors.Tensor) (*Output, error) {
	o := &Output{}
	next := func() []float32 {
		v := tensors.MustCopyFlatData[float32](results[0])
		results[0].MustFinalizeAll()
		results = results[1:]
		return v
	}
	o.Class = next()
	if n.Config.Classes > 0 {
		o.Logits = next()
		for _, v := range o.Logits {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return nil, fmt.Errorf("run: model %.12s gives logits that are not finite", n.Digest)
			}
		}
	}
	if want&WantFeatures != 0 {
		o.Features = next()
	}
	if want&WantClassAttention != 0 {
		o.ClassAttention = next()
	}
	if want&WantAttention != 0 {
		for range n.Config.Depth {
			o.Attention = append(o.Attention, next())
		}
	}
	if want&WantRelevance != 0 {
		o.Relevance, o.Map = next(), next()
		o.Classes = tensors.MustCopyFlatData[int32](results[0])
		results[0].MustFinalizeAll()
	}
	return o, nil
}

// Close gives the device's memory back. The net is not used afterwards.
func (n *Net) Close() {
	for _, e := range n.programs {
		e.Finalize()
	}
	for _, w := range n.weights {
		w.MustFinalizeAll()
	}
	n.programs, n.weights = nil, nil
}

// Probabilities turns one picture's logits into probabilities that sum to 1.
func Probabilities(logits []float32) []float32 {
	top := float32(math.Inf(-1))
	for _, v := range logits {
		top = max(top, v)
	}
	p := make([]float32, len(logits))
	var sum float64
	for i, v := range logits {
		e := math.Exp(float64(v - top))
		p[i] = float32(e)
		sum += e
	}
	for i := range p {
		p[i] = float32(float64(p[i]) / sum)
	}
	return p
}
