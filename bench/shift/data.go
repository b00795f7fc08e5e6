package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"image"
	"image/draw"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	xdraw "golang.org/x/image/draw"

	"github.com/seed-a98b2d25/fovea/adapt"
)

// folder is an album of a user's pictures:
//
//	labelled/CLASS/[OBJECT/]PICTURE      what a head is fitted on; NAME.mask.png shows the object, else a mask is cut
//	frames/CAMERA/PICTURE                what cameras saw, unlabelled; the order of their names is that of time
//	deployment/CLASS/[OBJECT/]PICTURE    what is asked: pictures as those cameras take them, of other objects
//	other/, crossed/, aligned/           further test sets, laid out alike, where there are any
type folder struct {
	dir    string
	names  []string // of classes, as labelled/ has them
	stream []shot
	sets   map[string][]shot
	digest string // of names and content; of frames by name, size and time
}

// openFolder lists a folder. What is missing and what would not be used is an error or said on the terminal.
func openFolder(dir string) (*folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir, sets: map[string][]shot{}}
	labelled, err := readSet(filepath.Join(dir, "labelled"))
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintln(h, dir)
	enter(h, labelled)
	if f.names = labelled.Classes; len(f.names) < 2 || len(f.names) > 26 {
		return nil, fmt.Errorf("%s: %d classes, want 2 to 26", labelled.Dir, len(f.names))
	}
	for _, set := range testSets {
		at := filepath.Join(dir, set)
		if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) && set != testSets[0] {
			continue
		}
		tests, err := readSet(at)
		if err != nil {
			return nil, err
		}
		enter(h, tests)
		for _, p := range tests.Pictures {
			class := tests.Classes[p.Class]
			if !slices.Contains(f.names, class) {
				return nil, fmt.Errorf("%s: labelled/ has no class %q", filepath.Join(at, class), class)
			}
			f.sets[set] = append(f.sets[set], shot{file: filepath.Join(at, filepath.FromSlash(p.File)), object: class + "/" + cmp.Or(p.Object, p.File)})
		}
	}
	if f.stream, err = readFrames(filepath.Join(dir, "frames")); err != nil {
		return nil, err
	}
	for _, s := range f.stream {
		info, err := os.Stat(s.file)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(h, s.camera.name, info.Name(), info.Size(), info.ModTime().UnixNano())
	}
	f.digest = fmt.Sprintf("%.6x", h.Sum(nil))
	return f, nil
}

// enter adds to a digest what a set is made of.
func enter(h hash.Hash, set *adapt.Labelled) {
	fmt.Fprintln(h, filepath.Base(set.Dir))
	for _, p := range set.Pictures {
		fmt.Fprintln(h, p.File, p.SHA256, p.Mask != "")
	}
}

func readSet(dir string) (*adapt.Labelled, error) {
	set, err := adapt.ReadLabelled(dir)
	if err != nil {
		return nil, err
	}
	for _, b := range set.Bad {
		fmt.Fprintf(os.Stderr, "left out: %s: %s\n", filepath.Join(dir, b.File), b.Problem)
	}
	return set, nil
}

// betweenFrames is more than what makes two frames one moment (packGap).
const betweenFrames = 5 * time.Minute

// readFrames lists the frames of each camera folder. What lies there beside them is said on the terminal.
func readFrames(dir string) ([]shot, error) {
	cameras, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var shots []shot
	for _, c := range cameras {
		at := filepath.Join(dir, c.Name())
		if info, err := os.Stat(at); err != nil || !info.IsDir() {
			fmt.Fprintf(os.Stderr, "left out: %s: lies in no camera folder\n", at)
			continue
		}
		files, err := os.ReadDir(at)
		if err != nil {
			return nil, err
		}
		seen := &camera{name: c.Name()}
		now := time.Unix(1_800_000_000, 0)
		for _, e := range files {
			ext := strings.ToLower(filepath.Ext(e.Name()))
			if strings.HasPrefix(e.Name(), ".") || ext != ".jpg" && ext != ".jpeg" && ext != ".png" {
				fmt.Fprintf(os.Stderr, "left out: %s: no .jpg or .png\n", filepath.Join(at, e.Name()))
				continue
			}
			now = now.Add(betweenFrames)
			shots = append(shots, shot{file: filepath.Join(at, e.Name()), camera: seen, time: now})
		}
	}
	if len(shots) == 0 {
		return nil, fmt.Errorf("%s: no jpg or png in CAMERA folders", dir)
	}
	return shots, nil
}

func (f *folder) classes() []string { return f.names }

// labels links to the pictures: masks that are cut go beside the link, not into the user's folder.
func (f *folder) labels(dir string) error {
	if err := os.Symlink(filepath.Join(f.dir, "labelled"), dir); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (f *folder) frames() []shot { return f.stream }

func (f *folder) tests(set string, _ int) []shot { return f.sets[set] }

// widest is the longest side of pictures that are taken as they are: a network sees a few hundred pixels.
const widest = 1280

// jpeg is the file, or where it is large, a PNG or lies on its side the same picture, smaller and upright.
func (f *folder) jpeg(s shot, _ *rand.Rand) (data, mask []byte, err error) {
	if data, err = os.ReadFile(s.file); err != nil {
		return nil, nil, err
	}
	p, err := adapt.DecodePicture(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.file, err)
	}
	c, kind, err := image.DecodeConfig(bytes.NewReader(data))
	if err == nil && kind == "jpeg" && c.Width == p.Width && max(p.Width, p.Height) <= widest {
		return data, nil, nil
	}
	shown := image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
	for i := range p.Width * p.Height {
		copy(shown.Pix[4*i:], p.RGB[3*i:3*i+3])
		shown.Pix[4*i+3] = 255
	}
	part := min(1, widest/float64(max(p.Width, p.Height)))
	small := image.NewRGBA(image.Rect(0, 0, max(1, int(part*float64(p.Width))), max(1, int(part*float64(p.Height)))))
	xdraw.CatmullRom.Scale(small, small.Rect, shown, shown.Rect, draw.Src, nil)
	data, err = encoded(small)
	return data, nil, err
}

func (f *folder) random(set string, i int) *rand.Rand { return numbers(set, i) }

// measureData measures on a user's pictures and prints the table. What is computed lies in the cache, by the content of
// the folder, the backbone and the steps, so that it goes on where it was stopped.
func (b *bench) measureData(ctx context.Context) error {
	if b.quick || b.final || b.sheet != "" {
		return errors.New("-data goes with no -quick, -final or -sheet, which are of the drawn pictures")
	}
	f, err := openFolder(b.data)
	if err != nil {
		return fmt.Errorf("-data: %w", err)
	}
	list, err := b.chosen()
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.kind == ceiling {
			return fmt.Errorf("-data: recipe %s needs to know where the objects are, which drawn pictures alone tell", r.name)
		}
	}
	base, err := filepath.Abs(b.base)
	if err != nil {
		return err
	}
	b.cache = filepath.Join(b.cache, fmt.Sprintf("data-%s-%.4x", f.digest, sha256.Sum256(fmt.Append(nil, base, b.steps))))
	b.results = filepath.Join(b.cache, "results")
	s := &split{Part: data, Number: 1}
	if !b.complete(s, list) {
		backend, backbone, err := b.open(ctx)
		if err != nil {
			return err
		}
		if err := b.measureOn(ctx, s, f, list, backend, backbone); err != nil {
			return fmt.Errorf("-data: %w", err)
		}
	}
	return printReport(os.Stdout, b.results)
}
