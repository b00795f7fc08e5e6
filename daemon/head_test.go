package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// tinyBase saves a backbone of two small blocks with random weights and returns its folder.
func tinyBase(t *testing.T) string {
	t.Helper()
	c := model.Random(model.Config{
		ImageHeight: 32, ImageWidth: 32, Patch: 8, Dim: 24, Depth: 2, Heads: 3, Hidden: 48,
		Readout: model.ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: model.PositionAntialias,
	}, 1)
	c.Preprocess = model.Preprocess{
		Height: 32, Width: 32, ResizeHeight: 36, ResizeWidth: 36, KeepAspect: true, Filter: model.Bicubic,
		Scale: 1. / 255, Mean: [3]float64{.485, .456, .406}, Std: [3]float64{.229, .224, .225},
	}
	dir := filepath.Join(t.TempDir(), "base")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// colourSet writes n objects a class, two pictures each: noise in the class's colour, which even a random
// backbone tells apart.
func colourSet(t *testing.T, dir string, n int, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 5))
	for name, k := range map[string]color.RGBA{"blue": {30, 40, 200, 255}, "green": {40, 180, 30, 255}, "red": {200, 40, 30, 255}} {
		for object := range n {
			for view := range 2 {
				img := image.NewRGBA(image.Rect(0, 0, 48, 40))
				for i := 0; i < len(img.Pix); i += 4 {
					noise := uint8(random.IntN(50))
					img.Pix[i], img.Pix[i+1], img.Pix[i+2], img.Pix[i+3] = k.R+noise, k.G+noise, k.B+noise, 255
				}
				var b bytes.Buffer
				if err := png.Encode(&b, img); err != nil {
					t.Fatal(err)
				}
				putFile(t, filepath.Join(dir, name, fmt.Sprint("object", object), fmt.Sprint(view, ".png")), b.Bytes())
			}
		}
	}
}

func putFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fovea runs a command line and returns its exit code and what it printed.
func fovea(t *testing.T, args ...string) (code int, out, errors string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(context.Background(), args, &o, &e)
	return code, o.String(), e.String()
}

func foveaJSON(t *testing.T, into any, args ...string) {
	t.Helper()
	code, out, errors := fovea(t, append(args, "--json")...)
	if code != 0 {
		t.Fatalf("fovea %v: exit %d: %s", args, code, errors)
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("fovea %v: %v in %s", args, err, out)
	}
}

func TestHeadFitThenEvalThenLook(t *testing.T) {
	base, dir := tinyBase(t), t.TempDir()
	data, fresh, out := filepath.Join(dir, "data"), filepath.Join(dir, "fresh"), filepath.Join(dir, "models", "mine")
	colourSet(t, data, 8, 1)
	colourSet(t, fresh, 3, 2)
	putFile(t, filepath.Join(data, "red", "object0", "truncated.jpg"), []byte("\xff\xd8\xff\xe0 no picture"))
	putFile(t, filepath.Join(data, "red", "notes.txt"), []byte("x"))

	for _, readout := range []string{"class", "class+mean"} {
		t.Run(readout, func(t *testing.T) {
			out := out + strings.ReplaceAll(readout, "+", "-")
			var fitted headReport
			foveaJSON(t, &fitted, "head", "fit", "--base", base, "--data", data, "--out", out, "--backend", "go", "--readout", readout)
			if fitted.Pictures != 48 || fitted.Groups != 24 || len(fitted.Bad) != 2 {
				t.Errorf("fitted on %d pictures, %d groups, %d left out; want 48, 24, 2", fitted.Pictures, fitted.Groups, len(fitted.Bad))
			}
			if fitted.Validation.Pictures != 36 || fitted.Acceptance.Pictures != 12 {
				t.Errorf("%d to fit on, %d kept apart; want 36, 12", fitted.Validation.Pictures, fitted.Acceptance.Pictures)
			}
			if fitted.Validation.Accuracy.Share < .9 || fitted.Acceptance.Accuracy.Share < .9 {
				t.Errorf("colours are told apart in %v (validation), %v (kept apart)", fitted.Validation.Accuracy, fitted.Acceptance.Accuracy)
			}

			// What eval says of the part kept apart is what head fit said: the saved head computes the same.
			var accepted evalReport
			foveaJSON(t, &accepted, "eval", "--model", out, "--data", filepath.Join(out, adapt.LabelledDir, "accept"), "--backend", "go")
			if accepted.Top1.Accuracy != fitted.Acceptance.Accuracy || accepted.Top1.Groups != fitted.Acceptance.Groups || accepted.Model != fitted.Model {
				t.Errorf("eval of the kept part: %+v of model %.12s, head fit said %+v of %.12s",
					accepted.Top1.Accuracy, accepted.Model, fitted.Acceptance.Accuracy, fitted.Model)
			}
			var r evalReport
			foveaJSON(t, &r, "eval", "--model", out, "--data", fresh, "--backend", "go")
			if r.Top1.Accuracy.Share < .9 || r.Top5.Right != 18 {
				t.Errorf("fresh pictures: first guess %v, first five %v", r.Top1.Accuracy, r.Top5)
			}

			// The kept set gives the same split and, in the same order, the same model again.
			var again, twice headReport
			foveaJSON(t, &again, "head", "fit", "--base", base, "--data", filepath.Join(out, adapt.LabelledDir), "--out", out+"-again", "--backend", "go", "--readout", readout)
			foveaJSON(t, &twice, "head", "fit", "--base", base, "--data", data, "--out", out+"-twice", "--backend", "go", "--readout", readout)
			if again.Acceptance.Pictures != 12 || again.Acceptance.Accuracy != fitted.Acceptance.Accuracy {
				t.Errorf("fitted again on the kept set: %+v, first %+v", again.Acceptance, fitted.Acceptance)
			}
			if twice.Model != fitted.Model {
				t.Errorf("fitted twice: models %.12s and %.12s", fitted.Model, twice.Model)
			}
		})
	}

	out += "class"
	looks := filepath.Join(dir, "looks")
	picture := filepath.Join(fresh, "red", "object0", "0.png")
	code, said, _ := fovea(t, "look", "--model", out, "--out", looks, "--backend", "go", picture, picture, filepath.Join(data, "red", "notes.txt"))
	if code == 0 || !strings.Contains(said, "notes.txt: left out") {
		t.Errorf("look at a text file: exit %d, %s", code, said)
	}
	for _, name := range []string{"0.look.png", "0-2.look.png"} {
		p, err := adapt.ReadPicture(filepath.Join(looks, name))
		if err != nil || p.Width < 1000 || p.Height < 400 {
			t.Errorf("panel %s: %v", name, err)
		}
	}
}

func TestHeadFitLeavesNothingBehindWhenItFails(t *testing.T) {
	base, dir := tinyBase(t), t.TempDir()
	data, out := filepath.Join(dir, "data"), filepath.Join(dir, "models", "mine")
	colourSet(t, data, 2, 1)
	if err := os.RemoveAll(filepath.Join(data, "red")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(data, "green")); err != nil {
		t.Fatal(err)
	}
	code, _, errors := fovea(t, "head", "fit", "--base", base, "--data", data, "--out", out, "--backend", "go")
	if code != exitFailure || !strings.Contains(errors, "needs two or more") {
		t.Errorf("one class: exit %d, %s", code, errors)
	}
	putFile(t, filepath.Join(data, "red", "bad.jpg"), []byte("no picture"))
	code, _, errors = fovea(t, "head", "fit", "--base", base, "--data", data, "--out", out, "--backend", "go")
	if code != exitFailure || !strings.Contains(errors, "red") {
		t.Errorf("a class without one good picture: exit %d, %s", code, errors)
	}
	left, _ := os.ReadDir(filepath.Dir(out))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	putFile(t, filepath.Join(out, "config.json"), []byte("precious"))
	code, _, errors = fovea(t, "head", "fit", "--base", base, "--data", data, "--out", out, "--backend", "go")
	if kept, _ := os.ReadFile(filepath.Join(out, "config.json")); code != exitFailure || string(kept) != "precious" || !strings.Contains(errors, "is there already") {
		t.Errorf("an output that is there: exit %d, %s, kept %q", code, errors, kept)
	}
}

// A mask beside a picture gives a second view, which the head is fitted on too, unless it is told not to.
func TestHeadFitOnSecondViews(t *testing.T) {
	base, dir := tinyBase(t), t.TempDir()
	data := filepath.Join(dir, "data")
	colourSet(t, data, 4, 1)
	mask := image.NewGray(image.Rect(0, 0, 48, 40))
	for y := 15; y < 25; y++ {
		for x := 20; x < 30; x++ {
			mask.SetGray(x, y, color.Gray{255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, mask); err != nil {
		t.Fatal(err)
	}
	for object := range 4 {
		putFile(t, filepath.Join(data, "red", fmt.Sprint("object", object), "0.mask.png"), b.Bytes())
	}
	var both, one headReport
	foveaJSON(t, &both, "head", "fit", "--base", base, "--data", data, "--out", filepath.Join(dir, "both"), "--backend", "go")
	foveaJSON(t, &one, "head", "fit", "--base", base, "--data", data, "--out", filepath.Join(dir, "one"), "--backend", "go", "--no-foveal")
	// Of four objects one is kept apart.
	if both.Views != 3 || one.Views != 0 || both.Validation.Pictures != one.Validation.Pictures+3 || both.Acceptance.Pictures != one.Acceptance.Pictures {
		t.Errorf("%d and %d second views, %d and %d to fit on, %d and %d kept apart",
			both.Views, one.Views, both.Validation.Pictures, one.Validation.Pictures, both.Acceptance.Pictures, one.Acceptance.Pictures)
	}
	if both.Model == one.Model {
		t.Error("second views make no other head")
	}
}

func TestEvalNamesForeignLabels(t *testing.T) {
	base, dir := tinyBase(t), t.TempDir()
	data, out := filepath.Join(dir, "data"), filepath.Join(dir, "mine")
	colourSet(t, data, 4, 1)
	if code, _, errors := fovea(t, "head", "fit", "--base", base, "--data", data, "--out", out, "--backend", "go"); code != 0 {
		t.Fatal(errors)
	}
	if err := os.Rename(filepath.Join(data, "red"), filepath.Join(data, "rouge")); err != nil {
		t.Fatal(err)
	}
	code, _, errors := fovea(t, "eval", "--model", out, "--data", data, "--backend", "go")
	if code != exitFailure || !strings.Contains(errors, `no label "rouge"; it has "blue", "green", "red"`) {
		t.Errorf("exit %d, %s", code, errors)
	}
	code, _, errors = fovea(t, "eval", "--model", base, "--data", data, "--backend", "go")
	if code != exitFailure || !strings.Contains(errors, "fovea head fit") {
		t.Errorf("eval of a backbone: exit %d, %s", code, errors)
	}
}

func TestRankingPutsEqualLogitsInOrder(t *testing.T) {
	if got := fmt.Sprint(ranking([]float32{1, 3, 1, 3, 2})); got != "[1 3 4 0 2]" {
		t.Errorf("ranking %s", got)
	}
}
