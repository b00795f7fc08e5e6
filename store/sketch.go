package store

import "math/bits"

// sketch is a vector of length 1 seen through 64 random directions: the inner product of two sketches is that of
// the vectors give or take (1 - cosine^2) / 8 (a random projection, Johnson and Lindenstrauss 1984; entries of
// one size with random signs, Achlioptas 2003). It takes a sixth of the time that 384 features take.
type sketch [64]float32

// sketchOf is zero for nil.
func sketchOf(unit []float32) sketch {
	var s sketch
	for i, v := range unit {
		v /= 8
		for k, signs := 0, scramble(uint64(i)); k < len(s); k, signs = k+1, bits.RotateLeft64(signs, 1) {
			if signs&1 != 0 {
				s[k] += v
			} else {
				s[k] -= v
			}
		}
	}
	return s
}

// scramble makes random bits of a number, the same for ever (splitmix64, Steele, Lea and Flood 2014).
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// finalists is how many samples are compared in full.
const finalists = 24

// cosine is the largest cosine of a vector of length 1 to the entries of a group, found among those whose
// sketches are nearest. Should others be nearer, it is too small by what their sketches err, which is little
// where it matters, near 1.
func (g *group) cosine(unit []float32) (largest float32, found bool) {
	if unit == nil {
		return 0, false
	}
	type rough struct {
		cosine float32
		entry  *entry
	}
	var best [finalists]rough // by cosine, falling
	n := 0
	own := sketchOf(unit)
	for _, e := range g.entries {
		if len(e.unit) != len(unit) {
			continue
		}
		cosine := dot(own[:], e.sketch[:])
		if n == finalists && cosine <= best[n-1].cosine {
			continue
		}
		n = min(n+1, finalists)
		at := n - 1
		for ; at > 0 && best[at-1].cosine < cosine; at-- {
			best[at] = best[at-1]
		}
		best[at] = rough{cosine, e}
	}
	for i, b := range best[:n] {
		if c := dot(unit, b.entry.unit); i == 0 || c > largest {
			largest = c
		}
	}
	return largest, n > 0
}
