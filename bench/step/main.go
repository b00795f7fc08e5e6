// Command step measures what a fine-tuning step costs: the published program in PyTorch (published.py) and ours,
// the same weights and batch, alternating in one run.
//
//	go run ./bench/step [-model s|b] [-rounds 5] [-python python3]
//
// It prints medians, ratios to the published program and peak memory over the loaded model. Losses must agree.
package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/internal/peer"
	"github.com/seed-a98b2d25/fovea/model"
)

func main() {
	size := flag.String("model", "s", "ViT-S/16 (s) or ViT-B/16 (b), at 224")
	batch := flag.Int("batch", 8, "pictures a step")
	rounds := flag.Int("rounds", 5, "counted steps of each program")
	threads := flag.Int("threads", 2, "threads of PyTorch; XLA takes the processors it may run on")
	python := flag.String("python", "python3", "interpreter with torch and safetensors")
	serve := flag.Bool("serve", false, "internal: run our step as a child")
	flag.Parse()
	var err error
	if *serve {
		err = peer.Serve(load)
	} else {
		err = compare(*size, *batch, *rounds, *threads, *python)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "step:", err)
		os.Exit(1)
	}
}

// variant is one program of the comparison.
type variant struct {
	name        string
	freezeBelow int
	micro       int
	sameLoss    bool
	peer        *peer.Peer
	seconds     []float64
	peak        int
	total       float64
}

func compare(size string, batch, rounds, threads int, python string) error {
	config, err := vit(size)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fovea-step")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := model.Random(config, 1).Save(filepath.Join(dir, "model")); err != nil {
		return err
	}
	labels, err := writeBatch(filepath.Join(dir, "batch"), config, batch)
	if err != nil {
		return err
	}
	variants := []*variant{
		{name: "published (PyTorch)"},
		{name: "ours", sameLoss: true},
		{name: "ours, micro-batch 4", micro: 4, sameLoss: true},
		{name: "ours, micro-batch 2", micro: 2, sameLoss: true},
		{name: "ours, micro-batch 1", micro: 1, sameLoss: true},
		{name: "ours, micro-batch 4, blocks 0 to 5 frozen", micro: 4, freezeBelow: 6, sameLoss: true},
		{name: "ours, micro-batch 2, blocks 0 to 5 frozen", micro: 2, freezeBelow: 6, sameLoss: true},
	}
	for i, v := range variants {
		s := spec{Dir: dir, Threads: threads, Labels: labels, Model: config, FreezeBelow: v.freezeBelow, Micro: v.micro}
		if i == 0 {
			v.peer, err = startPublished(python, s)
		} else {
			v.peer, err = startOurs(s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		defer v.peer.Stop()
	}
	for round := range rounds + 1 { // the first, with its compilation, is not counted
		for _, v := range variants {
			r, err := v.peer.Round()
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			if round == 0 {
				v.total = r.Value
			} else {
				v.seconds = append(v.seconds, r.Seconds)
			}
			v.peak = r.Memory
			fmt.Fprintf(os.Stderr, "\r%d of %d rounds", round, rounds)
		}
	}
	fmt.Fprintln(os.Stderr)
	return report(size, batch, threads, variants)
}

func report(size string, batch, threads int, variants []*variant) error {
	fmt.Printf("ViT-%s/16 at 224, batch %d, %d threads, %d steps each, alternating\n", strings.ToUpper(size), batch, threads, len(variants[0].seconds))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tstep, s (median)\tfaster\tpeak over model, MB\tof published\tloss\t")
	first := variants[0]
	for _, v := range variants {
		var ratios []float64
		for i := range v.seconds {
			ratios = append(ratios, first.seconds[i]/v.seconds[i])
		}
		peak, of := v.peak-v.peer.Loaded.Memory, float64(first.peak-first.peer.Loaded.Memory)
		fmt.Fprintf(w, "%s\t%.2f\t%.2f x\t%d\t%.2f\t%.6f\t\n", v.name, peer.Median(v.seconds), peer.Median(ratios), peak/1024, float64(peak)/of, v.total)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range variants[1:] {
		if d := math.Abs(v.total - first.total); v.sameLoss && !(d < 1e-5) {
			return fmt.Errorf("%s: loss differs from the published program's by %.2g", v.name, d)
		}
	}
	return nil
}

func vit(size string) (model.Config, error) {
	c := model.Config{
		ImageHeight: 224, ImageWidth: 224, Patch: 16, Depth: 12, Classes: 1000, Readout: model.ReadClass,
		PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: model.PositionAntialias,
	}
	switch size {
	case "s":
		c.Dim, c.Heads = 384, 6
	case "b":
		c.Dim, c.Heads = 768, 12
	default:
		return c, fmt.Errorf("-model %s: want s or b", size)
	}
	c.Hidden = 4 * c.Dim
	return c, c.Validate()
}

// writeBatch writes pictures and masks as raw float32 and returns the labels: both programs read the same.
func writeBatch(file string, c model.Config, batch int) ([]int32, error) {
	r := rand.New(rand.NewPCG(2, 2))
	size := c.ImageHeight * c.ImageWidth
	values := make([]float32, batch*4*size)
	masks := values[batch*3*size:]
	for i := range batch * 3 * size {
		values[i] = float32(.5 * r.NormFloat64())
	}
	labels := make([]int32, batch)
	for b := range labels {
		labels[b] = int32(r.IntN(c.Classes))
		for y := 40 + 5*b; y < 150; y++ {
			for x := 60; x < 160+5*b; x++ {
				masks[b*size+y*c.ImageWidth+x] = 1
			}
		}
	}
	return labels, peer.WriteFloats(file, values)
}

type spec struct {
	Dir         string       `json:"dir"` // holds the folder "model" and the file "batch"
	Threads     int          `json:"threads"`
	Labels      []int32      `json:"labels"`
	Model       model.Config `json:"model"`
	FreezeBelow int          `json:"freeze_below"`
	Micro       int          `json:"micro"`
}

func startPublished(python string, s spec) (*peer.Peer, error) {
	c := s.Model
	p, err := peer.Start(exec.Command(python, filepath.Join("bench", "step", "published.py")), map[string]any{
		"dir": s.Dir, "threads": s.Threads, "labels": s.Labels,
		"config": map[string]any{
			"img_h": c.ImageHeight, "img_w": c.ImageWidth, "patch": c.Patch, "embed_dim": c.Dim, "depth": c.Depth,
			"num_heads": c.Heads, "mlp_hidden": c.Hidden, "num_classes": c.Classes, "ln_eps": c.Epsilon,
		},
		"hyper": map[string]any{
			"lambda_seg": .8, "lambda_acc": .2, "lambda_background": 2, "lambda_foreground": .3, "temperature": 1,
			"lr": rate, "betas": []float64{.9, .999}, "eps": 1e-8, "weight_decay": 1e-4,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: run from the root of the repository, with torch and safetensors installed", err)
	}
	return p, nil
}

const rate = 3e-6

func startOurs(s spec) (*peer.Peer, error) {
	cmd, err := peer.Self("-serve")
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), model.LargePages) // as the daemon's child has it
	return peer.Start(cmd, s)
}

// load is our side of the comparison.
func load(s spec) (func() (peer.Result, error), error) {
	b, err := model.OpenBackend(model.BackendXLACPU, model.FindPlugins())
	if err != nil {
		return nil, err
	}
	k, err := model.Load(filepath.Join(s.Dir, "model"))
	if err != nil {
		return nil, err
	}
	values, err := peer.ReadFloats(filepath.Join(s.Dir, "batch"))
	if err != nil {
		return nil, err
	}
	pixels := len(s.Labels) * 3 * s.Model.ImageHeight * s.Model.ImageWidth
	batch := adapt.Batch{Pixels: values[:pixels], Masks: values[pixels:], Classes: s.Labels}
	tuner, err := adapt.NewTuner(b, k, adapt.TunerOptions{
		Objective: adapt.Published.Objective, AdamW: adapt.Published.AdamW,
		FreezeBelow: s.FreezeBelow, MicroBatch: s.Micro,
	})
	if err != nil {
		return nil, err
	}
	return func() (peer.Result, error) {
		start := time.Now()
		l, err := tuner.Step(batch, rate)
		return peer.Result{Seconds: time.Since(start).Seconds(), Value: l.Total}, err
	}, nil
}
