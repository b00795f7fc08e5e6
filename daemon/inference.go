package main

import (
	"context"
	"errors"
	"image"
	"math"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
)

// answer is what the model said of one frame. Nothing writes to it once it is published.
type answer struct {
	frame capture.Frame
	at    time.Time
	took  time.Duration // preprocessing and the net

	guesses []guess // the five likeliest, likeliest first; none from a backbone without a head
	margin  float64 // between the two likeliest probabilities, 0..1

	second  image.Rectangle // where the model looked a second time, in pixels of the frame; empty where it did not
	overlay *overlay        // nil for a plain frame
	by      *served
	jpeg    lazyJPEG
}

type guess struct {
	Label string  `json:"label"`
	Score float64 `json:"score"` // probability, 0..1
}

// overlay is what the model looked at, on its patch grid, row by row.
type overlay struct {
	rows, cols int
	view       image.Rectangle // the part of the frame that the grid covers, in pixels
	relevance  []float32       // of the first look's likeliest class, not negative; nil from a backbone without a head
	attention  []float32       // of the class token in the last block, mean over the heads; sums to at most 1
}

const (
	// turnEvery is the longest pause of the inference loop, frames or none: the watchdog waits for its turns.
	turnEvery = time.Second
	// idleShare is the most of the time that a device without frames spends on classifying the fixed picture.
	idleShare = 0.1
)

// infer owns the live net. It takes the newest frame of one camera after the other, round robin, and a new
// net between two frames; d.wake tells it that a frame has come.
func (d *daemon) infer(ctx context.Context) error {
	var (
		live     *served
		pixels   []float32
		turn     int       // whose turn it is
		idleFrom time.Time // when the fixed picture may be classified again
	)
	pause := time.NewTimer(0)
	defer pause.Stop()
	defer func() { live.close() }()
	for {
		pause.Reset(turnEvery)
		select {
		case <-ctx.Done():
			return nil
		case next := <-d.nets:
			if next == nil || next.probation == nil || next.probation.parent != live {
				live.close()
			}
			if live = next; live != nil {
				pixels = make([]float32, len(live.fixed))
			}
			d.live.Store(live)
		case <-d.wake:
		case <-pause.C:
		}
		d.progress.Add(1)
		if live == nil {
			continue
		}
		worked := false
		for ctx.Err() == nil && len(d.nets) == 0 {
			w, frame, ok := d.nextFrame(&turn)
			if !ok {
				break
			}
			live = d.classify(live, w, frame, pixels)
			d.progress.Add(1)
			worked = true
		}
		switch now := time.Now(); {
		case worked:
			idleFrom = now.Add(turnEvery)
		case now.After(idleFrom):
			_, err := live.net.Run(0, live.fixed, nil)
			d.inferred(err)
			took := time.Since(now)
			idleFrom = now.Add(max(turnEvery, time.Duration(float64(took)/idleShare)))
			d.progress.Add(1)
		}
	}
}

// nextFrame takes a frame from the first camera that has one and is due, beginning with the one whose turn it is.
func (d *daemon) nextFrame(turn *int) (*watched, capture.Frame, bool) {
	config, _ := d.configs.get()
	now, cameras := time.Now(), *d.cameras.Load()
	for i := range cameras {
		at := (*turn + i) % len(cameras)
		w := cameras[at]
		if now.Before(w.due) {
			continue
		}
		select {
		case frame, open := <-w.camera.Frames():
			if open {
				*turn = at + 1
				w.pace(now, config.Inference.FPS)
				return w, frame, true
			}
		default:
		}
	}
	return nil, capture.Frame{}, false
}

// pace sets when the next frame is due: fps times a second on average, where frames come; 0: at once.
func (w *watched) pace(now time.Time, fps float64) {
	if fps == 0 {
		w.due = time.Time{}
		return
	}
	every := time.Duration(float64(time.Second) / fps)
	if w.due = w.due.Add(every); w.due.Before(now) {
		w.due = now.Add(every / 2) // it was late: it catches up no more than half a turn
	}
}

// classify asks the net about one frame and publishes the answer. It returns the model that is live from now on:
// another one where this frame ended a probation badly.
func (d *daemon) classify(live *served, w *watched, frame capture.Frame, pixels []float32) *served {
	config, _ := d.configs.get()
	want, keep := plainWant(config.Inference), false // keep: hand the frame to the keeper
	began := time.Now()
	switch every := config.Inference.RelevanceEvery; {
	case every > 0:
		if w.turns++; w.turns >= every || w.answers.Load() == 0 {
			want, keep, w.turns = live.explaining(), true, 0
		}
	case d.samples() != nil && began.Sub(w.featured) >= plainEvery:
		want, keep, w.featured = model.WantFeatures, true, began
	}
	if err := live.net.Preprocess.Pixels(frame.RGB, frame.Width, frame.Height, pixels); err != nil {
		d.inferred(err)
		return live
	}
	ran := time.Now()
	out, err := live.net.Run(want, pixels, nil)
	took := time.Since(ran)
	if err == nil && !finite(out.Logits) {
		err = errNotFinite
	}
	var second secondLook
	if err == nil {
		switch {
		case config.Inference.Foveal != fovealAuto:
		case d.cycle.state.Load().Adapt.State == fleet.AdaptRunning:
			d.gaze.spare.left = 0 // what the cameras leave is the adaptation's
		default:
			d.gaze.spare.earn(d.period(config.Inference.FPS), time.Since(began))
		}
		second, err = d.gaze.look(config.Inference, w, frame, live.net, out)
	}
	d.inferred(err)
	if err != nil {
		return d.tried(live, out, pixels, took, want, err)
	}
	a := &answer{frame: frame, at: time.Now(), took: time.Since(began), second: second.box, by: live}
	if second.logits != nil {
		a.guesses, a.margin = likeliest(live.net.Config, model.Probabilities(second.logits))
	}
	if want&model.WantClassAttention != 0 {
		a.overlay = overlayOf(live.net, out, frame)
		w.explained.set(a)
	}
	w.latest.set(a)
	w.answers.Add(1)
	w.timing.add(a.at, a.took)
	d.timing.add(a.at, a.took)
	d.metrics.took.Observe(a.took.Seconds())
	d.publish(w, a)
	if keep {
		d.keeper.offer(offer{w, a, out, second.sight})
	}
	return d.tried(live, out, pixels, took, want, nil)
}

// plainWant is what a frame without relevance asks of the net: a second look is placed by the features.
func plainWant(c InferenceConfig) model.Want {
	if c.Foveal == fovealOff {
		return 0
	}
	return model.WantFeatures
}

var errNotFinite = errors.New("the logits are not finite numbers")

func finite(v []float32) bool {
	for _, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return false
		}
	}
	return true
}

// tried holds a model on probation against its parent, and returns the one that is live from now on: the parent
// takes over between two frames, and the cycle is told.
func (d *daemon) tried(live *served, out *model.Output, pixels []float32, took time.Duration, want model.Want, failed error) *served {
	p := live.probation
	if p == nil {
		return live
	}
	config, _ := d.configs.get()
	var why string
	var passed bool
	switch {
	case failed != nil:
		why = p.failure(failed)
	case want == plainWant(config.Inference) && p.due(): // plain frames: their times compare
		began := time.Now()
		parent, err := p.parent.net.Run(want, pixels, nil)
		if err != nil || !finite(parent.Logits) || parent.Logits == nil {
			return live
		}
		one := pair{liveTook: took, parentTook: time.Since(began)}
		one.live, one.liveTop = top(out.Logits)
		one.parent, one.parentTop = top(parent.Logits)
		why, passed = p.observe(one)
	}
	if why == "" && !passed {
		return live
	}
	live.probation = nil
	stays, goes := live, p.parent
	if why != "" {
		stays, goes = p.parent, live
		d.live.Store(stays)
	}
	goes.close()
	select {
	case d.cycle.ends <- probationEnd{live.sha, why}:
	default: // one model is on probation at a time
	}
	return stays
}

// top is the likeliest class and its probability.
func top(logits []float32) (class int, p float64) {
	probabilities := model.Probabilities(logits)
	for i, v := range probabilities {
		if v > probabilities[class] {
			class = i
		}
	}
	return class, float64(probabilities[class])
}

// inferred notes whether the net works; a failure is told until the next success.
func (d *daemon) inferred(err error) {
	if err == nil {
		d.problems.set("inference", "")
	} else if d.problems.set("inference", err.Error()) {
		d.log.Error("a frame was not classified", "error", err)
	}
}

// likeliest returns the five likeliest classes and the margin between the first two.
func likeliest(c model.Config, probabilities []float32) (guesses []guess, margin float64) {
	var top []int // classes, likeliest first
	for i, p := range probabilities {
		if at := slices.IndexFunc(top, func(j int) bool { return p > probabilities[j] }); at >= 0 {
			top = slices.Insert(top, at, i)
		} else if len(top) < 5 {
			top = append(top, i)
		}
		top = top[:min(5, len(top))]
	}
	for _, i := range top {
		guesses = append(guesses, guess{c.Label(i), float64(probabilities[i])})
	}
	margin = guesses[0].Score
	if len(guesses) > 1 {
		margin -= guesses[1].Score
	}
	return guesses, margin
}

func overlayOf(net *model.Net, out *model.Output, frame capture.Frame) *overlay {
	o := &overlay{view: net.Preprocess.View(frame.Width, frame.Height), relevance: out.Relevance}
	o.rows, o.cols = net.Config.Grid()
	o.attention = make([]float32, o.rows*o.cols)
	for i, v := range out.ClassAttention { // [H, patches]
		o.attention[i%len(o.attention)] += v / float32(net.Config.Heads)
	}
	return o
}
