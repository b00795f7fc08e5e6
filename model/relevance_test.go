package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive,staticcheck // graph code reads as formulas
	"github.com/gomlx/gomlx/core/tensors"
)

// families are one tiny shape for each readout and kind of token.
func families() map[string]Config {
	plain := Config{
		ImageHeight: 16, ImageWidth: 24, Patch: 8, Dim: 16, Depth: 3, Heads: 2, Hidden: 32, Classes: 4,
		Readout: ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: PositionBicubic,
	}
	distilled, registers, mean := plain, plain, plain
	distilled.Distilled, distilled.Readout = true, ReadDistilled
	registers.Registers, registers.LayerScale, registers.PrefixPosition = 2, true, false
	mean.Readout, mean.SwiGLU = ReadClassMean, true
	return map[string]Config{"class": plain, "distilled": distilled, "registers": registers, "class+mean": mean}
}

// TestRelevanceIsTheRollout compares the class-row rollout with the published one, R_l = R_{l-1} + C_l R_{l-1}
// over full matrices in float64, read by the readout of each family; and a last block cut to the tokens that are
// read with a whole one.
func TestRelevanceIsTheRollout(t *testing.T) {
	b := goBackend(t)
	for name, c := range families() {
		t.Run(name, func(t *testing.T) {
			k := Random(c, 3)
			const n = 2
			r := rand.New(rand.NewPCG(1, 1))
			pixels := make([]float32, n*3*c.ImageHeight*c.ImageWidth)
			for i := range pixels {
				pixels[i] = float32(r.NormFloat64())
			}
			cut, _, readout := explained(t, b, k, pixels, []int32{1, 3}, ReadTokens)
			whole, cams, _ := explained(t, b, k, pixels, []int32{1, 3}, AllTokens)
			var sum float64
			for _, v := range readout {
				sum += float64(v)
			}
			if math.Abs(sum-1) > 1e-6 {
				t.Errorf("the readout sums to %g", sum)
			}
			patches := c.Patches()
			for i := range n {
				want := rollout(c, cams, readout, i)
				for p := range patches {
					for what, got := range map[string]float32{"cut": cut[i*patches+p], "whole": whole[i*patches+p]} {
						if !(math.Abs(float64(got)-want[p]) <= 1e-6) {
							t.Errorf("%s: patch %d of picture %d has relevance %g, want %g", what, p, i, got, want[p])
						}
					}
				}
			}
		})
	}
}

// explained returns the relevance [B, patches], every C_l and the readout.
func explained(t *testing.T, b *Backend, k *Checkpoint, pixels []float32, classes []int32, last Queries) (low []float32, cams [][]float32, readout []float32) {
	t.Helper()
	c := k.Config
	weights, err := Upload(b, c, k.Params)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewExec(b.Compute, func(in []*Node) []*Node {
		s := Forward(c, ParamsFrom(c, in[:len(in)-2]), in[len(in)-2], last)
		r := s.Explain(in[len(in)-1])
		return append([]*Node{r.Lowres, c.readout(s.Logits.Graph())}, r.Cams...)
	})
	if err != nil {
		t.Fatal(err)
	}
	var args []any
	for _, w := range weights {
		args = append(args, w)
	}
	out, err := e.Call(append(args, tensors.FromFlatDataAndDimensions(pixels, len(classes), 3, c.ImageHeight, c.ImageWidth), classes)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out[2:] {
		cams = append(cams, tensors.MustCopyFlatData[float32](o))
	}
	return tensors.MustCopyFlatData[float32](out[0]), cams, tensors.MustCopyFlatData[float32](out[1])
}

// rollout is the published recursion over N x N matrices for picture i.
func rollout(c Config, cams [][]float32, readout []float32, i int) []float64 {
	n := c.Tokens()
	r := make([]float64, n*n)
	for k := range n {
		r[k*n+k] = 1
	}
	for _, cam := range cams {
		next := append([]float64(nil), r...)
		for a := range n {
			for k := range n {
				for m := range n {
					next[a*n+k] += float64(cam[(i*n+a)*n+m]) * r[m*n+k]
				}
			}
		}
		r = next
	}
	out := make([]float64, c.Patches())
	for p := range out {
		for a := range n {
			out[p] += float64(readout[a]) * r[a*n+c.Prefix()+p]
		}
	}
	return out
}

func TestConstantMapIsZeros(t *testing.T) {
	b := goBackend(t)
	e := MustNewExec(b.Compute, func(r *Node) (m, g *Node) {
		m = Normalise(r)
		return m, Gradient(ReduceAllSum(Square(AddScalar(m, 1))), r)[0]
	})
	flat := make([]float32, 2*2*3)
	for i := range flat {
		flat[i] = .25
	}
	flat[0] = 1 // the first picture is not constant
	out := e.MustCall(tensors.FromFlatDataAndDimensions(flat, 2, 2, 3))
	m, g := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
	for i := range m {
		switch {
		case i == 0 && m[i] != 1, i > 0 && m[i] != 0:
			t.Errorf("pixel %d is %g", i, m[i])
		case i >= 6 && g[i] != 0:
			t.Errorf("gradient of pixel %d of the constant picture is %g", i, g[i])
		case math.IsNaN(float64(g[i])):
			t.Errorf("gradient of pixel %d is NaN", i)
		}
	}
}

// TestExtremesShareTheirGradient: several pixels reach the maximum of an enlarged map; together they get one
// gradient, not one each.
func TestExtremesShareTheirGradient(t *testing.T) {
	b := goBackend(t)
	e := MustNewExec(b.Compute, func(r *Node) *Node { return Gradient(ReduceAllSum(extreme(r, ReduceMax)), r)[0] })
	g := tensors.MustCopyFlatData[float32](e.MustCall(tensors.FromFlatDataAndDimensions([]float32{1, 4, 4, 2, 4, 4}, 1, 2, 3))[0])
	if got, want := fmt.Sprint(g), "[0 0.25 0.25 0 0.25 0.25]"; got != want {
		t.Errorf("gradient %s, want %s", got, want)
	}
}

func goBackend(t *testing.T) *Backend {
	t.Helper()
	b, err := OpenBackend(BackendGo, Plugins{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
