package main

import (
	"context"
	"errors"
	"image"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
	"github.com/seed-a98b2d25/fovea/model"
)

// tinyBench is a benchmark with a random backbone, discs and plain photographs, and its one split.
func tinyBench(t *testing.T) (*bench, []*split, *collage.Photographs) {
	t.Helper()
	dir := t.TempDir()
	c := model.Random(model.Config{
		ImageHeight: 64, ImageWidth: 64, Patch: 8, Dim: 24, Depth: 2, Heads: 3, Hidden: 48, LayerScale: true,
		Readout: model.ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: model.PositionAntialias,
	}, 1)
	b := &bench{
		base: filepath.Join(dir, "base"), share: filepath.Join(dir, "share"), cache: filepath.Join(dir, "cache"), results: filepath.Join(dir, "results"),
		backend: model.BackendGo, size: 64, splits: 1, most: 1, perClass: 4, labelled: 12, steps: 2,
	}
	if err := c.Save(b.base); err != nil {
		t.Fatal(err)
	}
	for i, name := range photographs {
		p := image.NewRGBA(image.Rect(0, 0, 80, 60))
		for j := range p.Pix {
			p.Pix[j] = uint8(30 + 7*i + j%11)
		}
		file := filepath.Join(b.share, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(file, func(w io.Writer) error { return jpeg.Encode(w, p, nil) }); err != nil {
			t.Fatal(err)
		}
	}
	cutouts := standIns(24)
	kept, err := readFrozen(freeze(cutouts))
	if err != nil {
		t.Fatal(err)
	}
	splits, err := b.draw(dev, cutouts, kept)
	if err != nil {
		t.Fatal(err)
	}
	return b, splits, &collage.Photographs{Share: b.share}
}

func named(t *testing.T, names ...string) []recipe {
	t.Helper()
	var list []recipe
	for _, name := range names {
		r, err := find(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

func TestABenchmarkThatWasStoppedGoesOn(t *testing.T) {
	b, splits, photographs := tinyBench(t)
	list := named(t, "before", "foveal", "foveal-fit")

	// It is stopped in the middle of the second recipe, while it looks at the pictures.
	ctx, stop := context.WithCancel(t.Context())
	stopped := append([]recipe{list[0]}, recipe{name: "foveal", orders: 1, make: func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := list[1].make(ctx, w, order)
		clear(w.looks)
		if err := os.RemoveAll(w.tests); err != nil {
			t.Error(err)
		}
		stop()
		return c, err
	}})
	if err := b.measureAll(ctx, splits, stopped, photographs); !errors.Is(err, context.Canceled) {
		t.Fatalf("a stopped benchmark ends with %v", err)
	}
	before, err := os.Stat(b.file(splits[0], "before", 1))
	if err != nil {
		t.Fatalf("what was done before the stop: %v", err)
	}
	if b.done(splits[0], "foveal", 1) {
		t.Error("the recipe that was stopped has a result")
	}

	if err := b.measureAll(t.Context(), splits, list, photographs); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(b.file(splits[0], "before", 1))
	if err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("a run that was there was repeated (%v)", err)
	}

	// All at once gives the same.
	whole, splits, photographs := tinyBench(t)
	if err := whole.measureAll(t.Context(), splits, list, photographs); err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		var a, c run
		if err := errors.Join(readJSON(b.file(splits[0], r.name, 1), &a), readJSON(whole.file(splits[0], r.name, 1), &c)); err != nil {
			t.Fatal(err)
		}
		for _, set := range testSets {
			if a.Said[set] == "" || a.Said[set] != c.Said[set] {
				t.Errorf("%s on %s says %q after a stop, %q without", r.name, set, a.Said[set], c.Said[set])
			}
		}
	}

	// With nothing left to do, the backbone is not even opened.
	b.base = filepath.Join(t.TempDir(), "nowhere")
	if err := b.measureAll(t.Context(), splits, list, photographs); err != nil {
		t.Errorf("nothing is left to do: %v", err)
	}
}

func TestEveryRecipeIsMeasured(t *testing.T) {
	b, splits, photographs := tinyBench(t)
	b.perClass = 1
	judged := named(t, "bad-constant") // by the gate too, which looks at hundreds of pictures
	for _, list := range [][]recipe{judged, recipes} {
		b.judged = 2 - min(2, len(list)) // the first list alone
		if err := b.measureAll(t.Context(), splits, list, photographs); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range recipes {
		for order := range b.orders(r) {
			var got run
			if err := readJSON(b.file(splits[0], r.name, order+1), &got); err != nil {
				t.Fatal(err)
			}
			for _, set := range testSets {
				if len(got.Said[set]) != len(collage.Classes) {
					t.Errorf("%s: %d answers on %s, want one a class", r.name, len(got.Said[set]), set)
				}
			}
			if r.name == judged[0].name && (len(got.Points) != len(shares) || got.Points[0].Decision == adapt.Promote || !got.Points[0].Collapsed) {
				t.Errorf("%s is judged as %+v", r.name, got.Points)
			}
		}
	}
	if err := printReport(io.Discard, b.results); err != nil {
		t.Error(err)
	}
}

func TestResultsOfOtherPicturesAreNotMixed(t *testing.T) {
	b, splits, photographs := tinyBench(t)
	d, err := newStudio(splits[0], photographs, b.labelled)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same pictures are welcome
		if err := b.keepPictures(splits[0], d); err != nil {
			t.Fatal(err)
		}
	}
	b.perClass++
	if err := b.keepPictures(splits[0], d); err == nil {
		t.Error("results on other pictures go into one folder")
	}
}
