package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

// standIn makes a folder with the names of the packages' files: discs for cut-outs, plain photographs.
func standIn(t *testing.T) string {
	t.Helper()
	share := t.TempDir()
	put := func(name string, content func(io.Writer) error) {
		name = filepath.Join(share, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := write(name, content); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	for _, c := range collage.Classes {
		for i, folder := range c.Folders {
			for n := range 5 {
				disc := image.NewNRGBA(image.Rect(0, 0, 120, 90))
				colour := color.NRGBA{uint8(random.IntN(256)), uint8(random.IntN(256)), uint8(random.IntN(256)), 255}
				for y := 5; y < 85; y++ { // a border stays transparent
					for x := 10; x < 110; x++ {
						if (x-60)*(x-60)*64+(y-45)*(y-45)*100 < 64*50*50 {
							disc.SetNRGBA(x, y, colour)
						}
					}
				}
				put(fmt.Sprintf("tuxpaint/stamps/%s/thing%d%d.png", folder, i, n), func(w io.Writer) error { return png.Encode(w, disc) })
			}
		}
		put("tuxpaint/stamps/"+c.Folders[0]+"/thing00_mirror.png", func(w io.Writer) error { return png.Encode(w, image.NewNRGBA(image.Rect(0, 0, 99, 99))) })
		put("tuxpaint/stamps/"+c.Folders[0]+"/tiny.png", func(w io.Writer) error { return png.Encode(w, image.NewGray(image.Rect(0, 0, 40, 40))) })
	}
	scenes := slices.Concat(labelledScenes, testScenes)
	for _, c := range cameras {
		scenes = append(scenes, c.scene)
	}
	for i, name := range scenes {
		p := image.NewRGBA(image.Rect(0, 0, 200, 150))
		for j := range p.Pix {
			p.Pix[j] = uint8(40 + 8*i + j%7)
		}
		put(name, func(w io.Writer) error { return jpeg.Encode(w, p, nil) })
	}
	return share
}

func TestMaterialIsNotSharedBetweenLabelledAndUnseen(t *testing.T) {
	for i, a := range slices.Concat(labelledScenes, testScenes) {
		for j, b := range slices.Concat(labelledScenes, testScenes) {
			if i != j && a == b {
				t.Errorf("scene %s is used twice", a)
			}
		}
		for _, c := range cameras {
			if a == c.scene {
				t.Errorf("scene %s is a camera's view too", a)
			}
		}
	}
	m, err := gather(standIn(t), 3)
	if err != nil {
		t.Fatal(err)
	}
	labelled, unseen := map[string]bool{}, make([]int, len(collage.Classes))
	for _, c := range m.labelled {
		labelled[fmt.Sprint(c.Class, c.Object)] = true
	}
	for _, c := range m.unseen {
		unseen[c.Class]++
		if labelled[fmt.Sprint(c.Class, c.Object)] {
			t.Errorf("%s %s is on both sides", collage.Classes[c.Class].Name, c.Object)
		}
		if got := c.Image.Rect.Size(); got != image.Pt(99, 79) {
			t.Errorf("a disc of 99 x 79 with a transparent border is cropped to %v", got)
		}
	}
	for i, c := range collage.Classes {
		if want := 5 * len(c.Folders) / 3; unseen[i] != want {
			t.Errorf("%d of class %s stay unseen, want a third of %d", unseen[i], c.Name, 5*len(c.Folders))
		}
	}
}

func TestMakeWritesClipsWhoseTruthFitsTheirMasks(t *testing.T) {
	share, dir := standIn(t), t.TempDir()
	v := makeVerb{Out: filepath.Join(dir, "demo"), Share: share, Seed: 1, Length: 16 * time.Second, Model: "model", State: "state", Listen: "127.0.0.1:0", Renders: 1}
	if err := v.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := v.Run(context.Background()); err == nil {
		t.Error("a demonstration that is there is written over")
	}
	clips, err := readTruth(filepath.Join(v.Out, "truth.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(clips) != len(cameras) {
		t.Fatalf("%d clips, want %d", len(clips), len(cameras))
	}
	for _, c := range clips {
		if len(c.frames) != 16*framesPerSecond {
			t.Errorf("%s has %d frames of truth", c.camera, len(c.frames))
		}
		if info, err := os.Stat(filepath.Join(v.Out, c.camera+".mp4")); err != nil || info.Size() == 0 {
			t.Errorf("clip of %s: %v", c.camera, err)
		}
		empty, with := 0, 0
		for _, f := range c.frames {
			mask, err := collage.Decode(filepath.Join(v.Out, "masks", c.camera, fmt.Sprintf("%05d.png", f.Frame)))
			if f.Box == nil {
				empty++
				if err == nil {
					t.Errorf("%s frame %d is empty and has a mask", c.camera, f.Frame)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if f.withObject() {
				with++
			}
			white := image.Rectangle{}
			for y := range pictureHeight {
				for x := range pictureWidth {
					if mask.(*image.Gray).GrayAt(x, y).Y > 0 {
						white = white.Union(image.Rect(x, y, x+1, y+1))
					}
				}
			}
			box := image.Rect(f.Box[0], f.Box[1], f.Box[2], f.Box[3])
			if !white.In(box) || f.Visible == 1 && (white.Dx() < box.Dx()-2 || white.Dy() < box.Dy()-2) {
				t.Errorf("%s frame %d: mask fills %v, truth says %v", c.camera, f.Frame, white, box)
			}
		}
		if empty == 0 || with == 0 {
			t.Errorf("%s: %d empty frames, %d with an object", c.camera, empty, with)
		}
	}
	pictures, _ := filepath.Glob(filepath.Join(v.Out, "labelled", "*", "*", "*.jpg"))
	for _, p := range pictures {
		if mask, err := collage.Decode(strings.TrimSuffix(p, ".jpg") + ".mask.png"); err != nil || mask.Bounds().Dx() != labelledWidth {
			t.Errorf("mask of %s: %v", p, err)
		}
	}
	again := makeVerb{Out: filepath.Join(dir, "again"), Share: share, Seed: 1, Length: 16 * time.Second, Renders: 1}
	if err := again.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(pictures, filepath.Join(v.Out, "truth.jsonl")) {
		a, _ := os.ReadFile(name)
		b, err := os.ReadFile(filepath.Join(again.Out, strings.TrimPrefix(name, v.Out)))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs when made again with the same seed: %v", name, err)
		}
	}
}

// A daemon that is right on every second frame with an object, in its second round of the clip.
func TestScoreCountsFramesWithAnObjectByTheirNumber(t *testing.T) {
	c := clip{camera: "yard"}
	for n := range 40 {
		f := truth{Camera: "yard", Frame: n + 1}
		if n%4 > 0 {
			f.Class, f.Visible = "bird", .9
		}
		if n%4 == 1 {
			f.Visible = .3 // too little of it
		}
		c.frames = append(c.frames, f)
	}
	seq := 40
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/cameras/yard/view" {
			http.NotFound(w, r)
			return
		}
		if after := r.FormValue("after"); seq > 40 && after != strconv.Itoa(seq) {
			t.Errorf("asked for what comes after %q, the last answer was %d", after, seq)
		}
		if seq == 80 {
			cancel()
			return
		}
		seq++
		label := "bird"
		if seq%4 == 0 { // every second of those that count: n%4 is 2 and 3, seq%4 is 3 and 0
			label = "mammal"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"seq": seq, "guesses": []map[string]any{{"label": label}}})
	}))
	defer server.Close()
	got, err := watch(ctx, server.URL, c)
	if err != nil {
		t.Fatal(err)
	}
	if got.Frames != 40 || got.With != 20 || got.Right != 10 || got.ByClass["bird"] != (hit{20, 10}) {
		t.Errorf("counted %+v, want 40 frames, 20 with an object, 10 of them right", got)
	}
	if _, err := watch(context.Background(), server.URL, clip{camera: "other", frames: c.frames}); err == nil {
		t.Error("a camera that the daemon has not is scored")
	}
}

func TestReadTruthNamesTheLine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "truth.jsonl")
	for text, want := range map[string]string{
		"": "empty", "{\"camera\":\"a\",\"frame\":1}\n{": ":2:", "{\"camera\":\"a\",\"frame\":1}\n{\"camera\":\"a\",\"frame\":3}\n": ":2:",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readTruth(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %q in it", text, err, want)
		}
	}
}
