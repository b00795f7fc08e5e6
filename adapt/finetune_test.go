package adapt

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/seed-a98b2d25/fovea/model"
)

// TestLossGradient compares the gradient of the step with the slope of the loss by finite differences, for each
// parameter along a random direction. G is a constant of the step, so the differences hold it at its value where
// the gradient is taken.
func TestLossGradient(t *testing.T) {
	b := openBackend(t, model.BackendGo)
	k, r := tiny(7), rand.New(rand.NewPCG(3, 3))
	batch := noise(k.Config, 2, r)
	o := Published.Objective
	o.Temperature = .7
	tuner, err := NewTuner(b, k, TunerOptions{Objective: o, AdamW: Published.AdamW})
	if err != nil {
		t.Fatal(err)
	}
	defer tuner.Close()
	_, gradients, err := tuner.gradients(batch)
	if err != nil {
		t.Fatal(err)
	}
	held := newHeldLoss(t, b, k, o, batch)
	i := 0
	for _, g := range tuner.groups {
		for _, at := range g.at {
			gradient := tensors.MustCopyFlatData[float32](gradients[i])
			i++
			direction := make([]float64, len(gradient))
			var want, square float64
			for n := range direction {
				direction[n] = r.NormFloat64()
				want += direction[n] * float64(gradient[n])
				square += float64(held.flat[at][n]) * float64(held.flat[at][n])
			}
			h := .01 * math.Sqrt(square/float64(len(direction))) // a hundredth of the parameter's own size
			got := (held.at(t, at, h, direction) - held.at(t, at, -h, direction)) / (2 * h)
			if !(math.Abs(got-want) <= 2e-3+.02*math.Abs(want)) {
				t.Errorf("%s: slope %.6f by differences, %.6f by the gradient", tuner.params[at].Name, got, want)
			}
		}
	}
}

// heldLoss is the loss as a function of the weights with every G_l held.
type heldLoss struct {
	loss   *graph.Exec
	flat   [][]float32
	shapes []model.Param
	rest   []any // G_l, images, masks, classes
}

func newHeldLoss(t *testing.T, b *model.Backend, k *model.Checkpoint, o Objective, batch Batch) *heldLoss {
	t.Helper()
	c, n := k.Config, len(batch.Classes)
	f := &heldLoss{flat: k.Params.Flat(c), shapes: c.List()}
	values := runExplain(t, b, k, batch)
	for l := range c.Depth {
		f.rest = append(f.rest, tensors.FromFlatDataAndDimensions(values[fmt.Sprint("G", l)], n, c.Heads, c.Tokens(), c.Tokens()))
	}
	f.rest = append(f.rest,
		tensors.FromFlatDataAndDimensions(batch.Pixels, n, 3, c.ImageHeight, c.ImageWidth),
		tensors.FromFlatDataAndDimensions(batch.Masks, n, c.ImageHeight, c.ImageWidth))
	var err error
	f.loss, err = graph.NewExec(b.Compute, func(in []*graph.Node) *graph.Node {
		weights, held, in := in[:len(f.flat)], in[len(f.flat):len(f.flat)+c.Depth], in[len(f.flat)+c.Depth:]
		s := model.Forward(c, model.ParamsFrom(c, weights), in[0], model.AllTokens)
		one := graph.ScalarOne(in[0].Graph(), in[0].DType())
		trust := graph.BroadcastToDims(one, n)
		return o.Loss(none.maps(c, none.lowres(c, s, held)), in[1], s.Logits, ownGuess(s.Logits), trust, one).Total
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// at evaluates the loss with parameter i moved by h along a direction.
func (f *heldLoss) at(t *testing.T, i int, h float64, direction []float64) float64 {
	t.Helper()
	var args []any
	for k, v := range f.flat {
		if k == i {
			v = slices.Clone(v)
			for n := range v {
				v[n] += float32(h * direction[n])
			}
		}
		args = append(args, tensors.FromFlatDataAndDimensions(v, f.shapes[k].Shape...))
	}
	out, err := f.loss.Call(append(args, f.rest...)...)
	if err != nil {
		t.Fatal(err)
	}
	return float64(tensors.MustCopyFlatData[float32](out[0])[0])
}

// tiny is a ViT of 32 x 32 pixels with random weights.
func tiny(seed uint64) *model.Checkpoint {
	return model.Random(model.Config{
		ImageHeight: 32, ImageWidth: 32, Patch: 8, Dim: 24, Depth: 2, Heads: 2, Hidden: 48, Classes: 3,
		Readout: model.ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6,
		PositionResize: model.PositionBicubic, Labels: []string{"red", "green", "blue"},
	}, seed)
}

func noise(c model.Config, n int, r *rand.Rand) Batch {
	var b Batch
	for range n * 3 * c.ImageHeight * c.ImageWidth {
		b.Pixels = append(b.Pixels, float32(r.NormFloat64()))
	}
	for range n {
		b.Classes = append(b.Classes, int32(r.IntN(c.Classes)))
		for i := range c.ImageHeight * c.ImageWidth {
			m := float32(0)
			if i/c.ImageWidth < 20 && i%c.ImageWidth > 10 {
				m = 1
			}
			b.Masks = append(b.Masks, m)
		}
	}
	return b
}

// toySet writes coloured squares on noise, in class folders, and their masks.
func toySet(t *testing.T, n int) (images, masks string) {
	t.Helper()
	images, masks = t.TempDir(), t.TempDir()
	r := rand.New(rand.NewPCG(5, 5))
	for k, class := range []string{"red", "green", "blue"} {
		for _, dir := range []string{images, masks} {
			if err := os.MkdirAll(filepath.Join(dir, class), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			picture, mask := image.NewRGBA(image.Rect(0, 0, 40, 40)), image.NewGray(image.Rect(0, 0, 40, 40))
			x0, y0 := r.IntN(22), r.IntN(22)
			for y := range 40 {
				for x := range 40 {
					v := [3]uint8{uint8(60 + r.IntN(90)), uint8(60 + r.IntN(90)), uint8(60 + r.IntN(90))}
					if x >= x0 && x < x0+18 && y >= y0 && y < y0+18 {
						v = [3]uint8{}
						v[k] = uint8(190 + r.IntN(60))
						mask.SetGray(x, y, color.Gray{Y: 255})
					}
					picture.SetRGBA(x, y, color.RGBA{R: v[0], G: v[1], B: v[2], A: 255})
				}
			}
			name := fmt.Sprintf("%s/%02d.png", class, i)
			writePNG(t, filepath.Join(images, name), picture)
			writePNG(t, filepath.Join(masks, name), mask)
		}
	}
	return images, masks
}

func writePNG(t *testing.T, file string, m image.Image) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, m); err != nil {
		t.Fatal(err)
	}
}

// toyModel fits a head on the toy set.
func toyModel(t *testing.T, b *model.Backend, images string) *model.Checkpoint {
	t.Helper()
	k := tiny(11)
	backbone := *k
	backbone.Config.Classes, backbone.Config.Labels = 0, nil
	net, err := model.NewNet(b, &backbone)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	set, err := ReadLabelled(images)
	if err != nil {
		t.Fatal(err)
	}
	x, width, err := set.Features(t.Context(), net, model.ReadClass, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &Examples{X: x, Width: width, Classes: 3}
	for i, p := range set.Pictures {
		e.Class, e.Group = append(e.Class, p.Class), append(e.Group, fmt.Sprint(i))
	}
	fit, err := FitHead(t.Context(), e, set.Classes, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Config.Labels = nil
	if err := fit.Into(k, model.ReadClass, set.Classes); err != nil {
		t.Fatal(err)
	}
	return k
}

func toySettings() Settings {
	s := Device
	s.Rate, s.Steps, s.StepsPerEpoch, s.Batch, s.MicroBatch, s.FreezeBelow = 1e-3, 30, 10, 6, 0, 0
	return s
}

func TestThirtyStepsMoveRelevanceOntoTheObject(t *testing.T) {
	b := openBackend(t, model.BackendGo)
	images, masks := toySet(t, 16)
	base := toyModel(t, b, images)
	s := toySettings()
	set, err := ReadTuneSet(t.Context(), images, MaskFolder(masks), base, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	tuned, r, err := FineTune(t.Context(), b, base, set, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("foreground %.3f to %.3f, AUROC %.3f to %.3f, accuracy %.2f to %.2f, effective patches %.1f to %.1f, step %d kept",
		r.Before.Foreground, r.After.Foreground, r.Before.AUROC, r.After.AUROC, *r.Before.Accuracy, *r.After.Accuracy, r.Before.Effective, r.After.Effective, r.Chosen)
	if !(r.After.Foreground > r.Before.Foreground+.05) {
		t.Errorf("foreground share %.3f, was %.3f", r.After.Foreground, r.Before.Foreground)
	}
	if *r.After.Accuracy < *r.Before.Accuracy {
		t.Errorf("accuracy %.2f, was %.2f", *r.After.Accuracy, *r.Before.Accuracy)
	}
	if r.Model == r.Base || tuned.Digest() != r.Model {
		t.Errorf("digest of the result is %s, of the base %s", r.Model, r.Base)
	}

	again, _, err := FineTune(t.Context(), b, base, set, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest() != tuned.Digest() {
		t.Error("the same base, pictures, settings and seed gave another model")
	}
}

func TestFrozenBlocksStayAndTheRestIsExact(t *testing.T) {
	b := openBackend(t, model.BackendGo)
	k := tiny(7)
	batch := noise(k.Config, 2, rand.New(rand.NewPCG(3, 3)))
	o := TunerOptions{Objective: Published.Objective, AdamW: Published.AdamW}
	gradients := map[int]map[string][]float32{}
	for _, below := range []int{0, 1, k.Config.Depth} {
		o.FreezeBelow = below
		tuner, err := NewTuner(b, k, o)
		if err != nil {
			t.Fatal(err)
		}
		_, list, err := tuner.gradients(batch)
		if err != nil {
			t.Fatal(err)
		}
		gradients[below] = map[string][]float32{}
		i := 0
		for _, g := range tuner.groups {
			for _, at := range g.at {
				gradients[below][tuner.params[at].Name] = tensors.MustCopyFlatData[float32](list[i])
				i++
			}
		}
		if err := tuner.apply(list, 1e-3); err != nil {
			t.Fatal(err)
		}
		after, err := tuner.Params()
		if err != nil {
			t.Fatal(err)
		}
		before := k.Params.Flat(k.Config)
		at := 0
		after.Each(k.Config, func(p model.Param, v *[]float32) {
			moved := apart(*v, wide(before[at])) > 0
			if frozen := below > 0 && p.Block < below || p.KeyBias(); moved == frozen {
				t.Errorf("freeze below %d: %s moved: %v", below, p.Name, moved)
			}
			at++
		})
		tuner.Close()
	}
	for name, g := range gradients[1] {
		compare(t, "gradient of "+name+" with block 0 frozen", g, wide(gradients[0][name]), 1e-6)
	}
}

func TestAFailedStepKeepsTheWeights(t *testing.T) {
	b := openBackend(t, model.BackendGo)
	k := tiny(7)
	tuner, err := NewTuner(b, k, TunerOptions{Objective: Published.Objective, AdamW: Published.AdamW})
	if err != nil {
		t.Fatal(err)
	}
	defer tuner.Close()
	good := noise(k.Config, 2, rand.New(rand.NewPCG(3, 3)))
	bad := good
	bad.Pixels = append([]float32{}, good.Pixels...)
	bad.Pixels[5] = float32(math.NaN())
	if _, err := tuner.Step(bad, 1e-3); err == nil {
		t.Fatal("a step on NaN succeeded")
	}
	short := good
	short.Masks = good.Masks[1:]
	if _, err := tuner.Step(short, 1e-3); err == nil {
		t.Fatal("a step with a mask too short succeeded")
	}
	after, err := tuner.Params()
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range after.Flat(k.Config) {
		compare(t, tuner.params[i].Name, v, wide(k.Params.Flat(k.Config)[i]), 0)
	}
	if _, err := tuner.Step(good, 1e-3); err != nil {
		t.Errorf("the step after a failed one: %v", err)
	}
}

func TestFineTuneStopsWhenCancelled(t *testing.T) {
	b := openBackend(t, model.BackendGo)
	images, masks := toySet(t, 3)
	base := tiny(11)
	s := toySettings()
	set, err := ReadTuneSet(t.Context(), images, MaskFolder(masks), base, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, _, err := FineTune(ctx, b, base, set, s, func(step TuneStep) {
		if step.Step == 3 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled run ended with %v", err)
	}
}

func TestTuneSetNamesWhatItLeavesOut(t *testing.T) {
	images, masks := toySet(t, 4)
	if err := os.WriteFile(filepath.Join(images, "red", "broken.jpg"), []byte("no picture"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(masks, "blue", "01.png")); err != nil {
		t.Fatal(err)
	}
	set, err := ReadTuneSet(t.Context(), images, MaskFolder(masks), tiny(1), toySettings(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Bad) != 2 || set.Bad[0].File != "blue/01.png" || set.Bad[1].File != "red/broken.jpg" {
		t.Errorf("left out: %v", set.Bad)
	}
	if n := len(set.Train) + len(set.Held); n != 11 {
		t.Errorf("%d pictures used, want 11", n)
	}
	for _, e := range append(set.Train, set.Held...) {
		if want := map[byte]int{'r': 0, 'g': 1, 'b': 2}[e.Name[0]]; e.Class != want {
			t.Errorf("%s has class %d", e.Name, e.Class)
		}
	}
	if _, err := ReadTuneSet(t.Context(), t.TempDir(), MaskFolder(masks), tiny(1), toySettings(), nil); err == nil {
		t.Error("an empty folder was accepted")
	}
}

func TestAUROC(t *testing.T) {
	for _, c := range []struct {
		r     []float32
		cover []float64
		want  float64
	}{
		{[]float32{.9, .8, .1, .2}, []float64{1, 1, 0, 0}, 1},
		{[]float32{.9, .8, .1, .2}, []float64{0, 0, 1, 1}, 0},
		{[]float32{1, 1, 1, 1}, []float64{1, 0, 1, 0}, .5},
		{[]float32{3, 2, 1}, []float64{1, 0, 1}, .5},
		{[]float32{3, 2, 1}, []float64{1, 1, 1}, .5},
	} {
		if got := auroc(c.r, c.cover); got != c.want {
			t.Errorf("auroc(%v, %v) = %g, want %g", c.r, c.cover, got, c.want)
		}
	}
}
