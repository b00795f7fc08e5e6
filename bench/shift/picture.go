package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

const side = 336 // pixels of every picture, a square: the networks see all of it

// objectSpan is the longest side of an object, in parts of the picture's.
var objectSpan = collage.Span{Least: .4, Most: .75}

// testSets are what a recipe is measured on, all with objects that nothing was fitted on.
var testSets = []string{"deployment", "other", "crossed", "aligned"}

// album is where a world's pictures are from: a studio draws them, a folder has a user's.
type album interface {
	// classes are the letters of what is said; nil: those of the cut-outs.
	classes() []string
	// labels puts the labelled pictures into dir, which it makes, unless it is there.
	labels(dir string) error
	frames() []shot
	tests(set string, perClass int) []shot
	// jpeg is a picture as a camera sends it; mask is [Height, Width], 255 on the object, nil where nobody knows.
	jpeg(s shot, random *rand.Rand) (data, mask []byte, err error)
	// random are the numbers of picture i of a set.
	random(set string, i int) *rand.Rand
}

// shot says what is to be seen in a picture. A shot and its random numbers make the picture.
type shot struct {
	cutout *collage.Cutout // nil: an empty view, or a file
	file   string          // of a user's folder
	object string          // of a test picture: CLASS/NAME
	scene  string
	camera *camera   // nil: a free view of the scene
	hour   float64   // of the day, where there is a camera
	time   time.Time // of a frame of the stream
}

// camera is a fixed view of a photograph.
type camera struct {
	name, scene string
	part, x, y  float64 // of collage.View
	warmth      float64 // of its light, around 0
}

// studio draws the pictures of a split.
type studio struct {
	*split
	photographs map[string]*image.RGBA
	fixed       []camera
	labelled    int // pictures a class
}

func newStudio(s *split, read *collage.Photographs, labelled int) (*studio, error) {
	d := &studio{split: s, photographs: map[string]*image.RGBA{}, labelled: labelled}
	for _, name := range slices.Concat(slices.Concat(s.scenes...), s.cameras, s.others) {
		var err error
		if d.photographs[name], err = read.Read(name); err != nil {
			return nil, err
		}
	}
	random := d.random("cameras", 0)
	for i, scene := range s.cameras {
		d.fixed = append(d.fixed, camera{
			name: fmt.Sprint("camera", i+1), scene: scene, part: .8 + .15*random.Float64(), x: random.Float64(), y: random.Float64(),
			warmth: .04 * random.NormFloat64(),
		})
	}
	return d, nil
}

func (d *studio) classes() []string { return nil }

// random are the numbers of picture i of a set; rho plays no part.
func (d *studio) random(set string, i int) *rand.Rand { return numbers(d.material()+" "+set, i) }

// numbers are random ones that a name and a number stand for.
func numbers(name string, i int) *rand.Rand {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name)
	return rand.New(rand.NewPCG(h.Sum64(), uint64(i)))
}

// tests lists the shots of a test set, classes in turn, each class's objects and scenes in turn.
func (d *studio) tests(set string, perClass int) []shot {
	random := d.random(set, -1)
	lists, scenes := make([][]*collage.Cutout, len(collage.Classes)), make([][]string, len(collage.Classes))
	for class := range collage.Classes {
		lists[class] = ofClass(d.test, class, random)
		switch set {
		case "deployment":
			scenes[class] = d.cameras
		case "other":
			scenes[class] = d.others
		case "aligned":
			scenes[class] = d.scenes[class]
		case "crossed":
			for other := range collage.Classes {
				if other != class {
					scenes[class] = append(scenes[class], d.scenes[other]...)
				}
			}
		}
	}
	shots := make([]shot, 0, perClass*len(collage.Classes))
	for i := range perClass * len(collage.Classes) {
		class, n := i%len(collage.Classes), i/len(collage.Classes)
		list, of := lists[class], scenes[class]
		at := (n%len(list) + n/len(list)) % len(of)
		s := shot{cutout: list[n%len(list)], scene: of[at]}
		s.object = collage.Classes[class].Name + "/" + s.cutout.Object
		if set == "deployment" {
			s.camera, s.hour = &d.fixed[at], 7+12*random.Float64()
		}
		shots = append(shots, s)
	}
	return shots
}

// labelShots lists the labelled shots: of a class's objects in turn, rho of them in scenes of the class.
func (d *studio) labelShots() []shot {
	var shots []shot
	for class := range collage.Classes {
		random := d.random("labels", class)
		list := ofClass(d.split.labelled, class, random)
		own := int(math.Round(d.Rho * float64(d.labelled)))
		order := random.Perm(d.labelled) // whose first ones have a scene of their class
		for n := range d.labelled {
			of := class
			if order[n] >= own {
				of = (class + 1 + random.IntN(len(collage.Classes)-1)) % len(collage.Classes)
			}
			scenes := d.split.scenes[of]
			shots = append(shots, shot{cutout: list[n%len(list)], scene: scenes[random.IntN(len(scenes))]})
		}
	}
	return shots
}

const (
	framesPerCamera = 36
	emptyShare      = .3
)

// frames lists what the cameras saw: over three days, at times that jitter, objects or nothing.
func (d *studio) frames() []shot {
	var shots []shot
	for i := range d.fixed {
		random := d.random("frames", i)
		var lists [][]*collage.Cutout
		for class := range collage.Classes {
			lists = append(lists, ofClass(d.stream, class, random))
		}
		const perDay = framesPerCamera / 3
		for n := range framesPerCamera {
			hour := 7 + 12*(float64(n%perDay)+.8*random.Float64())/perDay
			s := shot{
				scene: d.fixed[i].scene, camera: &d.fixed[i], hour: hour,
				time: time.Unix(1_800_000_000, 0).Truncate(24 * time.Hour).Add(time.Duration((float64(24*(n/perDay)) + hour) * float64(time.Hour))),
			}
			if random.Float64() >= emptyShare {
				list := lists[random.IntN(len(lists))]
				s.cutout = list[random.IntN(len(list))]
			}
			shots = append(shots, s)
		}
	}
	return shots
}

// draw makes the picture and the mask of its object.
func (d *studio) draw(s shot, random *rand.Rand) (*image.RGBA, *image.Gray) {
	size := image.Pt(side, side)
	var p *image.RGBA
	scene := d.photographs[s.scene]
	if c := s.camera; c != nil {
		p = collage.View(scene, c.part, c.shaken(scene.Rect.Dx(), scene, c.x, random), c.shaken(scene.Rect.Dy(), scene, c.y, random), size)
	} else {
		p = collage.View(scene, .7+.3*random.Float64(), random.Float64(), random.Float64(), size)
	}
	mask := image.NewGray(p.Rect)
	if s.cutout != nil {
		s.cutout.Somewhere(p.Rect, objectSpan, random).Onto(p, mask)
	}
	red, green, blue := s.light(random)
	collage.Tint(p, red, green, blue)
	return p, mask
}

const shake = .012 // of the view's side, the deviation of a fixed camera's shift

// shaken is a place of a fixed view along one axis, 0 to 1, a little off.
func (c *camera) shaken(length int, scene *image.RGBA, at float64, random *rand.Rand) float64 {
	view := c.part * float64(min(scene.Rect.Dx(), scene.Rect.Dy()))
	return min(1, max(0, at+shake*random.NormFloat64()*view/(float64(length)-view)))
}

// light is what multiplies the colours: of a labelled or free view a little at random, of a camera by the hour.
func (s shot) light(random *rand.Rand) (red, green, blue float64) {
	if s.camera == nil {
		gain := .85 + .3*random.Float64()
		return gain, gain, gain
	}
	day := math.Sin(math.Pi * (s.hour - 6) / 14) // .2 in the morning to 1
	gain := (.5 + .6*day) * (1 + .06*random.NormFloat64())
	warmth := s.camera.warmth + .08*(1-day) + .01*random.NormFloat64()
	return gain * (1 + warmth), gain, gain * (1 - warmth)
}

// encoded is a picture as a camera would send it.
func encoded(p image.Image) ([]byte, error) {
	var b bytes.Buffer
	err := jpeg.Encode(&b, p, &jpeg.Options{Quality: 90})
	return b.Bytes(), err
}

func (d *studio) jpeg(s shot, random *rand.Rand) (data, mask []byte, err error) {
	p, m := d.draw(s, random)
	data, err = encoded(p)
	return data, m.Pix, err
}

// picture is what a network gets to see of a shot.
func picture(a album, s shot, random *rand.Rand) (*adapt.Picture, []byte, error) {
	data, mask, err := a.jpeg(s, random)
	if err != nil {
		return nil, nil, err
	}
	p, err := adapt.DecodePicture(data)
	return p, mask, err
}

// labels writes CLASS/OBJECT/N.jpg with N.mask.png. The folder appears whole or not at all.
func (d *studio) labels(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".labelled-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // what a failure left
	for i, s := range d.labelShots() {
		p, mask := d.draw(s, d.random("labelled", i))
		name := filepath.Join(temp, collage.Classes[s.cutout.Class].Name, s.cutout.Object, fmt.Sprintf("%03d", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := writeFile(name+".jpg", func(out io.Writer) error { return jpeg.Encode(out, p, &jpeg.Options{Quality: 90}) }); err != nil {
			return err
		}
		if err := writeFile(name+".mask.png", func(out io.Writer) error { return png.Encode(out, mask) }); err != nil {
			return err
		}
	}
	return os.Rename(temp, dir)
}
