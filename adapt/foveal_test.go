package adapt

import (
	"image"
	"math"
	"testing"

	"github.com/seed-a98b2d25/fovea/model"
)

func TestFovealBox(t *testing.T) {
	view := slope(120, 80)
	for _, test := range []struct {
		name string
		mask image.Rectangle
		want image.Rectangle
		ok   bool
	}{
		{"dilated", image.Rect(40, 20, 80, 60), image.Rect(37, 17, 83, 63), true},
		{"a small one gets half the side", image.Rect(60, 40, 64, 44), image.Rect(42, 22, 82, 62), true},
		{"moved into the frame", image.Rect(0, 0, 10, 10), image.Rect(0, 0, 40, 40), true},
		{"moved into the frame, right", image.Rect(110, 70, 120, 80), image.Rect(80, 40, 120, 80), true},
		{"as large as the frame", image.Rect(10, 2, 100, 78), image.Rect(15, 0, 95, 80), false},
		{"nothing", image.Rectangle{}, image.Rectangle{}, false},
		{"the background", image.Rect(0, 0, 120, 80), image.Rectangle{}, false},
	} {
		_, mask := withBox(view, test.mask)
		if box, ok := FovealBox(mask, 120, 80); box != test.want || ok != test.ok {
			t.Errorf("%s: %v %v, want %v %v", test.name, box, ok, test.want, test.ok)
		}
	}
	_, mask := withBox(view, image.Rect(40, 20, 80, 60))
	mask[0] = 255 // a speck elsewhere counts not
	if box, _ := FovealBox(mask, 120, 80); box != image.Rect(37, 17, 83, 63) {
		t.Errorf("with a speck: %v", box)
	}
	cut := FovealView(view.RGB, 120, image.Rect(37, 17, 83, 63))
	if len(cut) != 3*46*46 || cut[0] != byte(50+37) || cut[1] != byte(200-17) {
		t.Errorf("%d bytes, first %v", len(cut), cut[:3])
	}
}

func TestFovealLogitsMultiplyProbabilities(t *testing.T) {
	a, b := []float32{2, 0, -1}, []float32{-500, -499, -505}
	p, q := model.Probabilities(a), model.Probabilities(b)
	got := model.Probabilities(FovealLogits(a, b))
	sum := 0.
	for i := range p {
		sum += float64(p[i]) * float64(q[i])
	}
	for i := range p {
		if want := float64(p[i]) * float64(q[i]) / sum; math.Abs(float64(got[i])-want) > 1e-5 {
			t.Errorf("class %d: %g, want %g", i, got[i], want)
		}
	}
}

// The box of a mask of part of a frame lies in that part, and a mask of little quality has none.
func TestSecondLookInTheFrame(t *testing.T) {
	m := Mask{Width: 10, Height: 10, Pixels: make([]byte, 100), Quality: .6}
	for _, i := range []int{22, 23, 32, 33} {
		m.Pixels[i] = 255
	}
	view := image.Rect(40, 0, 140, 100) // ten pixels of the frame for one of the mask
	inside, ok := FovealBox(m.Pixels, 10, 10)
	if !ok {
		t.Fatal("no box")
	}
	want := image.Rect(40+10*inside.Min.X, 10*inside.Min.Y, 40+10*inside.Max.X, 10*inside.Max.Y)
	if box, ok := m.SecondLook(view, 180, 100, .5); !ok || box != want {
		t.Errorf("%v %v, want %v", box, ok, want)
	}
	if box, ok := m.SecondLook(view, 180, 100, .7); ok || !box.Empty() {
		t.Errorf("a mask of quality %g points to %v", m.Quality, box)
	}
	if box, ok := m.SecondLook(image.Rect(-60, 0, 40, 100), 180, 100, .5); ok && !box.In(image.Rect(0, 0, 180, 100)) {
		t.Errorf("%v lies outside of the frame", box)
	}
}
