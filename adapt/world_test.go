package adapt_test

import (
	"bytes"
	"context"
	"fmt"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/internal/toyworld"
	"github.com/seed-a98b2d25/fovea/model"
)

// world is what a device has, and the truth.
type world struct {
	backend *model.Backend
	in      adapt.RunInput
	set     *adapt.EvalSet
	tune    *adapt.TuneSet
	said    *adapt.Outcomes // by the base
	truth   []truePicture
}

type truePicture struct {
	pixels []float32
	class  int
}

func worldRun() adapt.RunSettings {
	s := adapt.DefaultRun
	s.Refit.Swaps = 240
	s.Eval.Swaps, s.Eval.Resamples = 240, 1000
	s.Tune.Rate, s.Tune.Steps, s.Tune.StepsPerEpoch, s.Tune.MicroBatch, s.Tune.FreezeBelow = 3e-4, 20, 10, 0, 0
	s.Gate.Latency = 100 // the machine may be busy; TestEachThreshold has the real one
	return s
}

var theWorld = sync.OnceValues(makeWorld)

// openWorld makes the world once for all tests.
func openWorld(t *testing.T) *world {
	t.Helper()
	w, err := theWorld()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func makeWorld() (*world, error) {
	dir, err := os.MkdirTemp("", "fovea-world-*")
	if err != nil {
		return nil, err
	}
	worldDir = dir
	w := &world{}
	if w.backend, err = model.OpenBackend(model.BackendGo, model.Plugins{}); err != nil {
		return nil, err
	}
	ctx := context.Background()
	r := rand.New(rand.NewPCG(4, 4))
	labelled := filepath.Join(dir, "labelled")
	if err := toyworld.WriteLabelled(labelled, r); err != nil {
		return nil, err
	}
	if w.in.Base, w.in.Labelled, err = toyworld.Base(ctx, w.backend, labelled); err != nil {
		return nil, err
	}
	w.in.Parent = w.in.Base
	var cameras [][]byte // views
	for _, tint := range []int{0, 2} {
		cameras = append(cameras, toyworld.Texture(toyworld.Tints[tint], r))
	}
	if err := w.pack(filepath.Join(dir, "world.pack"), cameras, r); err != nil {
		return nil, err
	}
	for n := range 600 {
		class := n % 3
		rgb := slices.Clone(cameras[n/3%2])
		toyworld.Draw(rgb, toyworld.NewObject(class, r), r)
		pixels := make([]float32, 3*toyworld.Side*toyworld.Side)
		if err := w.in.Base.Preprocess.Pixels(rgb, toyworld.Side, toyworld.Side, pixels); err != nil {
			return nil, err
		}
		w.truth = append(w.truth, truePicture{pixels, class})
	}
	held, err := w.in.Pack.Backgrounds(ctx, adapt.Held)
	if err != nil {
		return nil, err
	}
	if w.set, err = w.in.EvalSet(ctx, w.backend, held, worldRun().Eval); err != nil {
		return nil, err
	}
	if w.said, err = w.set.Look(ctx, w.backend, w.in.Base, nil); err != nil {
		return nil, err
	}
	train, err := w.in.Pack.Backgrounds(ctx, adapt.Train)
	if err != nil {
		return nil, err
	}
	w.tune, err = w.in.TuneSet(ctx, w.backend, train, worldRun())
	return w, err
}

var worldDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if worldDir != "" {
		_ = os.RemoveAll(worldDir)
	}
	os.Exit(code)
}

// pack samples both cameras for some minutes: three frames of an object, an empty one, and so on.
func (w *world) pack(file string, cameras [][]byte, r *rand.Rand) error {
	var samples []adapt.Sample
	for camera, view := range cameras {
		var times []time.Time
		for i := range 80 {
			times = append(times, time.Unix(1_800_000_000+int64(4*i)+int64(i/4*20), 0))
		}
		var o toyworld.Object
		for i, part := range adapt.Divide(times, 8, 5*time.Second) {
			if i%4 == 0 {
				o = toyworld.NewObject(r.IntN(3), r)
			}
			rgb := slices.Clone(view)
			var mask []byte
			if i%4 != 3 {
				mask = toyworld.Draw(rgb, o, r)
			}
			if part == "" {
				continue
			}
			var b bytes.Buffer
			if err := jpeg.Encode(&b, toyworld.Picture(rgb), &jpeg.Options{Quality: 95}); err != nil {
				return err
			}
			samples = append(samples, adapt.Sample{
				Part: part, Camera: fmt.Sprint("camera", camera), Time: times[i], Sequence: uint64(1 + len(samples)),
				JPEG: b.Bytes(), Mask: mask, Quality: .9,
			})
		}
	}
	info := adapt.PackInfo{Base: w.in.Base.Digest(), Labelled: w.in.Labelled.Digest(), Gap: 5}
	_, err := adapt.WritePack(file, info, len(samples), func(i int) (adapt.Sample, error) { return samples[i], nil })
	if err != nil {
		return err
	}
	w.in.Pack, err = adapt.OpenPack(file)
	return err
}

// accuracy is the truth: the share of unseen objects on the cameras' views that a model calls right.
func (w *world) accuracy(t *testing.T, c *model.Checkpoint) float64 {
	t.Helper()
	net, err := model.NewNet(w.backend, c)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	right := 0.
	for batch := range slices.Chunk(w.truth, 100) {
		var pixels []float32
		for _, p := range batch {
			pixels = append(pixels, p.pixels...)
		}
		o, err := net.Run(0, pixels, nil)
		if err != nil {
			return 0 // not finite
		}
		for i, p := range batch {
			logits := o.Logits[i*c.Config.Classes : (i+1)*c.Config.Classes]
			if slices.Index(logits, slices.Max(logits)) == p.class {
				right++
			}
		}
	}
	return right / float64(len(w.truth))
}

// judge takes a candidate's figures beside its parent's.
func (w *world) judge(t *testing.T, parent, c *model.Checkpoint) (adapt.Verdict, *adapt.Comparison) {
	t.Helper()
	before, err := w.set.Look(t.Context(), w.backend, parent, nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := w.set.Look(t.Context(), w.backend, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := w.set.Compare(w.said, before, after)
	return adapt.Judge(f, worldRun().Gate), f
}
