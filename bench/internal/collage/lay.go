package collage

import (
	"image"
	"image/draw"
	"math/rand/v2"

	xdraw "golang.org/x/image/draw"
)

// Span is the longest side of an object, in parts of the picture's height.
type Span struct{ Least, Most float64 }

// Draw is a length within the span.
func (s Span) Draw(random *rand.Rand) float64 { return s.Least + (s.Most-s.Least)*random.Float64() }

// Laid is a cut-out, scaled, at a place in a picture.
type Laid struct {
	Cutout *Cutout
	Image  *image.RGBA
	At     image.Point // its upper left corner; it may reach beyond the picture
}

// Size is that of a cut-out whose longest side is long.
func (c *Cutout) Size(long float64) image.Point {
	w, h := float64(c.Image.Rect.Dx()), float64(c.Image.Rect.Dy())
	by := long / max(w, h)
	return image.Pt(max(1, int(w*by+.5)), max(1, int(h*by+.5)))
}

// Lay scales a cut-out and, half of the time, mirrors it.
func (c *Cutout) Lay(size, at image.Point, random *rand.Rand) Laid {
	img := image.NewRGBA(image.Rectangle{Max: size})
	xdraw.CatmullRom.Scale(img, img.Rect, c.Image, c.Image.Rect, draw.Src, nil)
	if random.IntN(2) == 0 && !Classes[c.Class].Reads {
		for y := range size.Y {
			for x := range size.X / 2 {
				a, b := img.RGBAAt(x, y), img.RGBAAt(size.X-1-x, y)
				img.SetRGBA(x, y, b)
				img.SetRGBA(size.X-1-x, y, a)
			}
		}
	}
	return Laid{c, img, at}
}

// Box is where the object lies.
func (l Laid) Box() image.Rectangle { return l.Image.Rect.Add(l.At) }

// Onto draws the object over p and its mask into mask, both of one size.
func (l Laid) Onto(p *image.RGBA, mask *image.Gray) {
	draw.Draw(p, l.Box(), l.Image, image.Point{}, draw.Over)
	in := l.Box().Intersect(p.Rect)
	for y := in.Min.Y; y < in.Max.Y; y++ {
		for x := in.Min.X; x < in.Max.X; x++ {
			mask.Pix[mask.PixOffset(x, y)] = l.Image.Pix[l.Image.PixOffset(x-l.At.X, y-l.At.Y)+3]
		}
	}
}

// Visible is the share of the object's own pixels that lie inside a picture.
func (l Laid) Visible(in image.Rectangle) float64 {
	inside, all := 0, 0
	for y := range l.Image.Rect.Dy() {
		for x := range l.Image.Rect.Dx() {
			if l.Image.Pix[l.Image.PixOffset(x, y)+3] < 128 {
				continue
			}
			all++
			if l.At.Add(image.Pt(x, y)).In(in) {
				inside++
			}
		}
	}
	return float64(inside) / float64(max(all, 1))
}

// Somewhere lays a cut-out wholly inside a picture, low rather than high.
func (c *Cutout) Somewhere(in image.Rectangle, size Span, random *rand.Rand) Laid {
	of := c.Size(float64(in.Dy()) * size.Draw(random))
	x := int(float64(in.Dx()-of.X) * (.1 + .8*random.Float64()))
	y := int(float64(in.Dy()-of.Y) * (.3 + .7*random.Float64()))
	return c.Lay(of, image.Pt(x, y), random)
}
