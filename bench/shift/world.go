package main

import (
	"context"
	"encoding/gob"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// world is a device of a split: its labelled pictures, its model, its frames, and the truth. What is computed is kept
// in a folder, so that a second recipe costs seconds. One goroutine uses it.
type world struct {
	*split
	album    album
	dir      string // of what depends on rho
	tests    string // of what does not
	perClass int    // pictures a class of a test set
	steps    int    // of what trains

	backend  *model.Backend
	backbone string          // digest, of the base
	in       adapt.RunInput  // the parent is its own base; labelled masks are cut, not given
	masked   *adapt.Labelled // the labelled pictures with their true masks: for ceilings alone

	looks map[string]*looks // of test sets, by backbone and set
	eval  *adapt.EvalSet    // made when it is first asked for
	said  *adapt.Outcomes   // of the parent, on eval
	plate map[string][]adapt.Background
	made  map[string]*candidate // what takes long and serves several recipes
}

// openWorld makes a world or finds it in cache.
func openWorld(ctx context.Context, b *model.Backend, backbone *model.Checkpoint, cache string, s *split, a album, perClass, labelled, steps int) (*world, error) {
	w := &world{
		split: s, album: a, dir: filepath.Join(cache, s.String()), tests: filepath.Join(cache, s.material()), perClass: perClass, steps: steps,
		backend: b, looks: map[string]*looks{}, plate: map[string][]adapt.Background{}, made: map[string]*candidate{},
	}
	for _, dir := range []string{w.dir, w.tests} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := w.label(ctx, backbone, filepath.Join(w.dir, fmt.Sprint("labelled-", labelled))); err != nil {
		return nil, fmt.Errorf("labelled pictures: %w", err)
	}
	if err := w.pack(ctx); err != nil {
		return nil, fmt.Errorf("frames: %w", err)
	}
	return w, nil
}

func (w *world) close() { w.in.Pack.Close() }

// tell shows on a terminal's last line how far something long is.
func (w *world) tell(what string, done, of int) {
	fmt.Fprintf(os.Stderr, "\r%s: %s %d of %d\033[K", w.split, what, done, of)
	if done == of {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}

// label fits the head of the parent on the labelled pictures, which dir gets, as "fovea head fit" does.
func (w *world) label(ctx context.Context, backbone *model.Checkpoint, dir string) error {
	if err := w.album.labels(dir); err != nil {
		return err
	}
	set, err := adapt.ReadLabelled(dir)
	if err != nil {
		return err
	}
	net, err := model.NewNet(w.backend, backbone)
	if err != nil {
		return err
	}
	defer net.Close()
	x, width, err := set.Features(ctx, net, model.ReadClass, nil)
	if err != nil {
		return err
	}
	set.Group(x, width)
	set.Split()
	e := adapt.Examples{Width: width, Classes: len(set.Classes)}
	for i, p := range set.Pictures {
		if p.Part == adapt.Fit {
			e.X, e.Class, e.Group = append(e.X, x[i*width:(i+1)*width]...), append(e.Class, p.Class), append(e.Group, p.Group)
		}
	}
	fit, err := adapt.FitHead(ctx, &e, set.Classes, 1, nil)
	if err != nil {
		return err
	}
	w.in.Parent, err = withHead(backbone, fit.Head, set.Classes)
	if err != nil {
		return err
	}
	w.in.Base, w.masked, w.backbone = w.in.Parent, set, w.in.Parent.BackboneDigest()
	w.in.Labelled, err = w.cutLabelled(ctx)
	return err
}

// cutLabelled is the labelled set with masks as a device has them: cut by TokenCut, in a folder beside it.
func (w *world) cutLabelled(ctx context.Context) (*adapt.Labelled, error) {
	net, err := model.NewNet(w.backend, w.in.Base)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	cut := adapt.CutMasks(net, adapt.DefaultMasks)
	set := *w.masked
	set.Pictures = slices.Clone(set.Pictures)
	for i := range set.Pictures {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := &set.Pictures[i]
		if w.Part == data && p.Mask != "" {
			continue // a user's
		}
		p.Mask = path.Join("..", filepath.Base(set.Dir)+"-masks-"+w.backbone[:12], strings.TrimSuffix(p.File, ".jpg")+".png")
		file := filepath.Join(set.Dir, filepath.FromSlash(p.Mask))
		shown, err := adapt.ReadPicture(file)
		if err != nil {
			picture, err := adapt.ReadPicture(filepath.Join(set.Dir, filepath.FromSlash(p.File)))
			if err != nil {
				return nil, err
			}
			mask := image.NewGray(image.Rect(0, 0, picture.Width, picture.Height)) // black where none is to be trusted
			if pixels, err := cut(p.File, picture); err == nil {
				mask.Pix = pixels
			}
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return nil, err
			}
			if err := writeFile(file, func(out io.Writer) error { return png.Encode(out, mask) }); err != nil {
				return nil, err
			}
			if shown, err = adapt.ReadPicture(file); err != nil {
				return nil, err
			}
		}
		if slices.Max(shown.RGB) == 0 {
			p.Mask = ""
		}
	}
	return &set, nil
}

// withHead is a copy of a checkpoint with another head; the rest is shared.
func withHead(c *model.Checkpoint, h adapt.Head, labels []string) (*model.Checkpoint, error) {
	out, params := *c, *c.Params
	out.Params = &params
	return &out, h.Into(&out, model.ReadClass, labels)
}

// writeFile writes a file whole or not at all.
func writeFile(name string, content func(io.Writer) error) error {
	f, err := renameio.NewPendingFile(name, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer f.Cleanup() //nolint:errcheck // what a failure left
	if err := content(f); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// Of the pack: every fourth block of frames is held out.
const (
	packBlock = 9
	packGap   = 2 * time.Minute
)

// pack opens the device's frames, with masks that TokenCut cuts, or makes them.
func (w *world) pack(ctx context.Context) error {
	file := filepath.Join(w.dir, "frames.pack")
	info := adapt.PackInfo{Base: w.in.Base.Digest(), Labelled: w.in.Labelled.Digest(), Gap: packGap.Seconds()}
	p, err := adapt.OpenPack(file)
	if err == nil && p.PackInfo == info {
		w.in.Pack = p
		return nil
	}
	if err == nil {
		p.Close()
	}
	net, err := model.NewNet(w.backend, w.in.Base)
	if err != nil {
		return err
	}
	defer net.Close()
	cut := adapt.CutMasks(net, adapt.DefaultMasks)
	shots := w.album.frames()
	times := map[string][]time.Time{}
	for _, s := range shots {
		times[s.camera.name] = append(times[s.camera.name], s.time)
	}
	parts := map[string][]adapt.PackPart{}
	for name, list := range times {
		parts[name] = adapt.Divide(list, packBlock, packGap)
	}
	var kept []adapt.Sample // without picture and mask
	for i, s := range shots {
		at := slices.Index(times[s.camera.name], s.time)
		if one := parts[s.camera.name][at]; one != "" {
			kept = append(kept, adapt.Sample{Part: one, Camera: s.camera.name, Time: s.time, Sequence: uint64(i + 1)})
		}
	}
	_, err = adapt.WritePack(file, info, len(kept), func(n int) (adapt.Sample, error) {
		w.tell("frame", n+1, len(kept))
		sample := kept[n]
		i := int(sample.Sequence) - 1
		var err error
		if sample.JPEG, _, err = w.album.jpeg(shots[i], w.album.random("stream", i)); err != nil {
			return sample, err
		}
		picture, err := adapt.DecodePicture(sample.JPEG)
		if err != nil {
			return sample, err
		}
		if mask, err := cut(sample.Camera, picture); err == nil {
			sample.Mask, sample.Quality = mask, adapt.DefaultMasks.Floor
		}
		return sample, ctx.Err()
	})
	if err != nil {
		return err
	}
	w.in.Pack, err = adapt.OpenPack(file)
	return err
}

// backgrounds are the device's empty views: of a part of the pack, or "true", the views themselves, or "labelled",
// labelled pictures whose object is flattened, as many as the device has.
func (w *world) backgrounds(ctx context.Context, which string) ([]adapt.Background, error) {
	if have := w.plate[which]; have != nil {
		return have, nil
	}
	var list []adapt.Background
	var err error
	switch which {
	case string(adapt.Train), string(adapt.Held):
		list, err = w.in.Pack.Backgrounds(ctx, adapt.PackPart(which))
	case "true":
		list, err = w.truePlates()
	case "labelled":
		list, err = w.labelledPlates(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("backgrounds %q: %w", which, err)
	}
	w.plate[which] = list
	return list, nil
}

func (w *world) truePlates() ([]adapt.Background, error) {
	var list []adapt.Background
	for i, s := range w.album.frames() {
		if i%9 != 0 { // four of each camera, as many as it has plates
			continue
		}
		s.cutout = nil
		p, _, err := picture(w.album, s, w.album.random("plates", len(list)))
		if err != nil {
			return nil, err
		}
		list = append(list, adapt.Background{Camera: s.camera.name, Picture: p, Frames: 1, Seen: 1})
	}
	return list, nil
}

func (w *world) labelledPlates(ctx context.Context) ([]adapt.Background, error) {
	device, err := w.backgrounds(ctx, string(adapt.Train))
	if err != nil {
		return nil, err
	}
	net, err := model.NewNet(w.backend, w.in.Base)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	cut := adapt.CutMasks(net, adapt.DefaultMasks)
	var list []adapt.Background
	random := w.album.random("labelled plates", 0)
	for _, i := range random.Perm(len(w.in.Labelled.Pictures)) {
		one := w.in.Labelled.Pictures[i]
		if one.Part != adapt.Fit || len(list) == len(device) {
			continue
		}
		p, err := adapt.ReadPicture(filepath.Join(w.in.Labelled.Dir, one.File))
		if err != nil {
			return nil, err
		}
		mask, err := cut(one.File, p)
		if err != nil {
			continue // no mask to be trusted: it would be no empty view
		}
		list = append(list, adapt.Background{Camera: "labelled", Picture: p.FlattenObject(mask), Frames: 1, Seen: 1})
	}
	return list, nil
}

// looks are what a backbone saw of the pictures of a test set.
type looks struct {
	Backbone string
	Frame    [][]float32 // class token of each picture
	View     [][]float32 // of the second view; nil where there is none
	Quality  []float32   // of the mask that placed it
}

// look returns the looks of a set; second says where second views come from. What the base saw is kept on disk, where
// one look with cut boxes serves those that look once too.
func (w *world) look(ctx context.Context, c *model.Checkpoint, backbone, set, second string) (*looks, error) {
	base := backbone == w.backbone
	if base && second == once {
		second = cutBoxes
	}
	key := fmt.Sprint(backbone, " ", set, " ", second)
	if have := w.looks[key]; have != nil {
		return have, nil
	}
	file := filepath.Join(w.tests, fmt.Sprintf("%s-%s-%d.gob", set, second, w.perClass))
	if base {
		if have := readLooks(file, backbone); have != nil {
			w.looks[key] = have
			return have, nil
		}
	}
	var frames [][]float32 // known from another look
	if base && second == trueBoxes {
		first, err := w.look(ctx, c, backbone, set, cutBoxes)
		if err != nil {
			return nil, err
		}
		frames = first.Frame
	}
	l, err := w.lookAt(ctx, c, backbone, set, second, frames)
	if err != nil {
		return nil, fmt.Errorf("test set %s: %w", set, err)
	}
	w.looks[key] = l
	if base {
		err = writeFile(file, func(out io.Writer) error { return gob.NewEncoder(out).Encode(l) })
	}
	return l, err
}

func readLooks(file, backbone string) *looks {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	l := &looks{}
	if gob.NewDecoder(f).Decode(l) != nil || l.Backbone != backbone {
		return nil
	}
	return l
}

// Where second views come from.
const (
	once      = "once"
	cutBoxes  = "cut"
	trueBoxes = "true"
)

// lookAt draws the pictures of a set, the next while the net computes, and looks at them. frames are their class tokens
// where they are known, else nil.
func (w *world) lookAt(ctx context.Context, c *model.Checkpoint, backbone, set, second string, frames [][]float32) (*looks, error) {
	net, err := model.NewNet(w.backend, c)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	e := newEye(net)
	if backbone != w.backbone && second == cutBoxes { // masks are the base's
		base, err := model.NewNet(w.backend, w.in.Base)
		if err != nil {
			return nil, err
		}
		defer base.Close()
		e.masks = newEye(base)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type drawn struct {
		picture *adapt.Picture
		mask    []byte
		err     error
	}
	shots := w.album.tests(set, w.perClass)
	ahead := make(chan drawn, 2)
	go func() {
		defer close(ahead)
		for i, s := range shots {
			p, mask, err := picture(w.album, s, w.album.random("test "+set, i))
			select {
			case ahead <- drawn{p, mask, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	l := &looks{Backbone: backbone}
	for i := range shots {
		d, more := <-ahead
		if !more {
			return nil, ctx.Err()
		}
		if d.err != nil {
			return nil, d.err
		}
		if second != trueBoxes {
			d.mask = nil
		}
		var frame []float32
		if frames != nil {
			frame = frames[i]
		}
		frame, view, quality, err := e.look(d.picture, frame, d.mask, second)
		if err != nil {
			return nil, err
		}
		l.Frame, l.View, l.Quality = append(l.Frame, frame), append(l.View, view), append(l.Quality, quality)
		w.tell("test set "+set+", picture", i+1, len(shots))
	}
	return l, nil
}

// eye looks at pictures once or twice.
type eye struct {
	net    *model.Net
	masks  *eye // cuts the masks; nil: this one
	masker *adapt.Masker
}

func newEye(net *model.Net) *eye { return &eye{net: net, masker: adapt.NewMasker(adapt.DefaultMasks)} }

// look returns class tokens of the frame and of the second view, nil where there is none. frame is that of the frame
// where it is known already; mask is where the object is, for true boxes.
func (e *eye) look(p *adapt.Picture, frame []float32, mask []byte, second string) (_, view []float32, quality float32, err error) {
	var out *model.Output
	if frame == nil {
		var want model.Want
		if second == cutBoxes && e.masks == nil {
			want = model.WantFeatures
		}
		if out, err = e.run(p, want); err != nil {
			return nil, nil, 0, err
		}
		frame = out.Class
	}
	width, height := p.Width, p.Height
	switch second {
	case once:
		return frame, nil, 0, nil
	case cutBoxes:
		m, err := e.cut(p, out)
		if err != nil {
			return nil, nil, 0, err
		}
		mask, width, height, quality = m.Pixels, m.Width, m.Height, float32(m.Quality)
	case trueBoxes:
		quality = 1
	}
	box, ok := adapt.FovealBox(mask, width, height)
	if !ok {
		return frame, nil, quality, nil
	}
	// The networks see all of a picture: what they see has its coordinates, scaled.
	box.Min.X, box.Max.X = box.Min.X*p.Width/width, box.Max.X*p.Width/width
	box.Min.Y, box.Max.Y = box.Min.Y*p.Height/height, box.Max.Y*p.Height/height
	closer, err := e.run(&adapt.Picture{Width: box.Dx(), Height: box.Dy(), RGB: adapt.FovealView(p.RGB, p.Width, box)}, 0)
	if err != nil {
		return nil, nil, 0, err
	}
	return frame, closer.Class, quality, nil
}

func (e *eye) run(p *adapt.Picture, want model.Want) (*model.Output, error) {
	pixels := make([]float32, 3*e.net.Config.ImageHeight*e.net.Config.ImageWidth)
	if err := e.net.Preprocess.Pixels(p.RGB, p.Width, p.Height, pixels); err != nil {
		return nil, err
	}
	return e.net.Run(want, pixels, nil)
}

// cut is TokenCut on what the net saw; out is that where this eye's net cuts.
func (e *eye) cut(p *adapt.Picture, out *model.Output) (adapt.Mask, error) {
	if e.masks != nil {
		out, err := e.masks.run(p, model.WantFeatures)
		if err != nil {
			return adapt.Mask{}, err
		}
		return e.masks.cut(p, out)
	}
	c := e.net.Config
	grey := e.net.Preprocess
	grey.Scale, grey.Mean, grey.Std = 1, [3]float64{}, [3]float64{1, 1, 1}
	planes := make([]float32, 3*c.ImageHeight*c.ImageWidth)
	if err := grey.Pixels(p.RGB, p.Width, p.Height, planes); err != nil {
		return adapt.Mask{}, err
	}
	n := c.ImageHeight * c.ImageWidth
	v := adapt.View{Features: out.Features, RGB: make([]byte, 3*n), Height: c.ImageHeight, Width: c.ImageWidth}
	v.GridH, v.GridW = c.Grid()
	for i := range n {
		for k := range 3 {
			v.RGB[3*i+k] = byte(planes[k*n+i] + .5)
		}
	}
	return e.masker.Mask(v)
}
