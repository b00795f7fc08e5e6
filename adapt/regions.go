package adapt

import "iter"

// regions are the 4-connected regions of equal value of a picture of zeros and
// ones, those of the ones and those of the zeros alike. A row is kept as runs of
// equal value, so that the work after one look at each pixel is in the number of
// runs. The buffers are reused from one picture to the next.
type regions struct {
	height, width int
	runs          []run
	rowStart      []int32 // [height+1] index of each row's first run
	parent        []int32 // [runs] union-find forest
	area          []int   // [runs] pixels, valid at roots
}

// run is the pixels start <= x < end of one row.
type run struct {
	start, end int32
	value      uint8
}

// label finds the regions of pixels [height][width].
func (r *regions) label(pixels []uint8, height, width int) {
	r.height, r.width = height, width
	r.scan(pixels)
	r.parent = resized(r.parent, len(r.runs))
	for i := range r.parent {
		r.parent[i] = int32(i)
	}
	r.joinRows()
	r.measure()
}

func (r *regions) scan(pixels []uint8) {
	r.runs, r.rowStart = r.runs[:0], r.rowStart[:0]
	for y := range r.height {
		r.rowStart = append(r.rowStart, int32(len(r.runs)))
		row := pixels[y*r.width : (y+1)*r.width]
		start, value := 0, row[0]
		for x, v := range row {
			if v != value {
				r.runs = append(r.runs, run{int32(start), int32(x), value})
				start, value = x, v
			}
		}
		r.runs = append(r.runs, run{int32(start), int32(r.width), value})
	}
	r.rowStart = append(r.rowStart, int32(len(r.runs)))
}

// joinRows unites runs of equal value that touch from one row to the next.
func (r *regions) joinRows() {
	for y := 1; y < r.height; y++ {
		above, endAbove := r.rowStart[y-1], r.rowStart[y]
		below, endBelow := r.rowStart[y], r.rowStart[y+1]
		for above < endAbove && below < endBelow {
			a, b := r.runs[above], r.runs[below]
			if a.value == b.value && a.start < b.end && b.start < a.end {
				r.unite(above, below)
			}
			if a.end <= b.end {
				above++
			}
			if b.end <= a.end {
				below++
			}
		}
	}
}

func (r *regions) measure() {
	r.area = resized(r.area, len(r.runs))
	clear(r.area)
	for i, s := range r.runs {
		r.area[r.root(int32(i))] += int(s.end - s.start)
	}
}

// unite joins two regions; the root is the run that comes first in the picture.
func (r *regions) unite(i, j int32) {
	i, j = r.root(i), r.root(j)
	if i < j {
		r.parent[j] = i
	} else {
		r.parent[i] = j
	}
}

func (r *regions) root(i int32) int32 {
	for r.parent[i] != i {
		r.parent[i] = r.parent[r.parent[i]]
		i = r.parent[i]
	}
	return i
}

// at returns the region of a pixel, counted row by row.
func (r *regions) at(pixel int) int32 {
	y, x := pixel/r.width, int32(pixel%r.width)
	for i := r.rowStart[y]; ; i++ {
		if x < r.runs[i].end {
			return r.root(i)
		}
	}
}

// fillHoles turns the regions of zeros that do not touch the border into ones
// and joins them with what surrounds them.
func (r *regions) fillHoles() {
	open := make([]bool, len(r.runs)) // at roots: touches the border
	for i, s := range r.runs {
		onEdge := int32(i) < r.rowStart[1] || int32(i) >= r.rowStart[r.height-1]
		if s.value == 0 && (onEdge || s.start == 0 || int(s.end) == r.width) {
			open[r.root(int32(i))] = true
		}
	}
	for i := range r.runs {
		if r.runs[i].value == 0 && !open[r.root(int32(i))] {
			r.runs[i].value = 1
		}
	}
	for y := range r.height {
		for i := r.rowStart[y] + 1; i < r.rowStart[y+1]; i++ {
			if r.runs[i].value == r.runs[i-1].value {
				r.unite(i-1, i)
			}
		}
	}
	r.joinRows()
	r.measure()
}

const (
	noRegion int32 = -1
	allZeros int32 = -2 // every zero of the picture as one region
)

// secondLargest is the second largest of the regions of ones and, together as
// one, all zeros; of equal ones the later in the picture counts as larger. There
// is none, and ok is false, where there are no ones.
func (r *regions) secondLargest() (region int32, ok bool) {
	largest, second := allZeros, allZeros
	var largestArea, secondArea int
	for _, s := range r.runs {
		if s.value == 0 {
			largestArea += int(s.end - s.start)
		}
	}
	for i, s := range r.runs {
		if s.value == 0 || r.parent[i] != int32(i) {
			continue
		}
		switch area := r.area[i]; {
		case area >= largestArea:
			second, secondArea = largest, largestArea
			largest, largestArea = int32(i), area
		case area >= secondArea:
			second, secondArea = int32(i), area
		}
		ok = true
	}
	return second, ok
}

// largestOnes is the largest region of ones, the first of equal ones; noRegion
// where there is none.
func (r *regions) largestOnes() int32 {
	best := noRegion
	for i, s := range r.runs {
		if s.value == 1 && r.parent[i] == int32(i) && (best == noRegion || r.area[i] > r.area[best]) {
			best = int32(i)
		}
	}
	return best
}

// borderAreas counts, at each region's root, its pixels on the edge of the
// picture; all is their sum.
func (r *regions) borderAreas() (touched []int, all int) {
	touched = make([]int, len(r.runs))
	for y := range r.height {
		for i := r.rowStart[y]; i < r.rowStart[y+1]; i++ {
			n := int(r.runs[i].end - r.runs[i].start)
			if y > 0 && y < r.height-1 {
				n = 0
				if i == r.rowStart[y] {
					n++
				}
				if i == r.rowStart[y+1]-1 && r.width > 1 {
					n++
				}
			}
			touched[r.root(i)] += n
			all += n
		}
	}
	return touched, all
}

// spans yields the runs of a region, in order, as pixels from <= i < to counted
// row by row.
func (r *regions) spans(region int32) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		for y := range r.height {
			for i := r.rowStart[y]; i < r.rowStart[y+1]; i++ {
				s := r.runs[i]
				if r.root(i) != region && (region != allZeros || s.value != 0) {
					continue
				}
				if !yield(y*r.width+int(s.start), y*r.width+int(s.end)) {
					return
				}
			}
		}
	}
}

// extract writes 1 to mask [height][width] where the pixel is of the region, else 0.
func (r *regions) extract(mask []uint8, region int32) {
	clear(mask)
	for from, to := range r.spans(region) {
		for i := from; i < to; i++ {
			mask[i] = 1
		}
	}
}
