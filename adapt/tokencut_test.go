package adapt

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gonum.org/v1/gonum/mat"
)

func TestTokenCutGolden(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		features, h, w := g.features(t)
		var c Cutter
		cut, err := c.Cut(features, h, w, PublishedCut)
		if err != nil {
			t.Fatal(err)
		}
		n := h * w
		adjacency := make([]float64, 0, n*n)
		for i := range n {
			for j := range n {
				v := 0.0
				if c.graph.adjacent(i, j) {
					v = 1
				}
				adjacency = append(adjacency, v)
			}
		}
		same(t, "adjacency", adjacency, g.values(t, "adjacency"), 0)
		same(t, "degree", c.graph.degree, g.values(t, "degree"), 1e-9)
		same(t, "eigenvalues", []float64{cut.Lambda2, cut.Lambda3}, g.values(t, "eigenvalues"), 2e-6)
		same(t, "fiedler", cut.Fiedler, g.values(t, "fiedler"), 1e-9)
		for _, m := range []struct {
			name string
			got  []uint8
		}{{"bipartition", cut.Partition}, {"component", cut.Component}} {
			if diff := cmp.Diff(g.bytes(t, m.name), m.got); diff != "" {
				t.Errorf("%s (-golden +ours):\n%s", m.name, diff)
			}
		}
		t.Logf("%d products, lambda %g %g", c.eigen.products, cut.Lambda2, cut.Lambda3)
	})
}

// same fails when two arrays differ in length or by more than an absolute tolerance.
func same(t *testing.T, name string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d entries, want %d", name, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i := range got {
		if d := math.Abs(got[i] - want[i]); !(d <= worst) {
			worst, at = d, i
		}
	}
	t.Logf("%s: largest difference %.2g", name, worst)
	if !(worst <= tolerance) {
		t.Errorf("%s[%d] = %v, want %v within %g", name, at, got[at], want[at], tolerance)
	}
}

// clustered makes n features around k directions, as patches of a picture with
// k things in it.
func clustered(seed uint64, n, dim, k int) []float32 {
	random := rand.New(rand.NewPCG(seed, 1))
	centre := make([]float64, k*dim)
	for i := range centre {
		centre[i] = random.NormFloat64()
	}
	features := make([]float32, n*dim)
	for i := range n {
		c := i * k / n
		for j := range dim {
			features[i*dim+j] = float32(centre[c*dim+j] + 0.9*random.NormFloat64())
		}
	}
	return features
}

// The Lanczos answer equals that of a dense solver, also on grids that need
// padding and features of an odd length.
func TestCutEqualsDense(t *testing.T) {
	for _, c := range []struct{ h, w, dim, things int }{{2, 2, 3, 2}, {5, 7, 13, 3}, {13, 17, 48, 2}, {16, 16, 21, 5}} {
		n := c.h * c.w
		features := clustered(uint64(n), n, c.dim, c.things)
		var cutter Cutter
		cut, err := cutter.Cut(features, c.h, c.w, PublishedCut)
		if err != nil {
			t.Fatal(err)
		}
		values, z := denseCut(features, n, c.dim, PublishedCut)
		same(t, "eigenvalues", []float64{cut.Lambda2, cut.Lambda3}, values, 2e-6)
		if values[1]-values[0] < 1e-6 {
			continue // any vector of the plane is an answer
		}
		if cut.Fiedler[cut.Seed]*z[cut.Seed] < 0 {
			for i := range z {
				z[i] = -z[i]
			}
		}
		same(t, "fiedler", cut.Fiedler, z, 1e-7)
	}
}

// denseCut returns the second and third eigenvalues and the second eigenvector,
// by gonum's dense symmetric solver over W written out.
func denseCut(features []float32, n, dim int, o CutOptions) (values, z []float64) {
	w := mat.NewSymDense(n, nil)
	degree := make([]float64, n)
	length := func(i int) float64 {
		var s float64
		for _, x := range features[i*dim : (i+1)*dim] {
			s += float64(x) * float64(x)
		}
		return math.Sqrt(s)
	}
	for i := range n {
		for j := range n {
			var dot float64
			for k := range dim {
				dot += float64(features[i*dim+k]) * float64(features[j*dim+k])
			}
			v := o.Epsilon
			if i == j || dot/(length(i)*length(j)) > float64(o.Tau) {
				v = 1
			}
			w.SetSym(i, j, v)
			degree[i] += v
		}
	}
	for i := range n {
		for j := i; j < n; j++ {
			w.SetSym(i, j, w.At(i, j)/math.Sqrt(degree[i]*degree[j]))
		}
	}
	var e mat.EigenSym
	e.Factorize(w, true)
	ascending := e.Values(nil)
	var vectors mat.Dense
	e.VectorsTo(&vectors)
	z = make([]float64, n)
	for i := range z {
		z[i] = vectors.At(i, n-2) / math.Sqrt(degree[i])
	}
	return []float64{1 - ascending[n-2], 1 - ascending[n-3]}, z
}

func TestGramTileEqualsGo(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for _, stride := range []int{8, 24, 384} {
		x := make([]float32, (gramRows+gramCols)*stride)
		for i := range x {
			x[i] = float32(random.NormFloat64())
		}
		var got, want [gramRows * gramCols]float32
		gramTile(&got, &x[0], &x[gramRows*stride], stride)
		gramTileGo(&want, &x[0], &x[gramRows*stride], stride)
		for i := range got {
			if math.Abs(float64(got[i]-want[i])) > 1e-6*float64(stride) {
				t.Errorf("stride %d: dot %d is %v, want %v", stride, i, got[i], want[i])
			}
		}
	}
}

func TestCutRefuses(t *testing.T) {
	bad := clustered(1, 16, 4, 2)
	bad[5*4+1] = float32(math.NaN())
	for name, f := range map[string]func(*Cutter) error{
		"grid":    func(c *Cutter) error { _, err := c.Cut(make([]float32, 3), 1, 3, PublishedCut); return err },
		"length":  func(c *Cutter) error { _, err := c.Cut(make([]float32, 17), 4, 4, PublishedCut); return err },
		"options": func(c *Cutter) error { _, err := c.Cut(make([]float32, 16), 4, 4, CutOptions{}); return err },
		"NaN":     func(c *Cutter) error { _, err := c.Cut(bad, 4, 4, PublishedCut); return err },
	} {
		if err := f(new(Cutter)); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Log(err)
		}
	}
}

// Pictures without any structure have no second eigenvector to speak of; the
// cut must still be deterministic and finite.
func TestCutOfNothing(t *testing.T) {
	flat := make([]float32, 100*8)
	for i := range flat {
		flat[i] = 1
	}
	for _, features := range [][]float32{flat, make([]float32, 100*8)} {
		var cutter Cutter
		first, err := cutter.Cut(features, 10, 10, PublishedCut)
		if err != nil {
			t.Fatal(err)
		}
		again, err := cutter.Cut(features, 10, 10, PublishedCut)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("a second cut differs:\n%s", diff)
		}
		for i, z := range first.Fiedler {
			if math.IsNaN(z) || math.IsInf(z, 0) {
				t.Fatalf("fiedler[%d] = %v", i, z)
			}
		}
	}
}

func BenchmarkCut(b *testing.B) {
	for _, c := range []struct {
		name string
		h, w int
	}{{"196", 14, 14}, {"256", 16, 16}, {"1200", 30, 40}} {
		b.Run(c.name, func(b *testing.B) {
			features := clustered(5, c.h*c.w, 384, 3)
			var cutter Cutter
			for b.Loop() {
				if _, err := cutter.Cut(features, c.h, c.w, PublishedCut); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cutter.eigen.products), "products")
		})
	}
}
