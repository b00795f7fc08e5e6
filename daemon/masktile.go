package main

import (
	"fmt"
	"image"
	"image/color"

	xdraw "golang.org/x/image/draw"

	"github.com/seed-a98b2d25/fovea/store"
)

// maskedOut lays a mask of the picture's size over it: the object as it is with a bright line around it, the
// rest grey and pale.
func maskedOut(picture *image.RGBA, mask *image.Gray) *image.RGBA {
	inside := func(x, y int) bool { return image.Pt(x, y).In(mask.Rect) && mask.GrayAt(x, y).Y != 0 }
	out := image.NewRGBA(picture.Rect)
	line := max(1, min(picture.Rect.Dx(), picture.Rect.Dy())/150)
	for y := range picture.Rect.Dy() {
		for x := range picture.Rect.Dx() {
			p := picture.RGBAAt(x, y)
			switch {
			case inside(x, y):
				out.SetRGBA(x, y, p)
			case inside(x+line, y) || inside(x-line, y) || inside(x, y+line) || inside(x, y-line):
				out.SetRGBA(x, y, bright)
			default:
				l := uint8((299*int(p.R) + 587*int(p.G) + 114*int(p.B)) / 1000)
				out.SetRGBA(x, y, mix(color.RGBA{l, l, l, 255}, paper, .55))
			}
		}
	}
	return out
}

// maskTile is the column of the object that was found without labels.
func maskTile(s *seen, plain *image.RGBA) tile {
	m := s.mask
	whole := wholeMask(&store.Sample{
		Meta:       store.Meta{Width: s.picture.Width, Height: s.picture.Height, Mask: &store.Mask{Width: m.mask.Width, Height: m.mask.Height, View: m.view}},
		MaskPixels: m.mask.Pixels,
	})
	small := image.NewGray(plain.Rect)
	xdraw.NearestNeighbor.Scale(small, small.Rect, whole, whole.Rect, xdraw.Src, nil)
	verdict := "would be trained on"
	if !m.accepted {
		verdict = "too low to be trained on"
	}
	return tile{
		title: "Mask", note: "the object, found without labels", picture: maskedOut(plain, small),
		below: func(c canvas, x, y int) int {
			lines := []string{fmt.Sprintf("Quality %.2f: %s.", m.mask.Quality, verdict)}
			if share := foregroundShare(&overlay{rows: s.rows, cols: s.cols, view: s.view(), relevance: s.relevance}, m.mask, m.view); share != nil && m.accepted {
				lines = append(lines, fmt.Sprintf("%.0f %% of the relevance is on it.", 100**share))
			}
			for _, line := range lines {
				c.text(x, y-24, 15, false, faint, line)
				y += 22
			}
			return y
		},
	}
}

// view is the part of the picture that the network sees.
func (s *seen) view() image.Rectangle { return s.preprocess.View(s.picture.Width, s.picture.Height) }
