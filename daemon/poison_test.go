package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/toyworld"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// Packs that would teach what is wrong: masks of the ground and not of the thing, masks of other pictures, labels that
// a person got wrong, one picture over and over, noise. What comes of them is not live, or is right as often as its
// parent on things that no pack has shown, before views as the cameras have them.
func TestPoisonedPacks(t *testing.T) {
	base := toyModel(t)
	fresh := freshPictures(t)
	accuracy := func(t *testing.T, dir string) float64 {
		t.Helper()
		var r evalReport
		if err := json.Unmarshal([]byte(runVerbLine(t, 0, "eval", "--json", "--backend", "go", "--model", dir, "--data", fresh)), &r); err != nil {
			t.Fatal(err)
		}
		return r.Top1.Accuracy.Share
	}
	before := accuracy(t, base)
	for name, poison := range map[string]func(all []store.Sample, r *rand.Rand){
		"masks of the ground": func(all []store.Sample, _ *rand.Rand) {
			for i := range all {
				for k, v := range all[i].MaskPixels {
					all[i].MaskPixels[k] = 255 - v
				}
			}
		},
		"masks of other pictures": func(all []store.Sample, r *rand.Rand) {
			masks := make([][]byte, len(all))
			for i := range all {
				masks[i] = all[i].MaskPixels
			}
			r.Shuffle(len(masks), func(i, j int) { masks[i], masks[j] = masks[j], masks[i] })
			for i := range all {
				if all[i].MaskPixels != nil && masks[i] != nil {
					all[i].MaskPixels = masks[i]
				}
			}
		},
		"wrong labels": func(all []store.Sample, r *rand.Rand) {
			for i := range all {
				if all[i].Mask != nil {
					all[i].Label = toyworld.Classes[r.IntN(3)]
				}
			}
		},
		"all of one class": func(all []store.Sample, _ *rand.Rand) {
			for i := range all {
				if all[i].Mask != nil {
					all[i].Label = toyworld.Classes[0]
				}
			}
		},
		"one picture over and over": func(all []store.Sample, _ *rand.Rand) {
			for i := range all {
				all[i].JPEG, all[i].MaskPixels, all[i].Mask = all[0].JPEG, slices.Clone(all[0].MaskPixels), all[0].Mask
			}
		},
		"noise": func(all []store.Sample, r *rand.Rand) {
			for i := range all {
				rgb := make([]byte, 3*toyworld.Side*toyworld.Side)
				for k := range rgb {
					rgb[k] = byte(r.IntN(256))
				}
				all[i].JPEG, _ = encodeJPEG(rgb, toyworld.Side, toyworld.Side)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, fmt.Sprintf("model: {dir: %q, backend: go}\n", base)+quiet)
			p.wait("a model", func() bool { return p.live.Load() != nil })
			all, err := toySamples(p.live.Load().net.Digest)
			if err != nil {
				t.Fatal(err)
			}
			poison(all, rand.New(rand.NewPCG(8, 8)))
			for _, s := range all {
				if _, err := p.samples().Put(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			result, err := p.adapt(t.Context())
			t.Logf("%s: %s, %v", result.Verdict, result.Reason, err)
			if standing := p.models().Standing(); result.Verdict != fleet.Promoted {
				if standing.Active != standing.Base || p.live.Load().version != 0 {
					t.Errorf("it is live without a promotion: %+v", standing)
				}
				return
			}
			parent, err := model.Load(base)
			if err != nil {
				t.Fatal(err)
			}
			live, err := parent.WithWeights(p.models().File(p.models().Standing().Active))
			if err != nil {
				t.Fatal(err)
			}
			adapted := filepath.Join(t.TempDir(), "adapted")
			if err := live.Save(adapted); err != nil {
				t.Fatal(err)
			}
			after := accuracy(t, adapted)
			t.Logf("right in %.3f of fresh pictures, its parent in %.3f", after, before)
			if after < before-.02 { // a standard error of 600 pictures
				t.Error("it is live, and right less often")
			}
		})
	}
}

// freshPictures are 600 things that nobody has shown, before views of the two cameras' tints.
func freshPictures(t *testing.T) string {
	t.Helper()
	dir, r := t.TempDir(), rand.New(rand.NewPCG(7, 7))
	for i := range 600 {
		class := i % 3
		rgb := toyworld.Texture(toyworld.Tints[[]int{0, 2}[r.IntN(2)]], r)
		toyworld.Draw(rgb, toyworld.NewObject(class, r), r)
		file := filepath.Join(dir, toyworld.Classes[class], fmt.Sprintf("%03d.png", i))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := png.Encode(&b, toyworld.Picture(rgb)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
