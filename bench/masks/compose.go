package main

import (
	"fmt"
	"hash/fnv"
	"image"
	_ "image/jpeg" // photographs
	_ "image/png"  // cut-outs
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/image/draw"
)

// Photographic cut-outs with an alpha channel: folders of Debian's
// tuxpaint-stamps-default. Drawings and mirrored copies are left out.
var cutoutFolders = []string{
	"animals/amphibians", "animals/birds", "animals/fish", "animals/insects", "animals/lizards", "animals/mammals", "animals/marsupials",
	"plants/flowers", "food/fruit", "food/vegetables", "household/tools", "hobbies/music", "vehicles",
}

// Scenes without one large object of their own, of Debian's
// lomiri-wallpapers-16.04, mate-backgrounds and opencv-doc.
var scenes = []string{
	"backgrounds/Bridge_by_Sander_Klootwijk.jpg", "backgrounds/Dragonfly_by_Bolly.jpg", "backgrounds/Picture_1A_by_freespace.jpg",
	"backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg", "backgrounds/analogpattern_by_Peter_Nerlich.jpg", "backgrounds/life_by_Aitzol_Berasategi.jpg",
	"backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg", "backgrounds/sunset_by_Aitzol_Berasategi.jpg", "backgrounds/seeding_by_Clements_Engelhardt.jpg",
	"backgrounds/mate/nature/Blinds.jpg", "backgrounds/mate/nature/Dune.jpg", "backgrounds/mate/nature/GreenMeadow.jpg",
	"backgrounds/mate/nature/RainDrops.jpg", "backgrounds/mate/nature/Storm.jpg", "backgrounds/mate/nature/Wood.jpg",
	"doc/opencv-doc/examples/data/aero1.jpg", "doc/opencv-doc/examples/data/board.jpg", "doc/opencv-doc/examples/data/building.jpg",
	"doc/opencv-doc/examples/data/graf1.png", "doc/opencv-doc/examples/data/home.jpg", "doc/opencv-doc/examples/data/leuvenA.jpg",
	"doc/opencv-doc/examples/data/left.jpg", "doc/opencv-doc/examples/data/rubberwhale1.png", "doc/opencv-doc/examples/data/stuff.jpg",
}

const (
	smallest = 80   // px, longest side of a cut-out worth taking
	largest  = 1200 // px, to which photographs are reduced once

	shortestSpan, longestSpan = .35, .9 // longest side of an object, of the picture's side
	visible                   = .85     // least share of an object inside the picture
)

// part is one of two halves of the material: no cut-out and no photograph of
// one is in the other. Constants are chosen on the first, figures reported on
// the second.
type part string

const (
	choosing  part = "choose"
	reporting part = "report"
)

func (p part) has(path string) bool {
	h := fnv.New32a()
	h.Write([]byte(filepath.Base(path)))
	return (h.Sum32()>>8&1 == 0) == (p == choosing)
}

// composite is an object on a scene, with its true mask.
type composite struct {
	name          string
	height, width int
	rgb           []uint8 // [height][width][3]
	truth         []uint8 // [height][width], 1 inside
}

// studio holds the pictures of one part and composes them.
type studio struct {
	cutouts, photographs []picture
	random               *rand.Rand
}

type picture struct {
	name string
	*image.NRGBA
}

func newStudio(share string, p part, seed uint64) (*studio, error) {
	s := &studio{random: rand.New(rand.NewPCG(seed, 5))}
	for _, folder := range cutoutFolders {
		root := filepath.Join(share, "tuxpaint", "stamps", folder)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return fmt.Errorf("cut-outs (install tuxpaint-stamps-default): %w", err)
			}
			drawing := strings.Contains(path, "cartoon") || strings.Contains(path, "_mirror") || strings.Contains(path, "plastic")
			if d.IsDir() || drawing || filepath.Ext(path) != ".png" || !p.has(path) {
				return nil
			}
			cut, err := load(path)
			if err != nil {
				return err
			}
			if cut, ok := trimmed(cut); ok {
				s.cutouts = append(s.cutouts, cut)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, scene := range scenes {
		if !p.has(scene) {
			continue
		}
		photograph, err := load(filepath.Join(share, scene))
		if err != nil {
			return nil, fmt.Errorf("photographs (install lomiri-wallpapers-16.04, mate-backgrounds, opencv-doc): %w", err)
		}
		s.photographs = append(s.photographs, photograph)
	}
	return s, nil
}

func load(path string) (picture, error) {
	file, err := os.Open(path)
	if err != nil {
		return picture{}, err
	}
	defer file.Close()
	decoded, _, err := image.Decode(file)
	if err != nil {
		return picture{}, fmt.Errorf("%s: %w", path, err)
	}
	size := decoded.Bounds().Size()
	if longest := max(size.X, size.Y); longest > largest {
		size = image.Pt(size.X*largest/longest, size.Y*largest/longest)
	}
	out := image.NewNRGBA(image.Rectangle{Max: size})
	draw.CatmullRom.Scale(out, out.Rect, decoded, decoded.Bounds(), draw.Src, nil)
	return picture{strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), out}, nil
}

// trimmed cuts the transparent border off; ok is false where the picture is too
// small or has no transparency, and so no mask.
func trimmed(p picture) (out picture, ok bool) {
	box := image.Rectangle{}
	clearPixels := 0
	for y := range p.Rect.Dy() {
		for x := range p.Rect.Dx() {
			if p.NRGBAAt(x, y).A >= 128 {
				box = box.Union(image.Rect(x, y, x+1, y+1))
			} else {
				clearPixels++
			}
		}
	}
	p.NRGBA = p.SubImage(box).(*image.NRGBA)
	return p, max(box.Dx(), box.Dy()) >= smallest && clearPixels > 0
}

// next composes a square picture: a random square of a photograph and, on it, an
// object at random size and place, every cut-out once before any twice.
func (s *studio) next(i, side int) composite {
	if i%len(s.cutouts) == 0 {
		s.random.Shuffle(len(s.cutouts), func(a, b int) { s.cutouts[a], s.cutouts[b] = s.cutouts[b], s.cutouts[a] })
	}
	cut := s.cutouts[i%len(s.cutouts)]
	scene := s.photographs[s.random.IntN(len(s.photographs))]
	canvas := image.NewNRGBA(image.Rect(0, 0, side, side))
	draw.CatmullRom.Scale(canvas, canvas.Rect, scene, s.square(scene.Bounds()), draw.Src, nil)

	span := (shortestSpan + (longestSpan-shortestSpan)*s.random.Float64()) * float64(side)
	size := cut.Bounds().Size()
	scale := span / float64(max(size.X, size.Y))
	size = image.Pt(max(1, int(float64(size.X)*scale)), max(1, int(float64(size.Y)*scale)))
	object := image.NewNRGBA(image.Rectangle{Max: size})
	draw.CatmullRom.Scale(object, object.Rect, cut, cut.Bounds(), draw.Src, nil)

	c := composite{name: fmt.Sprintf("%03d-%s-on-%s", i, cut.name, scene.name), height: side, width: side}
	for {
		at := image.Pt(s.random.IntN(side+size.X)-size.X, s.random.IntN(side+size.Y)-size.Y)
		if c.truth = silhouette(object, at, side); float64(count(c.truth)) >= visible*float64(count(silhouette(object, image.Point{}, max(size.X, size.Y)))) {
			draw.Draw(canvas, object.Rect.Add(at), object, image.Point{}, draw.Over)
			break
		}
	}
	for p := 0; p < len(canvas.Pix); p += 4 {
		c.rgb = append(c.rgb, canvas.Pix[p:p+3]...)
	}
	return c
}

// square is a random square of at least 60 % of the shorter side.
func (s *studio) square(b image.Rectangle) image.Rectangle {
	shorter := min(b.Dx(), b.Dy())
	side := int(float64(shorter) * (.6 + .4*s.random.Float64()))
	at := b.Min.Add(image.Pt(s.random.IntN(b.Dx()-side+1), s.random.IntN(b.Dy()-side+1)))
	return image.Rectangle{at, at.Add(image.Pt(side, side))}
}

func silhouette(object *image.NRGBA, at image.Point, side int) []uint8 {
	mask := make([]uint8, side*side)
	inside := object.Rect.Add(at).Intersect(image.Rect(0, 0, side, side))
	for y := inside.Min.Y; y < inside.Max.Y; y++ {
		for x := inside.Min.X; x < inside.Max.X; x++ {
			if object.NRGBAAt(x-at.X, y-at.Y).A >= 128 {
				mask[y*side+x] = 1
			}
		}
	}
	return mask
}

func count(mask []uint8) (inside int) {
	for _, v := range mask {
		inside += int(v)
	}
	return inside
}
