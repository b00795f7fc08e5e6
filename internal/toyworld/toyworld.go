// Package toyworld is a small world for the tests of adaptation: coloured objects on textured, tinted backgrounds. In
// its labelled pictures four of five backgrounds have the tint of their class, so that a head learns to read them; its
// cameras then show all classes on views that have the tint of one.
package toyworld

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// Side of every picture, pixels.
const Side = 48

const labelledObjects = 12 // of a class

// Classes are the names in the order of a head.
var Classes = []string{"blue", "green", "red"}

// Tints are the mean colours of a view, of each class.
var Tints = [][3]float64{{120, 110, 150}, {112, 145, 112}, {150, 112, 108}}

var colours = [][3]float64{{60, 80, 215}, {60, 190, 70}, {215, 65, 60}}

func config() model.Config {
	return model.Config{
		ImageHeight: Side, ImageWidth: Side, Patch: 8, Dim: 32, Depth: 2, Heads: 2, Hidden: 64, Readout: model.ReadClass,
		PrefixPosition: true, QKVBias: true, LayerScale: true, Epsilon: 1e-6, PositionResize: model.PositionBicubic,
	}
}

// Base is a random backbone under a head fitted on the labelled pictures in dir, with those, divided into parts.
func Base(ctx context.Context, b *model.Backend, dir string) (*model.Checkpoint, *adapt.Labelled, error) {
	backbone := model.Random(config(), 3)
	net, err := model.NewNet(b, backbone)
	if err != nil {
		return nil, nil, err
	}
	defer net.Close()
	set, err := adapt.ReadLabelled(dir)
	if err != nil {
		return nil, nil, err
	}
	x, width, err := set.Features(ctx, net, model.ReadClass, nil)
	if err != nil {
		return nil, nil, err
	}
	set.Group(x, width)
	set.Split()
	e := &adapt.Examples{Width: width, Classes: 3}
	for i, p := range set.Pictures {
		if p.Part == adapt.Fit {
			e.X = append(e.X, x[i*width:(i+1)*width]...)
			e.Class, e.Group = append(e.Class, p.Class), append(e.Group, p.Group)
		}
	}
	fit, err := adapt.FitHead(ctx, e, set.Classes, 1, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := fit.Into(backbone, model.ReadClass, set.Classes); err != nil {
		return nil, nil, err
	}
	return backbone, set, nil
}

// WriteLabelled writes class folders of labelled pictures with their masks.
func WriteLabelled(dir string, r *rand.Rand) error {
	for class, name := range Classes {
		for i := range labelledObjects {
			o := NewObject(class, r)
			at := filepath.Join(dir, name, fmt.Sprintf("%02d", i))
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			for k := range 3 {
				tint := class
				if r.IntN(5) == 0 {
					tint = r.IntN(3)
				}
				rgb := Texture(Tints[tint], r)
				mask := Draw(rgb, o, r)
				if err := writeImage(filepath.Join(at, fmt.Sprint(k, ".png")), Picture(rgb)); err != nil {
					return err
				}
				if err := writeImage(filepath.Join(at, fmt.Sprint(k, ".mask.png")), &image.Gray{Pix: mask, Stride: Side, Rect: image.Rect(0, 0, Side, Side)}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func writeImage(file string, img image.Image) error {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// Picture of rgb, [Side, Side, 3].
func Picture(rgb []byte) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, Side, Side))
	for i := range Side * Side {
		img.SetRGBA(i%Side, i/Side, color.RGBA{rgb[3*i], rgb[3*i+1], rgb[3*i+2], 255})
	}
	return img
}

// Texture is a tinted view of waves, [Side, Side, 3].
func Texture(tint [3]float64, r *rand.Rand) []byte {
	rgb := make([]byte, 3*Side*Side)
	var wave [4][3]float64
	for i := range wave {
		wave[i] = [3]float64{.6 * (r.Float64() - .5), .6 * (r.Float64() - .5), 7 * r.Float64()}
	}
	for y := range Side {
		for x := range Side {
			v := 0.
			for _, w := range wave {
				v += 12 * math.Sin(w[0]*float64(x)+w[1]*float64(y)+w[2])
			}
			for k := range 3 {
				rgb[3*(y*Side+x)+k] = byte(min(max(tint[k]+v+6*r.NormFloat64(), 0), 255))
			}
		}
	}
	return rgb
}

// View is a picture of a camera.
type View struct {
	Camera string
	Time   time.Time
	RGB    []byte // [Side, Side, 3]
	Mask   []byte // [Side, Side] of 0 or 255; nil: nothing stands there
}

// Watch gives what two cameras see, a picture a minute: things of all classes before a view that has the tint of one.
func Watch(r *rand.Rand, each func(View) error) error {
	for camera, tint := range []int{0, 2} {
		empty := Texture(Tints[tint], r)
		var o Object
		for i := range 96 {
			if i%4 == 0 {
				o = NewObject(r.IntN(3), r)
			}
			v := View{Camera: fmt.Sprint("camera", camera), Time: time.Unix(1_800_000_000+int64(camera*100_000+60*i), 0), RGB: slices.Clone(empty)}
			if i%4 != 3 {
				v.Mask = Draw(v.RGB, o, r)
			}
			if err := each(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteWatched writes what Watch gives as a folder for "fovea samples import".
func WriteWatched(dir string, r *rand.Rand) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	n := 0
	return Watch(r, func(v View) error {
		n++
		file := filepath.Join(dir, fmt.Sprintf("%03d", n))
		facts, err := json.Marshal(map[string]any{"camera": v.Camera, "time": v.Time})
		if err != nil {
			return err
		}
		if v.Mask != nil {
			err = writeImage(file+".mask.png", &image.Gray{Pix: v.Mask, Stride: Side, Rect: image.Rect(0, 0, Side, Side)})
		}
		return errors.Join(err, writeImage(file+".png", Picture(v.RGB)), os.WriteFile(file+".json", facts, 0o644))
	})
}

// WriteModel writes the model folder of the small world: the base with its labelled pictures.
func WriteModel(ctx context.Context, b *model.Backend, dir string) error {
	labelled, err := os.MkdirTemp("", "toyworld-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(labelled)
	if err := WriteLabelled(labelled, rand.New(rand.NewPCG(4, 4))); err != nil {
		return err
	}
	base, set, err := Base(ctx, b, labelled)
	if err != nil {
		return err
	}
	if err := base.Save(dir); err != nil {
		return err
	}
	return set.WriteTo(filepath.Join(dir, adapt.LabelledDir))
}

// Object is a thing of a class: its colour, shape and size.
type Object struct {
	colour [3]float64
	shape  int
	radius float64
}

// NewObject of a class.
func NewObject(class int, r *rand.Rand) Object {
	o := Object{shape: r.IntN(3), radius: 8 + 5*r.Float64()}
	for k := range o.colour {
		o.colour[k] = colours[class][k] + 25*r.NormFloat64()
	}
	return o
}

// Draw draws an object somewhere and returns its mask, [Side, Side] of 0 or 255.
func Draw(rgb []byte, o Object, r *rand.Rand) []byte {
	mask := make([]byte, Side*Side)
	free := Side - 2*o.radius - 2
	cx, cy := 1+o.radius+free*r.Float64(), 1+o.radius+free*r.Float64()
	for y := range Side {
		for x := range Side {
			dx, dy := float64(x)-cx, float64(y)-cy
			inside := math.Hypot(dx, dy) <= o.radius
			switch o.shape {
			case 1:
				inside = max(math.Abs(dx), math.Abs(dy)) <= .85*o.radius
			case 2:
				inside = math.Abs(dx)+math.Abs(dy) <= 1.1*o.radius
			}
			if !inside {
				continue
			}
			mask[y*Side+x] = 255
			for k := range 3 {
				rgb[3*(y*Side+x)+k] = byte(min(max(o.colour[k]+8*r.NormFloat64(), 0), 255))
			}
		}
	}
	return mask
}
