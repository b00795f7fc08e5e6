package adapt

import (
	"fmt"
	"image"
	"math"
)

// Mask is the foreground of a picture and what speaks for it.
type Mask struct {
	Height, Width int    // pixels
	Pixels        []byte // [Height][Width], 255 on the object, else 0

	// Quality predicts the intersection over union with the true object, 0 to 1.
	// A mask below MaskOptions.Floor is not trained on.
	Quality  float64
	Evidence MaskEvidence

	// Backbone is the digest of the network whose features were cut; the caller's
	// to set. A mask counts for pictures of that backbone alone.
	Backbone string
}

// MaskEvidence is what Quality is made of.
type MaskEvidence struct {
	// Lambda2 is the second eigenvalue of the patch graph, 0 to 1: near 0 the
	// picture falls into two parts by itself, near 1 the cut is arbitrary.
	Lambda2 float64
	// Decision is the mean over the mask of the bilateral solver's answer, cut to
	// 0 to 1: low where colours contradict the cut.
	Decision float64
	// Border is the share of the picture's border pixels inside the mask: objects
	// touch little of it, backgrounds much.
	Border float64
	// Area is the share of the picture inside the mask.
	Area float64
	// Agreement is the intersection over union of the mask before and after the
	// bilateral solver.
	Agreement float64
	// Moved tells that View.Moved chose the object.
	Moved bool
	// Still tells that View.Moved knows of nothing that moved: what was cut is part
	// of the scene, or an object that has stood for minutes.
	Still bool
}

// View is what a network saw of a picture.
type View struct {
	Features     []float32 // [GridH*GridW][dim], patch after patch, row by row
	GridH, GridW int
	RGB          []byte // [Height][Width][3], the part of the picture that the grid covers
	Height       int    // pixels
	Width        int
	// Moved is the share of each patch that moved before a fixed camera, [GridH*GridW],
	// 0 to 1 (see PatchMotion); nil where that is not known.
	Moved []float32
}

// MaskOptions is how masks are made and judged.
type MaskOptions struct {
	Cut CutOptions
	// Floor is the least quality of a mask that is accepted.
	Floor float64
}

// DefaultMasks fits the normalised final patch tokens of DINOv2. Tau was chosen
// among .2 to .6 on the choosing half of bench/masks; between .4 and .5 little
// changes.
var DefaultMasks = MaskOptions{Cut: CutOptions{Tau: 0.45, Epsilon: 1e-5}, Floor: 0.5}

const (
	// mostBorder is the share of border patches above which a region is taken for
	// the background.
	mostBorder = 0.5

	// A mask outside these shares of the picture, or one that the bilateral solver
	// turned into another, has quality 0. Of masks with an agreement of .3 to .5,
	// 13 in 300, the mean overlap is .62: those are left to the other evidence.
	leastArea, mostArea = 0.02, 0.8
	leastAgreement      = 0.3

	mostlyMoved = 0.5 // share of a patch that makes it a moved one
)

// quality weighs the evidence. The weights are the least-squares fit of the
// intersection over union on the choosing half of bench/masks ("masks -part
// choose -fit"), over the terms that did best there: the logarithm spreads the
// eigenvalues of clear cuts, which crowd near 0, and .003 keeps it finite.
func (e MaskEvidence) quality() float64 {
	if e.Still || e.Area < leastArea || e.Area > mostArea || e.Agreement < leastAgreement {
		return 0
	}
	q := 0.20 - 0.17*math.Log10(e.Lambda2+.003) + 0.58*e.Decision - 1.81*e.Border
	return min(max(q, 0), 1)
}

// Masker makes masks of one picture after another and keeps its buffers in
// between. It must not be used by two goroutines at once.
type Masker struct {
	options MaskOptions
	cutter  Cutter
	solver  BilateralSolver
	parts   regions

	object, coarse, fine []uint8
}

// NewMasker returns a Masker.
func NewMasker(o MaskOptions) *Masker { return &Masker{options: o} }

// Mask finds the foreground of a view. It is TokenCut with differences that
// bench/masks measures. The object is the largest 4-connected region of either
// side of the cut that touches at most half the border, not the one of the
// largest eigenvector entry; or, where a fixed camera says what moved, the largest
// region that moved of the side of which more moved; where nothing moved, the
// quality is 0. Of what the bilateral solver makes of it, the largest region is
// kept. A view in which nothing is found has an empty mask of quality 0. It fails
// as Cutter.Cut and BilateralSolver.Solve do.
func (m *Masker) Mask(v View) (Mask, error) {
	cut, err := m.cutter.Cut(v.Features, v.GridH, v.GridW, m.options.Cut)
	if err != nil {
		return Mask{}, fmt.Errorf("mask: %w", err)
	}
	if v.Moved != nil && len(v.Moved) != v.GridH*v.GridW {
		return Mask{}, fmt.Errorf("mask: motion of %d patches for a grid of %d x %d", len(v.Moved), v.GridH, v.GridW)
	}
	mask := Mask{Height: v.Height, Width: v.Width, Pixels: make([]byte, v.Height*v.Width)}
	mask.Evidence.Lambda2 = cut.Lambda2
	mask.Evidence.Moved, mask.Evidence.Still = m.chooseMoved(cut, v.Moved)
	if !mask.Evidence.Moved && !m.chooseObject(cut) {
		return mask, nil
	}
	m.coarse, m.fine = resized(m.coarse, len(mask.Pixels)), resized(m.fine, len(mask.Pixels))
	upsample(m.coarse, v.Height, v.Width, m.object, v.GridH, v.GridW)
	if err := m.solver.Solve(v.RGB, v.Height, v.Width, m.coarse); err != nil {
		return Mask{}, fmt.Errorf("mask: %w", err)
	}
	m.solver.Binary(m.fine)
	m.parts.label(m.fine, v.Height, v.Width)
	m.parts.fillHoles()
	if region := m.parts.largestOnes(); region != noRegion {
		m.draw(&mask, region)
		mask.Quality = mask.Evidence.quality()
	}
	return mask, nil
}

// draw writes the pixels of a region of the solver's answer to the mask, and what
// they say for it.
func (m *Masker) draw(mask *Mask, region int32) {
	var decision float64
	both := 0 // pixels of the mask before and after the solver
	for from, to := range m.parts.spans(region) {
		for i := from; i < to; i++ {
			mask.Pixels[i] = 255
			both += int(m.coarse[i])
			decision += min(max(m.solver.y[m.solver.vertex[i]], 0), 1)
		}
	}
	inside := m.parts.area[region]
	touched, all := m.parts.borderAreas()
	e := &mask.Evidence
	e.Decision = decision / float64(inside)
	e.Border = float64(touched[region]) / float64(all)
	e.Area = float64(inside) / float64(len(mask.Pixels))
	e.Agreement = float64(both) / float64(inside+m.solver.targetPixels()-both)
}

// Accepted tells whether a mask is good enough to be trained on.
func (m *Masker) Accepted(mask Mask) bool { return mask.Quality >= m.options.Floor }

// chooseObject sets object [gridH][gridW] to the largest region of the cut, on
// whichever side, that touches at most half the border; false where none does.
func (m *Masker) chooseObject(cut Cut) bool {
	r := &m.parts
	r.label(cut.Partition, cut.GridH, cut.GridW)
	touched, all := r.borderAreas()
	best := int32(-1)
	for i := range r.runs {
		root := r.parent[i] == int32(i)
		if root && float64(touched[i]) <= mostBorder*float64(all) && (best < 0 || r.area[i] > r.area[best]) {
			best = int32(i)
		}
	}
	if best < 0 {
		return false
	}
	m.object = resized(m.object, len(cut.Partition))
	r.extract(m.object, best)
	return true
}

// chooseMoved sets object [gridH][gridW] to the largest region that moved of the
// side of the cut of which the larger share moved. It is not chosen where so little
// or so much of the view moved that it names no object; still is the former.
func (m *Masker) chooseMoved(cut Cut, moved []float32) (chosen, still bool) {
	var patches, movedPatches [2]int
	for i, share := range moved {
		patches[cut.Partition[i]]++
		if share > mostlyMoved {
			movedPatches[cut.Partition[i]]++
		}
	}
	all := float64(movedPatches[0] + movedPatches[1])
	if n := float64(len(moved)); moved == nil || all < leastArea*n || all > mostArea*n {
		return false, moved != nil && all < leastArea*n
	}
	side := uint8(0)
	if movedPatches[1]*patches[0] > movedPatches[0]*patches[1] {
		side = 1
	}
	m.object = resized(m.object, len(moved))
	for i, share := range moved {
		m.object[i] = 0
		if share > mostlyMoved && cut.Partition[i] == side {
			m.object[i] = 1
		}
	}
	m.parts.label(m.object, cut.GridH, cut.GridW)
	m.parts.extract(m.object, m.parts.largestOnes())
	return true, false
}

// PatchMotion turns a camera's motion mask [rows][columns], nonzero where a cell
// of cell x cell pixels moved, into View.Moved: view is the part of the picture
// that the grid covers, in pixels.
func PatchMotion(motion []byte, rows, columns, cell int, view image.Rectangle, gridH, gridW int) []float32 {
	const samples = 4 // a side of a patch
	moved := make([]float32, gridH*gridW)
	for i := range gridH * samples {
		y := (view.Min.Y + (2*i+1)*view.Dy()/(2*gridH*samples)) / cell
		for j := range gridW * samples {
			x := (view.Min.X + (2*j+1)*view.Dx()/(2*gridW*samples)) / cell
			if y >= 0 && y < rows && x >= 0 && x < columns && motion[y*columns+x] != 0 {
				moved[i/samples*gridW+j/samples] += 1. / (samples * samples)
			}
		}
	}
	return moved
}

// Published is TokenCut with the bilateral solver as its authors run it, for
// comparison: binary is the solver's answer with holes filled, of which they keep
// the second largest label, the background being one; flipped tells that it
// overlaps the cut by less than half, in which case they take its negative.
func (m *Masker) Published(v View) (coarse, binary []uint8, flipped bool, err error) {
	cut, err := m.cutter.Cut(v.Features, v.GridH, v.GridW, m.options.Cut)
	if err != nil {
		return nil, nil, false, fmt.Errorf("published mask: %w", err)
	}
	coarse, binary = make([]uint8, v.Height*v.Width), make([]uint8, v.Height*v.Width)
	upsample(coarse, v.Height, v.Width, cut.Component, v.GridH, v.GridW)
	if err := m.solver.Solve(v.RGB, v.Height, v.Width, coarse); err != nil {
		return nil, nil, false, fmt.Errorf("published mask: %w", err)
	}
	m.solver.Binary(binary)
	m.parts.label(binary, v.Height, v.Width)
	m.parts.fillHoles()
	if region, ok := m.parts.secondLargest(); ok {
		m.parts.extract(binary, region)
	} else {
		for i := range binary {
			binary[i] = 1
		}
	}
	return coarse, binary, overlap(coarse, binary) < 0.5, nil
}

// upsample writes grid [gridH][gridW] to mask [height][width], nearest
// neighbour: source = floor(destination * grid / size).
func upsample(mask []uint8, height, width int, grid []uint8, gridH, gridW int) {
	last := -1
	for y := range height {
		row := mask[y*width : (y+1)*width]
		if gy := y * gridH / height; gy != last {
			last = gy
			for x := range row {
				row[x] = grid[gy*gridW+x*gridW/width]
			}
			continue
		}
		copy(row, mask[(y-1)*width:y*width])
	}
}

// overlap is the intersection over union of two masks of zeros and ones; 0
// where both are empty.
func overlap(a, b []uint8) float64 {
	var both, either int
	for i, v := range a {
		both += int(v & b[i])
		either += int(v | b[i])
	}
	if either == 0 {
		return 0
	}
	return float64(both) / float64(either)
}
