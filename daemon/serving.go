package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// served is a warmed net on its way to, or in the hands of, the inference goroutine.
type served struct {
	net     *model.Net
	backend *model.Backend
	dir     string
	source  string            // where the weights came from, for people
	version int64             // 0 is the base model
	sha     string            // of the weights file that the store keeps; "" without a store
	figures *adapt.Comparison // that the gate took of it; nil for the base
	fixed   []float32

	probation *probation // of this model; the inference goroutine's own
}

// explaining is what an explained frame asks of the net; the features are for its mask.
func (s *served) explaining() model.Want {
	if s.net.Config.Classes == 0 {
		return model.WantClassAttention | model.WantFeatures
	}
	return model.WantClassAttention | model.WantFeatures | model.WantRelevance
}

// retryModel is how long a model that could not be loaded is left before it is tried again: the folder or
// plugin may have been put there meanwhile.
const retryModel = 15 * time.Second

// serveModel loads the configured model, compiles and warms it, and hands it to the inference goroutine,
// which goes on with the one it has until then. It does not wait for a compiler when ctx is done: that may
// take minutes and cannot be interrupted.
func (d *daemon) serveModel(ctx context.Context, c ModelConfig) error {
	type result struct {
		next *served
		err  error
	}
	for {
		loaded := make(chan result, 1)
		go func() {
			next, err := d.load(ctx, c)
			loaded <- result{next, err}
		}()
		select {
		case <-ctx.Done():
			go func() { (<-loaded).next.close() }()
			return nil
		case r := <-loaded:
			if r.err == nil {
				d.problems.set("model", "")
				d.handOver(ctx, r.next)
				d.modelSettled()
				return nil
			}
			if d.problems.set("model", r.err.Error()) {
				d.log.Error("model not loaded; tried again now and then", "dir", c.Dir, "error", r.err)
			}
			d.modelSettled()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryModel):
		}
	}
}

// handOver gives a net, or nil for none, to the inference goroutine.
func (d *daemon) handOver(ctx context.Context, next *served) {
	select {
	case d.nets <- next:
	case <-ctx.Done():
		next.close()
	}
}

// close gives the memory of the net back, and of the parent in its probation; s may be nil.
func (s *served) close() {
	if s == nil {
		return
	}
	if s.probation != nil {
		s.probation.parent.close()
		s.probation = nil
	}
	s.net.Close()
}

// load returns the warmed net of the model that is live on the configured base, with its parent beside it while it
// is on probation; nil where no model is configured.
func (d *daemon) load(ctx context.Context, c ModelConfig) (*served, error) {
	if c.Dir == "" {
		return nil, nil
	}
	base, err := model.Load(c.Dir)
	if err != nil {
		return nil, err
	}
	checkpoint, receipt, err := d.living(base)
	if err != nil {
		return nil, err
	}
	live, err := d.warm(ctx, c, checkpoint, receipt)
	if err != nil || d.models() == nil {
		return live, err
	}
	standing := d.models().Standing()
	if standing.Probation.State != store.ProbationRunning || standing.Probation.Model != receipt.SHA256 {
		return live, nil
	}
	parent, err := d.loadVersion(ctx, standing.Probation.Parent)
	if err != nil {
		live.close()
		return nil, fmt.Errorf("the parent in the probation: %w", err)
	}
	config, _ := d.configs.get()
	live.probation = &probation{config: config.Adapt.Probation, parent: parent}
	return live, nil
}

// loadBase returns the warmed net of the configured base itself; nil where no model is configured.
func (d *daemon) loadBase(ctx context.Context, c ModelConfig) (*served, error) {
	if c.Dir == "" {
		return nil, nil
	}
	base, err := model.Load(c.Dir)
	if err != nil {
		return nil, err
	}
	return d.warm(ctx, c, base, store.Receipt{})
}

// warm compiles a checkpoint on the configured backend.
func (d *daemon) warm(ctx context.Context, c ModelConfig, checkpoint *model.Checkpoint, receipt store.Receipt) (*served, error) {
	began := time.Now()
	backend, err := d.openBackend(c)
	if err != nil {
		return nil, err
	}
	net, err := model.NewNet(backend, checkpoint)
	if err != nil {
		return nil, err
	}
	s := &served{
		net: net, backend: backend, dir: c.Dir, source: checkpoint.Source, version: receipt.Number, sha: receipt.SHA256, figures: figuresOf(receipt),
		fixed: fixedPicture(checkpoint.Config),
	}
	d.notifier.extendStart(compileLimit)
	config, _ := d.configs.get()
	for _, want := range slices.Compact([]model.Want{0, plainWant(config.Inference), s.explaining()}) {
		if err := errors.Join(net.Warm(want, 1), ctx.Err()); err != nil {
			net.Close()
			return nil, fmt.Errorf("warm model %s: %w", c.Dir, err)
		}
	}
	model.TrimHeap()
	d.log.Info("model ready", "dir", c.Dir, "version", receipt.Number, "sha256", net.Digest, "backend", backend.Kind, "classes", checkpoint.Config.Classes, "seconds", time.Since(began).Seconds())
	for _, why := range backend.Skipped {
		d.log.Warn("a faster backend was not taken", "reason", why)
	}
	return s, nil
}

// compileLimit is how much longer systemd waits for READY while a model compiles.
const compileLimit = 5 * time.Minute

// openBackend opens the configured backend, once for each set of settings: what a plugin took of the process
// it does not give back.
func (d *daemon) openBackend(c ModelConfig) (*model.Backend, error) {
	c.Dir = ""
	d.backendsMutex.Lock() // a load that was given up may still be here
	defer d.backendsMutex.Unlock()
	if b := d.backends[c]; b != nil {
		return b, nil
	}
	b, err := model.OpenBackend(c.Backend, c.plugins())
	if err == nil {
		d.backends[c] = b
	}
	return b, err
}

// fixedPicture is what the net classifies when there is no frame, to show that it still can: a soft ramp.
func fixedPicture(c model.Config) []float32 {
	pixels := make([]float32, 3*c.ImageHeight*c.ImageWidth)
	for i := range pixels {
		pixels[i] = float32(math.Sin(float64(i) / float64(c.ImageWidth)))
	}
	return pixels
}

// modelTitle names a model as its papers do, such as "ViT-S/16, 7 classes".
func modelTitle(c model.Config) string {
	size := map[int]string{192: "Ti", 384: "S", 768: "B", 1024: "L", 1280: "H", 1536: "g"}[c.Dim]
	if size == "" {
		size = strconv.Itoa(c.Dim)
	}
	title := fmt.Sprintf("ViT-%s/%d", size, c.Patch)
	if c.Classes == 0 {
		return title + ", no head"
	}
	return fmt.Sprintf("%s, %d classes", title, c.Classes)
}
