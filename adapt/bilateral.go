package adapt

import (
	"fmt"
	"math"
	"math/bits"
)

// The fast bilateral solver (Barron and Poole, ECCV 2016, arXiv 1511.03296) with
// the constants that TokenCut's published program uses.
const (
	sigmaSpatial = 16 // pixels a step of the grid
	sigmaLuma    = 16 // of 255
	sigmaChroma  = 8  // of 255

	smoothness      = 256   // lambda: weight of smoothness against the target
	confidence      = 0.999 // of each pixel's target
	normalisations  = 10    // rounds of bistochastisation
	jacobiFloor     = 1e-5
	solverTolerance = 1e-5 // relative residual; seldom reached
	solverRounds    = 25   // of conjugate gradients

	colours        = 16 * 32 * 32 // steps of Y, U and V
	gridNeighbours = 10           // one step either way in each of the five dimensions

	// maxSide keeps a column of the grid below 255, above which the published
	// program's keys of vertices collide.
	maxSide = 255*sigmaSpatial - 1
)

// BilateralSolver smooths a mask along the edges of its picture. It keeps its
// buffers from one picture to the next and must not be used by two goroutines at
// once. The zero value is ready.
//
// A pixel belongs to the vertex (x/16, y/16, Y/16, U/8, V/8) of a grid of which
// only the vertices with pixels exist. The solution y minimises
//
//	lambda sum_ij w_ij (y_i - y_j)^2 + sum_i c_i (y_i - t_i)^2
//
// w being the grid's blur made bistochastic by n and m.
type BilateralSolver struct {
	height, width int
	vertex        []int32         // [height*width] vertex of each pixel
	colour        []uint16        // [height*width] of each pixel: Y + 16 (U + 32 V) in grid steps
	first         [colours]uint32 // place of each present colour's first cell
	palette       []uint16        // the colours present, ascending
	occupied      []uint64        // a bit for each colour present and cell of the picture
	before        []int32         // vertices before each word of occupied
	key           []int64         // [V] x + 255y + 255^2 Y + 255^3 U + 255^4 V, ascending
	tally         []uint64        // [V] pixels, and in the upper half those of the target

	// neighbour holds the vertices one step away, V where there is none: the
	// vectors that are blurred have a zero there.
	neighbour [][gridNeighbours]uint32
	count     []float64 // [V] pixels
	n, m      []float64 // [V+1], [V] diagonals that make the blur bistochastic
	y         []float64 // [V] solution

	residual, step, image, diagonal, inverse, spare []float64
}

// Solve smooths target [height][width], of zeros and ones, along the edges of
// rgb [height][width][3]; Soft and Binary tell the outcome. It fails where the
// sizes disagree or a side is over 4079 pixels.
func (s *BilateralSolver) Solve(rgb []uint8, height, width int, target []uint8) error {
	if height < 1 || width < 1 || height > maxSide || width > maxSide {
		return fmt.Errorf("bilateral solver: a picture of %d x %d pixels: each side must be 1 to %d, scale it first", height, width, maxSide)
	}
	if len(rgb) != 3*height*width || len(target) != height*width {
		return fmt.Errorf("bilateral solver: %d bytes of RGB and a mask of %d pixels do not fit %d x %d", len(rgb), len(target), height, width)
	}
	s.height, s.width = height, width
	s.quantise(rgb)
	s.placePixels()
	s.linkVertices()
	s.splat(target)
	s.bistochastise()
	s.conjugateGradients()
	return nil
}

// Soft writes the solution of each pixel, about 0 to 1, to soft [height][width].
func (s *BilateralSolver) Soft(soft []float32) {
	for i, v := range s.vertex {
		soft[i] = float32(s.y[v])
	}
}

// Binary writes 1 where the solution is above 0.5, else 0, to mask [height][width].
func (s *BilateralSolver) Binary(mask []uint8) {
	inside := make([]uint8, len(s.y))
	for i, y := range s.y {
		if y > 0.5 {
			inside[i] = 1
		}
	}
	for i, v := range s.vertex {
		mask[i] = inside[v]
	}
}

// quantise finds the colour of each pixel and the palette.
func (s *BilateralSolver) quantise(rgb []uint8) {
	s.colour = resized(s.colour, s.height*s.width)
	clear(s.first[:])
	for i := range s.colour {
		p := rgb[3*i : 3*i+3 : 3*i+3]
		sum := yuvSum(p[0], p[1], p[2])
		c := gridColour(sum)
		if nearStep(sum) {
			c = exactColour(p[0], p[1], p[2])
		}
		s.colour[i] = c
		s.first[c%colours] = 1
	}
	s.palette = s.palette[:0]
	for c, present := range s.first {
		if present != 0 {
			s.palette = append(s.palette, uint16(c))
		}
	}
}

// placePixels numbers the vertices in the order of their keys and finds each
// pixel's. A vertex is a bit of occupied, by its colour's rank and its cell, and
// its number is the count of bits before it.
func (s *BilateralSolver) placePixels() {
	columns := (s.width-1)/sigmaSpatial + 1
	cells := columns * ((s.height-1)/sigmaSpatial + 1)
	s.occupied = resized(s.occupied, (len(s.palette)*cells+63)/64)
	clear(s.occupied)
	s.vertex = resized(s.vertex, s.height*s.width)
	for i, c := range s.palette {
		s.first[c] = uint32(i * cells)
	}
	for y := range s.height {
		row := y / sigmaSpatial * columns
		places := s.vertex[y*s.width : (y+1)*s.width]
		for x, c := range s.colour[y*s.width:][:len(places)] {
			place := s.first[c%colours] + uint32(row) + uint32(x)/sigmaSpatial
			places[x] = int32(place)
			s.occupied[place/64] |= 1 << (place % 64)
		}
	}
	s.before = resized(s.before, len(s.occupied))
	s.key = s.key[:0]
	for w, word := range s.occupied {
		s.before[w] = int32(len(s.key))
		for ; word != 0; word &= word - 1 {
			place := 64*w + bits.TrailingZeros64(word)
			c, cell := int64(s.palette[place/cells]), int64(place%cells)
			x, y := cell%int64(columns), cell/int64(columns)
			s.key = append(s.key, x+255*(y+255*(c%16+255*(c/16%32+255*(c/512)))))
		}
	}
	for i, place := range s.vertex {
		w, bit := uint32(place)/64, uint32(place)%64
		s.vertex[i] = s.before[w] + int32(bits.OnesCount64(s.occupied[w]&(1<<bit-1)))
	}
}

// linkVertices finds the neighbours: keys are ascending, so those a given step
// above them are met in one sweep.
func (s *BilateralSolver) linkVertices() {
	none := uint32(len(s.key))
	s.neighbour = resized(s.neighbour, len(s.key))
	for i := range s.neighbour {
		for d := range s.neighbour[i] {
			s.neighbour[i][d] = none
		}
	}
	for d, step := 0, int64(1); d < gridNeighbours; d, step = d+2, step*255 {
		j := 0
		for i, k := range s.key {
			for j < len(s.key) && s.key[j] < k+step {
				j++
			}
			if j < len(s.key) && s.key[j] == k+step {
				s.neighbour[i][d], s.neighbour[j][d+1] = uint32(j), uint32(i)
			}
		}
	}
}

// splat counts the pixels and the target's pixels of each vertex.
func (s *BilateralSolver) splat(target []uint8) {
	s.tally = resized(s.tally, len(s.key))
	clear(s.tally)
	for i, v := range s.vertex {
		s.tally[v] += 1 + uint64(target[i])<<32
	}
	s.count = resized(s.count, len(s.key))
	for i, t := range s.tally {
		s.count[i] = float64(uint32(t))
	}
}

// targetPixels counts the ones of the target.
func (s *BilateralSolver) targetPixels() (n int) {
	for _, t := range s.tally {
		n += int(t >> 32)
	}
	return n
}

// around sums x over the neighbours of a vertex.
func around(x []float64, near *[gridNeighbours]uint32) float64 {
	return ((x[near[0]] + x[near[1]]) + (x[near[2]] + x[near[3]])) + ((x[near[4]] + x[near[5]]) + (x[near[6]] + x[near[7]])) + (x[near[8]] + x[near[9]])
}

// bistochastise finds n and m such that diag(n) blur diag(n) has the row sums
// m, near the pixel counts. blur(x) = 10 x + around(x).
func (s *BilateralSolver) bistochastise() {
	v := len(s.key)
	s.n, s.m, s.spare = resized(s.n, v+1), resized(s.m, v), resized(s.spare, v+1)
	for i := range v {
		s.n[i] = 1
	}
	s.n[v], s.spare[v] = 0, 0
	n, next, count := s.n, s.spare, s.count[:v]
	for range normalisations {
		for i := range s.neighbour {
			next[i] = math.Sqrt(n[i] * count[i] / (10*n[i] + around(n, &s.neighbour[i])))
		}
		n, next = next, n
	}
	s.n, s.spare = n, next
	for i := range s.neighbour {
		s.m[i] = n[i] * (10*n[i] + around(n, &s.neighbour[i]))
	}
}

// conjugateGradients solves A y = b, A = lambda (diag(m) - diag(n) blur diag(n))
// + diag(c), b = confidence x the target's pixels, from y = b/c with a Jacobi
// preconditioner. As published, the last of 25 rounds is the answer, converged
// or not.
//
// It works on n y, for which the matrix is diag(diagonal) - lambda around and the
// right side b/n; the iterates are those of y, Jacobi's preconditioner being
// blind to such a scaling.
func (s *BilateralSolver) conjugateGradients() {
	v := len(s.key)
	s.y, s.residual, s.step = resized(s.y, v), resized(s.residual, v), resized(s.step, v+1)
	s.image, s.diagonal, s.inverse = resized(s.image, v), resized(s.diagonal, v), resized(s.inverse, v)
	clear(s.y)
	s.step[v] = 0
	var length float64 // of b, squared
	for i, t := range s.tally {
		n, b, c := s.n[i], confidence*float64(t>>32), confidence*s.count[i]
		s.diagonal[i] = (smoothness*s.m[i]+c)/(n*n) - smoothness*10
		s.inverse[i] = 1 / max(s.diagonal[i], jacobiFloor/(n*n))
		s.residual[i] = b / n
		s.step[i] = n * b / c
		length += b * b
	}
	// The first step, taken whole, goes from zero to the start.
	rho := math.Inf(1)
	for round := range 1 + solverRounds {
		dot, alpha := s.apply(), 1.0
		if round > 0 {
			alpha = rho / dot
		}
		last := rho
		var left float64
		if rho, left = s.descend(alpha); left <= solverTolerance*solverTolerance*length {
			break
		}
		beta := rho / last
		for i, r := range s.residual {
			s.step[i] = r*s.inverse[i] + beta*s.step[i]
		}
	}
	for i, n := range s.n[:v] {
		s.y[i] /= n
	}
}

// apply sets image to the matrix times step and returns step . image.
func (s *BilateralSolver) apply() (dot float64) {
	step, neighbour := s.step, s.neighbour
	image, diagonal := s.image[:len(neighbour)], s.diagonal[:len(neighbour)]
	for i := range neighbour {
		p := step[i]
		a := diagonal[i]*p - smoothness*around(step, &neighbour[i])
		image[i] = a
		dot += p * a
	}
	return dot
}

// descend moves the solution by alpha steps; it returns residual . inverse
// residual and the squared length of the residual in the scale of y.
func (s *BilateralSolver) descend(alpha float64) (rho, left float64) {
	residual := s.residual
	y, step, image, inverse, n := s.y[:len(residual)], s.step[:len(residual)], s.image[:len(residual)], s.inverse[:len(residual)], s.n[:len(residual)]
	for i, r := range residual {
		y[i] += alpha * step[i]
		r -= alpha * image[i]
		residual[i] = r
		z := r * n[i]
		rho += r * r * inverse[i]
		left += z * z
	}
	return rho, left
}
