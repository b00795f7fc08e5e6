package adapt

import (
	"fmt"
	"math"
)

// CutOptions says how TokenCut reads a patch graph. The zero value is not
// useful: start from PublishedCut or DefaultCut.
type CutOptions struct {
	// Tau is the cosine above which two patches are joined, -1 to 1.
	Tau float32
	// Epsilon is the weight of two patches that are not, above 0.
	Epsilon float64
}

// PublishedCut is what TokenCut (arXiv 2202.11539) uses with the keys of the
// last block of a DINO network.
var PublishedCut = CutOptions{Tau: 0.2, Epsilon: 1e-5}

// Cut is a two-way normalised cut of a picture's patches. Grids are row-major,
// GridH x GridW; a 1 is the object.
type Cut struct {
	GridH, GridW int
	// Partition is the side of the cut that holds the seed.
	Partition []uint8
	// Component is the 4-connected part of Partition that holds the seed.
	Component []uint8
	// Seed is the patch with the largest entry of the eigenvector, by magnitude.
	Seed int
	// Fiedler is the second eigenvector z of (D - W) z = lambda D z, z^T D z = 1,
	// its sign such that the seed is above the mean.
	Fiedler []float64
	// Lambda2 and Lambda3 are the second and third smallest eigenvalues, 0 to 1
	// where the cut means something: the less the better the patches separate,
	// and the farther apart the surer the cut.
	Lambda2, Lambda3 float64
}

// Cutter cuts one picture after another and keeps its buffers in between. It
// must not be used by two goroutines at once. The zero value is ready.
type Cutter struct {
	graph affinity
	eigen lanczos
	parts regions
}

// tied is the relative difference below which two entries of the eigenvector
// count as equal. Patches with the same neighbours have equal entries, and
// rounding must not choose the seed among them: the first is taken.
const tied = 1e-9

// Cut is TokenCut (arXiv 2202.11539, section 3.2) over features [GridH*GridW][dim],
// patch after patch, row by row, of any length each. It fails on a grid of fewer
// than 4 patches, on a feature that is not finite, and where the eigenvalues do
// not converge (never seen).
func (c *Cutter) Cut(features []float32, gridH, gridW int, o CutOptions) (Cut, error) {
	n := gridH * gridW
	if gridH < 1 || gridW < 1 || n < 4 {
		return Cut{}, fmt.Errorf("tokencut: a grid of %d x %d patches cannot be cut: it takes 4 patches or more", gridH, gridW)
	}
	if len(features) == 0 || len(features)%n != 0 {
		return Cut{}, fmt.Errorf("tokencut: %d features do not divide into a grid of %d x %d patches", len(features), gridH, gridW)
	}
	if o.Epsilon <= 0 || o.Tau < -1 || o.Tau >= 1 {
		return Cut{}, fmt.Errorf("tokencut: tau %v must lie in [-1, 1) and epsilon %v above 0", o.Tau, o.Epsilon)
	}
	if err := c.graph.build(features, n, len(features)/n, o.Tau, o.Epsilon); err != nil {
		return Cut{}, fmt.Errorf("tokencut: %w", err)
	}
	cut := Cut{GridH: gridH, GridW: gridW, Fiedler: make([]float64, n)}
	var err error
	if cut.Lambda2, cut.Lambda3, err = c.eigen.solve(&c.graph, cut.Fiedler); err != nil {
		return Cut{}, fmt.Errorf("tokencut: %w", err)
	}
	cut.split()
	cut.Component = make([]uint8, n)
	c.parts.label(cut.Partition, gridH, gridW)
	c.parts.extract(cut.Component, c.parts.at(cut.Seed))
	return cut, nil
}

// split orients the eigenvector and cuts it at its mean.
func (c *Cut) split() {
	var sum, largest float64
	for _, z := range c.Fiedler {
		sum += z
		largest = max(largest, math.Abs(z))
	}
	mean := sum / float64(len(c.Fiedler))
	for i, z := range c.Fiedler {
		if math.Abs(z) >= largest*(1-tied) {
			c.Seed = i
			break
		}
	}
	if c.Fiedler[c.Seed] <= mean {
		mean = -mean
		for i := range c.Fiedler {
			c.Fiedler[i] = -c.Fiedler[i]
		}
	}
	c.Partition = make([]uint8, len(c.Fiedler))
	for i, z := range c.Fiedler {
		if z > mean {
			c.Partition[i] = 1
		}
	}
}
