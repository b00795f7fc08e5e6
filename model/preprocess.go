package model

import (
	"fmt"
	"image"
	"math"
	"sync"
)

// Preprocess turns a picture into the input of a network: resize, centre crop, scale, normalise. It does what
// the image processors of Hugging Face do through Pillow, to the bit before normalisation.
type Preprocess struct {
	Height, Width             int  // of the input, in pixels: the centre of the resized picture
	ResizeHeight, ResizeWidth int  // of the resized picture; at least the crop
	KeepAspect                bool // the resized picture covers ResizeHeight x ResizeWidth (for a square: its shortest edge is that long) and is not squeezed to it

	Filter    Filter
	Scale     float64    // of a grey level 0..255, 1/255 in all families
	Mean, Std [3]float64 // of red, green, blue after Scale
}

// Filter names a resampling filter as timm does. All are Pillow's: widened when the picture shrinks.
type Filter string

// The filters that checkpoints ask for.
const (
	Bilinear Filter = "bilinear"
	Bicubic  Filter = "bicubic"
	Lanczos  Filter = "lanczos"
)

var (
	imageNetMean = [3]float64{0.485, 0.456, 0.406}
	imageNetStd  = [3]float64{0.229, 0.224, 0.225}
	half         = [3]float64{0.5, 0.5, 0.5}
)

// maxPictureSide bounds the sides of pictures and of what they are resized to, in pixels.
const maxPictureSide = 1 << 14

func (p Preprocess) validate() error {
	for _, f := range []struct {
		name string
		v    int
	}{{"height", p.Height}, {"width", p.Width}, {"resize height", p.ResizeHeight}, {"resize width", p.ResizeWidth}} {
		if f.v < 1 || f.v > maxPictureSide {
			return fmt.Errorf("%s is %d pixels, want 1 to %d", f.name, f.v, maxPictureSide)
		}
	}
	if p.Height > p.ResizeHeight || p.Width > p.ResizeWidth {
		return fmt.Errorf("a crop of %d x %d does not fit into the resized %d x %d", p.Height, p.Width, p.ResizeHeight, p.ResizeWidth)
	}
	if _, known := kernels[p.Filter]; !known {
		return fmt.Errorf("filter %q, want %q, %q or %q", p.Filter, Bilinear, Bicubic, Lanczos)
	}
	if !(p.Scale > 0 && p.Scale <= 1) {
		return fmt.Errorf("scale of a grey level is %g, want above 0 and at most 1", p.Scale)
	}
	for i, s := range p.Std {
		if !(s > 0) || math.IsInf(s, 0) || math.IsNaN(p.Mean[i]) || math.IsInf(p.Mean[i], 0) {
			return fmt.Errorf("mean %v and std %v, want numbers, std above 0", p.Mean, p.Std)
		}
	}
	return nil
}

// At returns p for another size of input, in pixels; the share of the picture that is cropped away stays.
func (p Preprocess) At(height, width int) Preprocess {
	if height == p.Height && width == p.Width {
		return p
	}
	p.ResizeHeight = int(math.Round(float64(p.ResizeHeight) * float64(height) / float64(p.Height)))
	p.ResizeWidth = int(math.Round(float64(p.ResizeWidth) * float64(width) / float64(p.Width)))
	p.Height, p.Width = height, width
	return p
}

// resized is the size that a picture of w x h pixels has before the crop.
func (p Preprocess) resized(w, h int) (rw, rh int) {
	switch {
	case !p.KeepAspect:
		return p.ResizeWidth, p.ResizeHeight
	case w*p.ResizeHeight <= h*p.ResizeWidth: // upright, compared with the box
		return p.ResizeWidth, p.ResizeWidth * h / w
	default:
		return p.ResizeHeight * w / h, p.ResizeHeight
	}
}

// View returns the part of a picture of w x h pixels that the network sees, to the nearest pixel: where to
// draw a map back onto the picture.
func (p Preprocess) View(w, h int) image.Rectangle {
	rw, rh := p.resized(w, h)
	x0, y0 := (rw-p.Width)/2, (rh-p.Height)/2
	at := func(v, from, to int) int { return int(math.Round(float64(v) * float64(to) / float64(from))) }
	return image.Rect(at(x0, rw, w), at(y0, rh, h), at(x0+p.Width, rw, w), at(y0+p.Height, rh, h))
}

// Pixels writes the input for one picture: rgb is w x h x 3 bytes, row by row; out is [3, Height, Width] and
// belongs to the caller. It may be called from several goroutines at once.
func (p Preprocess) Pixels(rgb []byte, w, h int, out []float32) error {
	switch {
	case w < 1 || h < 1 || w > maxPictureSide || h > maxPictureSide:
		return fmt.Errorf("picture of %d x %d pixels, want sides of 1 to %d", w, h, maxPictureSide)
	case len(rgb) != w*h*3:
		return fmt.Errorf("picture of %d x %d pixels has %d bytes, want %d", w, h, len(rgb), w*h*3)
	case len(out) != 3*p.Height*p.Width:
		return fmt.Errorf("input of %d numbers, want 3 x %d x %d", len(out), p.Height, p.Width)
	}
	r := resamplers.Get().(*resampler)
	defer resamplers.Put(r)
	if err := r.prepare(p, w, h); err != nil {
		return err
	}
	r.normalise(r.resample(rgb), out)
	return nil
}

// resamplers keeps what Pixels needs: cameras send one size for days.
var resamplers = sync.Pool{New: func() any { return new(resampler) }}
