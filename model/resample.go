package model

import (
	"math"
	"slices"
)

// kernel is a resampling filter: at(x) is its weight at distance x, zero from support on.
type kernel struct {
	support float64
	at      func(x float64) float64
}

var kernels = map[Filter]kernel{
	Bilinear: {1, func(x float64) float64 { return max(0, 1-math.Abs(x)) }},
	Bicubic:  {2, func(x float64) float64 { return cubic(math.Abs(x), -0.5) }},
	Lanczos: {3, func(x float64) float64 {
		if x < -3 || x >= 3 {
			return 0
		}
		return sinc(x) * sinc(x/3)
	}},
}

// cubic is Keys' convolution kernel with parameter a at distance x >= 0.
func cubic(x, a float64) float64 {
	switch {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// taps gives what one output sample takes from the input: weights for samples from first on, sum 1.
type taps struct {
	first   int
	weights []float64
}

// antialiased returns the taps of every output sample when n samples become m: the kernel is widened by the
// scale when they become fewer. Pillow's precompute_coeffs, and PyTorch's antialias=True.
func antialiased(k kernel, n, m int) []taps {
	scale := float64(n) / float64(m)
	wide := max(scale, 1)
	support := k.support * wide
	list := make([]taps, m)
	for i := range list {
		centre := (float64(i) + 0.5) * scale
		first := max(0, int(centre-support+0.5))
		last := min(n, int(centre+support+0.5))
		w := make([]float64, last-first)
		sum := 0.0
		for j := range w {
			w[j] = k.at((float64(first+j) - centre + 0.5) / wide)
			sum += w[j]
		}
		for j := range w {
			w[j] /= sum
		}
		list[i] = taps{first, w}
	}
	return list
}

// precision is the number of fractional bits of Pillow's fixed-point weights.
const precision = 32 - 8 - 2

// windows are taps in fixed point, all of n samples: the loops over them have one length.
type windows struct {
	n       int
	first   []int   // of each output sample
	weights []int32 // n of each output sample
}

// fixed converts the taps of samples out of `in`.
func fixed(list []taps, in int) windows {
	w := windows{first: make([]int, len(list))}
	for _, t := range list {
		w.n = max(w.n, len(t.weights))
	}
	w.weights = make([]int32, w.n*len(list))
	for i, t := range list {
		w.first[i] = min(t.first, in-w.n)
		for j, v := range t.weights {
			w.weights[i*w.n+t.first-w.first[i]+j] = int32(math.Round(v * (1 << precision)))
		}
	}
	return w
}

// clip8 rounds a fixed-point sum, which has half a level more already, to a grey level.
func clip8(s int32) byte {
	s >>= precision
	if uint32(s) > 255 { // rare: the negative lobes of a filter at an edge
		return byte(^(s >> 31)) // 0 below, 255 above
	}
	return byte(s)
}

// resampler holds the weights and rows for pictures of one size.
type resampler struct {
	p    Preprocess
	w, h int

	across, down windows // of the columns and the rows of the crop
	first, rows  int     // the rows of the picture that the crop needs
	narrow       []byte  // those rows, resampled across, [rows, Width, 3]
	sums         []int32 // of one row
	pixels       []byte  // [Height, Width, 3]
	levels       [3][256]float32
}

// prepare makes r fit for pictures of w x h pixels; it has nothing to do when they stay alike.
func (r *resampler) prepare(p Preprocess, w, h int) error {
	if r.p == p && r.w == w && r.h == h {
		return nil
	}
	if err := p.validate(); err != nil {
		return err
	}
	rw, rh := p.resized(w, h)
	x0, y0 := (rw-p.Width)/2, (rh-p.Height)/2
	k := kernels[p.Filter]
	r.across = fixed(antialiased(k, w, rw)[x0:x0+p.Width], w)
	r.down = fixed(antialiased(k, h, rh)[y0:y0+p.Height], h)
	r.first = slices.Min(r.down.first)
	r.rows = slices.Max(r.down.first) + r.down.n - r.first
	r.narrow = make([]byte, r.rows*p.Width*3)
	r.sums = make([]int32, p.Width*3)
	r.pixels = make([]byte, p.Height*p.Width*3)
	for c := range r.levels {
		for v := range r.levels[c] {
			r.levels[c][v] = float32((float64(v)*p.Scale - p.Mean[c]) / p.Std[c])
		}
	}
	r.p, r.w, r.h = p, w, h
	return nil
}

// resample returns the crop of the resized picture, [Height, Width, 3]; it stays r's. Like Pillow it goes
// across first, rounds to grey levels, then goes down.
func (r *resampler) resample(rgb []byte) []byte {
	const halfLevel = 1 << (precision - 1)
	stride := r.p.Width * 3
	for y := range r.rows {
		row := rgb[(r.first+y)*r.w*3:][:r.w*3]
		out := r.narrow[y*stride:][:stride]
		for x, first := range r.across.first {
			red, green, blue := int32(halfLevel), int32(halfLevel), int32(halfLevel)
			from := row[3*first:][:3*r.across.n]
			for k, w := range r.across.weights[x*r.across.n:][:r.across.n] {
				red += int32(from[3*k]) * w
				green += int32(from[3*k+1]) * w
				blue += int32(from[3*k+2]) * w
			}
			pixel := (*[3]byte)(out[3*x:])
			pixel[0], pixel[1], pixel[2] = clip8(red), clip8(green), clip8(blue)
		}
	}
	sums := r.sums
	for y, first := range r.down.first {
		for i := range sums {
			sums[i] = halfLevel
		}
		from := r.narrow[(first-r.first)*stride:][:r.down.n*stride]
		weights := r.down.weights[y*r.down.n:][:r.down.n]
		for ; len(weights) >= 2; weights, from = weights[2:], from[2*stride:] { // two rows at a time: fewer loads of sums
			w0, w1 := weights[0], weights[1]
			row0, row1 := from[:len(sums)], from[stride:][:len(sums)]
			for i := range sums {
				sums[i] += int32(row0[i])*w0 + int32(row1[i])*w1
			}
		}
		if len(weights) == 1 {
			for i, v := range from[:len(sums)] {
				sums[i] += int32(v) * weights[0]
			}
		}
		out := r.pixels[y*stride:][:len(sums)]
		for i, s := range sums {
			out[i] = clip8(s)
		}
	}
	return r.pixels
}

// normalise turns [Height, Width, 3] into [3, Height, Width].
func (r *resampler) normalise(pixels []byte, out []float32) {
	n := len(pixels) / 3
	red, green, blue := out[:n], out[n:2*n], out[2*n:3*n]
	for i := range n {
		red[i] = r.levels[0][pixels[3*i]]
		green[i] = r.levels[1][pixels[3*i+1]]
		blue[i] = r.levels[2][pixels[3*i+2]]
	}
}
