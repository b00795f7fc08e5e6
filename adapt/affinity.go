package adapt

import (
	"fmt"
	"math"
)

// affinity is TokenCut's graph over the patches of one picture:
//
//	W_ij = 1 where cos(f_i, f_j) > tau or i = j, else eps
//
// W has two values, so it is kept as one bit an entry (N*N/8 bytes: 180 KB at
// 1200 patches, which stays in the second-level cache), and a product W x is
// eps*sum(x) + (1-eps)*(adjacency x). A byte of bits names the rows 8g..8g+7
// that a patch is adjacent to; the adjacency being symmetric, rows and columns
// need no telling apart.
type affinity struct {
	n    int     // patches
	eps  float64 // weight of a pair below tau
	unit []float32
	// bits[g*padded+i] bit b is set where patches i and 8g+b are adjacent.
	bits   []uint8
	padded int       // n rounded up to gramPad
	degree []float64 // row sums of W
}

const (
	gramRows = 3  // rows of one call of gramTile
	gramCols = 4  // columns of one call of gramTile
	gramPad  = 24 // patches are padded to a multiple of it: of gramRows, and of the 8 bits of a byte
	gramStep = 8  // features are padded to a multiple of it

	// gramBand patches of 384 features are 150 KB: the band of columns that one
	// sweep over the rows keeps in the second-level cache.
	gramBand = 96
)

// build computes the graph of features [n][dim], row-major. It returns an error
// that names the patch when a feature is not finite.
func (a *affinity) build(features []float32, n, dim int, tau float32, eps float64) error {
	a.n, a.eps = n, eps
	a.padded = roundUp(n, gramPad)
	stride := roundUp(dim, gramStep)
	a.unit = resized(a.unit, a.padded*stride)
	if err := unitRows(a.unit, features, n, dim, stride); err != nil {
		return err
	}
	a.bits = resized(a.bits, a.padded/8*a.padded)
	a.adjacency(stride, tau)
	a.countDegrees()
	return nil
}

// unitRows writes the rows of features, each divided by its length, to unit
// [padded][stride]; padding and rows of zeros become zeros.
func unitRows(unit, features []float32, n, dim, stride int) error {
	clear(unit)
	for i := range n {
		row := features[i*dim : (i+1)*dim]
		var s0, s1, s2, s3 float64
		j := 0
		for ; j+4 <= len(row); j += 4 {
			x, y, z, w := float64(row[j]), float64(row[j+1]), float64(row[j+2]), float64(row[j+3])
			s0, s1, s2, s3 = s0+x*x, s1+y*y, s2+z*z, s3+w*w
		}
		for ; j < len(row); j++ {
			s0 += float64(row[j]) * float64(row[j])
		}
		sum := s0 + s1 + s2 + s3
		if math.IsNaN(sum) || math.IsInf(sum, 0) {
			return fmt.Errorf("patch %d of %d has a feature that is not finite: check the backbone's weights and the picture", i, n)
		}
		if sum == 0 {
			continue
		}
		scale := float32(1 / math.Sqrt(sum))
		out := unit[i*stride : i*stride+dim]
		for j, x := range row {
			out[j] = x * scale
		}
	}
	return nil
}

// adjacency fills bits with cos > tau, the diagonal set, padding clear. The
// upper triangle is computed, 8 x 8 patches at a time, and mirrored.
func (a *affinity) adjacency(stride int, tau float32) {
	var dots [gramRows * gramCols]float32
	for band := 0; band < a.padded; band += gramBand {
		end := min(band+gramBand, a.padded)
		for i := 0; i < end; i += gramRows {
			for g := max(band, i&^7) / 8; g < end/8; g++ {
				var rows [gramRows]uint8
				for half := uint(0); half < 8; half += gramCols {
					gramTile(&dots, &a.unit[i*stride], &a.unit[(8*g+int(half))*stride], stride)
					for r := range rows {
						d := (*[gramCols]float32)(dots[r*gramCols:])
						rows[r] |= (above(d[0], tau) | above(d[1], tau)<<1 | above(d[2], tau)<<2 | above(d[3], tau)<<3) << half
					}
				}
				for r, b := range rows {
					a.bits[g*a.padded+i+r] = b
				}
			}
		}
	}
	groups := a.padded / 8
	for g := range groups {
		for h := g + 1; h < groups; h++ {
			transpose8(a.bits[g*a.padded+8*h:], a.bits[h*a.padded+8*g:])
		}
	}
	a.clearPadding()
	for i := range a.n {
		a.bits[i/8*a.padded+i] |= 1 << (i % 8)
	}
}

// clearPadding removes the edges of patches beyond n, which tau < 0 would set.
func (a *affinity) clearPadding() {
	for g := range a.padded / 8 {
		row := a.bits[g*a.padded : (g+1)*a.padded]
		clear(row[a.n:])
		if over := 8*(g+1) - a.n; over > 0 {
			for i := range row {
				row[i] &= 0xff >> min(over, 8)
			}
		}
	}
}

func above(x, tau float32) (bit uint8) {
	if x > tau {
		bit = 1
	}
	return bit
}

// transpose8 writes to dst the transpose of the 8 x 8 bits of src, a byte a
// row (Warren, Hacker's Delight, 7-3).
func transpose8(dst, src []uint8) {
	var x uint64
	for i, b := range src[:8] {
		x |= uint64(b) << (8 * i)
	}
	t := (x ^ x>>7) & 0x00aa00aa00aa00aa
	x ^= t ^ t<<7
	t = (x ^ x>>14) & 0x0000cccc0000cccc
	x ^= t ^ t<<14
	t = (x ^ x>>28) & 0x00000000f0f0f0f0
	x ^= t ^ t<<28
	for i := range dst[:8] {
		dst[i] = uint8(x >> (8 * i))
	}
}

// adjacent tells whether cos(f_i, f_j) > tau or i = j.
func (a *affinity) adjacent(i, j int) bool { return a.bits[j/8*a.padded+i]>>(j%8)&1 == 1 }

func (a *affinity) countDegrees() {
	ones := make([]float64, a.n)
	for i := range ones {
		ones[i] = 1
	}
	a.degree = resized(a.degree, a.n)
	a.multiply(a.degree, ones)
}

// multiply computes y = W x, both [n], in float64. The method of the four
// Russians: the 256 sums that 8 entries of x can make are tabled once, then a
// byte of adjacency costs one addition.
func (a *affinity) multiply(y, x []float64) {
	var total float64
	for _, v := range x {
		total += v
	}
	y = y[:a.n]
	for i := range y {
		y[i] = 0
	}
	var t0, t1, t2 [256]float64
	for g := 0; g < a.padded/8; g += 3 { // padded/8 is a multiple of 3
		subsetSums(&t0, x, 8*g)
		subsetSums(&t1, x, 8*g+8)
		subsetSums(&t2, x, 8*g+16)
		b0 := a.bits[g*a.padded:][:len(y)]
		b1 := a.bits[(g+1)*a.padded:][:len(y)]
		b2 := a.bits[(g+2)*a.padded:][:len(y)]
		for i := range y {
			y[i] += t0[b0[i]] + t1[b1[i]] + t2[b2[i]]
		}
	}
	for i, v := range y {
		y[i] = a.eps*total + (1-a.eps)*v
	}
}

// subsetSums sets table[s] to the sum of x[from+b] over the bits b of s.
func subsetSums(table *[256]float64, x []float64, from int) {
	table[0] = 0
	for b := range 8 {
		var v float64
		if from+b < len(x) {
			v = x[from+b]
		}
		for s := range 1 << b {
			table[1<<b+s] = table[s] + v
		}
	}
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// resized returns s with length n, its memory reused where it is large enough;
// the contents are whatever was there.
func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
