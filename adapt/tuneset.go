package adapt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-a98b2d25/fovea/model"
)

// TuneSet is the pictures of a run of fine-tuning, each with its mask, at the size that crops are taken from.
type TuneSet struct {
	Height, Width int           // pixels of every example: the model's input and an eighth more
	Train, Held   []TuneExample // Held are never trained on: they choose the step and give the figures
	Bad           []BadPicture  // files that could not be used, each with its reason
	Small         int           // pictures left out because their mask is too small
	Unsure        int           // frames left out because the parent is not sure of them
}

// TuneExample is one picture. RGB is [Height, Width, 3], Mask [Height, Width] with 255 on the object.
type TuneExample struct {
	Name  string // path below the folder of pictures
	Class int    // index of its label; -1: not known
	RGB   []byte
	Mask  []byte
	// Target is what the cross-entropy pulls a picture of no known class towards, [Classes] probabilities; nil: as
	// Settings.Target says.
	Target []float32
}

// MaskOf finds the mask of a picture, [Height, Width] with 255 on the object; name is the path below the
// folder of pictures. An error leaves the picture out with that reason.
type MaskOf func(name string, p *Picture) ([]byte, error)

// MaskFolder reads masks from files that bear a picture's name: PICTURE.png in the same folder structure,
// bright where the object is, of the picture's size.
func MaskFolder(dir string) MaskOf {
	return func(name string, p *Picture) ([]byte, error) {
		file := filepath.Join(dir, strings.TrimSuffix(name, filepath.Ext(name))+".png")
		m, err := ReadPicture(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no mask %s", file)
		}
		if err != nil {
			return nil, err
		}
		if m.Width != p.Width || m.Height != p.Height {
			return nil, fmt.Errorf("mask %s is %d x %d pixels, its picture %d x %d", file, m.Width, m.Height, p.Width, p.Height)
		}
		mask := make([]byte, m.Width*m.Height)
		for i := range mask {
			mask[i] = m.RGB[3*i+1]
		}
		return mask, nil
	}
}

// heldShare of the pictures, but at most heldMost, are kept from training.
const (
	heldShare = .2
	heldMost  = 64
)

// ReadTuneSet reads every JPEG and PNG below dir. A picture in a folder named like one of the model's labels
// has that class. Picture and mask are brought to the same size as published: the aspect is ignored, and 256
// pixels stand for an input of 224. progress, which may be nil, is called once a file.
func ReadTuneSet(ctx context.Context, dir string, maskOf MaskOf, c *model.Checkpoint, s Settings, progress func(done, of int)) (*TuneSet, error) {
	names, err := pictureNames(dir)
	if err != nil {
		return nil, err
	}
	set := &TuneSet{
		Height: int(math.Round(float64(c.Config.ImageHeight) * 256 / 224)),
		Width:  int(math.Round(float64(c.Config.ImageWidth) * 256 / 224)),
	}
	squeeze := grey(set.Height, set.Width)
	var all []TuneExample
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if progress != nil {
			progress(i, len(names))
		}
		e, err := readExample(dir, name, maskOf, squeeze)
		if err != nil {
			set.Bad = append(set.Bad, BadPicture{File: name, Problem: err.Error()})
			continue
		}
		if e.cover() < s.MinMask {
			set.Small++
			continue
		}
		e.Class = slices.Index(c.Config.Labels, strings.Split(filepath.ToSlash(name), "/")[0])
		all = append(all, e)
	}
	r := rand.New(rand.NewPCG(s.Seed, 1))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	held := min(heldMost, int(math.Ceil(heldShare*float64(len(all)))))
	if held > s.Batch { // whole batches: each further size is a compilation of seconds
		held -= held % s.Batch
	}
	set.Held, set.Train = all[:held], all[held:]
	if len(set.Train) < 2 {
		why := ""
		if len(set.Bad) > 0 {
			why = fmt.Sprintf("; the first that was left out: %s: %s", set.Bad[0].File, set.Bad[0].Problem)
		}
		return nil, fmt.Errorf("%s: %d usable pictures of %d, want at least 3 (%d left out, %d with an object under %.1f %% of the picture)%s",
			dir, len(all), len(names), len(set.Bad), set.Small, 100*s.MinMask, why)
	}
	return set, nil
}

// pictureNames lists the picture files below dir in a fixed order; masks beside pictures are not pictures.
func pictureNames(dir string) ([]string, error) {
	var names []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".jpg", ".jpeg", ".png":
			if d.Type().IsRegular() && !strings.HasSuffix(path, ".mask.png") {
				names = append(names, path)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("pictures in %s: %w", dir, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("pictures: no jpg or png file in %s", dir)
	}
	return names, nil
}

func readExample(dir, name string, maskOf MaskOf, squeeze func(rgb []byte, w, h int) ([]byte, error)) (TuneExample, error) {
	e := TuneExample{Name: name}
	p, err := ReadPicture(filepath.Join(dir, name))
	if err != nil {
		return e, err
	}
	mask, err := maskOf(name, p)
	if err != nil {
		return e, err
	}
	if e.RGB, err = squeeze(p.RGB, p.Width, p.Height); err != nil {
		return e, err
	}
	three := make([]byte, 3*len(mask))
	for i, v := range mask {
		three[3*i], three[3*i+1], three[3*i+2] = v, v, v
	}
	if three, err = squeeze(three, p.Width, p.Height); err != nil {
		return e, err
	}
	e.Mask = make([]byte, len(three)/3)
	for i := range e.Mask {
		e.Mask[i] = three[3*i]
	}
	return e, nil
}

// cover is the share of the picture that the mask covers.
func (e TuneExample) cover() float64 {
	var n int
	for _, v := range e.Mask {
		if v >= 128 {
			n++
		}
	}
	return float64(n) / float64(len(e.Mask))
}

// grey returns a function that resizes to h x w bilinearly, aspect ignored, in grey levels.
func grey(h, w int) func(rgb []byte, pw, ph int) ([]byte, error) {
	p := model.Preprocess{
		Height: h, Width: w, ResizeHeight: h, ResizeWidth: w, Filter: model.Bilinear, Scale: 1, Std: [3]float64{1, 1, 1},
	}
	planes := make([]float32, 3*h*w)
	return func(rgb []byte, pw, ph int) ([]byte, error) {
		if err := p.Pixels(rgb, pw, ph, planes); err != nil {
			return nil, err
		}
		out := make([]byte, 3*h*w)
		interleave(out, planes)
		return out, nil
	}
}

// crop is where a view of an example lies, and whether it is mirrored.
type crop struct {
	y, x int
	flip bool
}

// centre is the view that figures are computed on.
func (s *TuneSet) centre(c model.Config) crop {
	return crop{y: (s.Height - c.ImageHeight) / 2, x: (s.Width - c.ImageWidth) / 2}
}

// random is the published augmentation: the same random crop and flip for picture and mask.
func (s *TuneSet) random(c model.Config, r *rand.Rand) crop {
	return crop{y: r.IntN(s.Height - c.ImageHeight + 1), x: r.IntN(s.Width - c.ImageWidth + 1), flip: r.IntN(2) == 1}
}

// into appends a view of e to the batch, normalised.
func (s *TuneSet) into(b *Batch, e *TuneExample, at crop, c model.Config, p model.Preprocess) {
	h, w := c.ImageHeight, c.ImageWidth
	var levels [3][256]float32
	for k := range levels {
		for v := range levels[k] {
			levels[k][v] = float32((float64(v)*p.Scale - p.Mean[k]) / p.Std[k])
		}
	}
	pixels := len(b.Pixels)
	b.Pixels = append(b.Pixels, make([]float32, 3*h*w)...)
	b.Masks = slices.Grow(b.Masks, h*w)
	for y := range h {
		for x := range w {
			from := x
			if at.flip {
				from = w - 1 - x
			}
			i := (at.y+y)*s.Width + at.x + from
			for k := range 3 {
				b.Pixels[pixels+(k*h+y)*w+x] = levels[k][e.RGB[3*i+k]]
			}
			b.Masks = append(b.Masks, float32(e.Mask[i])/255)
		}
	}
	b.Classes = append(b.Classes, int32(e.Class))
}

// Centre returns what the figures see of an example: [ImageHeight, ImageWidth, 3] and its mask.
func (s *TuneSet) Centre(e *TuneExample, c model.Config) (rgb, mask []byte) {
	at := s.centre(c)
	for y := range c.ImageHeight {
		from := (at.y+y)*s.Width + at.x
		rgb = append(rgb, e.RGB[3*from:3*(from+c.ImageWidth)]...)
		mask = append(mask, e.Mask[from:from+c.ImageWidth]...)
	}
	return rgb, mask
}
