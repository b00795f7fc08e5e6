package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// eye makes masks and features with the untouched base: of the live pass while that is the base's, else by asking
// a base net of its own, at most once in askEvery. One goroutine uses it.
type eye struct {
	daemon *daemon
	masker *adapt.Masker

	dir     string  // of the base; another one begins anew
	base    *served // loaded when first needed
	asked   time.Time
	levels  []float32 // [3, H, W] grey levels of the view
	rgb     []byte    // [H, W, 3] the same
	pixels  []float32
	retryAt time.Time // a base that could not be loaded is left alone until then
}

// askEvery is the least time between two passes of the base, beside a live model that was adapted.
const askEvery = time.Second

// sight is what the base sees in a frame.
type sight struct {
	features []float32 // what it is compared by: adapt.Summary
	backbone string
	mask     adapt.Mask
	view     [4]int // left, top, right, bottom of the part of the frame that the mask covers, pixels
	accepted bool
}

// see returns what the base sees; nil where it was not asked. cut is what was cut of the live pass already, if it was.
func (e *eye) see(ctx context.Context, frame capture.Frame, live *served, out *model.Output, cut *sight) (*sight, error) {
	if base := e.daemon.baseDigest(); base == "" || base == live.net.Digest {
		if cut != nil {
			return cut, nil
		}
		return e.look(frame, live.net, out)
	}
	switch standing := e.daemon.models().Standing(); {
	case time.Since(e.asked) < askEvery:
		return nil, nil
	case standing.Probation.State == store.ProbationRunning, standing.Active != live.sha:
		return nil, nil // two nets are enough: the live one and its parent, or the one that replaces it
	}
	if err := e.load(ctx); err != nil || e.base == nil {
		return nil, err
	}
	return e.ask(frame)
}

// load opens the base net, if it is not there yet.
func (e *eye) load(ctx context.Context) error {
	config, _ := e.daemon.configs.get()
	if e.base != nil && e.dir == config.Model.Dir || time.Now().Before(e.retryAt) {
		return nil
	}
	e.close()
	base, err := e.daemon.loadBase(ctx, config.Model)
	if err != nil {
		e.retryAt = time.Now().Add(retryModel)
		return fmt.Errorf("the base model: %w", err)
	}
	e.base, e.dir = base, config.Model.Dir
	return nil
}

// ask runs the base net on a frame.
func (e *eye) ask(frame capture.Frame) (*sight, error) {
	net := e.base.net
	e.asked = time.Now()
	e.pixels = sized(e.pixels, 3*net.Config.ImageHeight*net.Config.ImageWidth)
	if err := net.Preprocess.Pixels(frame.RGB, frame.Width, frame.Height, e.pixels); err != nil {
		return nil, err
	}
	out, err := net.Run(model.WantFeatures, e.pixels, nil)
	if err != nil {
		return nil, err
	}
	return e.look(frame, net, out)
}

// look cuts the object out of the part of a frame that a net saw.
func (e *eye) look(frame capture.Frame, net *model.Net, out *model.Output) (*sight, error) {
	if e.masker == nil {
		e.masker = adapt.NewMasker(adapt.DefaultMasks)
	}
	h, w := net.Config.ImageHeight, net.Config.ImageWidth
	e.levels, e.rgb = sized(e.levels, 3*h*w), sized(e.rgb, 3*h*w)
	plain := net.Preprocess
	plain.Scale, plain.Mean, plain.Std = 1, [3]float64{}, [3]float64{1, 1, 1}
	if err := plain.Pixels(frame.RGB, frame.Width, frame.Height, e.levels); err != nil {
		return nil, err
	}
	for i := range h * w {
		for c := range 3 {
			e.rgb[3*i+c] = byte(math.Round(float64(e.levels[c*h*w+i])))
		}
	}
	rows, cols := net.Config.Grid()
	part := net.Preprocess.View(frame.Width, frame.Height)
	view := adapt.View{Features: out.Features, GridH: rows, GridW: cols, RGB: e.rgb, Height: h, Width: w}
	if m := frame.Motion; m.Mask != nil {
		view.Moved = adapt.PatchMotion(m.Mask, m.Height, m.Width, capture.Cell, part, rows, cols)
	}
	mask, err := e.masker.Mask(view)
	if err != nil {
		return nil, fmt.Errorf("camera %s: %w", frame.Camera, err)
	}
	mask.Backbone = net.Digest
	return &sight{
		features: adapt.Summary(out.Class, out.Features, mask, rows, cols), backbone: net.Digest, mask: mask, accepted: e.masker.Accepted(mask),
		view: [4]int{part.Min.X, part.Min.Y, part.Max.X, part.Max.Y},
	}, nil
}

func (e *eye) close() {
	e.base.close()
	e.base = nil
}

// sized returns a slice of n elements, the given one where it has room.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// baseDigest names the base by its checkpoint; "" where no other model than the base was ever live.
func (d *daemon) baseDigest() string {
	if d.store == nil {
		return ""
	}
	models := d.store.State.Models
	base, err := models.Get(models.Standing().Base)
	if err != nil {
		return ""
	}
	return base.Digest
}
