package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// Of the clips that bench/demo makes.
const (
	clipEvery = 4              // of 8 frames a second
	clipFPS   = 8. / clipEvery // of those that are looked at
	clipWhole = .99            // least share of an object in view for a frame with an object
)

// clipTruth is a line of truth.jsonl.
type clipTruth struct {
	Camera  string  `json:"camera"`
	Frame   uint64  `json:"frame"` // from 1, as capture counts
	Class   string  `json:"class"`
	Visible float64 `json:"visible"`
}

// clipFrame is what was made of one frame.
type clipFrame struct {
	clipTruth
	overlap  float64 // of the mask with the truth
	accepted bool
	moved    bool // what moved chose the object
	still    float64
	stillOK  bool // the same without motion

	features  []float32 // what it is compared by
	predicted string
	margin    float64
	mask      bool
	jpeg      []byte
}

// measureClips cuts masks of the frames of the demonstration, as the daemon does, with what moved and without, and
// prints how well they fit; then it lets the frames pass again and again for a day and prints what the store keeps.
func measureClips(checkpoint, demo, grabber string) error {
	truth, err := readClipTruth(filepath.Join(demo, "truth.jsonl"))
	if err != nil {
		return err
	}
	w, err := newWatcher(checkpoint)
	if err != nil {
		return err
	}
	var cameras []string
	for id := range truth {
		cameras = append(cameras, id)
	}
	slices.Sort(cameras)
	all := map[string][]clipFrame{}
	var joined []clipFrame
	for _, id := range cameras {
		frames, err := play(id, filepath.Join(demo, id+".mp4"), grabber)
		if err != nil {
			return err
		}
		for _, f := range frames {
			t, known := truth[id][f.Seq]
			if !known {
				return fmt.Errorf("camera %s: frame %d is not in truth.jsonl: was the demonstration made anew?", id, f.Seq)
			}
			seen, err := w.look(f, t, filepath.Join(demo, "masks", id, fmt.Sprintf("%05d.png", f.Seq)))
			if err != nil {
				return fmt.Errorf("camera %s, frame %d: %w", id, f.Seq, err)
			}
			all[id] = append(all[id], seen)
		}
		reportClip(os.Stdout, id, all[id])
		joined = append(joined, all[id]...)
	}
	reportClip(os.Stdout, "all", joined)
	return liveDay(os.Stdout, cameras, all, w.net.Digest)
}

func readClipTruth(file string) (map[string]map[uint64]clipTruth, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%w: make the demonstration with \"make demo\"", err)
	}
	defer f.Close()
	truth := map[string]map[uint64]clipTruth{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var t clipTruth
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if truth[t.Camera] == nil {
			truth[t.Camera] = map[uint64]clipTruth{}
		}
		truth[t.Camera][t.Frame] = t
	}
	return truth, nil
}

// play shows a clip once, at its own speed, and keeps every fourth frame with what moved in it.
func play(id, file, grabber string) ([]capture.Frame, error) {
	camera, err := capture.Open(capture.Config{ID: id, Source: file, Grabber: grabber}, capture.Options{})
	if err != nil {
		return nil, err
	}
	defer camera.Close()
	var frames []capture.Frame
	for {
		select {
		case f, open := <-camera.Frames():
			if !open {
				return frames, nil
			}
			if f.Seq%clipEvery == 0 {
				frames = append(frames, f)
			}
		case <-time.After(time.Second):
			if state := camera.State(); state.Phase == capture.Ended {
				return frames, nil
			} else if state.Phase == capture.Lost {
				return nil, fmt.Errorf("camera %s: %s", id, state.LastError)
			}
		}
	}
}

// watcher does to a frame what the daemon does.
type watcher struct {
	net    *model.Net
	masker *adapt.Masker
	plain  model.Preprocess
	input  []float32
	levels []float32
}

func newWatcher(path string) (*watcher, error) {
	c, err := openBackbone(path)
	if err != nil {
		return nil, err
	}
	backend, err := model.OpenBackend(model.BackendAuto, model.FindPlugins())
	if err != nil {
		return nil, err
	}
	w := &watcher{masker: adapt.NewMasker(adapt.DefaultMasks)}
	if w.net, err = model.NewNet(backend, c); err != nil {
		return nil, err
	}
	w.plain = w.net.Preprocess
	w.plain.Scale, w.plain.Mean, w.plain.Std = 1, [3]float64{}, [3]float64{1, 1, 1}
	w.input = make([]float32, 3*c.Config.ImageHeight*c.Config.ImageWidth)
	w.levels = make([]float32, len(w.input))
	return w, nil
}

func (w *watcher) look(f capture.Frame, t clipTruth, maskFile string) (clipFrame, error) {
	c, seen := w.net.Config, clipFrame{clipTruth: t}
	if err := w.net.Preprocess.Pixels(f.RGB, f.Width, f.Height, w.input); err != nil {
		return seen, err
	}
	if err := w.plain.Pixels(f.RGB, f.Width, f.Height, w.levels); err != nil {
		return seen, err
	}
	out, err := w.net.Run(model.WantFeatures, w.input, nil)
	if err != nil {
		return seen, err
	}
	rows, cols := c.Grid()
	part := w.net.Preprocess.View(f.Width, f.Height)
	view := adapt.View{Features: out.Features, GridH: rows, GridW: cols, RGB: make([]byte, len(w.levels)), Height: c.ImageHeight, Width: c.ImageWidth}
	for i := range c.ImageHeight * c.ImageWidth {
		for k := range 3 {
			view.RGB[3*i+k] = byte(w.levels[k*c.ImageHeight*c.ImageWidth+i] + .5)
		}
	}
	still, err := w.masker.Mask(view)
	if err != nil {
		return seen, err
	}
	if m := f.Motion; m.Mask != nil {
		view.Moved = adapt.PatchMotion(m.Mask, m.Height, m.Width, capture.Cell, part, rows, cols)
	}
	mask, err := w.masker.Mask(view)
	if err != nil {
		return seen, err
	}
	seen.accepted, seen.stillOK, seen.moved = w.masker.Accepted(mask), w.masker.Accepted(still), mask.Evidence.Moved
	seen.mask = mask.Evidence.Area > 0
	if t.Visible >= clipWhole {
		want, err := truthOf(maskFile, f, part, mask.Width, mask.Height)
		if err != nil {
			return seen, err
		}
		seen.overlap, seen.still = intersectionOverUnion(mask.Pixels, want), intersectionOverUnion(still.Pixels, want)
	}
	seen.features, seen.margin = adapt.Summary(out.Class, out.Features, mask, rows, cols), 1
	if out.Logits != nil {
		p := model.Probabilities(out.Logits)
		order := slices.Clone(p)
		slices.Sort(order)
		best := slices.Index(p, order[len(order)-1])
		seen.predicted = c.Label(best)
		if len(order) > 1 {
			seen.margin = float64(order[len(order)-1] - order[len(order)-2])
		}
	}
	seen.jpeg, err = encode(f)
	return seen, err
}

// truthOf reads the true mask of a frame at the size of a mask that covers a part of it.
func truthOf(file string, f capture.Frame, part image.Rectangle, width, height int) ([]byte, error) {
	r, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	whole, err := png.Decode(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if b := whole.Bounds(); b.Dx() != f.Width || b.Dy() != f.Height {
		return nil, fmt.Errorf("%s: %d x %d pixels, the frame has %d x %d", file, b.Dx(), b.Dy(), f.Width, f.Height)
	}
	mask := make([]byte, width*height)
	for y := range height {
		for x := range width {
			if v, _, _, _ := whole.At(part.Min.X+(2*x+1)*part.Dx()/(2*width), part.Min.Y+(2*y+1)*part.Dy()/(2*height)).RGBA(); v > 0x7fff {
				mask[y*width+x] = 255
			}
		}
	}
	return mask, nil
}

func encode(f capture.Frame) ([]byte, error) {
	picture := image.NewRGBA(image.Rect(0, 0, f.Width, f.Height))
	for i := range f.Width * f.Height {
		copy(picture.Pix[4*i:4*i+3], f.RGB[3*i:])
		picture.Pix[4*i+3] = 255
	}
	var out bytes.Buffer
	err := jpeg.Encode(&out, picture, &jpeg.Options{Quality: 92})
	return out.Bytes(), err
}

func reportClip(w io.Writer, name string, frames []clipFrame) {
	var ours, plain, oursOK, plainOK []float64
	with, byMotion, empty, emptyOK, partly := 0, 0, 0, 0, 0
	for _, f := range frames {
		switch {
		case f.Visible == 0:
			empty++
			if f.accepted {
				emptyOK++
			}
		case f.Visible < clipWhole:
			partly++
		default:
			with++
			ours, plain = append(ours, f.overlap), append(plain, f.still)
			if f.accepted {
				oursOK = append(oursOK, f.overlap)
			}
			if f.stillOK {
				plainOK = append(plainOK, f.still)
			}
			if f.moved {
				byMotion++
			}
		}
	}
	part := func(n, all int) string { return fmt.Sprintf("%.0f %%", 100*float64(n)/float64(max(all, 1))) }
	fmt.Fprintf(w, "camera %s: %d frames with a whole object, %d with a part of one, %d without\n", name, with, partly, empty)
	fmt.Fprintf(w, "  %-38s mean IoU %.3f, accepted (%s) %.3f\n", "with motion", stat.Mean(ours, nil), part(len(oursOK), with), stat.Mean(oursOK, nil))
	fmt.Fprintf(w, "  %-38s mean IoU %.3f, accepted (%s) %.3f\n", "without", stat.Mean(plain, nil), part(len(plainOK), with), stat.Mean(plainOK, nil))
	fmt.Fprintf(w, "  motion chose the object in %s of them; of the empty frames %s have an accepted mask\n", part(byMotion, with), part(emptyOK, empty))
}

// liveDay lets the frames of the clips pass for 24 hours of simulated time and tells what is kept.
func liveDay(w io.Writer, cameras []string, frames map[string][]clipFrame, digest string) error {
	dir, err := os.MkdirTemp("", "fovea-day-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	kept, err := store.Open(context.Background(), dir, store.Options{})
	if err != nil {
		return err
	}
	defer kept.Close()
	begin := time.Date(2026, 6, 1, 0, 0, 0, 0, time.Local)
	looked, judging := 0, time.Duration(0)
	reasons := map[string]int{}
	for tick := range int(24 * 3600 * clipFPS) {
		at := begin.Add(time.Duration(float64(tick) / clipFPS * float64(time.Second)))
		for _, id := range cameras {
			f := frames[id][tick%len(frames[id])]
			c := store.Candidate{Camera: id, Time: at, Features: f.features, Backbone: digest, Predicted: f.predicted, Margin: f.margin}
			began := time.Now()
			why, worth := store.DefaultTaste.Judge(c, kept.Samples.Around(c))
			judging += time.Since(began)
			looked++
			if !worth {
				continue
			}
			reasons[string(why)]++
			_, err := kept.Samples.Put(context.Background(), store.Sample{
				Meta: store.Meta{Camera: id, Time: at, Width: 640, Height: 480, Predicted: f.predicted, Backbone: digest, Why: string(why), Label: f.Class},
				JPEG: f.jpeg, Features: f.features,
			})
			if err != nil {
				return err
			}
		}
	}
	near, classes := 0, map[string]int{}
	list := kept.Samples.List(nil)
	units := map[uint64][]float64{}
	for _, m := range list {
		s, err := kept.Samples.Get(m.Seq)
		if err != nil {
			return err
		}
		units[m.Seq] = unit(s.Features)
		classes[m.Label]++ // the truth; "" is an empty view
	}
	for _, m := range list {
		if slices.ContainsFunc(list, func(o store.Meta) bool {
			return o.Seq != m.Seq && o.Camera == m.Camera && inner(units[m.Seq], units[o.Seq]) > .95
		}) {
			near++
		}
	}
	fmt.Fprintf(w, "a day: %d frames looked at, %.2f ms each; %d kept (%v), classes %v, near another of its camera (cosine above .95): %d, %.1f %%\n",
		looked, judging.Seconds()*1000/float64(looked), len(list), reasons, classes, near, 100*float64(near)/float64(max(len(list), 1)))
	return nil
}

func unit(v []float32) []float64 {
	out := make([]float64, len(v))
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	for i, x := range v {
		out[i] = float64(x) / max(1e-12, math.Sqrt(sum))
	}
	return out
}

func inner(a, b []float64) (sum float64) {
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}
