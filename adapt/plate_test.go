package adapt

import (
	"image"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-a98b2d25/fovea/model"
)

// slope is a smooth view.
func slope(w, h int) *Picture {
	p := &Picture{Width: w, Height: h, RGB: make([]byte, 3*w*h)}
	for i := range w * h {
		p.RGB[3*i], p.RGB[3*i+1], p.RGB[3*i+2] = byte(50+i%w), byte(200-i/w), 90
	}
	return p
}

// withBox draws a white box and returns the picture and the box's mask.
func withBox(p *Picture, box image.Rectangle) (*Picture, []byte) {
	out := &Picture{Width: p.Width, Height: p.Height, RGB: slices.Clone(p.RGB)}
	mask := make([]byte, p.Width*p.Height)
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			i := y*p.Width + x
			mask[i] = 255
			copy(out.RGB[3*i:], []byte{255, 255, 255})
		}
	}
	return out, mask
}

// worst is the largest difference of two pictures.
func worst(a, b *Picture) int {
	most := 0
	for i, v := range a.RGB {
		most = max(most, int(math.Abs(float64(v)-float64(b.RGB[i]))))
	}
	return most
}

// TestPlateHasNoObjects: an object that passes vanishes with and without its mask, and one that rests in five of
// seven frames vanishes by its mask, which a plain median would keep.
func TestPlateHasNoObjects(t *testing.T) {
	view := slope(100, 60)
	var frames []Frame
	for i := range 7 {
		at := 12 * i
		if i < 5 {
			at = 30
		}
		p, mask := withBox(view, image.Rect(at, 20, at+12, 40))
		frames = append(frames, Frame{p, mask})
	}
	b, err := Plate("yard", frames)
	if err != nil {
		t.Fatal(err)
	}
	if d := worst(b.Picture, view); d > 1 {
		t.Errorf("the plate is off by %d grey levels", d)
	}
	if b.Seen < .99 || b.Camera != "yard" || b.Frames != 7 {
		t.Errorf("%+v", b)
	}
	for i := range frames {
		frames[i].Mask = nil
	}
	if b, err = Plate("yard", frames); err != nil {
		t.Fatal(err)
	}
	if d := worst(b.Picture, view); d < 50 {
		t.Error("the median without masks lost what rests: this test shows nothing")
	}
	if _, err := Plate("yard", frames[:4]); err == nil {
		t.Error("a plate of four frames")
	}
	frames[2].Picture = slope(99, 60)
	if _, err := Plate("yard", frames); err == nil {
		t.Error("a plate of frames of two sizes")
	}
}

func TestFlattenFillsSmoothly(t *testing.T) {
	view := slope(100, 60)
	p, mask := withBox(view, image.Rect(30, 20, 50, 40))
	if d := worst(p.FlattenObject(mask), view); d > 6 {
		t.Errorf("the filled part is off by %d grey levels", d)
	}
	all := make([]byte, 100*60)
	for i := range all {
		all[i] = 255
	}
	p.Flatten(all) // nothing is known: it must only end
	if d := worst(p.Flatten(make([]byte, 100*60)), p); d != 0 {
		t.Errorf("an empty mask changed the picture by %d", d)
	}
}

func TestGrow(t *testing.T) {
	mask := make([]byte, 9*7)
	mask[3*9+4] = 1
	got := grow(mask, 9, 7, 2)
	for i, v := range got {
		inside := math.Abs(float64(i%9-4)) <= 2 && math.Abs(float64(i/9-3)) <= 2
		if (v != 0) != inside {
			t.Fatalf("pixel %d,%d is %d", i%9, i/9, v)
		}
	}
}

// TestObjectsBringNoSurroundings: the donor's background is pure green; laid on a view, none of it is seen, whatever
// the size and feather.
func TestObjectsBringNoSurroundings(t *testing.T) {
	donor := &Picture{Width: 80, Height: 80, RGB: make([]byte, 3*80*80)}
	mask := make([]byte, 80*80)
	for i := range mask {
		donor.RGB[3*i+1] = 255
		if math.Hypot(float64(i%80)-40, float64(i/80)-40) < 20 {
			mask[i] = 255
			copy(donor.RGB[3*i:], []byte{200, 0, 200})
		}
	}
	object, err := lift(donor, mask)
	if err != nil {
		t.Fatal(err)
	}
	pre := model.Preprocess{Height: 64, Width: 64, ResizeHeight: 64, ResizeWidth: 64, KeepAspect: true, Filter: model.Bilinear, Scale: 1, Std: [3]float64{1, 1, 1}}
	view := &Picture{Width: 120, Height: 80, RGB: make([]byte, 3*120*80)}
	for i := range view.RGB {
		view.RGB[i] = 100
	}
	random := rand.New(rand.NewPCG(1, 1))
	seen := pre.View(view.Width, view.Height)
	for _, p := range []placing{trainPlacing, judgePlacing} {
		for range 20 {
			out, on := p.onto(view, object, pre, random)
			covered := 0
			for i := range on {
				if out.RGB[3*i+1] > 100 {
					t.Fatalf("green %d at %d,%d", out.RGB[3*i+1], i%120, i/120)
				}
				if on[i] == 0 {
					continue
				}
				covered++
				if !image.Pt(i%120, i/120).In(seen) {
					t.Fatalf("the object is laid at %d,%d, which the network does not see (%v)", i%120, i/120, seen)
				}
			}
			if share := math.Sqrt(float64(covered)/(math.Pi/4)) / 80; share < p.least-.08 || share > p.most+.05 {
				t.Errorf("the object is %.2f of the view, want %.2f to %.2f", share, p.least, p.most)
			}
		}
	}
}
