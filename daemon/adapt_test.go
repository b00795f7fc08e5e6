package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// squares writes a labelled set of coloured squares with masks and a tiny model for it.
func squares(t *testing.T) (base, images, masks string) {
	t.Helper()
	dir := t.TempDir()
	base, images, masks = filepath.Join(dir, "base"), filepath.Join(dir, "images"), filepath.Join(dir, "masks")
	k := model.Random(model.Config{
		ImageHeight: 32, ImageWidth: 32, Patch: 8, Dim: 24, Depth: 2, Heads: 2, Hidden: 48, Classes: 2,
		Readout: model.ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6,
		PositionResize: model.PositionBicubic, Labels: []string{"red", "blue"},
	}, 4)
	if err := k.Save(base); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(8, 8))
	for i := range 12 {
		picture, mask := image.NewRGBA(image.Rect(0, 0, 48, 40)), image.NewGray(image.Rect(0, 0, 48, 40))
		x0, y0 := r.IntN(28), r.IntN(20)
		for y := range 40 {
			for x := range 48 {
				picture.SetRGBA(x, y, color.RGBA{uint8(r.IntN(200)), 120, uint8(r.IntN(200)), 255})
				if x >= x0 && x < x0+18 && y >= y0 && y < y0+18 {
					picture.SetRGBA(x, y, color.RGBA{uint8(255 * (i % 2)), 0, uint8(255 * (1 - i%2)), 255})
					mask.SetGray(x, y, color.Gray{Y: 255})
				}
			}
		}
		for d, m := range map[string]image.Image{images: picture, masks: mask} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := writePicture(filepath.Join(d, fmt.Sprintf("%02d.png", i)), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	return base, images, masks
}

func adaptArgs(base, images, masks, out string, more ...string) []string {
	return append([]string{"adapt", "--base", base, "--images", images, "--masks", masks, "--out", out, "--backend", "go"}, more...)
}

func TestAdaptWritesAModelAndAReport(t *testing.T) {
	base, images, masks := squares(t)
	out := filepath.Join(t.TempDir(), "tuned")
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), adaptArgs(base, images, masks, out, "--steps", "6", "--batch", "4", "--rate", "1e-3", "--freeze-below", "0"), &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	k, err := model.Load(out)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "report", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r adapt.TuneReport
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Model != k.Digest() || len(r.Steps) != 6 || r.Steps[0].Losses.Total <= 0 || r.Settings.Rate != 1e-3 {
		t.Errorf("report of %s with %d steps for model %s", r.Model, len(r.Steps), k.Digest())
	}
	page, err := os.ReadFile(filepath.Join(out, "report", "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Held {
		name := fmt.Sprintf("maps-%02d.png", i+1)
		if _, err := adapt.ReadPicture(filepath.Join(out, "report", name)); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(page), name) {
			t.Errorf("the page does not show %s", name)
		}
	}
	for _, want := range []string{"relevance on the object", "held out", "report"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, stdout.String())
		}
	}
	if code := execute(t.Context(), adaptArgs(base, images, masks, out), &stdout, &stderr); code != exitFailure || !strings.Contains(stderr.String(), "is there already") {
		t.Errorf("a second run onto the same folder: exit %d, %s", code, stderr.String())
	}
}

func TestAdaptNamesWhatFindsMasks(t *testing.T) {
	base, images, _ := squares(t)
	var stdout, stderr bytes.Buffer
	code := execute(t.Context(), []string{"adapt", "--base", base, "--images", images, "--out", filepath.Join(t.TempDir(), "x"), "--backend", "go"}, &stdout, &stderr)
	if code != exitFailure || !strings.Contains(stderr.String(), "--mask-backbone") {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

// TestAdaptInterrupted stops the program at 20 random moments of its life, by SIGINT and by SIGKILL in turn: the
// output folder is absent, or whole.
func TestAdaptInterrupted(t *testing.T) {
	base, images, masks := squares(t)
	program := filepath.Join(t.TempDir(), "fovea")
	if text, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	dir := t.TempDir()
	start := func(out string) (*exec.Cmd, *bytes.Buffer) {
		var text bytes.Buffer
		cmd := exec.Command(program, adaptArgs(base, images, masks, out, "--steps", "15", "--batch", "4")...)
		cmd.Stdout, cmd.Stderr = &text, &text
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, &text
	}
	began := time.Now()
	cmd, text := start(filepath.Join(dir, "whole"))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	life := time.Since(began)

	absent, whole := 0, 0
	r := rand.New(rand.NewPCG(1, 9))
	for i := range 20 {
		out := filepath.Join(dir, fmt.Sprint("out", i))
		cmd, text := start(out)
		time.Sleep(time.Duration(r.Float64() * 1.1 * float64(life)))
		signal := []os.Signal{syscall.SIGINT, syscall.SIGKILL}[i%2]
		_ = cmd.Process.Signal(signal)
		err := cmd.Wait()
		if _, statErr := os.Stat(out); statErr != nil {
			absent++
			if err == nil && signal == syscall.SIGKILL {
				t.Errorf("run %d ended well without an output:\n%s", i, text)
			}
		} else {
			whole++
			if _, err := model.Load(out); err != nil {
				t.Errorf("run %d: %v", i, err)
			}
			for _, f := range []string{"report.json", "index.html", "maps-01.png"} {
				if s, err := os.Stat(filepath.Join(out, "report", f)); err != nil || s.Size() == 0 {
					t.Errorf("run %d left a folder without %s", i, f)
				}
			}
		}
		left, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf(".out%d-*", i)))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 && signal == syscall.SIGINT {
			t.Errorf("run %d left %v behind", i, left)
		}
	}
	t.Logf("a whole run takes %v; %d outputs absent, %d whole", life, absent, whole)
	if absent == 0 {
		t.Error("no run was interrupted before its output")
	}
}
