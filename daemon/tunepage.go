package main

import (
	"embed"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/image/font"

	xdraw "golang.org/x/image/draw"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

//go:embed tunepage.html
var tunePageFile embed.FS

// tunePictures is how many held-out pictures the page shows.
const tunePictures = 12

// writeTunePage writes index.html and the pictures of maps before and after beside it.
func writeTunePage(dir string, c model.Config, set *adapt.TuneSet, r *adapt.TuneReport) error {
	var pictures []string
	for i := range min(tunePictures, len(set.Held)) {
		name := fmt.Sprintf("maps-%02d.png", i+1)
		if err := writePicture(filepath.Join(dir, name), drawBeforeAfter(c, set, r, i)); err != nil {
			return err
		}
		pictures = append(pictures, name)
	}
	page, err := template.ParseFS(tunePageFile, "tunepage.html")
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "index.html"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := page.Execute(f, map[string]any{
		"Report": r, "Rows": tuneRows(r), "Chosen": chosen(r), "Pictures": pictures, "Chart": lossChart(r),
	}); err != nil {
		return err
	}
	return f.Close()
}

func writePicture(file string, m image.Image) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := png.Encode(f, m); err != nil {
		return err
	}
	return f.Close()
}

// drawBeforeAfter lays out one held-out picture: itself with its mask outlined, the map before, the map after.
func drawBeforeAfter(c model.Config, set *adapt.TuneSet, r *adapt.TuneReport, i int) *image.RGBA {
	rgb, mask := set.Centre(&set.Held[i], c)
	small := rgba(&adapt.Picture{Width: c.ImageWidth, Height: c.ImageHeight, RGB: rgb})
	w, h := fitted(c.ImageWidth, c.ImageHeight, tileSide)
	plain := image.NewRGBA(image.Rect(0, 0, w, h))
	xdraw.CatmullRom.Scale(plain, plain.Rect, small, small.Rect, xdraw.Src, nil)

	nothing := func(_ canvas, _, y int) int { return y - 14 }
	tiles := []tile{
		{title: "Picture", note: "the mask outlined", picture: outlined(plain, mask, c), below: nothing},
		{
			title: "Relevance before", picture: overlaid(plain, plain.Rect, r.MapsBefore[i], c.ImageHeight, c.ImageWidth, inferno),
			colours: inferno, low: "least", high: "most", below: nothing,
		},
		{
			title: "Relevance after", picture: overlaid(plain, plain.Rect, r.MapsAfter[i], c.ImageHeight, c.ImageWidth, inferno),
			colours: inferno, low: "least", high: "most", below: nothing,
		},
	}
	wide := 2*panelEdge + len(tiles)*tileSide + (len(tiles)-1)*tileGap
	out := canvas{image.NewRGBA(image.Rect(0, 0, wide, h+140)), map[faceKey]font.Face{}}
	draw.Draw(out, out.Rect, image.NewUniform(paper), image.Point{}, draw.Src)
	out.text(panelEdge, 28, 15, false, faint, set.Held[i].Name)
	for k, t := range tiles {
		out.tile(panelEdge+k*(tileSide+tileGap), 40, h, t)
	}
	return out.RGBA
}

// outlined draws the edge of a mask onto a picture.
func outlined(plain *image.RGBA, mask []byte, c model.Config) *image.RGBA {
	out := image.NewRGBA(plain.Rect)
	draw.Draw(out, out.Rect, plain, image.Point{}, draw.Src)
	inside := func(x, y int) bool {
		if !image.Pt(x, y).In(plain.Rect) {
			return false
		}
		return mask[y*c.ImageHeight/plain.Rect.Dy()*c.ImageWidth+x*c.ImageWidth/plain.Rect.Dx()] >= 128
	}
	for y := range plain.Rect.Dy() {
		for x := range plain.Rect.Dx() {
			if inside(x, y) && !(inside(x-2, y) && inside(x+2, y) && inside(x, y-2) && inside(x, y+2)) {
				out.SetRGBA(x, y, color.RGBA{255, 214, 10, 255})
			}
		}
	}
	return out
}

// lossChart draws the total of each step and of the held-out pictures as SVG.
func lossChart(r *adapt.TuneReport) template.HTML {
	const width, height, left, bottom = 900, 260, 60, 30
	top := 1e-9
	for _, list := range [][]adapt.TuneStep{r.Steps, r.Checks} {
		for _, s := range list {
			top = max(top, s.Losses.Total)
		}
	}
	at := func(s adapt.TuneStep) string {
		x := left + float64(width-left-10)*float64(s.Step)/float64(max(1, len(r.Steps)))
		y := 10 + float64(height-10-bottom)*(1-s.Losses.Total/top)
		return fmt.Sprintf("%.1f,%.1f", x, y)
	}
	line := func(list []adapt.TuneStep, class string) string {
		var points []string
		for _, s := range list {
			points = append(points, at(s))
		}
		return fmt.Sprintf(`<polyline class="%s" points="%s"/>`, class, strings.Join(points, " "))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="loss by step">`, width, height)
	for i := range 5 {
		v := top * float64(i) / 4
		y := 10 + float64(height-10-bottom)*(1-float64(i)/4)
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%.3g</text>`, left, width-10, y, y, left-8, y+4, v)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">step 0</text><text x="%d" y="%d" text-anchor="end">step %d</text>`, left, height-8, width-10, height-8, len(r.Steps))
	b.WriteString(line(r.Steps, "step") + line(r.Checks, "held") + "</svg>")
	return template.HTML(b.String())
}
