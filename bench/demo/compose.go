package main

import (
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

// Pictures are as a camera's: 4 to 3.
const (
	pictureWidth, pictureHeight = 640, 480
	labelledWidth               = 448
)

var (
	labelledSpan = collage.Span{Least: .5, Most: .95}
	clipSpan     = collage.Span{Least: .6, Most: .9}
)

// pictures lays every cut-out over n of the scenes and writes class/object/N.jpg with N.mask.png. Of the pictures of a
// class the share own is taken before scenes that belong to it, each scene to one class: what people collect looks
// like that, cows on meadows. The rest is taken anywhere.
func (m *material) pictures(ctx context.Context, dir string, cutouts []collage.Cutout, scenes []string, own float64, size collage.Span, n int, seed uint64) (string, error) {
	views := make([]*image.RGBA, len(scenes)) // all before the goroutines share them
	for i, s := range scenes {
		var err error
		if views[i], err = m.photographs.Read(s); err != nil {
			return "", err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	number := map[string]int{} // pictures of an object so far
	for i := range cutouts {
		c := &cutouts[i]
		folder := filepath.Join(dir, collage.Classes[c.Class].Name, c.Object)
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
				return views[order[(at-1)%len(order)]]
			}
			for k := range n {
				if err := ctx.Err(); err != nil {
					return err
				}
				biased := random.Float64() < own
				scene := next(func(scene int) bool { return !biased || scene%len(collage.Classes) == c.Class })
				p := collage.View(scene, .75+.25*random.Float64(), random.Float64(), random.Float64(), image.Pt(labelledWidth, labelledWidth*3/4))
				mask := image.NewGray(p.Rect)
				c.Somewhere(p.Rect, size, random).Onto(p, mask)
				light := .85 + .3*random.Float64()
				collage.Tint(p, light, light, light)
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
