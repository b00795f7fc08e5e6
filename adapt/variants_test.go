package adapt

import (
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive,staticcheck // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/seed-a98b2d25/fovea/model"
)

// mistake is one plausible way to get the step wrong; each must fail the golden files, so that they are known
// to tell the step from its neighbours.
type mistake string

const (
	none               mistake = "none"
	secondOrder        mistake = "second order left in"
	detachedAttention  mistake = "A detached"
	noClamp            mistake = "no clamp"
	rowsNormalised     mistake = "rows normalised"
	alignCorners       mistake = "align_corners"
	minMaxFirst        mistake = "min-max before upsampling"
	minMaxDetached     mistake = "min-max detached"
	inverseComplement  mistake = "inverse mask 1 - m"
	guessedClass       mistake = "relevance of the first guess instead of the label"
	maxOverHeads       mistake = "maximum over heads"
	normalisedByMax    mistake = "divided by the maximum alone"
	rolloutBackwards   mistake = "rollout from the first block to the last"
	temperatureIgnored mistake = "temperature ignored"
)

func TestMistakesFailGolden(t *testing.T) {
	b := openBackend(t, model.BackendGo)
	eachStep(t, func(t *testing.T, s step) {
		if why := composed(t, b, s, none); why != "" {
			t.Fatalf("the step without a mistake fails: %s", why)
		}
		for _, m := range []mistake{
			secondOrder, detachedAttention, noClamp, rowsNormalised, alignCorners, minMaxFirst, minMaxDetached,
			inverseComplement, guessedClass, maxOverHeads, normalisedByMax, rolloutBackwards, temperatureIgnored,
		} {
			if m == temperatureIgnored && s.Hyper.Temperature == 1 {
				continue
			}
			t.Run(string(m), func(t *testing.T) {
				why := composed(t, b, s, m)
				if why == "" {
					t.Errorf("golden file does not notice: %s", m)
				}
				t.Log("noticed by ", why)
			})
		}
	})
}

// composed builds the step from the pieces of the real one, with a mistake put in, and says what the golden
// file has against its losses and gradients; "" is nothing.
func composed(t *testing.T, b *model.Backend, s step, m mistake) (why string) {
	t.Helper()
	k, o := s.checkpoint(t), s.options().Objective
	if m == temperatureIgnored {
		o.Temperature = 1
	}
	c := k.Config
	weights, err := model.Upload(b, c, k.Params)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewExec(b.Compute, func(in []*Node) []*Node {
		ws, images, masks, classes := in[:len(weights)], in[len(weights)], in[len(weights)+1], in[len(weights)+2]
		pass := model.Forward(c, model.ParamsFrom(c, ws), images, model.ReadTokens)
		if m == guessedClass {
			classes = ArgMax(pass.Logits, -1, classes.DType())
		}
		y := OneHot(classes, c.Classes, pass.Logits.DType())
		gradients := Gradient(ReduceAllSum(Mul(pass.Logits, y)), pass.Attention...)
		r := m.maps(c, m.lowres(c, pass, gradients))
		trust := OnesLike(ConvertDType(classes, r.DType()))
		l := o.Loss(r, masks, pass.Logits, ownGuess(pass.Logits), trust, ScalarOne(r.Graph(), r.DType()))
		if m == inverseComplement {
			l.Background = ReduceAllMean(Square(Mul(r, OneMinus(masks))))
			l.Total = Add(o.relevance(l), MulScalar(l.Classification, o.Classification))
		}
		return append([]*Node{l.Background, l.Foreground, l.Classification, l.Total}, Gradient(l.Total, ws...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	batch := s.batch(t)
	n := len(batch.Classes)
	var args []any
	for _, w := range weights {
		args = append(args, w)
	}
	out, err := e.Call(append(args,
		tensors.FromFlatDataAndDimensions(batch.Pixels, n, 3, c.ImageHeight, c.ImageWidth),
		tensors.FromFlatDataAndDimensions(batch.Masks, n, c.ImageHeight, c.ImageWidth),
		tensors.FromFlatDataAndDimensions(batch.Classes, n))...)
	if err != nil {
		t.Fatal(err)
	}

	var against []string
	want := s.Scalars[0]
	for i, v := range []float64{want.Background, want.Foreground, want.Classification, want.Total} {
		if d := apart(tensors.MustCopyFlatData[float32](out[i]), []float64{v}); !(d <= tolLoss) {
			against = append(against, [...]string{"background", "foreground", "classification", "total"}[i])
		}
	}
	for i, p := range c.List() {
		if !p.KeyBias() && !(apart(tensors.MustCopyFlatData[float32](out[4+i]), wide(s.param(t, "grad.", p))) <= tolGradient) {
			against = append(against, "a gradient")
			break
		}
	}
	return strings.Join(against, ", ")
}

// lowres is Pass.Explain written out once more, with G_l given and the mistakes of the rollout in it.
func (m mistake) lowres(c model.Config, s *model.Pass, gradients []*Node) *Node {
	b := s.Logits.Shape().Dim(0)
	class := func(width int) *Node {
		return BroadcastPrefix(OneHot(Const(s.Logits.Graph(), int32(0)), width, s.Logits.DType()), b)
	}
	v := class(c.Tokens())
	for i := range c.Depth {
		l := c.Depth - 1 - i
		if m == rolloutBackwards {
			l = i
		}
		g, a := gradients[l], s.Attention[l]
		if m != secondOrder {
			g = StopGradient(g)
		}
		if m == detachedAttention {
			a = StopGradient(a)
		}
		cam := Mul(g, a)
		if m != noClamp {
			cam = Max(cam, ZerosLike(cam))
		}
		if m == maxOverHeads {
			cam = ReduceMax(cam, 1)
		} else {
			cam = ReduceMean(cam, 1)
		}
		if m == rowsNormalised {
			cam = Div(cam, AddScalar(ReduceAndKeep(cam, ReduceSum, -1), 1e-9))
		}
		rows := v
		if q := cam.Shape().Dim(1); q < c.Tokens() {
			rows = class(q)
		}
		v = Add(v, Einsum("bq,bqk->bk", rows, cam))
	}
	h, w := c.Grid()
	return Reshape(SliceAxis(v, 1, AxisRange(c.Prefix())), b, h, w)
}

// maps is Relevance.Map with the mistakes of its enlargement and normalisation.
func (m mistake) maps(c model.Config, low *Node) *Node {
	switch m {
	case alignCorners:
		h, w := c.Grid()
		up := Einsum("yr,brc->byc", Const(low.Graph(), cornerMatrix(h, c.Patch)), low)
		return model.Normalise(Einsum("byc,xc->byx", up, Const(low.Graph(), cornerMatrix(w, c.Patch))))
	case minMaxFirst:
		return model.Upsample(c, model.Normalise(low))
	case minMaxDetached:
		up := model.Upsample(c, low)
		least := StopGradient(ReduceAndKeep(up, ReduceMin, 1, 2))
		most := StopGradient(ReduceAndKeep(up, ReduceMax, 1, 2))
		return Div(Sub(up, least), Sub(most, least))
	case normalisedByMax:
		up := model.Upsample(c, low)
		return Div(up, ReduceAndKeep(up, ReduceMax, 1, 2))
	default:
		return model.Normalise(model.Upsample(c, low))
	}
}

// cornerMatrix enlarges n samples by a whole factor with the outer samples on the outer pixels.
func cornerMatrix(n, by int) [][]float32 {
	m := make([][]float32, n*by)
	for i := range m {
		m[i] = make([]float32, n)
		at := float64(i) * float64(n-1) / float64(n*by-1)
		low := min(int(at), n-2)
		m[i][low] = float32(1 - (at - float64(low)))
		m[i][low+1] += float32(at - float64(low))
	}
	return m
}
