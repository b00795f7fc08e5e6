// Command compare times one forward pass: the same weights in ONNX Runtime, in PyTorch (timm) and in ours on XLA and
// on GoMLX's own backend, alternating in one run.
//
//	go run ./bench/compare [-model s|b] [-rounds 30] [-python python3]
//
// It prints medians and the ratio to ONNX Runtime, round by round. Logits must agree.
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

	"github.com/seed-a98b2d25/fovea/bench/internal/peer"
	"github.com/seed-a98b2d25/fovea/model"
)

type spec struct {
	Dir     string       `json:"dir"` // holds the folder "model" and the file "batch"
	Peer    string       `json:"peer"`
	Threads int          `json:"threads"`
	Batch   int          `json:"batch"`
	Model   model.Config `json:"model"`
}

func main() {
	size := flag.String("model", "s", "ViT-S/16 (s) or ViT-B/16 (b), at 224")
	batch := flag.Int("batch", 1, "pictures a pass")
	rounds := flag.Int("rounds", 30, "counted passes of each program")
	threads := flag.Int("threads", 2, "threads of ONNX Runtime and PyTorch; ours takes the processors it may run on")
	python := flag.String("python", "python3", "interpreter with torch, timm, onnx, onnxruntime and safetensors")
	serve := flag.Bool("serve", false, "internal: run our pass as a child")
	flag.Parse()
	var err error
	if *serve {
		err = peer.Serve(load)
	} else {
		err = compare(*size, *batch, *rounds, *threads, *python)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func compare(size string, batch, rounds, threads int, python string) error {
	c := model.Config{
		ImageHeight: 224, ImageWidth: 224, Patch: 16, Dim: 384, Depth: 12, Heads: 6, Hidden: 1536, Classes: 1000,
		Readout: model.ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: model.PositionAntialias,
	}
	if size == "b" {
		c.Dim, c.Heads, c.Hidden = 768, 12, 3072
	}
	dir, err := os.MkdirTemp("", "fovea-compare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := model.Random(c, 1).Save(filepath.Join(dir, "model")); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(2, 2))
	image := make([]float32, batch*3*c.ImageHeight*c.ImageWidth)
	for i := range image {
		image[i] = float32(.5 * r.NormFloat64())
	}
	if err := peer.WriteFloats(filepath.Join(dir, "batch"), image); err != nil {
		return err
	}

	names := []string{"onnx", "torch", model.BackendXLACPU, model.BackendGo}
	peers := map[string]*peer.Peer{}
	for _, name := range names {
		s := spec{Dir: dir, Peer: name, Threads: threads, Batch: batch, Model: c}
		cmd := exec.Command(python, filepath.Join("bench", "compare", "peer.py"))
		if strings.Contains(name, ":") || name == model.BackendGo {
			if cmd, err = peer.Self("-serve"); err != nil {
				return err
			}
		}
		if peers[name], err = peer.Start(cmd, s); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer peers[name].Stop()
	}
	// A turn begins when the threads of the program before it have stopped spinning, and its first pass is not
	// counted: it finds the other programs' data in the caches, as no program does that runs for itself.
	const warm, pause = 3, 50 * time.Millisecond
	seconds, logits := map[string][]float64{}, map[string][]float64{}
	for round := range rounds + warm {
		for _, name := range names {
			time.Sleep(pause)
			_, err := peers[name].Round()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			r, err := peers[name].Round()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			logits[name] = r.Values
			if round >= warm {
				seconds[name] = append(seconds[name], r.Seconds)
			}
		}
	}

	fmt.Printf("ViT-%s/16 at 224, batch %d, %d threads, %d passes each, alternating\n", strings.ToUpper(size), batch, threads, rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tpass, ms (median)\tof ONNX Runtime's time (median)\tlogits apart\t")
	for _, name := range names {
		var ratios []float64
		for i, s := range seconds[name] {
			ratios = append(ratios, s/seconds["onnx"][i])
		}
		var apart float64
		for i, v := range logits[name] {
			apart = max(apart, math.Abs(v-logits["torch"][i]))
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.2f\t%.1g\t\n", name, 1e3*peer.Median(seconds[name]), peer.Median(ratios), apart)
		if !(apart < 2e-4) {
			return fmt.Errorf("%s: logits differ by %g", name, apart)
		}
	}
	return w.Flush()
}

// load is our side of the comparison.
func load(s spec) (func() (peer.Result, error), error) {
	b, err := model.OpenBackend(s.Peer, model.FindPlugins())
	if err != nil {
		return nil, err
	}
	k, err := model.Load(filepath.Join(s.Dir, "model"))
	if err != nil {
		return nil, err
	}
	image, err := peer.ReadFloats(filepath.Join(s.Dir, "batch"))
	if err != nil {
		return nil, err
	}
	net, err := model.NewNet(b, k)
	if err != nil {
		return nil, err
	}
	return func() (peer.Result, error) {
		start := time.Now()
		o, err := net.Run(0, image, nil)
		if err != nil {
			return peer.Result{}, err
		}
		r := peer.Result{Seconds: time.Since(start).Seconds()}
		for _, v := range o.Logits[:8] {
			r.Values = append(r.Values, float64(v))
		}
		return r, nil
	}, nil
}
