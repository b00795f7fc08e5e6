package adapt

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/seed-a98b2d25/fovea/model"
)

// step is a golden file of the published program's step: config and hyper-parameters beside the tensors.
type step struct {
	golden
	Config struct {
		ImgH, ImgW, Patch, Depth int
		EmbedDim                 int     `json:"embed_dim"`
		NumHeads                 int     `json:"num_heads"`
		MLPHidden                int     `json:"mlp_hidden"`
		NumClasses               int     `json:"num_classes"`
		QKVBias                  bool    `json:"qkv_bias"`
		LNEps                    float64 `json:"ln_eps"`
		H                        int     `json:"img_h"`
		W                        int     `json:"img_w"`
	}
	Hyper struct {
		LambdaSeg        float64 `json:"lambda_seg"`
		LambdaAcc        float64 `json:"lambda_acc"`
		LambdaBackground float64 `json:"lambda_background"`
		LambdaForeground float64 `json:"lambda_foreground"`
		Temperature      float64
		LR               float64
		Betas            [2]float64
		Eps              float64
		WeightDecay      float64 `json:"weight_decay"`
	}
	Scalars []struct {
		Step                                          int
		Background, Foreground, Classification, Total float64
	} `json:"scalars_fp32"`
}

// eachStep runs a test over every vit_*.safetensors of FOVEA_GOLDEN, or of our own folders.
func eachStep(t *testing.T, test func(*testing.T, step)) {
	t.Helper()
	folders := []string{os.Getenv("FOVEA_GOLDEN")}
	if folders[0] == "" {
		folders = []string{filepath.Join("testdata", "golden"), filepath.Join("testdata", "golden2")}
	}
	for _, folder := range folders {
		paths, err := filepath.Glob(filepath.Join(folder, "vit_*.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		if len(paths) == 0 {
			t.Fatalf("no vit_*.safetensors in %s", folder)
		}
		for _, path := range paths {
			t.Run(filepath.Join(filepath.Base(folder), filepath.Base(path)), func(t *testing.T) { test(t, readStep(t, path)) })
		}
	}
}

func readStep(tb testing.TB, path string) step {
	tb.Helper()
	text, err := os.ReadFile(strings.TrimSuffix(path, ".safetensors") + ".json")
	if err != nil {
		tb.Fatal(err)
	}
	s := step{golden: readGolden(tb, path)}
	if err := json.Unmarshal(text, &s); err != nil {
		tb.Fatal(err)
	}
	return s
}

func (s step) floats(tb testing.TB, name string) []float32 {
	tb.Helper()
	v := s.values(tb, name)
	out := make([]float32, len(v))
	for i := range v {
		out[i] = float32(v[i])
	}
	return out
}

// param reads a parameter, or what belongs to it under a prefix (grad., step1.), from the fused names.
func (s step) param(tb testing.TB, prefix string, p model.Param) []float32 {
	tb.Helper()
	for i, part := range []string{"attn.q.", "attn.k.", "attn.v."} {
		if strings.Contains(p.Name, part) {
			v := s.floats(tb, prefix+strings.Replace(p.Name, part, "attn.qkv.", 1))
			return v[i*p.Size() : (i+1)*p.Size()]
		}
	}
	return s.floats(tb, prefix+p.Name)
}

func (s step) checkpoint(tb testing.TB) *model.Checkpoint {
	tb.Helper()
	g := s.Config
	c := model.Config{
		ImageHeight: g.H, ImageWidth: g.W, Patch: g.Patch, Dim: g.EmbedDim, Depth: g.Depth, Heads: g.NumHeads,
		Hidden: g.MLPHidden, Classes: g.NumClasses, Readout: model.ReadClass, PrefixPosition: true,
		QKVBias: g.QKVBias, Epsilon: g.LNEps, PositionResize: model.PositionBicubic,
	}
	if err := c.Validate(); err != nil {
		tb.Fatal(err)
	}
	k := &model.Checkpoint{Config: c, Params: model.NewParams[[]float32](c)}
	k.Params.Each(c, func(p model.Param, v *[]float32) { *v = s.param(tb, "", p) })
	return k
}

func (s step) batch(tb testing.TB) Batch {
	tb.Helper()
	b := Batch{Pixels: s.floats(tb, "io.image"), Masks: s.floats(tb, "io.mask")}
	for _, y := range s.values(tb, "io.label") {
		b.Classes = append(b.Classes, int32(y))
	}
	return b
}

func (s step) options() TunerOptions {
	h := s.Hyper
	return TunerOptions{
		Objective: Objective{
			Relevance: h.LambdaSeg, Background: h.LambdaBackground, Foreground: h.LambdaForeground,
			Classification: h.LambdaAcc, Temperature: h.Temperature,
		},
		AdamW: AdamW{Beta1: h.Betas[0], Beta2: h.Betas[1], Epsilon: h.Eps, WeightDecay: h.WeightDecay},
	}
}

// eachBackend runs a test on every backend that needs no GPU.
func eachBackend(t *testing.T, test func(*testing.T, *model.Backend)) {
	t.Helper()
	for _, name := range []string{model.BackendGo, model.BackendXLACPU, model.BackendONNXCPU} {
		t.Run(name, func(t *testing.T) { test(t, openBackend(t, name)) })
	}
}

func openBackend(tb testing.TB, name string) *model.Backend {
	tb.Helper()
	b, err := model.OpenBackend(name, model.FindPlugins())
	if err != nil {
		tb.Fatalf("%v (make test sets FOVEA_XLA_CPU and FOVEA_ONNXRUNTIME)", err)
	}
	tb.Cleanup(b.Compute.Finalize)
	return b
}

// Tolerances of the golden README, absolute.
const (
	tolLogits     = 5e-6
	tolAttention  = 1e-5
	tolLowres     = 1e-6
	tolNormalised = 2e-5
	tolLoss       = 2e-6
	tolGradient   = 5e-6
)

func TestGoldenForward(t *testing.T) {
	eachStep(t, func(t *testing.T, s step) {
		eachBackend(t, func(t *testing.T, b *model.Backend) {
			k := s.checkpoint(t)
			batch := s.batch(t)
			outs := runExplain(t, b, k, batch)
			compare(t, "logits", outs["logits"], s.values(t, "io.logits"), tolLogits)
			for l := range k.Config.Depth {
				compare(t, fmt.Sprint("attention ", l), outs[fmt.Sprint("A", l)], s.values(t, fmt.Sprint("attn.blocks.", l)), tolAttention)
				compare(t, fmt.Sprint("attention gradient ", l), outs[fmt.Sprint("G", l)], s.values(t, fmt.Sprint("attn_grad.blocks.", l)), tolAttention)
				compare(t, fmt.Sprint("cam ", l), outs[fmt.Sprint("C", l)], s.values(t, fmt.Sprint("cam.blocks.", l)), tolAttention)
			}
			compare(t, "lowres", outs["lowres"], s.values(t, "relevance.lowres"), tolLowres)
			compare(t, "upsampled", outs["upsampled"], s.values(t, "relevance.upsampled_raw"), tolLowres)
			compare(t, "normalised", outs["map"], s.values(t, "relevance.normalized"), tolNormalised)
		})
	})
}

// runExplain returns every tensor of the relevance of a batch by a short name.
func runExplain(t *testing.T, b *model.Backend, k *model.Checkpoint, batch Batch) map[string][]float32 {
	t.Helper()
	c := k.Config
	weights, err := model.Upload(b, c, k.Params)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	e, err := graph.NewExec(b.Compute, func(in []*graph.Node) []*graph.Node {
		s := model.Forward(c, model.ParamsFrom(c, in[:len(in)-2]), in[len(in)-2], model.AllTokens)
		r := s.Explain(in[len(in)-1])
		names = []string{"logits", "lowres", "upsampled", "map"}
		out := []*graph.Node{s.Logits, r.Lowres, model.Upsample(c, r.Lowres), r.Map(c)}
		for l := range c.Depth {
			names = append(names, fmt.Sprint("A", l), fmt.Sprint("G", l), fmt.Sprint("C", l))
			out = append(out, s.Attention[l], r.Gradients[l], r.Cams[l])
		}
		return out
	})
	if err != nil {
		t.Fatal(err)
	}
	var args []any
	for _, w := range weights {
		args = append(args, w)
	}
	n := len(batch.Classes)
	args = append(args, tensors.FromFlatDataAndDimensions(batch.Pixels, n, 3, c.ImageHeight, c.ImageWidth), tensors.FromFlatDataAndDimensions(batch.Classes, n))
	results, err := e.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]float32{}
	for i, name := range names {
		out[name] = tensors.MustCopyFlatData[float32](results[i])
	}
	return out
}

func TestGoldenStep(t *testing.T) {
	eachStep(t, func(t *testing.T, s step) {
		eachBackend(t, func(t *testing.T, b *model.Backend) {
			micros := []int{0, 1, 3}
			if b.Kind != model.BackendGo { // each is a compilation of seconds there
				micros = []int{0, 2}
			}
			for _, micro := range micros {
				t.Run(fmt.Sprint("micro=", micro), func(t *testing.T) { goldenStep(t, b, s, micro) })
			}
		})
	})
}

// goldenStep compares losses, gradients, and the weights after 1 and 5 steps.
func goldenStep(t *testing.T, b *model.Backend, s step, micro int) {
	o := s.options()
	o.MicroBatch = micro
	tuner, err := NewTuner(b, s.checkpoint(t), o)
	if err != nil {
		t.Fatal(err)
	}
	defer tuner.Close()
	batch := s.batch(t)

	losses, gradients, err := tuner.gradients(batch)
	if err != nil {
		t.Fatal(err)
	}
	compareLosses(t, losses, s, 0)
	i := 0
	for _, g := range tuner.groups {
		for _, at := range g.at {
			p := tuner.params[at]
			compare(t, "gradient of "+p.Name, tensors.MustCopyFlatData[float32](gradients[i]), wide(s.param(t, "grad.", p)), tolGradient)
			i++
		}
	}
	if want := len(tuner.params) - tuner.config.Depth; i != want && tuner.config.QKVBias {
		t.Errorf("%d parameters have a gradient, want %d", i, want)
	}

	for n := range 5 {
		losses, err := tuner.Step(batch, s.Hyper.LR)
		if err != nil {
			t.Fatal(err)
		}
		compareLosses(t, losses, s, n)
		if n == 0 || n == 4 {
			compareWeights(t, tuner, s, n+1)
		}
	}
	losses, err = tuner.Losses(batch)
	if err != nil {
		t.Fatal(err)
	}
	compareLosses(t, losses, s, 5)
}

func compareLosses(t *testing.T, got Losses[float64], s step, n int) {
	t.Helper()
	want := s.Scalars[n]
	for _, x := range []struct {
		name      string
		got, want float64
	}{
		{"background", got.Background, want.Background},
		{"foreground", got.Foreground, want.Foreground},
		{"classification", got.Classification, want.Classification},
		{"total", got.Total, want.Total},
	} {
		if !(math.Abs(x.got-x.want) <= tolLoss) {
			t.Errorf("%s at step %d is %.8f, want %.8f", x.name, n, x.got, x.want)
		}
	}
}

// compareWeights allows what the golden README does: at most .01 % of the elements off by more than 2e-6,
// none by more than two learning rates a step.
func compareWeights(t *testing.T, tuner *Tuner, s step, n int) {
	t.Helper()
	params, err := tuner.Params()
	if err != nil {
		t.Fatal(err)
	}
	var all, off int
	params.Each(tuner.config, func(p model.Param, v *[]float32) {
		if p.KeyBias() {
			return
		}
		for i, want := range s.param(t, fmt.Sprintf("step%d.", n), p) {
			d := math.Abs(float64((*v)[i] - want))
			all++
			if d > 2e-6 {
				off++
			}
			if !(d <= 2*s.Hyper.LR*float64(n)) {
				t.Fatalf("after %d steps %s[%d] is %g, want %g", n, p.Name, i, (*v)[i], want)
			}
		}
	})
	if float64(off) > 1e-4*float64(all) {
		t.Errorf("after %d steps %d of %d elements are off by more than 2e-6", n, off, all)
	}
}

func wide(v []float32) []float64 {
	out := make([]float64, len(v))
	for i := range v {
		out[i] = float64(v[i])
	}
	return out
}

func compare(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if d := apart(got, want); !(d <= tolerance) {
		t.Errorf("%s is off by %.3g, want at most %.3g", what, d, tolerance)
	}
}

// apart is the largest difference, infinite where lengths differ or a number is not finite.
func apart(got []float32, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var worst float64
	for i := range got {
		d := math.Abs(float64(got[i]) - want[i])
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		worst = max(worst, d)
	}
	return worst
}
