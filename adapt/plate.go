package adapt

import (
	"fmt"
	"slices"
)

// Frame is a picture of a camera and what is known of its object.
type Frame struct {
	Picture *Picture
	Mask    []byte // [Height, Width], 255 on the object; nil: not known
}

// Background is a view of a camera without its objects.
type Background struct {
	Camera  string
	Picture *Picture
	Frames  int     // the median of so many; 1: one frame whose object was flattened
	Seen    float64 // share of the pixels that were seen free of an object; the rest is flattened
}

const (
	leastPlateFrames = 5  // a median of fewer keeps what passes
	mostPlateFrames  = 15 // more change little and cost time
	leastSeen        = .8 // share of pixels of a plate that were seen free of an object in two frames
)

// Plate is the temporal median of frames of one fixed camera, without the pixels of objects (masks grown by a
// fiftieth of the width): an empty view. Objects that were not masked vanish where they move. Pixels that fewer
// than two frames show free of an object are flattened. All frames have one size.
func Plate(camera string, frames []Frame) (*Background, error) {
	if len(frames) < leastPlateFrames {
		return nil, fmt.Errorf("plate of camera %q: %d frames, want %d or more", camera, len(frames), leastPlateFrames)
	}
	w, h := frames[0].Picture.Width, frames[0].Picture.Height
	masks := make([][]byte, len(frames))
	for i, f := range frames {
		if f.Picture.Width != w || f.Picture.Height != h {
			return nil, fmt.Errorf("plate of camera %q: frames of %d x %d and of %d x %d pixels", camera, w, h, f.Picture.Width, f.Picture.Height)
		}
		if f.Mask != nil {
			masks[i] = grow(f.Mask, w, h, w/50)
		}
	}
	b := &Background{Camera: camera, Picture: &Picture{Width: w, Height: h, RGB: make([]byte, 3*w*h)}, Frames: len(frames)}
	hidden := make([]byte, w*h)
	var level [3][]byte
	seen := 0
	for i := range w * h {
		for k := range level {
			level[k] = level[k][:0]
		}
		for n, f := range frames {
			if masks[n] != nil && masks[n][i] != 0 {
				continue
			}
			for k := range level {
				level[k] = append(level[k], f.Picture.RGB[3*i+k])
			}
		}
		n := len(level[0])
		if n < 2 {
			hidden[i] = 255
			continue
		}
		seen++
		for k := range level {
			slices.Sort(level[k])
			b.Picture.RGB[3*i+k] = byte((int(level[k][(n-1)/2]) + int(level[k][n/2]) + 1) / 2)
		}
	}
	b.Seen = float64(seen) / float64(w*h)
	b.Picture = b.Picture.Flatten(hidden)
	return b, nil
}

// Flatten returns the picture without its object: the pixels where mask [Height, Width] is not 0 are filled
// smoothly from those around them (push-pull: averages of ever coarser pixels that are known, then back).
func (p *Picture) Flatten(mask []byte) *Picture {
	out := &Picture{Width: p.Width, Height: p.Height, RGB: slices.Clone(p.RGB)}
	if !slices.ContainsFunc(mask, func(v byte) bool { return v != 0 }) {
		return out
	}
	fine := level{w: p.Width, h: p.Height, colour: make([]float32, 3*p.Width*p.Height), known: make([]float32, p.Width*p.Height)}
	for i, m := range mask {
		if m == 0 {
			fine.known[i] = 1
			for k := range 3 {
				fine.colour[3*i+k] = float32(p.RGB[3*i+k])
			}
		}
	}
	fine.fill()
	for i, m := range mask {
		if m != 0 {
			for k := range 3 {
				out.RGB[3*i+k] = byte(fine.colour[3*i+k] + .5)
			}
		}
	}
	return out
}

// FlattenObject is Flatten with the mask grown by a fiftieth of the width, so that no rim of the object is left.
func (p *Picture) FlattenObject(mask []byte) *Picture {
	return p.Flatten(grow(mask, p.Width, p.Height, p.Width/50))
}

// level is a level of the pyramid of Flatten. Where known is 0 the colour is not yet.
type level struct {
	w, h   int
	colour []float32 // [h, w, 3]
	known  []float32 // [h, w], 0 to 1
}

// fill gives every pixel that is not known its colour.
func (l *level) fill() {
	if l.w == 1 && l.h == 1 {
		return
	}
	half := level{w: (l.w + 1) / 2, h: (l.h + 1) / 2}
	half.colour, half.known = make([]float32, 3*half.w*half.h), make([]float32, half.w*half.h)
	for y := range l.h {
		for x := range l.w {
			i, j := y*l.w+x, y/2*half.w+x/2
			half.known[j] += l.known[i]
			for k := range 3 {
				half.colour[3*j+k] += l.known[i] * l.colour[3*i+k]
			}
		}
	}
	for j, n := range half.known {
		if n > 0 {
			for k := range 3 {
				half.colour[3*j+k] /= n
			}
			half.known[j] = 1
		}
	}
	half.fill()
	for y := range l.h {
		for x := range l.w {
			if i := y*l.w + x; l.known[i] == 0 {
				half.at(float64(x)/2-.25, float64(y)/2-.25, l.colour[3*i:3*i+3])
				l.known[i] = 1
			}
		}
	}
}

// at interpolates bilinearly.
func (l *level) at(x, y float64, out []float32) {
	x, y = min(max(x, 0), float64(l.w-1)), min(max(y, 0), float64(l.h-1))
	x0, y0 := int(x), int(y)
	x1, y1 := min(x0+1, l.w-1), min(y0+1, l.h-1)
	fx, fy := float32(x-float64(x0)), float32(y-float64(y0))
	for k := range 3 {
		top := l.colour[3*(y0*l.w+x0)+k]*(1-fx) + l.colour[3*(y0*l.w+x1)+k]*fx
		bottom := l.colour[3*(y1*l.w+x0)+k]*(1-fx) + l.colour[3*(y1*l.w+x1)+k]*fx
		out[k] = top*(1-fy) + bottom*fy
	}
}

// grow dilates a mask by a square of 2 by + 1 pixels.
func grow(mask []byte, w, h, by int) []byte {
	rows := make([]byte, len(mask))
	for y := range h {
		spread(mask[y*w:(y+1)*w], rows[y*w:(y+1)*w], 1, w, by)
	}
	out := make([]byte, len(mask))
	for x := range w {
		spread(rows[x:], out[x:], w, h, by)
	}
	return out
}

// spread writes 255 within by of every entry that is not 0; entries lie stride apart.
func spread(in, out []byte, stride, n, by int) {
	until := -1
	for i := range min(by, n) {
		if in[i*stride] != 0 {
			until = i + by
		}
	}
	for i := range n {
		if j := i + by; j < n && in[j*stride] != 0 {
			until = j + by
		}
		if i <= until {
			out[i*stride] = 255
		}
	}
}
