package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/model"
)

type benchVerb struct {
	Model   string   `placeholder:"DIR" help:"Model folder; without it a ViT-S/16 at 224 with random weights and 1000 classes."`
	Backend string   `default:"auto" enum:"${backends}" help:"What computes: ${enum}."`
	Batch   int      `default:"1" help:"Pictures a pass."`
	Runs    int      `default:"50" help:"Passes that are timed, of each kind."`
	Save    string   `placeholder:"DIR" help:"Also write the model that was timed as a folder, so that other programs can time the same weights."`
	JSON    bool     `help:"One JSON object instead of a table."`
	Seed    uint64   `default:"1" help:"Of the random weights and the picture."`
	CPU     string   `placeholder:"FILE" help:"Plugin of xla:cpu (default: where the packages put it)." name:"plugin-cpu"`
	CUDA    string   `placeholder:"FILE" help:"Plugin of xla:cuda." name:"plugin-cuda"`
	ONNX    string   `placeholder:"FILE" help:"ONNX Runtime of onnx:cpu and onnx:cuda." name:"plugin-onnx"`
	Kinds   []string `default:"logits,features,explained" enum:"logits,features,explained" help:"What a pass computes: ${enum}." name:"want"`
}

func (benchVerb) Help() string {
	return `Times forward passes on noise, after a warm-up: what a pass costs does not depend on the picture.
logits is a plain frame, features adds those of the patches, explained is a frame with its overlay
(relevance and attention), which needs a gradient.

  fovea bench
  fovea bench --model /var/lib/fovea/models/base --backend xla:cpu --json`
}

// benchResult is the JSON of fovea bench; times are in milliseconds.
type benchResult struct {
	Model   string      `json:"model"`
	SHA256  string      `json:"sha256"`
	Backend string      `json:"backend"`
	Batch   int         `json:"batch"`
	Skipped []string    `json:"skipped,omitempty"` // why each faster backend was not taken
	Passes  []benchPass `json:"passes"`
	Logits  []float32   `json:"logits,omitempty"` // of the first picture, which the seed makes: two machines compared
}

type benchPass struct {
	Want      string  `json:"want"`
	Runs      int     `json:"runs"`
	MedianMS  float64 `json:"median_ms"`
	P95MS     float64 `json:"p95_ms"`
	MinMS     float64 `json:"min_ms"`
	CompileMS float64 `json:"compile_ms"` // with the first run

	logits []float32
}

// benchWants are the kinds of pass by name.
var benchWants = map[string]model.Want{
	"logits": 0, "features": model.WantFeatures, "explained": model.WantRelevance | model.WantClassAttention,
}

func (v benchVerb) Run(ctx context.Context, out io.Writer) error {
	if v.Batch < 1 || v.Runs < 1 {
		return fmt.Errorf("bench: batch %d, runs %d: want at least 1 of each", v.Batch, v.Runs)
	}
	checkpoint := model.Random(vitSmall, v.Seed)
	if v.Model != "" {
		var err error
		if checkpoint, err = model.Load(v.Model); err != nil {
			return err
		}
	}
	if v.Save != "" {
		if err := checkpoint.Save(v.Save); err != nil {
			return err
		}
	}
	config := ModelConfig{Plugins: PluginsConfig{CPU: PluginConfig{Path: v.CPU}, CUDA: PluginConfig{Path: v.CUDA}, ONNX: PluginConfig{Path: v.ONNX}}}
	backend, err := model.OpenBackend(v.Backend, config.plugins())
	if err != nil {
		return err
	}
	net, err := model.NewNet(backend, checkpoint)
	if err != nil {
		return err
	}
	defer net.Close()

	result := benchResult{Model: modelTitle(net.Config), SHA256: net.Digest, Backend: backend.Kind, Batch: v.Batch, Skipped: backend.Skipped}
	pixels := make([]float32, v.Batch*3*net.Config.ImageHeight*net.Config.ImageWidth)
	random := rand.New(rand.NewPCG(v.Seed, 2))
	for i := range pixels {
		pixels[i] = float32(random.NormFloat64())
	}
	bar := newProgress(int64(len(v.Kinds)*v.Runs), "passes")
	for _, kind := range v.Kinds {
		want := benchWants[kind]
		if net.Config.Classes == 0 {
			want &^= model.WantRelevance
		}
		pass, err := timePasses(ctx, net, want, pixels, v.Runs, func() { _ = bar.Add(1) })
		if err != nil {
			return err
		}
		pass.Want, result.Logits = kind, pass.logits[:net.Config.Classes]
		result.Passes = append(result.Passes, pass)
	}
	_ = bar.Finish()
	if v.JSON {
		return json.NewEncoder(out).Encode(result)
	}
	fmt.Fprintf(out, "%s on %s, batch %d\n", result.Model, result.Backend, v.Batch)
	for _, why := range result.Skipped {
		fmt.Fprintln(out, "not used:", why)
	}
	fmt.Fprintf(out, "%-10s %5s %10s %10s %10s %12s\n", "want", "runs", "median ms", "p95 ms", "min ms", "compile ms")
	for _, p := range result.Passes {
		fmt.Fprintf(out, "%-10s %5d %10.1f %10.1f %10.1f %12.0f\n", p.Want, p.Runs, p.MedianMS, p.P95MS, p.MinMS, p.CompileMS)
	}
	return nil
}

// timePasses compiles, runs three passes to warm up, and times the others.
func timePasses(ctx context.Context, net *model.Net, want model.Want, pixels []float32, runs int, step func()) (benchPass, error) {
	const warmUp = 3
	took := make([]time.Duration, 0, runs)
	pass := benchPass{Runs: runs}
	for i := range warmUp + runs {
		if err := ctx.Err(); err != nil {
			return pass, err
		}
		began := time.Now()
		out, err := net.Run(want, pixels, nil)
		if err != nil {
			return pass, err
		}
		switch {
		case i == 0:
			pass.CompileMS, pass.logits = milliseconds(time.Since(began)), out.Logits
		case i >= warmUp:
			took = append(took, time.Since(began))
			step()
		}
	}
	slices.Sort(took)
	pass.MedianMS, pass.P95MS, pass.MinMS = milliseconds(quantile(took, 0.5)), milliseconds(quantile(took, 0.95)), milliseconds(took[0])
	return pass, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// vitSmall is ViT-S/16 at 224 with 1000 classes, as timm's vit_small_patch16_224.
var vitSmall = model.Config{
	ImageHeight: 224, ImageWidth: 224, Patch: 16, Dim: 384, Depth: 12, Heads: 6, Hidden: 1536, Classes: 1000,
	Readout: model.ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: model.PositionAntialias,
}
