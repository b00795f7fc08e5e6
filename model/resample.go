package model

import "math"

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

// window is taps in fixed point.
type window struct {
	first   int
	weights []int32
}

func fixed(list []taps) []window {
	out := make([]window, len(list))
	for i, t := range list {
		w := make([]int32, len(t.weights))
		for j, v := range t.weights {
			w[j] = int32(math.Round(v * (1 << precision)))
		}
		out[i] = window{t.first, w}
	}
	return out
}

// clip8 rounds a fixed-point sum to a grey level.
func clip8(s int32) byte { return byte(min(max(s>>precision, 0), 255)) }

// resampler holds the weights and rows for pictures of one size.
type resampler struct {
	p    Preprocess
	w, h int

	across, down []window // one for each column and each row of the crop
	first, rows  int      // the rows of the picture that the crop needs
	narrow       []byte   // those rows, resampled across, [rows, Width, 3]
	sums         []int32  // of one row
	pixels       []byte   // [Height, Width, 3]
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
	r.across = fixed(antialiased(k, w, rw)[x0 : x0+p.Width])
	r.down = fixed(antialiased(k, h, rh)[y0 : y0+p.Height])
	last := r.down[p.Height-1]
	r.first = r.down[0].first
	r.rows = last.first + len(last.weights) - r.first
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
	for y := range r.rows {
		row := rgb[(r.first+y)*r.w*3:][:r.w*3]
		out := r.narrow[y*r.p.Width*3:][:r.p.Width*3]
		for x, t := range r.across {
			var red, green, blue int32 = 1 << (precision - 1), 1 << (precision - 1), 1 << (precision - 1)
			from := row[t.first*3:][:len(t.weights)*3]
			for _, w := range t.weights {
				red += int32(from[0]) * w
				green += int32(from[1]) * w
				blue += int32(from[2]) * w
				from = from[3:]
			}
			out[3*x], out[3*x+1], out[3*x+2] = clip8(red), clip8(green), clip8(blue)
		}
	}
	for y, t := range r.down {
		for i := range r.sums {
			r.sums[i] = 1 << (precision - 1)
		}
		for k, w := range t.weights {
			from := r.narrow[(t.first-r.first+k)*r.p.Width*3:][:len(r.sums)]
			for i, v := range from {
				r.sums[i] += int32(v) * w
			}
		}
		out := r.pixels[y*r.p.Width*3:][:len(r.sums)]
		for i, s := range r.sums {
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
