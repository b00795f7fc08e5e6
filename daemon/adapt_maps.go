package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"os"
	"path/filepath"
	"time"

	xdraw "golang.org/x/image/draw"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// mapsDir holds relevance maps of held-out pictures, of parent and candidate side by side: in what a run wrote, and,
// by the sha256 of the version, in the state folder. They are pictures of the cameras: a purge empties it.
const (
	mapsDir   = "maps"
	mapsFile  = "maps.json"
	mapsShown = 4
	mapGap    = 8 // pixels between the two
)

// mapShown is what is told of one picture.
type mapShown struct {
	Camera    string  `json:"camera"`
	Sequence  uint64  `json:"sequence"`  // of the sample
	Explained string  `json:"explained"` // the class that both maps speak for
	Parent    mapSaid `json:"parent"`
	Candidate mapSaid `json:"candidate"`
	Width     int     `json:"width"` // of the picture
	Height    int     `json:"height"`
}

// mapSaid is a model's part of it.
type mapSaid struct {
	Guess    string   `json:"guess"`
	Score    float64  `json:"score"`               // probability
	OnObject *float64 `json:"on_object,omitempty"` // share of the relevance
}

func mapName(i int) string { return fmt.Sprintf("%d.jpg", i) }

// readMaps returns what is told of the maps of a folder; nil where there are none.
func readMaps(dir string) (all []mapShown) {
	text, err := os.ReadFile(filepath.Join(dir, mapsFile))
	if err != nil || json.Unmarshal(text, &all) != nil {
		return nil
	}
	return all
}

// looked is a held-out picture that both models look at.
type looked struct {
	shown   mapShown
	picture *adapt.Picture
	mask    []byte // of the picture's size
	class   int32  // that is explained; negative: the first guess
	view    image.Rectangle
	maps    [2][]float32 // of parent and candidate
}

// writeMaps draws what parent and candidate find relevant in held-out pictures of a pack.
func writeMaps(ctx context.Context, dir string, b *model.Backend, parent, candidate *model.Checkpoint, pack *adapt.Pack) error {
	pictures, err := heldPictures(pack, candidate.Config)
	if err != nil || len(pictures) == 0 {
		return err
	}
	for i, c := range []*model.Checkpoint{candidate, parent} { // the candidate first: it says what is explained
		if err := lookAll(ctx, b, c, pictures, 1-i); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var all []mapShown
	for i, p := range pictures {
		data, err := p.draw(candidate.Config)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, mapName(i)), data, 0o600); err != nil {
			return err
		}
		all = append(all, p.shown)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, mapsFile), text, 0o600)
}

// heldPictures are held-out ones with a mask, spread over the pack.
func heldPictures(pack *adapt.Pack, c model.Config) (pictures []*looked, err error) {
	var held []int
	for i, s := range pack.Samples {
		if s.Part == adapt.Held && s.MaskBytes > 0 {
			held = append(held, i)
		}
	}
	n := min(mapsShown, len(held))
	for k := range n {
		i := held[(2*k+1)*len(held)/(2*n)]
		s := pack.Samples[i]
		p := &looked{shown: mapShown{Camera: s.Camera, Sequence: s.Sequence, Explained: s.Label}, class: -1}
		if p.picture, p.mask, err = pack.Read(i); err != nil {
			return nil, err
		}
		p.shown.Width, p.shown.Height = p.picture.Width, p.picture.Height
		for class := range c.Classes {
			if c.Label(class) == s.Label {
				p.class = int32(class)
			}
		}
		pictures = append(pictures, p)
	}
	return pictures, nil
}

// lookAll asks one model; side is 0 for the parent, 1 for the candidate.
func lookAll(ctx context.Context, b *model.Backend, c *model.Checkpoint, pictures []*looked, side int) error {
	net, err := model.NewNet(b, c)
	if err != nil {
		return err
	}
	defer net.Close()
	pixels := make([]float32, 3*c.Config.ImageHeight*c.Config.ImageWidth)
	for _, p := range pictures {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := net.Preprocess.Pixels(p.picture.RGB, p.picture.Width, p.picture.Height, pixels); err != nil {
			return err
		}
		out, err := net.Run(model.WantRelevance, pixels, []int32{p.class})
		if err != nil {
			return err
		}
		p.class, p.shown.Explained = out.Classes[0], c.Config.Label(int(out.Classes[0]))
		p.view = net.Preprocess.View(p.picture.Width, p.picture.Height)
		p.maps[side] = out.Relevance
		class, score := top(out.Logits)
		said := mapSaid{Guess: c.Config.Label(class), Score: score, OnObject: p.onObject(c.Config, out.Relevance)}
		if side == 0 {
			p.shown.Parent = said
		} else {
			p.shown.Candidate = said
		}
	}
	return nil
}

// onObject is the share of a map that lies on the mask.
func (p *looked) onObject(c model.Config, relevance []float32) *float64 {
	m := adapt.Mask{Width: p.view.Dx(), Height: p.view.Dy(), Pixels: make([]byte, p.view.Dx()*p.view.Dy())}
	for y := range m.Height {
		for x := range m.Width {
			if at := image.Pt(p.view.Min.X+x, p.view.Min.Y+y); at.In(image.Rect(0, 0, p.picture.Width, p.picture.Height)) {
				m.Pixels[y*m.Width+x] = p.mask[at.Y*p.picture.Width+at.X]
			}
		}
	}
	rows, cols := c.Grid()
	view := [4]int{p.view.Min.X, p.view.Min.Y, p.view.Max.X, p.view.Max.Y}
	return foregroundShare(&overlay{rows: rows, cols: cols, view: p.view, relevance: relevance}, m, view)
}

// draw lays the map of the parent and that of the candidate side by side, the object outlined on both.
func (p *looked) draw(c model.Config) ([]byte, error) {
	w, h := fitted(p.picture.Width, p.picture.Height, tileSide)
	plain := image.NewRGBA(image.Rect(0, 0, w, h))
	whole := rgba(p.picture)
	xdraw.CatmullRom.Scale(plain, plain.Rect, whole, whole.Rect, xdraw.Src, nil)
	view := scaled(p.view, w, h, p.picture)
	rows, cols := c.Grid()
	both := image.NewRGBA(image.Rect(0, 0, 2*w+mapGap, h))
	draw.Draw(both, both.Rect, image.NewUniform(color.RGBA{128, 128, 128, 255}), image.Point{}, draw.Src)
	for side, relevance := range p.maps {
		one := outlined(overlaid(plain, view, relevance, rows, cols, inferno), p.mask, model.Config{ImageHeight: p.picture.Height, ImageWidth: p.picture.Width})
		draw.Draw(both, one.Rect.Add(image.Pt(side*(w+mapGap), 0)), one, image.Point{}, draw.Src)
	}
	rgb := make([]byte, 0, 3*both.Rect.Dx()*both.Rect.Dy())
	for i := 0; i < len(both.Pix); i += 4 {
		rgb = append(rgb, both.Pix[i:i+3]...)
	}
	return encodeJPEG(rgb, both.Rect.Dx(), both.Rect.Dy())
}

// keepMaps takes the maps that a run wrote along with the version, and drops those of versions that are gone.
func (d *daemon) keepMaps(config *Config, from, sha string) error {
	dir := filepath.Join(config.StateDir, mapsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	kept, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range kept {
		if _, err := d.models().Get(e.Name()); err != nil {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat(from); err != nil {
		return nil // none of its pictures could be drawn
	}
	to := filepath.Join(dir, sha)
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// purgePictures deletes what lies outside of samples.db and shows pictures: the pack of the live version and the maps.
func purgePictures(stateDir string) error {
	for _, name := range []string{workDir, packsDir, mapsDir} {
		if err := os.RemoveAll(filepath.Join(stateDir, name)); err != nil {
			return fmt.Errorf("purge: %w", err)
		}
	}
	return nil
}

// forgetPictures is purgePictures beside the cycle: a run that holds a pack is ended first.
func (d *daemon) forgetPictures(ctx context.Context) error {
	config, _ := d.configs.get()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for d.cycle.stop() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return errors.New("purge: the adaptation that runs did not end: stop the daemon and purge again")
		case <-time.After(50 * time.Millisecond):
		}
	}
	return purgePictures(config.StateDir)
}
