package adapt_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// The world of these tests: coloured objects on textured, tinted backgrounds. In the labelled pictures four of five
// backgrounds have the tint of their class, so that a head learns to read them; two cameras then show all classes
// on views that have the tint of one.
const (
	worldSide    = 48
	worldObjects = 12 // labelled objects of a class
)

var (
	worldClasses = []string{"blue", "green", "red"}
	worldColours = [][3]float64{{60, 80, 215}, {60, 190, 70}, {215, 65, 60}}
	worldTints   = [][3]float64{{120, 110, 150}, {112, 145, 112}, {150, 112, 108}}
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

func worldConfig() model.Config {
	return model.Config{
		ImageHeight: worldSide, ImageWidth: worldSide, Patch: 8, Dim: 32, Depth: 2, Heads: 2, Hidden: 64, Readout: model.ReadClass,
		PrefixPosition: true, QKVBias: true, LayerScale: true, Epsilon: 1e-6, PositionResize: model.PositionBicubic,
	}
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
	if w.backend, err = model.OpenBackend(model.BackendGo, model.Plugin{}, model.Plugin{}); err != nil {
		return nil, err
	}
	ctx := context.Background()
	r := rand.New(rand.NewPCG(4, 4))
	if err := writeLabelled(filepath.Join(dir, "labelled"), r); err != nil {
		return nil, err
	}
	if err := w.fit(ctx, filepath.Join(dir, "labelled")); err != nil {
		return nil, err
	}
	var cameras [][]byte // views
	for _, tint := range []int{0, 2} {
		cameras = append(cameras, texture(worldTints[tint], r))
	}
	if err := w.pack(filepath.Join(dir, "world.pack"), cameras, r); err != nil {
		return nil, err
	}
	for n := range 600 {
		class := n % 3
		rgb := slices.Clone(cameras[n/3%2])
		drawObject(rgb, newObject(class, r), r)
		pixels := make([]float32, 3*worldSide*worldSide)
		if err := w.in.Base.Preprocess.Pixels(rgb, worldSide, worldSide, pixels); err != nil {
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

// fit makes the base: a random backbone under a head fitted on the labelled pictures.
func (w *world) fit(ctx context.Context, dir string) error {
	backbone := model.Random(worldConfig(), 3)
	net, err := model.NewNet(w.backend, backbone)
	if err != nil {
		return err
	}
	defer net.Close()
	set, err := adapt.ReadLabelled(dir)
	if err != nil {
		return err
	}
	x, width, err := set.Features(ctx, net, model.ReadClass, nil)
	if err != nil {
		return err
	}
	set.Group(x, width)
	set.Split()
	e := &adapt.Examples{Width: width, Classes: 3}
	for i, p := range set.Pictures {
		if p.Part == adapt.Fit {
			e.X = append(e.X, x[i*width:(i+1)*width]...)
			e.Class, e.Group = append(e.Class, p.Class), append(e.Group, p.Group)
		}
	}
	fit, err := adapt.FitHead(ctx, e, set.Classes, 1, nil)
	if err != nil {
		return err
	}
	if err := fit.Into(backbone, model.ReadClass, set.Classes); err != nil {
		return err
	}
	w.in.Base, w.in.Parent, w.in.Labelled = backbone, backbone, set
	return nil
}

// pack samples both cameras for some minutes: three frames of an object, an empty one, and so on.
func (w *world) pack(file string, cameras [][]byte, r *rand.Rand) error {
	var samples []adapt.Sample
	for camera, view := range cameras {
		var times []time.Time
		for i := range 80 {
			times = append(times, time.Unix(1_800_000_000+int64(4*i)+int64(i/4*20), 0))
		}
		var o object
		for i, part := range adapt.Divide(times, 8, 5*time.Second) {
			if i%4 == 0 {
				o = newObject(r.IntN(3), r)
			}
			rgb := slices.Clone(view)
			var mask []byte
			if i%4 != 3 {
				mask = drawObject(rgb, o, r)
			}
			if part == "" {
				continue
			}
			var b bytes.Buffer
			if err := jpeg.Encode(&b, picture(rgb), &jpeg.Options{Quality: 95}); err != nil {
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

func writeLabelled(dir string, r *rand.Rand) error {
	for class, name := range worldClasses {
		for i := range worldObjects {
			o := newObject(class, r)
			at := filepath.Join(dir, name, fmt.Sprintf("%02d", i))
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			for k := range 3 {
				tint := class
				if r.IntN(5) == 0 {
					tint = r.IntN(3)
				}
				rgb := texture(worldTints[tint], r)
				mask := drawObject(rgb, o, r)
				if err := writeImage(filepath.Join(at, fmt.Sprint(k, ".png")), picture(rgb)); err != nil {
					return err
				}
				if err := writeImage(filepath.Join(at, fmt.Sprint(k, ".mask.png")), &image.Gray{Pix: mask, Stride: worldSide, Rect: image.Rect(0, 0, worldSide, worldSide)}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func writeImage(file string, img image.Image) error {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func picture(rgb []byte) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, worldSide, worldSide))
	for i := range worldSide * worldSide {
		img.SetRGBA(i%worldSide, i/worldSide, color.RGBA{rgb[3*i], rgb[3*i+1], rgb[3*i+2], 255})
	}
	return img
}

// texture is a tinted view of waves.
func texture(tint [3]float64, r *rand.Rand) []byte {
	rgb := make([]byte, 3*worldSide*worldSide)
	var wave [4][3]float64
	for i := range wave {
		wave[i] = [3]float64{.6 * (r.Float64() - .5), .6 * (r.Float64() - .5), 7 * r.Float64()}
	}
	for y := range worldSide {
		for x := range worldSide {
			v := 0.
			for _, w := range wave {
				v += 12 * math.Sin(w[0]*float64(x)+w[1]*float64(y)+w[2])
			}
			for k := range 3 {
				rgb[3*(y*worldSide+x)+k] = byte(min(max(tint[k]+v+6*r.NormFloat64(), 0), 255))
			}
		}
	}
	return rgb
}

// object is a thing of a class: its colour, shape and size.
type object struct {
	colour [3]float64
	shape  int
	radius float64
}

func newObject(class int, r *rand.Rand) object {
	o := object{shape: r.IntN(3), radius: 8 + 5*r.Float64()}
	for k := range o.colour {
		o.colour[k] = worldColours[class][k] + 25*r.NormFloat64()
	}
	return o
}

// drawObject draws an object somewhere and returns its mask.
func drawObject(rgb []byte, o object, r *rand.Rand) []byte {
	mask := make([]byte, worldSide*worldSide)
	free := worldSide - 2*o.radius - 2
	cx, cy := 1+o.radius+free*r.Float64(), 1+o.radius+free*r.Float64()
	for y := range worldSide {
		for x := range worldSide {
			dx, dy := float64(x)-cx, float64(y)-cy
			inside := math.Hypot(dx, dy) <= o.radius
			switch o.shape {
			case 1:
				inside = max(math.Abs(dx), math.Abs(dy)) <= .85*o.radius
			case 2:
				inside = math.Abs(dx)+math.Abs(dy) <= 1.1*o.radius
			}
			if !inside {
				continue
			}
			mask[y*worldSide+x] = 255
			for k := range 3 {
				rgb[3*(y*worldSide+x)+k] = byte(min(max(o.colour[k]+8*r.NormFloat64(), 0), 255))
			}
		}
	}
	return mask
}
