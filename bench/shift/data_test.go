package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

// ofAUser writes a studio's pictures as a user has them, and lists the files.
func ofAUser(t *testing.T, d *studio, perClass int) string {
	t.Helper()
	dir := t.TempDir()
	if err := d.labels(filepath.Join(dir, "labelled")); err != nil {
		t.Fatal(err)
	}
	put := func(s shot, set string, i int, name string) {
		data, _, err := d.jpeg(s, d.random(set, i))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(file, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range d.frames() {
		put(s, "stream", i, "frames/"+s.camera.name+"/"+s.time.Format("0102-150405")+".jpg")
	}
	for i, s := range d.tests("deployment", perClass) {
		put(s, "test deployment", i, "deployment/"+s.object+"/"+string(rune('a'+i))+".jpg")
	}
	return dir
}

func filesIn(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		b.WriteString(file + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAUsersFolderGivesWhatItsPicturesGave(t *testing.T) {
	b, splits, photographs := tinyBench(t)
	d, err := newStudio(splits[0], photographs, b.labelled)
	if err != nil {
		t.Fatal(err)
	}
	list := named(t, "before", "foveal", "refit")
	if err := b.measureAll(t.Context(), splits, list, photographs); err != nil {
		t.Fatal(err)
	}
	user := *b
	user.recipes, user.data = "before,foveal,refit", ofAUser(t, d, b.perClass)
	files := filesIn(t, user.data)
	if err := user.measureData(t.Context()); err != nil {
		t.Fatal(err)
	}
	if filesIn(t, user.data) != files {
		t.Error("something was written into the user's folder")
	}
	for _, r := range list {
		var drawn, read run
		if err := readJSON(b.file(splits[0], r.name, 1), &drawn); err != nil {
			t.Fatal(err)
		}
		if err := readJSON(user.file(&split{Part: data, Number: 1}, r.name, 1), &read); err != nil {
			t.Fatal(err)
		}
		if len(read.Said) != 1 || len(read.Said["deployment"]) != b.perClass*len(collage.Classes) {
			t.Errorf("%s says %q, want answers on deployment alone", r.name, read.Said)
		}
		// The frames of a folder have other times: what is fitted on them differs.
		if r.name != "refit" && (read.Accuracy["deployment"] != drawn.Accuracy["deployment"] || read.Parent != drawn.Parent) {
			t.Errorf("%s: %.3f by parent %.12s on the folder, %.3f by %.12s on the same pictures drawn", r.name, read.Accuracy["deployment"], read.Parent, drawn.Accuracy["deployment"], drawn.Parent)
		}
	}
	if err := os.RemoveAll(b.base); err != nil {
		t.Fatal(err)
	}
	user.cache = b.cache
	if err := user.measureData(t.Context()); err != nil {
		t.Errorf("nothing is left to do: %v", err)
	}
}

func TestAUsersFolderIsCheckedBeforeAnythingIsComputed(t *testing.T) {
	b, splits, photographs := tinyBench(t)
	b.base = filepath.Join(t.TempDir(), "nowhere")
	d, err := newStudio(splits[0], photographs, b.labelled)
	if err != nil {
		t.Fatal(err)
	}
	b.data = ofAUser(t, d, 1)
	for _, c := range []struct{ from, to, recipes, want string }{
		{"deployment/bird", "deployment/bat", "before", `no class "bat"`},
		{"deployment", "other", "before", "deployment"},
		{"frames", "away", "before", "frames"},
		{"labelled", "away", "before", "labelled"},
		{"frames/camera1", "frames/camera9", "ceiling-refit", "ceiling-refit"},
	} {
		from, to := filepath.Join(b.data, c.from), filepath.Join(b.data, c.to)
		b.recipes = c.recipes
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if err := b.measureData(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s as %s: %v, want it to say %q", c.from, c.to, err, c.want)
		}
		if err := os.Rename(to, from); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readFrames(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no jpg or png") {
		t.Errorf("frames without a picture: %v", err)
	}
}
