package collage

import (
	"fmt"
	"image"
	"image/draw"
	_ "image/jpeg" // photographs
	"os"
	"path/filepath"

	xdraw "golang.org/x/image/draw"
)

const largest = 1200 // pixels, to which photographs are reduced once

// Photographs reads photographs, each once. One goroutine reads; what was read may be shared.
type Photographs struct {
	Share string // where the packages' files lie
	have  map[string]*image.RGBA
}

// Read returns a photograph, reduced to at most 1200 pixels a side. name is below Share.
func (p *Photographs) Read(name string) (*image.RGBA, error) {
	if s := p.have[name]; s != nil {
		return s, nil
	}
	img, err := Decode(filepath.Join(p.Share, filepath.FromSlash(name)))
	if err != nil {
		return nil, installed(err)
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	if side := max(w, h); side > largest {
		w, h = w*largest/side, h*largest/side
	}
	s := image.NewRGBA(image.Rect(0, 0, w, h))
	xdraw.BiLinear.Scale(s, s.Rect, img, img.Bounds(), draw.Src, nil)
	if p.have == nil {
		p.have = map[string]*image.RGBA{}
	}
	p.have[name] = s
	return s, nil
}

// Decode reads a JPEG or PNG file.
func Decode(name string) (image.Image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return img, nil
}

// View cuts a view of the shape of size out of a photograph and scales it to size. part is its share of the largest
// such view, x and y say where it lies: 0 is the left or upper end, 1 the other.
func View(photograph *image.RGBA, part, x, y float64, size image.Point) *image.RGBA {
	w, h := float64(photograph.Rect.Dx()), float64(photograph.Rect.Dy())
	across, down := float64(size.X), float64(size.Y)
	vw := min(w, h*across/down) * part
	vh := vw * down / across
	left, top := (w-vw)*x, (h-vh)*y
	from := image.Rect(int(left), int(top), int(left+vw), int(top+vh))
	out := image.NewRGBA(image.Rectangle{Max: size})
	xdraw.BiLinear.Scale(out, out.Rect, photograph, from, draw.Src, nil)
	return out
}

// Tint multiplies the light of a picture, in place, by a factor a colour.
func Tint(p *image.RGBA, red, green, blue float64) {
	var table [3][256]uint8
	for k, gain := range []float64{red, green, blue} {
		for i := range table[k] {
			table[k][i] = uint8(min(255, float64(i)*gain+.5))
		}
	}
	for i := 0; i < len(p.Pix); i += 4 {
		p.Pix[i], p.Pix[i+1], p.Pix[i+2] = table[0][p.Pix[i]], table[1][p.Pix[i+1]], table[2][p.Pix[i+2]]
	}
}
