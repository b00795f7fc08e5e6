package main

import (
	"context"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	xdraw "golang.org/x/image/draw"
)

// Pictures are as a camera's: 4 to 3.
const (
	pictureWidth, pictureHeight = 640, 480
	labelledWidth               = 448
)

// span is the longest side of an object, in parts of the picture's height.
type span struct{ least, most float64 }

func (s span) draw(random *rand.Rand) float64 { return s.least + (s.most-s.least)*random.Float64() }

var (
	labelledSpan = span{.5, .95}
	clipSpan     = span{.6, .9}
)

// laid is a cut-out, scaled, at a place in a picture.
type laid struct {
	cutout *cutout
	image  *image.RGBA
	at     image.Point // its upper left corner; it may reach beyond the picture
}

// size is that of a cut-out whose longest side is long.
func (c *cutout) size(long float64) image.Point {
	w, h := float64(c.image.Rect.Dx()), float64(c.image.Rect.Dy())
	by := long / max(w, h)
	return image.Pt(max(1, int(w*by+.5)), max(1, int(h*by+.5)))
}

// lay scales a cut-out and, half of the time, mirrors it.
func (c *cutout) lay(size, at image.Point, random *rand.Rand) laid {
	img := image.NewRGBA(image.Rectangle{Max: size})
	xdraw.CatmullRom.Scale(img, img.Rect, c.image, c.image.Rect, draw.Src, nil)
	if random.IntN(2) == 0 && !classes[c.class].reads {
		for y := range size.Y {
			for x := range size.X / 2 {
				a, b := img.RGBAAt(x, y), img.RGBAAt(size.X-1-x, y)
				img.SetRGBA(x, y, b)
				img.SetRGBA(size.X-1-x, y, a)
			}
		}
	}
	return laid{c, img, at}
}

// box is where the object lies.
func (l laid) box() image.Rectangle { return l.image.Rect.Add(l.at) }

// onto draws the object over p and its mask into mask, both of one size.
func (l laid) onto(p *image.RGBA, mask *image.Gray) {
	draw.Draw(p, l.box(), l.image, image.Point{}, draw.Over)
	in := l.box().Intersect(p.Rect)
	for y := in.Min.Y; y < in.Max.Y; y++ {
		for x := in.Min.X; x < in.Max.X; x++ {
			mask.Pix[mask.PixOffset(x, y)] = l.image.Pix[l.image.PixOffset(x-l.at.X, y-l.at.Y)+3]
		}
	}
}

// visible is the share of the object's own pixels that lie inside a picture.
func (l laid) visible(in image.Rectangle) float64 {
	inside, all := 0, 0
	for y := range l.image.Rect.Dy() {
		for x := range l.image.Rect.Dx() {
			if l.image.Pix[l.image.PixOffset(x, y)+3] < 128 {
				continue
			}
			all++
			if l.at.Add(image.Pt(x, y)).In(in) {
				inside++
			}
		}
	}
	return float64(inside) / float64(max(all, 1))
}

// view cuts a 4 to 3 view out of a photograph, of part of its shorter side, and scales it to width.
func view(scene *image.RGBA, part, x, y float64, width int) *image.RGBA {
	w, h := float64(scene.Rect.Dx()), float64(scene.Rect.Dy())
	vw := min(w, h*4/3) * part
	vh := vw * 3 / 4
	left, top := (w-vw)*x, (h-vh)*y
	from := image.Rect(int(left), int(top), int(left+vw), int(top+vh))
	out := image.NewRGBA(image.Rect(0, 0, width, width*3/4))
	xdraw.BiLinear.Scale(out, out.Rect, scene, from, draw.Src, nil)
	return out
}

// pictures lays every cut-out over n of the scenes and writes class/object/N.jpg with N.mask.png. Of the pictures of a
// class the share own is taken before scenes that belong to it, each scene to one class: what people collect looks
// like that, cows on meadows. The rest is taken anywhere.
func (m *material) pictures(ctx context.Context, dir string, cutouts []cutout, scenes []string, own float64, size span, n int, seed uint64) (string, error) {
	for _, s := range scenes {
		if _, err := m.scene(s); err != nil { // all before the goroutines share them
			return "", err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	number := map[string]int{} // pictures of an object so far
	for i := range cutouts {
		c := &cutouts[i]
		folder := filepath.Join(dir, classes[c.class].name, c.object)
		first := number[folder]
		number[folder] += n
		g.Go(func() error {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
			order, at := random.Perm(len(scenes)), 0
			next := func(fits func(scene int) bool) *image.RGBA {
				for !fits(order[at%len(order)]) {
					at++
				}
				at++
				return m.scenes[scenes[order[(at-1)%len(order)]]]
			}
			for k := range n {
				if err := ctx.Err(); err != nil {
					return err
				}
				biased := random.Float64() < own
				p := view(next(func(scene int) bool { return !biased || scene%len(classes) == c.class }), .75+.25*random.Float64(), random.Float64(), random.Float64(), labelledWidth)
				mask := image.NewGray(p.Rect)
				c.somewhere(p.Rect, size, random).onto(p, mask)
				tinted(p, .85+.3*random.Float64())
				if err := writePicture(filepath.Join(folder, fmt.Sprintf("%02d", first+k+1)), p, mask); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d pictures of %d cut-outs over %d scenes", len(cutouts)*n, len(cutouts), len(scenes)), nil
}

// somewhere lays a cut-out wholly inside a picture, low rather than high.
func (c *cutout) somewhere(in image.Rectangle, size span, random *rand.Rand) laid {
	of := c.size(float64(in.Dy()) * size.draw(random))
	x := int(float64(in.Dx()-of.X) * (.1 + .8*random.Float64()))
	y := int(float64(in.Dy()-of.Y) * (.3 + .7*random.Float64()))
	return c.lay(of, image.Pt(x, y), random)
}

func writePicture(name string, p *image.RGBA, mask *image.Gray) error {
	if err := write(name+".jpg", func(w io.Writer) error { return jpeg.Encode(w, p, &jpeg.Options{Quality: 90}) }); err != nil {
		return err
	}
	return write(name+".mask.png", func(w io.Writer) error { return encodeMask(w, mask) })
}

func encodeMask(w io.Writer, mask *image.Gray) error {
	return (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(w, mask)
}

func write(name string, content func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := content(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
