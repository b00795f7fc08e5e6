package adapt

import (
	"bytes"
	"image"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestPublishedMaskGolden(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		features, gridH, gridW := g.features(t)
		shape := g.shape(t, "image")
		m := NewMasker(MaskOptions{Cut: PublishedCut})
		coarse, binary, flipped, err := m.Published(View{Features: features, GridH: gridH, GridW: gridW, RGB: g.bytes(t, "image"), Height: shape[0], Width: shape[1]})
		if err != nil {
			t.Fatal(err)
		}
		identical(t, "mask_up", coarse, g.bytes(t, "mask_up"))
		identical(t, "solver_binary", binary, g.bytes(t, "solver_binary"))
		final := make([]float64, len(binary))
		for i, v := range binary {
			final[i] = float64(v)
			if flipped {
				final[i] = -float64(v)
			}
		}
		identical(t, "final_mask", final, g.values(t, "final_mask"))
	})
}

// scene is a picture of a disc on a plain ground with noise, and features that
// tell the two apart as a network would.
func scene(gridH, gridW, cell int, invert bool) (v View, truth []uint8) {
	const dim = 32
	height, width := gridH*cell, gridW*cell
	inside := func(y, x float64) bool {
		y, x = y/float64(height)-.5, x/float64(width)-.45
		return x*x+y*y < .08
	}
	features := clustered(3, gridH*gridW, dim, 2)
	sorted := slices.Clone(features) // the first half around one centre, the rest around the other
	a, b := 0, len(features)/2
	for i := range gridH * gridW {
		from := &b
		if inside((float64(i/gridW)+.5)*float64(cell), (float64(i%gridW)+.5)*float64(cell)) != invert {
			from = &a
		}
		copy(features[i*dim:(i+1)*dim], sorted[*from:*from+dim])
		*from += dim
		if *from == len(features)/2 || *from == len(features) {
			*from -= dim * 8 // reuse the last few
		}
	}
	rgb, truth := make([]uint8, 3*height*width), make([]uint8, height*width)
	for i := range truth {
		shade := uint8(200)
		if inside(float64(i/width), float64(i%width)) {
			truth[i], shade = 1, 60
		}
		for c := range 3 {
			rgb[3*i+c] = shade + uint8((i*7+c*5)%11)
		}
	}
	return View{Features: features, GridH: gridH, GridW: gridW, RGB: rgb, Height: height, Width: width}, truth
}

// The object is found whichever cluster the network gives it, and follows the
// picture's edge more closely than the patches do.
func TestMaskFindsObject(t *testing.T) {
	for _, invert := range []bool{false, true} {
		view, truth := scene(14, 18, 16, invert)
		m := NewMasker(DefaultMasks)
		mask, err := m.Mask(view)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]uint8, len(truth))
		for i, v := range mask.Pixels {
			got[i] = v & 1
		}
		coarse, fine := overlap(m.coarse, truth), overlap(got, truth)
		t.Logf("overlap %.3f, before the solver %.3f; quality %.2f, %+v", fine, coarse, mask.Quality, mask.Evidence)
		if fine < .97 || fine <= coarse {
			t.Errorf("overlap with the truth is %.3f, before the solver %.3f", fine, coarse)
		}
		if !m.Accepted(mask) {
			t.Errorf("a clear object has quality %.2f", mask.Quality)
		}
	}
}

// Of two things that stand out alike, the one that moved is the object.
func TestMaskFollowsMotion(t *testing.T) {
	view, truth := scene(16, 16, 14, false)
	background := make([]byte, len(truth)) // what moved, cell by cell of one pixel: all but the disc
	for i, v := range truth {
		background[i] = 1 - v
	}
	for name, c := range map[string]struct{ motion, want []byte }{"disc": {truth, truth}, "surroundings": {background, background}} {
		view.Moved = PatchMotion(c.motion, view.Height, view.Width, 1, image.Rect(0, 0, view.Width, view.Height), view.GridH, view.GridW)
		mask, err := NewMasker(DefaultMasks).Mask(view)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]uint8, len(truth))
		for i, v := range mask.Pixels {
			got[i] = v & 1
		}
		// The surroundings' hole, the disc, is filled: holes are.
		want := c.want
		if name == "surroundings" {
			want = bytes.Repeat([]byte{1}, len(truth))
		}
		if o := overlap(got, want); o < .95 || !mask.Evidence.Moved {
			t.Errorf("the %s moved, and the mask overlaps it by %.3f: %+v", name, o, mask.Evidence)
		}
	}
	view.Moved = make([]float32, view.GridH*view.GridW)
	if mask, err := NewMasker(DefaultMasks).Mask(view); err != nil || mask.Evidence.Moved || mask.Quality != 0 {
		t.Errorf("nothing moved: error %v, quality %.2f, %+v", err, mask.Quality, mask.Evidence)
	}
	view.Moved = view.Moved[1:]
	if _, err := NewMasker(DefaultMasks).Mask(view); err == nil {
		t.Error("no error for motion of a wrong length")
	}
}

func TestPatchMotion(t *testing.T) {
	motion := []byte{
		0, 0, 0, 0,
		0, 255, 255, 0,
		0, 0, 0, 0,
	}
	got := PatchMotion(motion, 3, 4, 8, image.Rect(8, 0, 24, 16), 2, 2)
	if want := []float32{0, 0, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("moved shares %v, want %v", got, want)
	}
}

func TestMaskOfNothing(t *testing.T) {
	const side, grid = 64, 8
	view := View{Features: make([]float32, grid*grid*8), GridH: grid, GridW: grid, RGB: make([]uint8, 3*side*side), Height: side, Width: side}
	mask, err := NewMasker(DefaultMasks).Mask(view)
	if err != nil {
		t.Fatal(err)
	}
	if mask.Quality > DefaultMasks.Floor {
		t.Errorf("a black picture has a mask of quality %.2f: %+v", mask.Quality, mask.Evidence)
	}
}

func TestQualityRejects(t *testing.T) {
	good := MaskEvidence{Lambda2: .03, Decision: .95, Border: .02, Area: .2, Agreement: .8}
	if q := good.quality(); q < .8 {
		t.Errorf("good evidence has quality %.2f", q)
	}
	for name, worse := range map[string]func(*MaskEvidence){
		"speck":        func(e *MaskEvidence) { e.Area = .01 },
		"everything":   func(e *MaskEvidence) { e.Area = .9 },
		"disagreement": func(e *MaskEvidence) { e.Agreement = .2 },
		"background":   func(e *MaskEvidence) { e.Border = .4 },
	} {
		e := good
		worse(&e)
		if q := e.quality(); q >= DefaultMasks.Floor {
			t.Errorf("%s has quality %.2f", name, q)
		}
	}
	for _, worse := range []MaskEvidence{
		{Lambda2: .6, Decision: .95, Border: .02, Area: .2, Agreement: .8},
		{Lambda2: .03, Decision: .6, Border: .02, Area: .2, Agreement: .8},
		{Lambda2: .03, Decision: .95, Border: .2, Area: .2, Agreement: .8},
	} {
		if worse.quality() >= good.quality() {
			t.Errorf("%+v is no worse than %+v", worse, good)
		}
	}
}

func TestBorder(t *testing.T) {
	mask := []uint8{
		1, 1, 0, 0,
		1, 1, 0, 0,
		0, 0, 0, 1,
	}
	var r regions
	r.label(mask, 3, 4)
	touched, all := r.borderAreas()
	if touched[r.at(0)] != 3 || touched[r.at(11)] != 1 || touched[r.at(2)] != 6 || all != 10 {
		t.Errorf("border areas are %v of %d", touched, all)
	}
}

// BenchmarkMask is what a mask costs beyond the forward pass. On a busy machine
// cpu-ms/op, the processor time, is the figure to read.
func BenchmarkMask(b *testing.B) {
	for _, c := range []struct {
		name                        string
		gridH, gridW, height, width int
	}{{"196", 14, 14, 224, 224}, {"256", 16, 16, 224, 224}, {"1200", 30, 40, 332, 500}} {
		b.Run(c.name, func(b *testing.B) {
			view := View{
				Features: clustered(5, c.gridH*c.gridW, 384, 3), GridH: c.gridH, GridW: c.gridW,
				RGB: speckled(c.height, c.width), Height: c.height, Width: c.width,
			}
			m := NewMasker(DefaultMasks)
			start := processorTime(b)
			for b.Loop() {
				if _, err := m.Mask(view); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((processorTime(b)-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(len(m.solver.key)), "vertices")
			b.ReportMetric(float64(m.cutter.eigen.products), "products")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
