package main

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"path/filepath"
	"slices"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	xdraw "golang.org/x/image/draw"

	"github.com/seed-a98b2d25/fovea/adapt"
)

// Measures of a panel in pixels.
const (
	tileSide   = 420 // of the square that each picture is fitted into
	tileGap    = 22
	panelEdge  = 28
	headHeight = 84
)

var (
	paper   = color.RGBA{250, 250, 248, 255}
	ink     = color.RGBA{28, 30, 34, 255}
	faint   = color.RGBA{110, 114, 122, 255}
	hairs   = color.RGBA{216, 217, 220, 255}
	bright  = color.RGBA{33, 145, 140, 255} // of the bars: the middle of viridis
	outside = color.RGBA{120, 120, 120, 255}
)

// canvas is a picture under way, with the type faces that were needed so far.
type canvas struct {
	*image.RGBA
	faces map[faceKey]font.Face
}

type faceKey struct {
	size float64
	bold bool
}

// tile is one column of a panel: a picture with what is told of it, and what hangs below.
type tile struct {
	title, note string
	picture     *image.RGBA
	colours     *colourMap // of the legend; nil for none
	low, high   string     // what its ends mean
	below       func(c canvas, x, y int) (bottom int)
}

// drawPanel lays out one picture's panel.
func drawPanel(s *seen) *image.RGBA {
	width, height := fitted(s.picture.Width, s.picture.Height, tileSide)
	view := scaled(s.preprocess.View(s.picture.Width, s.picture.Height), width, height, s.picture)
	plain := image.NewRGBA(image.Rect(0, 0, width, height))
	xdraw.CatmullRom.Scale(plain, plain.Rect, rgba(s.picture), image.Rect(0, 0, s.picture.Width, s.picture.Height), xdraw.Src, nil)

	note := "the network sees what is not greyed"
	if !s.second.Empty() {
		note += ", and again the box"
	}
	attention := meanMap(s.attention)
	peak := slices.Max(attention) * float32(len(attention))
	tiles := []tile{
		{
			title: "Picture", note: note, picture: framed(veiled(plain, view), scaled(s.second, width, height, s.picture)),
			below: func(c canvas, x, y int) int { return c.guesses(x, y, s.guesses) },
		},
		{
			title: "Attention of the class token", note: fmt.Sprintf("last block, mean of %d heads", len(s.attention)),
			picture: overlaid(plain, view, attention, s.rows, s.cols, viridis), colours: viridis,
			low: "least", high: fmt.Sprintf("%.1f x an even share", peak),
			below: func(c canvas, x, y int) int { return c.heads(x, y, s, plain, view) },
		},
		{
			title: "Relevance for " + quote(s.explained), note: "what spoke for it, through all blocks",
			picture: overlaid(plain, view, s.relevance, s.rows, s.cols, inferno), colours: inferno,
			low: "least", high: "most",
			below: func(c canvas, x, y int) int {
				c.text(x, y+16, 15, false, faint, fmt.Sprintf("Half of it lies in %d of %d patches.", halfOf(s.relevance), s.rows*s.cols))
				return y + 22
			},
		},
		maskTile(s, plain),
	}

	wide := 2*panelEdge + len(tiles)*tileSide + (len(tiles)-1)*tileGap
	c := canvas{image.NewRGBA(image.Rect(0, 0, wide, 3000)), map[faceKey]font.Face{}} // cut to its height at the end
	draw.Draw(c, c.Rect, image.NewUniform(paper), image.Point{}, draw.Src)
	end := c.text(panelEdge, 52, 34, true, ink, c.shortened(s.guesses[0].label, 34, true, wide/2))
	end = c.text(end+14, 52, 34, false, faint, percent(s.guesses[0].score))
	c.text(end+28, 52, 16, false, faint, filepath.Base(s.name))

	bottom := 0
	for i, t := range tiles {
		bottom = max(bottom, c.tile(panelEdge+i*(tileSide+tileGap), headHeight, height, t))
	}
	return c.SubImage(image.Rect(0, 0, wide, bottom+panelEdge)).(*image.RGBA)
}

// tile draws a column, its picture height pixels high, and returns where it ends.
func (c canvas) tile(x, y, height int, t tile) int {
	end := c.text(x, y+18, 17, true, ink, c.shortened(t.title, 17, true, tileSide)) + 10
	c.text(end, y+18, 14, false, faint, c.shortened(t.note, 14, false, x+tileSide-end))
	y += 30
	xdraw.Draw(c, t.picture.Rect.Add(image.Pt(x, y)), t.picture, image.Point{}, xdraw.Src)
	y += height + 12
	if t.colours != nil {
		c.legend(x, y, t.colours, t.low, t.high)
	}
	return t.below(c, x, y+40)
}

// legend draws a scale of colours with the meaning of its ends.
func (c canvas) legend(x, y int, m *colourMap, low, high string) {
	const width, height = 150, 12
	x = c.text(x, y+12, 14, false, faint, low) + 8
	for i := range width {
		c.box(image.Rect(x+i, y, x+i+1, y+height), m.at(float32(i)/(width-1)))
	}
	c.text(x+width+8, y+12, 14, false, faint, high)
}

// guesses draws the likeliest classes as bars.
func (c canvas) guesses(x, y int, guesses []namedScore) int {
	const row, name, number = 30, 130, 52
	for i, g := range guesses {
		c.text(x, y+16, 15, i == 0, ink, c.shortened(g.label, 15, i == 0, name-8))
		bar := tileSide - name - number
		c.box(image.Rect(x+name, y+3, x+name+bar, y+19), hairs)
		c.box(image.Rect(x+name, y+3, x+name+int(float32(bar)*g.score+.5), y+19), bright)
		c.text(x+name+bar+10, y+16, 15, i == 0, ink, percent(g.score))
		y += row
	}
	return y
}

// heads draws the attention of each head in small, each on its own scale.
func (c canvas) heads(x, y int, s *seen, plain *image.RGBA, view image.Rectangle) int {
	per := 3
	if len(s.attention) > 6 {
		per = 4
	}
	const gap = 8
	side := (tileSide - (per-1)*gap) / per
	w, h := fitted(plain.Rect.Dx(), plain.Rect.Dy(), side)
	for i, m := range s.attention {
		full := overlaid(plain, view, m, s.rows, s.cols, viridis)
		at := image.Rect(0, 0, w, h).Add(image.Pt(x+i%per*(side+gap), y+i/per*(h+22)))
		xdraw.ApproxBiLinear.Scale(c, at, full, full.Rect, xdraw.Src, nil)
		c.text(at.Min.X, at.Max.Y+14, 12, false, faint, fmt.Sprintf("head %d", i))
	}
	rows := (len(s.attention) + per - 1) / per
	return y + rows*(h+22)
}

// overlaid lays a map over a grey picture: the brighter, the less of the picture shows through. Outside of
// what the network sees the picture stays grey.
func overlaid(plain *image.RGBA, view image.Rectangle, m []float32, rows, cols int, colours *colourMap) *image.RGBA {
	out := image.NewRGBA(plain.Rect)
	low, high := slices.Min(m), slices.Max(m)
	for y := range plain.Rect.Dy() {
		for x := range plain.Rect.Dx() {
			p := plain.RGBAAt(x, y)
			l := uint8((299*int(p.R) + 587*int(p.G) + 114*int(p.B)) / 1000)
			grey := color.RGBA{l, l, l, 255}
			if !image.Pt(x, y).In(view) {
				out.SetRGBA(x, y, mix(grey, outside, .6))
				continue
			}
			var v float32 // a constant map is zero
			if high > low {
				u := float32(x-view.Min.X) + .5
				w := float32(y-view.Min.Y) + .5
				v = (sample(m, rows, cols, w/float32(view.Dy()), u/float32(view.Dx())) - low) / (high - low)
			}
			out.SetRGBA(x, y, mix(grey, colours.at(v), .45+.35*v))
		}
	}
	return out
}

// sample reads a map bilinearly at y, x in 0..1 of its height and width, cell centres at half.
func sample(m []float32, rows, cols int, y, x float32) float32 {
	axis := func(at float32, n int) (int, int, float32) {
		v := min(max(at*float32(n)-.5, 0), float32(n-1))
		return int(v), min(int(v)+1, n-1), v - float32(int(v))
	}
	y0, y1, fy := axis(y, rows)
	x0, x1, fx := axis(x, cols)
	top := m[y0*cols+x0]*(1-fx) + m[y0*cols+x1]*fx
	bottom := m[y1*cols+x0]*(1-fx) + m[y1*cols+x1]*fx
	return top*(1-fy) + bottom*fy
}

// veiled greys what the network does not see.
func veiled(plain *image.RGBA, view image.Rectangle) *image.RGBA {
	out := image.NewRGBA(plain.Rect)
	for y := range plain.Rect.Dy() {
		for x := range plain.Rect.Dx() {
			p := plain.RGBAAt(x, y)
			if !image.Pt(x, y).In(view) {
				p = mix(p, outside, .6)
			}
			out.SetRGBA(x, y, p)
		}
	}
	return out
}

// framed draws where a second look went, a white line in a dark one, to be seen on anything; nothing for an empty box.
func framed(picture *image.RGBA, box image.Rectangle) *image.RGBA {
	if box.Empty() {
		return picture
	}
	out := image.NewRGBA(picture.Rect)
	draw.Draw(out, out.Rect, picture, picture.Rect.Min, draw.Src)
	line := max(1, picture.Rect.Dx()/320)
	for _, ring := range []struct {
		from, to int // insets of the box
		colour   color.RGBA
	}{{-2 * line, line, ink}, {-line, 0, color.RGBA{255, 255, 255, 255}}} {
		outer, inner := box.Inset(ring.from), box.Inset(ring.to)
		for y := outer.Min.Y; y < outer.Max.Y; y++ {
			for x := outer.Min.X; x < outer.Max.X; x++ {
				if at := image.Pt(x, y); at.In(out.Rect) && !at.In(inner) {
					out.SetRGBA(x, y, ring.colour)
				}
			}
		}
	}
	return out
}

// fitted is the largest size of w x h's shape that fits into a square.
func fitted(w, h, side int) (int, int) {
	if w >= h {
		return side, max(1, (h*side+w/2)/w)
	}
	return max(1, (w*side+h/2)/h), side
}

// scaled brings a rectangle of the picture to the size at which it is drawn.
func scaled(r image.Rectangle, w, h int, p *adapt.Picture) image.Rectangle {
	at := func(v, from, to int) int { return (v*to + from/2) / from }
	return image.Rect(at(r.Min.X, p.Width, w), at(r.Min.Y, p.Height, h), at(r.Max.X, p.Width, w), at(r.Max.Y, p.Height, h))
}

func rgba(p *adapt.Picture) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
	for i := range p.Width * p.Height {
		copy(out.Pix[4*i:], p.RGB[3*i:3*i+3])
		out.Pix[4*i+3] = 255
	}
	return out
}

func (c canvas) box(r image.Rectangle, k color.RGBA) {
	draw.Draw(c, r, image.NewUniform(k), image.Point{}, draw.Src)
}

// text writes a line whose baseline is y and returns where it ends.
func (c canvas) text(x, y int, size float64, bold bool, k color.RGBA, line string) int {
	d := font.Drawer{Dst: c, Src: image.NewUniform(k), Face: c.face(size, bold), Dot: fixed.P(x, y)}
	d.DrawString(line)
	return d.Dot.X.Ceil()
}

// shortened cuts a line so that it is at most width pixels wide; of one that has no room at all nothing is left.
func (c canvas) shortened(line string, size float64, bold bool, width int) string {
	f := c.face(size, bold)
	if font.MeasureString(f, line).Ceil() <= width {
		return line
	}
	r := []rune(line)
	for len(r) > 0 && font.MeasureString(f, string(r)+"…").Ceil() > width {
		r = r[:len(r)-1]
	}
	if len(r) == 0 {
		return ""
	}
	return string(r) + "…"
}

func (c canvas) face(size float64, bold bool) font.Face {
	key := faceKey{size, bold}
	if f := c.faces[key]; f != nil {
		return f
	}
	ttf := goregular.TTF
	if bold {
		ttf = gobold.TTF
	}
	parsed, err := opentype.Parse(ttf)
	if err != nil {
		panic(err) // the fonts are part of the program
	}
	f, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		panic(err)
	}
	c.faces[key] = f
	return f
}

func percent(p float32) string { return fmt.Sprintf("%.0f %%", 100*p) }

func quote(s string) string { return "“" + s + "”" }
