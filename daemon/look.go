package main

import (
	"cmp"
	"context"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/model"
)

type lookVerb struct {
	Model   string   `required:"" placeholder:"DIR" help:"Model folder with a head."`
	Out     string   `required:"" placeholder:"DIR" help:"Folder for the pictures, NAME.look.png each; made if it is not there."`
	Class   string   `placeholder:"LABEL" help:"Explain this class; default: the model's own first guess."`
	Backend string   `default:"auto" enum:"${backends}" help:"What computes: ${enum}."`
	Foveal  bool     `help:"Look a second time inside a box around the object: the guesses are of both looks, and the box is drawn."`
	Images  []string `arg:"" name:"image" help:"Pictures, jpg or png."`
}

func (lookVerb) Help() string {
	return `Draws what the model sees in each picture: its guesses, what the class token attends to in the last block
(the mean of the heads, and each head), the relevance map: what spoke for the class, and the mask of the object,
which the daemon finds without labels (TokenCut) where the model is self-supervised, such as DINOv2.

  fovea look --model models/mine --out looks door.jpg hall.png
  fovea look --model models/mine --out looks --class cup door.jpg     what speaks for a cup, seen or not
  fovea look --model models/mine --out looks --foveal door.jpg        look again, closer, at the object`
}

func (v lookVerb) Run(ctx context.Context, out io.Writer) error {
	net, err := openNet(v.Model, v.Backend)
	if err != nil {
		return fmt.Errorf("look: %w", err)
	}
	defer net.Close()
	class := -1
	if v.Class != "" {
		known, err := matchLabels([]string{v.Class}, net.Config)
		if err != nil {
			return fmt.Errorf("look: --class: %w", err)
		}
		class = known[0]
	}
	if err := os.MkdirAll(v.Out, 0o755); err != nil {
		return fmt.Errorf("look: %w", err)
	}
	failed, twice := 0, 0
	used := map[string]bool{}
	for _, name := range v.Images {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := lookAt(net.Net, name, class, v.Foveal)
		if err != nil {
			failed++
			fmt.Fprintf(out, "%s: left out: %v\n", name, err)
			continue
		}
		file := filepath.Join(v.Out, lookName(name, used))
		if err := writePanel(file, s); err != nil {
			return fmt.Errorf("look: %w", err)
		}
		again := ""
		if !s.second.Empty() {
			again, twice = ", looked at twice", twice+1
		}
		fmt.Fprintf(out, "%s: %s %.0f %%%s -> %s\n", name, s.guesses[0].label, 100*s.guesses[0].score, again, file)
	}
	if v.Foveal {
		fmt.Fprintf(out, "%d of %d looked at twice\n", twice, len(v.Images)-failed)
	}
	if failed > 0 {
		return fmt.Errorf("look: %d of %d pictures left out", failed, len(v.Images))
	}
	return nil
}

// lookName is a file name that was not used before: door.look.png, door-2.look.png.
func lookName(picture string, used map[string]bool) string {
	base := strings.TrimSuffix(filepath.Base(picture), filepath.Ext(picture))
	name := base + ".look.png"
	for i := 2; used[name]; i++ {
		name = fmt.Sprintf("%s-%d.look.png", base, i)
	}
	used[name] = true
	return name
}

// seen is one picture and what the model made of it.
type seen struct {
	name       string
	picture    *adapt.Picture
	preprocess model.Preprocess
	guesses    []namedScore // the likeliest five
	explained  string       // label of the class that relevance explains
	rows, cols int
	relevance  []float32       // [rows*cols], not normalised
	attention  [][]float32     // a map a head, [rows*cols], each with sum at most 1
	mask       *sight          // the object, found without labels
	second     image.Rectangle // of a second look, in pixels; empty where there was none
}

type namedScore struct {
	label string
	score float32 // probability
}

// lookAt runs one picture, twice where foveal is set and an object is found; class -1 explains the first look's first
// guess.
func lookAt(net *model.Net, name string, class int, foveal bool) (*seen, error) {
	p, err := adapt.ReadPicture(name)
	if err != nil {
		return nil, err
	}
	c := net.Config
	pixels := make([]float32, 3*c.ImageHeight*c.ImageWidth)
	if err := net.Preprocess.Pixels(p.RGB, p.Width, p.Height, pixels); err != nil {
		return nil, err
	}
	o, err := net.Run(model.WantRelevance|model.WantClassAttention|model.WantFeatures, pixels, []int32{int32(class)})
	if err != nil {
		return nil, err
	}
	rows, cols := c.Grid()
	s := &seen{
		name: name, picture: p, preprocess: net.Preprocess, explained: c.Label(int(o.Classes[0])),
		rows: rows, cols: cols, relevance: o.Relevance,
	}
	for h := range c.Heads {
		s.attention = append(s.attention, o.ClassAttention[h*rows*cols:(h+1)*rows*cols])
	}
	if s.mask, err = new(eye).look(capture.Frame{Width: p.Width, Height: p.Height, RGB: p.RGB}, net, o); err != nil {
		return nil, err
	}
	logits := o.Logits
	if box, ok := s.mask.mask.SecondLook(s.view(), p.Width, p.Height, adapt.DefaultMasks.Floor); ok && foveal {
		s.second = box
		if logits, err = adapt.LookAgain(net, p.RGB, p.Width, box, o.Logits); err != nil {
			return nil, err
		}
	}
	probabilities := model.Probabilities(logits)
	for _, i := range ranking(logits)[:min(5, c.Classes)] {
		s.guesses = append(s.guesses, namedScore{c.Label(i), probabilities[i]})
	}
	return s, nil
}

func writePanel(file string, s *seen) error {
	f, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer f.Cleanup() //nolint:errcheck // after the rename there is nothing left
	if err := png.Encode(f, drawPanel(s)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return f.CloseAtomicallyReplace()
}

// meanMap is the mean of maps of one size.
func meanMap(maps [][]float32) []float32 {
	mean := make([]float32, len(maps[0]))
	for _, m := range maps {
		for i, v := range m {
			mean[i] += v / float32(len(maps))
		}
	}
	return mean
}

// halfOf returns the least number of cells that hold half of a map's sum.
func halfOf(m []float32) int {
	sorted := slices.Clone(m)
	slices.SortFunc(sorted, func(a, b float32) int { return cmp.Compare(b, a) })
	var sum, half float32
	for _, v := range m {
		sum += v
	}
	for i, v := range sorted {
		if half += v; half >= sum/2 {
			return i + 1
		}
	}
	return len(m)
}
