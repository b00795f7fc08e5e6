package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

// What the fleet asks of a memory, the store is.
var (
	_ fleet.Queue      = (*store.Queue)(nil)
	_ fleet.CommandLog = (*store.Commands)(nil)
)

// blobs makes a folder of pictures: a disc on a ground, each elsewhere and of another colour.
func blobs(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.png", i)), pngOf(t, blob(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func blob(i int) *image.RGBA {
	p := image.NewRGBA(image.Rect(0, 0, 96, 64))
	for y := range 64 {
		for x := range 96 {
			c := color.RGBA{uint8(40 + i%7*5), uint8(90 + x/4), 60, 255}
			if dx, dy := x-20-i%50, y-30; dx*dx+dy*dy < 180 {
				c = color.RGBA{220, uint8(i * 37), uint8(i * 91), 255}
			}
			p.Set(x, y, c)
		}
	}
	return p
}

func pngOf(t testing.TB, p image.Image) []byte {
	t.Helper()
	var data bytes.Buffer
	if err := png.Encode(&data, p); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

func jpegOf(t testing.TB, p image.Image) []byte {
	t.Helper()
	var data bytes.Buffer
	if err := jpeg.Encode(&data, p, nil); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// runVerbLine runs a command line and returns what it printed.
func runVerbLine(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, said bytes.Buffer
	if code := execute(t.Context(), args, &out, &said); code != want {
		t.Fatalf("fovea %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, &out, &said)
	}
	return out.String() + said.String()
}

// From the camera into the store, and by the verbs out of it and in again: over the socket, and without a daemon.
func TestSamplesFromCameraToFolder(t *testing.T) {
	p := start(t, fmt.Sprintf(`
model: {dir: %q, backend: go}
inference: {relevance_every: 1}
samples: {every: 1ms, apart: 0, novel: 0}
cameras:
  - {id: door, source: %q, fps: 20, grabber: GRAB}
`, tinyModel(t), blobs(t, 40)))
	list := func(args ...string) (l samplesList) {
		t.Helper()
		text := runVerbLine(t, 0, append([]string{"samples", "list", "--json", "-c", p.file}, args...)...)
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return l
	}
	p.wait("samples", func() bool { return list().Samples >= 5 })
	p.wait("the end of the folder", func() bool { return p.state().camera("door").Phase == "ended" })
	p.wait("the last frame", func() bool { return len(p.keeper.offers) == 0 })
	if err := p.importSample(t.Context(), store.Sample{}); err == nil { // answered after the frame in work
		t.Error("a sample without a picture was taken in")
	}
	all := list()
	p.wait("the status", func() bool { return p.state().Health.Storage.Samples == int64(all.Samples) })
	first := all.Page[0]
	if first.Camera != "door" || first.Why != "novel" || len(first.Scores) != 3 || first.Model != p.live.Load().net.Digest || first.Backbone != first.Model || first.Width != 96 {
		t.Errorf("%+v", first)
	}
	if h := p.state().Health; h.Storage.Samples != int64(all.Samples) || h.Storage.BytesLimit != 256e6 || h.Storage.BytesUsed == 0 || h.Storage.OldestSampleAgeSeconds == nil {
		t.Errorf("storage %+v", h.Storage)
	}

	seq := fmt.Sprint(first.Seq)
	runVerbLine(t, 0, "samples", "label", "-c", p.file, seq, "cup")
	runVerbLine(t, exitFailure, "samples", "label", "-c", p.file, seq, "../cup")
	runVerbLine(t, exitFailure, "samples", "label", "-c", p.file, "999999", "cup")
	if l := list("--label", "cup"); l.Labelled != 1 || l.Page[0].Seq != first.Seq && l.Page[0].Predicted != "cup" {
		t.Errorf("labelled: %+v", l)
	}
	code, body := p.get("/api/samples/" + seq + "/picture.jpg")
	if shown, err := jpeg.Decode(strings.NewReader(body)); code != http.StatusOK || err != nil || shown.Bounds().Dx() != 96 {
		t.Errorf("picture: %d, %v", code, err)
	}
	for _, r := range []struct{ method, path string }{{"DELETE", "/api/samples/" + seq}, {"POST", "/api/samples/" + seq + "/label"}, {"POST", "/api/samples/purge"}, {"POST", "/api/samples"}} {
		request, err := http.NewRequest(r.method, p.page()+r.path, strings.NewReader(`{"label":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s without the token: %d", r.method, r.path, answer.StatusCode)
		}
	}

	out := filepath.Join(t.TempDir(), "kept")
	runVerbLine(t, 0, "samples", "export", "-c", p.file, out)
	runVerbLine(t, exitFailure, "samples", "export", "-c", p.file, out) // it is there
	if files, _ := filepath.Glob(filepath.Join(out, "*", "*.jpg")); len(files) != all.Samples {
		t.Errorf("%d pictures exported of %d", len(files), all.Samples)
	}
	if _, err := os.Stat(filepath.Join(out, "cup", fmt.Sprintf("%06d.jpg", first.Seq))); err != nil {
		t.Error(err)
	}
	runVerbLine(t, 0, "samples", "show", "-c", p.file, seq, "--out", filepath.Join(t.TempDir(), "s.png"))
	runVerbLine(t, 0, "samples", "drop", "-c", p.file, seq)
	if text := runVerbLine(t, 0, "samples", "import", "-c", p.file, out); !strings.HasPrefix(text, fmt.Sprintf("1 taken in, %d known already, 0 left out", all.Samples-1)) {
		t.Error(text)
	}
	if back := list("--why", "imported"); len(back.Page) != 1 || back.Page[0].Label != "cup" || back.Page[0].Backbone == "" || back.Page[0].Camera != "door" {
		t.Errorf("imported: %+v", back.Page)
	}
	if text := runVerbLine(t, 0, "db", "check", "-c", p.file); strings.Count(text, ": sound") != 2 {
		t.Error(text)
	}
	runVerbLine(t, 0, "db", "compact", "-c", p.file)
	runVerbLine(t, exitFailure, "samples", "purge", "-c", p.file) // nobody said yes

	marker := []byte(body[900:964]) // of a picture, within a piece of it
	if found := holding(t, p.dir, marker); len(found) == 0 {
		t.Error("no file of the daemon holds the picture")
	}
	runVerbLine(t, 0, "samples", "purge", "--yes", "-c", p.file)
	if found := holding(t, p.dir, marker); len(found) > 0 {
		t.Errorf("after a purge the picture is in %q", found)
	}
	if text := runVerbLine(t, 0, "samples", "import", "-c", p.file, out); !strings.HasPrefix(text, fmt.Sprintf("%d taken in", all.Samples)) {
		t.Error(text)
	}

	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if l := list(); l.Samples != all.Samples {
		t.Errorf("%d samples without a daemon, %d with", l.Samples, all.Samples)
	}
	if text := runVerbLine(t, 0, "db", "check", "-c", p.file); strings.Count(text, ": sound") != 2 {
		t.Error(text)
	}
	runVerbLine(t, 0, "samples", "purge", "--yes", "-c", p.file)
	if text := runVerbLine(t, 0, "samples", "import", "-c", p.file, out); !strings.HasPrefix(text, fmt.Sprintf("%d taken in", all.Samples)) {
		t.Error(text)
	}
}

// holding lists the files below a folder that hold a text.
func holding(t *testing.T, dir string, text []byte) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, text) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A damaged database is set aside, the rest goes on, and the alarm is in the status.
func TestDamagedSamplesDoNotStopInference(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	s, err := storeIn(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "samples.db"), bytes.Repeat([]byte("damage"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, fmt.Sprintf(`
model: {dir: %q, backend: go}
inference: {relevance_every: 1}
samples: {every: 1ms, apart: 0, novel: 0}
cameras: [{id: door, source: %q, fps: 10, loop: true, grabber: GRAB}]
`, tinyModel(t), blobs(t, 40)), func(p *program) {
		if err := os.CopyFS(filepath.Join(p.dir, "state"), os.DirFS(state)); err != nil {
			t.Fatal(err)
		}
	})
	p.wait("answers", func() bool { return p.state().camera("door").Classified > 3 })
	p.wait("samples", func() bool { return p.state().Health.Storage.Samples > 0 })
	if h := p.state().Health; h.Health != fleet.HealthDegraded || !strings.Contains(strings.Join(h.Reasons, "\n"), "samples.db was damaged and is set aside as samples.db.corrupt-") {
		t.Errorf("%s: %q", h.Health, h.Reasons)
	}
}

func storeIn(dir string) (*store.Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return store.Open(context.Background(), dir, store.Options{})
}

// Corrupt, truncated, huge and empty pictures are told and left out; the others are taken in.
func TestImportLeavesOutWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "fovea.yaml")
	if err := os.WriteFile(file, []byte("state_dir: state\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	good, another := jpegOf(t, blob(1)), pngOf(t, blob(2))
	huge := bytes.Clone(another)
	copy(huge[16:], []byte{0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff}) // width and height
	mask := image.NewGray(image.Rect(0, 0, 96, 64))
	mask.SetGray(3, 4, color.Gray{255})
	files := map[string][]byte{
		"cup/good.jpg": good, "cup/good.mask.png": pngOf(t, mask), "unlabelled/another.png": another, "top.jpg": jpegOf(t, blob(3)),
		"cup/empty.jpg": {}, "cup/cut.jpg": good[:len(good)/2], "cup/huge.png": huge, "cup/text.jpg": []byte("no picture"),
		"cup/wrong.jpg": jpegOf(t, blob(4)), "cup/wrong.mask.png": pngOf(t, image.NewGray(image.Rect(0, 0, 9, 9))),
		"cup/facts.jpg": jpegOf(t, blob(5)), "cup/facts.json": []byte(`{"camera":`),
		"cup/same.jpg": good, "cup/notes.txt": []byte("not looked at"),
	}
	from := filepath.Join(dir, "from")
	for name, data := range files {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := runVerbLine(t, 0, "samples", "import", "-c", file, from)
	if !strings.Contains(text, "3 taken in, 1 known already, 6 left out") {
		t.Error(text)
	}
	for _, name := range []string{"empty.jpg", "cut.jpg", "huge.png", "text.jpg", "wrong.jpg", "facts.jpg"} {
		if !strings.Contains(text, name+": left out: ") {
			t.Errorf("%s is not told:\n%s", name, text)
		}
	}
	var l samplesList
	if err := json.Unmarshal([]byte(runVerbLine(t, 0, "samples", "list", "--json", "-c", file)), &l); err != nil {
		t.Fatal(err)
	}
	for _, m := range l.Page {
		if want := m.PictureBytes == len(good); want != (m.Mask != nil) || want != (m.Label == "cup") {
			t.Errorf("%+v", m)
		}
	}
}

// FuzzImport: whatever is sent as a picture is taken in or refused, and what is taken can be drawn.
func FuzzImport(f *testing.F) {
	good := jpegOf(f, blob(1))
	for _, data := range [][]byte{good, {}, good[:40], good[:len(good)-9], {0xff, 0xd8, 0xff}, pngOf(f, blob(2)), []byte("GIF89a")} {
		f.Add(data, 3, 2, 0, 0, 96, 64)
	}
	f.Add(good, 1<<40, 1<<40, -5, -5, 1<<40, 1)
	s, err := storeIn(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, data []byte, maskWidth, maskHeight, left, top, right, bottom int) {
		sample := store.Sample{Meta: store.Meta{Camera: "import", Mask: &store.Mask{Width: maskWidth, Height: maskHeight, View: [4]int{left, top, right, bottom}}}, JPEG: data}
		if maskWidth > 0 && maskHeight > 0 && maskWidth < 500 && maskHeight < 500 {
			sample.MaskPixels = make([]byte, maskWidth*maskHeight)
		}
		err := takeInUnseen(t.Context(), s.Samples, sample)
		switch {
		case errors.Is(err, store.ErrInvalid), errors.Is(err, errKeptAlready):
			return
		case err != nil:
			t.Fatal(err)
		}
		kept, err := s.Samples.Get(s.Samples.List(nil)[0].Seq)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := drawSample(kept); err != nil {
			t.Fatal(err)
		}
		if err := s.Samples.Drop(kept.Seq); err != nil {
			t.Fatal(err)
		}
	})
}

func TestForegroundShare(t *testing.T) {
	o := &overlay{rows: 2, cols: 2, view: image.Rect(0, 0, 8, 8), relevance: []float32{1, 2, 3, 4}}
	mask := adapt.Mask{Width: 4, Height: 4, Pixels: make([]byte, 16)}
	for _, i := range []int{0, 1, 4, 5, 10, 11} { // the first patch, and half of the last
		mask.Pixels[i] = 255
	}
	if got := foregroundShare(o, mask, [4]int{0, 0, 8, 8}); got == nil || *got != (1+4*.5)/10 {
		t.Errorf("share %v", got)
	}
	if got := foregroundShare(o, mask, [4]int{1, 0, 8, 8}); got != nil {
		t.Errorf("of another part of the picture: %v", *got)
	}
	o.relevance = make([]float32, 4)
	if got := foregroundShare(o, mask, [4]int{0, 0, 8, 8}); got != nil {
		t.Errorf("of nothing: %v", *got)
	}
}

func TestWholeMask(t *testing.T) {
	s := &store.Sample{
		Meta:       store.Meta{Width: 8, Height: 4, Mask: &store.Mask{Width: 2, Height: 2, View: [4]int{2, 0, 6, 4}}},
		MaskPixels: []byte{255, 0, 0, 255},
	}
	got := wholeMask(s)
	for y := range 4 {
		for x := range 8 {
			if want := x >= 2 && x < 4 && y < 2 || x >= 4 && x < 6 && y >= 2; want != (got.GrayAt(x, y).Y == 255) {
				t.Errorf("pixel %d, %d is %d", x, y, got.GrayAt(x, y).Y)
			}
		}
	}
	s.Mask.View = [4]int{-10, -10, 300, 300} // larger than the picture
	wholeMask(s)
	s.Mask.View = [4]int{5, 5, 5, 5}
	wholeMask(s)
}

// A frame without relevance still gives samples, once a second.
func TestSamplesWithoutRelevance(t *testing.T) {
	p := start(t, fmt.Sprintf(`
model: {dir: %q, backend: go}
inference: {relevance_every: 0}
samples: {every: 1ms, apart: 0, novel: 0}
cameras: [{id: door, source: %q, fps: 10, loop: true, grabber: GRAB}]
`, tinyModel(t), blobs(t, 60)))
	p.wait("two samples", func() bool { return p.state().Health.Storage.Samples >= 2 })
	if m := p.samples().List(nil)[0]; m.Relevance != nil || m.Predicted == "" {
		t.Errorf("%+v", m)
	}
}
