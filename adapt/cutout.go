package adapt

import (
	"errors"
	"image"
	"image/draw"
	"math"
	"math/rand/v2"

	xdraw "golang.org/x/image/draw"

	"github.com/seed-a98b2d25/fovea/model"
)

// cutout is a labelled object lifted from its picture.
type cutout struct {
	class int
	group string
	image *image.RGBA
}

// lift cuts the object out of a picture; mask is [Height, Width], 255 on it.
func lift(p *Picture, mask []byte) (*image.RGBA, error) {
	box := maskBox(mask, p.Width)
	if box.Dx() < 8 || box.Dy() < 8 {
		return nil, errors.New("the object is smaller than 8 pixels")
	}
	img := image.NewRGBA(image.Rect(0, 0, box.Dx(), box.Dy()))
	for y := range box.Dy() {
		for x := range box.Dx() {
			i := (box.Min.Y+y)*p.Width + box.Min.X + x
			if mask[i] != 0 {
				copy(img.Pix[img.PixOffset(x, y):], []byte{p.RGB[3*i], p.RGB[3*i+1], p.RGB[3*i+2], 255})
			}
		}
	}
	return img, nil
}

// maskBox is the smallest rectangle that holds the mask.
func maskBox(mask []byte, w int) image.Rectangle {
	var box image.Rectangle
	for i, v := range mask {
		if v != 0 {
			box = box.Union(image.Rect(i%w, i/w, i%w+1, i/w+1))
		}
	}
	return box
}

// placing is how objects are laid on backgrounds. What is judged differs from what was trained on in all of it.
type placing struct {
	least, most float64 // longest side of the object, in parts of the shorter side of what the network sees
	feather     int     // pixels over which its edge fades, inwards: the donor's surroundings must not come along
	margin      float64 // least distance from the edge of what the network sees, in parts of the free room
	mirror      bool    // every second one
}

var (
	trainPlacing = placing{least: .45, most: .9, feather: 1, margin: 0, mirror: true}
	judgePlacing = placing{least: .4, most: .75, feather: 2, margin: .15}
)

// onto lays the object on a background, inside the part of it that the network sees, at a place that random
// draws. mask is [Height, Width], 255 where the object covers at least half.
func (p placing) onto(bg *Picture, object *image.RGBA, pre model.Preprocess, random *rand.Rand) (out *Picture, mask []byte) {
	view := pre.View(bg.Width, bg.Height).Intersect(image.Rect(0, 0, bg.Width, bg.Height))
	w, h := float64(object.Rect.Dx()), float64(object.Rect.Dy())
	long := (p.least + (p.most-p.least)*random.Float64()) * float64(min(view.Dx(), view.Dy()))
	by := long / max(w, h)
	size := image.Pt(max(1, int(math.Round(w*by))), max(1, int(math.Round(h*by))))
	place := func(free int) int {
		return int(math.Round(float64(free) * (p.margin + (1-2*p.margin)*random.Float64())))
	}
	at := view.Min.Add(image.Pt(place(view.Dx()-size.X), place(view.Dy()-size.Y)))
	mirror := p.mirror && random.IntN(2) == 1

	scaled := image.NewRGBA(image.Rectangle{Max: size})
	xdraw.BiLinear.Scale(scaled, scaled.Rect, object, object.Rect, draw.Src, nil)
	alpha := feathered(scaled, p.feather)

	out = &Picture{Width: bg.Width, Height: bg.Height, RGB: append([]byte(nil), bg.RGB...)}
	mask = make([]byte, bg.Width*bg.Height)
	for y := range size.Y {
		for x := range size.X {
			sx := x
			if mirror {
				sx = size.X - 1 - x
			}
			a := alpha[y*size.X+sx]
			if a == 0 {
				continue
			}
			to := (at.Y+y)*bg.Width + at.X + x
			from := scaled.Pix[scaled.PixOffset(sx, y):]
			for k := range 3 { // colours are premultiplied
				colour := float32(from[k]) * 255 / float32(from[3])
				out.RGB[3*to+k] = byte(float32(out.RGB[3*to+k])*(1-a) + min(colour, 255)*a + .5)
			}
			if a >= .5 {
				mask[to] = 255
			}
		}
	}
	return out, mask
}

// feathered is the object's opacity, [h, w] in 0..1, faded by by pixels from its edge inwards.
func feathered(img *image.RGBA, by int) []float32 {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	alpha := make([]float32, w*h)
	for i := range alpha {
		alpha[i] = float32(img.Pix[img.PixOffset(i%w, i/w)+3]) / 255
	}
	if by == 0 {
		return alpha
	}
	out := make([]float32, w*h)
	for y := range h {
		for x := range w {
			i := y*w + x
			if alpha[i] == 0 {
				continue
			}
			var sum float32
			for dy := -by; dy <= by; dy++ {
				for dx := -by; dx <= by; dx++ {
					if yy, xx := y+dy, x+dx; yy >= 0 && yy < h && xx >= 0 && xx < w {
						sum += alpha[yy*w+xx]
					}
				}
			}
			n := float32((2*by + 1) * (2*by + 1))
			out[i] = min(alpha[i], max(0, 2*sum/n-1))
		}
	}
	return out
}
