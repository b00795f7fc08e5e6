package main

import (
	"encoding/json"
	"fmt"
	"image"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
)

// squareScene is a frame of 128 x 64 with a bright square in it, and what a net of 8 x 8 patches that tells it from the
// ground would say of it.
func squareScene() (frame capture.Frame, object image.Rectangle, features []float32) {
	object = image.Rect(48, 16, 96, 40) // patches 3 to 5 of rows 2 to 4
	frame = capture.Frame{Width: 128, Height: 64, RGB: make([]byte, 3*128*64)}
	for y := range 64 {
		for x := range 128 {
			level := byte(40 + x/8)
			if image.Pt(x, y).In(object) {
				level = 220
			}
			for c := range 3 {
				frame.RGB[3*(y*128+x)+c] = level
			}
		}
	}
	for i := range 64 {
		v := make([]float32, 16)
		at := image.Pt(16*(i%8), 8*(i/8))
		for k := range v {
			v[k] = .1 * float32(math.Sin(float64(7*i+3*k)))
		}
		if at.In(object) {
			v[0] += 2
		} else {
			v[1] += 2
		}
		features = append(features, v...)
	}
	return frame, object, features
}

func gazeNet(t *testing.T) *model.Net {
	t.Helper()
	b, err := model.OpenBackend(model.BackendGo, model.Plugins{})
	if err != nil {
		t.Fatal(err)
	}
	c := model.Random(model.Config{
		ImageHeight: 64, ImageWidth: 64, Patch: 8, Dim: 16, Depth: 1, Heads: 2, Hidden: 32, Classes: 3,
		Readout: model.ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: model.PositionBicubic,
	}, 1)
	c.Preprocess = model.Preprocess{
		Height: 64, Width: 64, ResizeHeight: 64, ResizeWidth: 64, Filter: model.Bilinear, // the whole frame, squeezed
		Scale: 1. / 255, Mean: [3]float64{.5, .5, .5}, Std: [3]float64{.5, .5, .5},
	}
	net, err := model.NewNet(b, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

// A second look goes to the object, and its logits are those of both looks; when it is taken is the configuration's to say.
func TestSecondLook(t *testing.T) {
	net := gazeNet(t)
	frame, object, features := squareScene()
	unsure := []float32{.3, .2, .1}
	for _, c := range []struct {
		name          string
		mode          string
		logits        []float32
		features      []float32
		spare         time.Duration
		looks, passed uint64
	}{
		{"on", fovealOn, unsure, features, 0, 1, 0},
		{"on, however sure", fovealOn, []float32{30, 0, 0}, features, 0, 1, 0},
		{"on, without an object", fovealOn, unsure, make([]float32, len(features)), 0, 0, 0},
		{"auto", fovealAuto, unsure, features, time.Minute, 1, 0},
		{"auto, when sure", fovealAuto, []float32{30, 0, 0}, features, time.Minute, 0, 0},
		{"auto, without time", fovealAuto, unsure, features, 0, 0, 1},
		{"off", fovealOff, unsure, features, time.Minute, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w watched
			g := gaze{spare: spareTime{left: c.spare}}
			config := InferenceConfig{Foveal: c.mode, FovealBelow: .9}
			got, err := g.look(config, &w, frame, net, &model.Output{Logits: c.logits, Class: make([]float32, 16), Features: c.features})
			if err != nil {
				t.Fatal(err)
			}
			if w.looks.Load() != c.looks || w.looksSkipped.Load() != c.passed {
				t.Errorf("%d looks, %d skipped, want %d and %d", w.looks.Load(), w.looksSkipped.Load(), c.looks, c.passed)
			}
			if c.looks == 0 {
				if !got.box.Empty() || &got.logits[0] != &c.logits[0] {
					t.Errorf("box %v, logits %v without a second look", got.box, got.logits)
				}
				return
			}
			if !object.In(got.box) || got.box.Dx() >= frame.Width || got.box.Dy() >= frame.Height {
				t.Errorf("looked at %v, the object is at %v", got.box, object)
			}
			pixels := make([]float32, 3*64*64)
			if err := net.Preprocess.Pixels(adapt.FovealView(frame.RGB, frame.Width, got.box), got.box.Dx(), got.box.Dy(), pixels); err != nil {
				t.Fatal(err)
			}
			second, err := net.Run(0, pixels, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range adapt.FovealLogits(c.logits, second.Logits) {
				if math.Abs(float64(v-got.logits[i])) > 1e-5 {
					t.Errorf("logits %v, want those of both looks", got.logits)
				}
			}
			if g.spare.cost == 0 {
				t.Error("its cost was not noted")
			}
		})
	}
}

// With second looks of 150 ms and first ones of 60, a device asked for 5 frames a second takes as many as fit, and one
// asked for 20 takes none.
func TestSecondLooksKeepThePace(t *testing.T) {
	for _, c := range []struct {
		fps         float64
		least, most float64 // share of frames looked at twice
	}{{2, 1, 1}, {5, .9, .95}, {8, .4, .45}, {20, 0, 0}} {
		const first, second = 60 * time.Millisecond, 150 * time.Millisecond
		s := spareTime{cost: second}
		period := time.Duration(float64(time.Second) / c.fps)
		var busy time.Duration
		looks, frames := 0, 1000
		for range frames {
			busy += first
			s.earn(period, first)
			if s.enough() {
				s.spend(second, true)
				busy += second
				looks++
			}
		}
		share := float64(looks) / float64(frames)
		if share < c.least || share > c.most {
			t.Errorf("%g frames a second: %.2f looked at twice, want %g to %g", c.fps, share, c.least, c.most)
		}
		if whole := time.Duration(frames) * period; looks > 0 && busy > whole {
			t.Errorf("%g frames a second: busy for %v of %v", c.fps, busy, whole)
		}
	}
	var never spareTime
	if never.earn(0, time.Millisecond); never.enough() {
		t.Error("time is left where the pace is not known")
	}
}

// A daemon that looks twice says so everywhere.
func TestSecondLooksAreTold(t *testing.T) {
	p := start(t, fmt.Sprintf(`
model: {dir: %q, backend: go}
inference: {foveal: on, relevance_every: 0}
cameras:
  - {id: door, source: %q, fps: 20, loop: true, grabber: GRAB}
`, tinyModel(t), blobs(t, 20)))
	p.wait("a second look", func() bool { return p.state().camera("door").Looks > 0 })
	var v viewed
	p.wait("its box", func() bool {
		code, body := p.get("/api/cameras/door/view")
		return code == http.StatusOK && json.Unmarshal([]byte(body), &v) == nil && v.Second != nil
	})
	if b := *v.Second; b[0] < 0 || b[1] < 0 || b[2] > v.Width || b[3] > v.Height || b[0] >= b[2] || b[1] >= b[3] {
		t.Errorf("box %v in a frame of %d x %d", b, v.Width, v.Height)
	}
	p.wait("the health", func() bool { return p.state().Health.Cameras["door"].SecondLooksTotal > 0 })
	if _, body := p.get("/metrics"); !strings.Contains(body, `fovea_camera_second_looks_total{camera="door"} `) || strings.Contains(body, `fovea_camera_second_looks_total{camera="door"} 0`) {
		t.Error("/metrics does not count second looks")
	}
}

// While an adaptation runs on what the cameras leave, auto takes no second look.
func TestSecondLooksYieldToAnAdaptation(t *testing.T) {
	p := start(t, fmt.Sprintf(`
model: {dir: %q, backend: go}
inference: {foveal: auto, foveal_below: 1, relevance_every: 0}
cameras:
  - {id: door, source: %q, fps: 20, loop: true, grabber: GRAB}
`, tinyModel(t), blobs(t, 20)))
	p.wait("a second look", func() bool { return p.state().camera("door").Looks > 0 })
	p.cycle.update(func(s *cycleState) { s.Adapt.State = fleet.AdaptRunning })
	p.wait("a frame after it", func() bool { return p.state().camera("door").Skipped > 0 })
	looks, skipped := p.state().camera("door").Looks, p.state().camera("door").Skipped
	p.wait("ten frames", func() bool { return p.state().camera("door").Skipped >= skipped+10 })
	if now := p.state().camera("door").Looks; now > looks+1 { // one may have been under way
		t.Errorf("%d second looks, %d before ten frames", now, looks)
	}
	p.cycle.update(func(s *cycleState) { s.Adapt.State = fleet.AdaptIdle })
	p.wait("a second look after it", func() bool { return p.state().camera("door").Looks > looks+1 })
}
