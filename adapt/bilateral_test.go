package adapt

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBilateralSolverGolden(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		shape := g.shape(t, "image")
		height, width := shape[0], shape[1]
		grid := g.shape(t, "component")
		target := make([]uint8, height*width)
		upsample(target, height, width, g.bytes(t, "component"), grid[0], grid[1])
		identical(t, "mask_up", target, g.bytes(t, "mask_up"))

		var s BilateralSolver
		if err := s.Solve(g.bytes(t, "image"), height, width, target); err != nil {
			t.Fatal(err)
		}
		vertex := make([]float64, len(s.vertex))
		for i, v := range s.vertex {
			vertex[i] = float64(v)
		}
		same(t, "bs_pixel_vertex", vertex, g.values(t, "bs_pixel_vertex"), 0)
		same(t, "bs_n", s.n[:len(s.key)], g.values(t, "bs_n"), 1e-11)
		same(t, "bs_m", s.m, g.values(t, "bs_m"), 1e-9)
		same(t, "bs_yhat", s.y, g.values(t, "bs_yhat"), 1e-9)

		soft := make([]float32, height*width)
		s.Soft(soft)
		softValues := make([]float64, len(soft))
		for i, v := range soft {
			softValues[i] = float64(v)
		}
		same(t, "solver_soft", softValues, g.values(t, "solver_soft"), 1e-7)
	})
}

func identical[T comparable](t *testing.T, name string, got, want []T) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d entries, want %d", name, len(got), len(want))
	}
	different, first := 0, -1
	for i := range got {
		if got[i] != want[i] {
			if different++; first < 0 {
				first = i
			}
		}
	}
	if different > 0 {
		t.Errorf("%s differs in %d of %d entries, first at %d: %v, want %v", name, different, len(got), first, got[first], want[first])
	}
}

// speckled is a picture of smooth blobs with noise, about as many vertices as a
// photograph.
func speckled(height, width int) []uint8 {
	random := rand.New(rand.NewPCG(9, 9))
	rgb := make([]uint8, 3*height*width)
	for y := range height {
		for x := range width {
			for c := range 3 {
				v := 60 + 40*c + (x*(c+1)/3+y*(3-c)/4)%90 + random.IntN(25)
				rgb[3*(y*width+x)+c] = uint8(min(v, 255))
			}
		}
	}
	return rgb
}

func TestBilateralSolverRefuses(t *testing.T) {
	var s BilateralSolver
	for name, err := range map[string]error{
		"huge":  s.Solve(nil, 5000, 4, nil),
		"empty": s.Solve(nil, 0, 4, nil),
		"short": s.Solve(make([]uint8, 11), 2, 2, make([]uint8, 4)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Reusing a solver for a smaller, then a larger picture gives what a new one gives.
func TestBilateralSolverReuse(t *testing.T) {
	var used BilateralSolver
	for _, c := range []struct{ h, w int }{{40, 60}, {16, 9}, {100, 81}} {
		rgb, target := speckled(c.h, c.w), make([]uint8, c.h*c.w)
		for i := range target {
			if i%c.w > c.w/2 {
				target[i] = 1
			}
		}
		var fresh BilateralSolver
		if err := used.Solve(rgb, c.h, c.w, target); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Solve(rgb, c.h, c.w, target); err != nil {
			t.Fatal(err)
		}
		identical(t, "solution", used.y, fresh.y)
	}
}

func TestRegions(t *testing.T) {
	picture := []uint8{
		1, 1, 1, 0, 0,
		1, 0, 1, 0, 1,
		1, 1, 1, 0, 1,
		0, 0, 0, 1, 0,
	}
	var r regions
	r.label(picture, 4, 5)
	r.fillHoles()
	got := make([]uint8, len(picture))
	r.extract(got, r.at(0))
	want := []uint8{
		1, 1, 1, 0, 0,
		1, 1, 1, 0, 0,
		1, 1, 1, 0, 0,
		0, 0, 0, 0, 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("filled region (-want +got):\n%s", diff)
	}
	if region, ok := r.secondLargest(); !ok || region != allZeros && region != r.at(0) {
		t.Errorf("second largest is %d, %v", region, ok)
	}
	if _, ok := func() (int32, bool) { r.label(make([]uint8, 20), 4, 5); return r.secondLargest() }(); ok {
		t.Error("a second largest region where there are no ones")
	}
}

func BenchmarkBilateralSolver(b *testing.B) {
	for _, c := range []struct {
		name string
		h, w int
	}{{"224x224", 224, 224}, {"332x500", 332, 500}} {
		b.Run(c.name, func(b *testing.B) {
			rgb, target := speckled(c.h, c.w), make([]uint8, c.h*c.w)
			for i := range target {
				if y, x := i/c.w, i%c.w; x > c.w/3 && x < 2*c.w/3 && y > c.h/3 {
					target[i] = 1
				}
			}
			var s BilateralSolver
			for b.Loop() {
				if err := s.Solve(rgb, c.h, c.w, target); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(s.key)), "vertices")
		})
	}
}

// The quick sums agree with the published arithmetic wherever they say they can:
// over every red and green, and a seventh of the blues each. Greys cannot.
func TestGridColour(t *testing.T) {
	left, all := 0, 0
	for r := range 256 {
		for g := range 256 {
			for b := (r + g) % 7; b < 256; b += 7 {
				sum := yuvSum(uint8(r), uint8(g), uint8(b))
				all++
				if nearStep(sum) {
					left++
				} else if got, want := gridColour(sum), exactColour(uint8(r), uint8(g), uint8(b)); got != want {
					t.Fatalf("colour %d %d %d is %#x, want %#x", r, g, b, got, want)
				}
			}
		}
	}
	if left > all/100 {
		t.Errorf("%d of %d colours are left to the exact sums", left, all)
	}
	for v := range 256 {
		if !nearStep(yuvSum(uint8(v), uint8(v), uint8(v))) {
			t.Errorf("grey %d is not left to the exact sums", v)
		}
	}
}
