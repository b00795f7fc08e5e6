package main

import (
	"context"
	"errors"
	"image"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/model"
)

// Words of inference.foveal.
const (
	fovealOff  = "off"
	fovealAuto = "auto" // where the first look is unsure and the pace of the cameras leaves the time
	fovealOn   = "on"
)

// gaze looks a second time at the object in a frame. The inference goroutine alone uses it.
type gaze struct {
	eye   eye // cuts the object out of what the live net saw, not of what the base sees: that would be a pass more
	spare spareTime
}

// secondLook is what a frame's two looks came to, or what one did.
type secondLook struct {
	logits []float32       // of both, else of the first
	box    image.Rectangle // of the second, in pixels of the frame; empty where there was none
	sight  *sight          // what was cut of the frame; nil where nothing was
}

// look takes the second look at a frame of which the net said out, if the configuration wants one, time allows it, and
// there is an object to look at.
func (g *gaze) look(c InferenceConfig, w *watched, frame capture.Frame, net *model.Net, out *model.Output) (s secondLook, err error) {
	s.logits = out.Logits
	if c.Foveal == fovealOff || out.Logits == nil || out.Features == nil {
		return s, nil
	}
	if c.Foveal == fovealAuto {
		if _, sure := top(out.Logits); sure >= c.FovealBelow {
			return s, nil
		}
		if !g.spare.enough() {
			w.looksSkipped.Add(1)
			return s, nil
		}
	}
	began := time.Now()
	if s.sight, err = g.eye.look(frame, net, out); err != nil {
		return s, err
	}
	box, ok := s.sight.mask.SecondLook(net.Preprocess.View(frame.Width, frame.Height), frame.Width, frame.Height, adapt.DefaultMasks.Floor)
	if ok {
		if s.logits, err = adapt.LookAgain(net, frame.RGB, frame.Width, box, out.Logits); err != nil {
			return s, err
		}
		s.box = box
		w.looks.Add(1)
	}
	g.spare.spend(time.Since(began), ok)
	return s, nil
}

// period is the mean time between two frames that the cameras want classified, all together; 0: not known, as where
// none sends.
func (d *daemon) period(fps float64) time.Duration {
	var rate float64
	for _, w := range *d.cameras.Load() {
		wanted := w.camera.State().FPS
		if fps > 0 {
			wanted = min(wanted, fps)
		}
		rate += wanted
	}
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / rate)
}

// spareTime is what the pace of the cameras leaves beside first looks: a frame brings the time until the next one, less
// what its own look took.
type spareTime struct {
	left time.Duration
	cost time.Duration // of a second look, running mean, the mask included; 0: none was taken yet
}

// spareMost is the most that is saved up: as much as is caught up with at once afterwards.
const spareMost = time.Second

func (s *spareTime) earn(period, took time.Duration) {
	s.left = min(max(s.left+period-took, 0), max(spareMost, 2*s.cost))
}

// enough tells whether a second look fits; before the first one that a first look did is enough.
func (s *spareTime) enough() bool { return s.left > s.cost }

// spend takes what was used, by a whole second look or by a mask that pointed nowhere.
func (s *spareTime) spend(took time.Duration, whole bool) {
	s.left -= took
	switch {
	case !whole:
	case s.cost == 0:
		s.cost = took
	default:
		s.cost += (took - s.cost) / 8
	}
}

// fovealScore is what a setting of inference.foveal came to on labelled pictures.
type fovealScore struct {
	Mode      string     `json:"mode"`
	Accuracy  proportion `json:"accuracy"`
	Twice     int        `json:"twice"`      // pictures that were looked at a second time
	Changed   int        `json:"changed"`    // of those, how many then got another first guess
	PictureMS float64    `json:"picture_ms"` // median, preprocessing included
	SecondMS  float64    `json:"second_ms"`  // median of the second looks, their masks included; 0: there were none
}

// evalFoveal classifies labelled pictures as the daemon would under each setting, with its own threshold of auto and with
// time for all; own is the model's class of each of theirs.
func evalFoveal(ctx context.Context, net *model.Net, set *adapt.Labelled, own []int) ([]fovealScore, error) {
	c := defaultConfig().Inference
	scores := []fovealScore{{Mode: fovealOff}, {Mode: fovealAuto}, {Mode: fovealOn}}
	right := make([]int, len(scores))
	took, again := make([][]time.Duration, len(scores)), make([][]time.Duration, len(scores))
	pixels := make([]float32, 3*net.Config.ImageHeight*net.Config.ImageWidth)
	if err := errors.Join(net.Warm(0, 1), net.Warm(model.WantFeatures, 1)); err != nil { // compiling is not timed
		return nil, err
	}
	var g gaze
	bar := newProgress(int64(len(set.Pictures)), "second looks")
	defer bar.Finish() //nolint:errcheck // a bar
	for _, picture := range set.Pictures {
		p, err := adapt.ReadPicture(filepath.Join(set.Dir, picture.File))
		if err != nil {
			return nil, err
		}
		for i := range scores {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s, w := &scores[i], &watched{}
			c.Foveal, g.spare = s.Mode, spareTime{left: time.Hour}
			began := time.Now()
			if err := net.Preprocess.Pixels(p.RGB, p.Width, p.Height, pixels); err != nil {
				return nil, err
			}
			out, err := net.Run(plainWant(c), pixels, nil)
			if err != nil {
				return nil, err
			}
			second, err := g.look(c, w, capture.Frame{Width: p.Width, Height: p.Height, RGB: p.RGB}, net, out)
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], time.Since(began))
			class, _ := top(second.logits)
			if w.looks.Load() > 0 {
				again[i] = append(again[i], g.spare.cost)
				if before, _ := top(out.Logits); before != class {
					s.Changed++
				}
			}
			if class == own[picture.Class] {
				right[i]++
			}
		}
		_ = bar.Add(1)
	}
	for i := range scores {
		scores[i].Accuracy, scores[i].Twice = newProportion(right[i], len(set.Pictures)), len(again[i])
		scores[i].PictureMS, scores[i].SecondMS = medianMS(took[i]), medianMS(again[i])
	}
	return scores, nil
}

// medianMS is the median in milliseconds; 0 of none.
func medianMS(took []time.Duration) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return milliseconds(quantile(took, .5))
}
