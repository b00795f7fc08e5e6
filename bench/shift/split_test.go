package main

import (
	"fmt"
	"image"
	"image/color"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

// standIns are n discs a class; every third shows its object twice.
func standIns(n int) []collage.Cutout {
	random := rand.New(rand.NewPCG(1, 1))
	var list []collage.Cutout
	for class := range collage.Classes {
		for i := range n {
			disc := image.NewNRGBA(image.Rect(0, 0, 60, 60))
			colour := color.NRGBA{uint8(50 * class), uint8(random.IntN(256)), uint8(random.IntN(256)), 255}
			for y := range 60 {
				for x := range 60 {
					if (x-30)*(x-30)+(y-30)*(y-30) < 900 {
						disc.SetNRGBA(x, y, colour)
					}
				}
			}
			c := collage.Cutout{Class: class, Name: fmt.Sprint("thing", i), Object: fmt.Sprint("thing", i-i%3/2), Image: disc}
			list = append(list, c)
		}
	}
	return list
}

func TestNoGroupIsInTwoPartsAndFinalIsDisjointFromDev(t *testing.T) {
	cutouts := standIns(24)
	kept, err := readFrozen(freeze(cutouts))
	if err != nil {
		t.Fatal(err)
	}
	perClass := len(objects(cutouts)[0])
	if want := perClass / 3 * len(collage.Classes); len(kept.objects) != want || len(kept.photographs) != finalPhotographs {
		t.Fatalf("%d objects and %d photographs are kept for FINAL, want %d and %d", len(kept.objects), len(kept.photographs), want, finalPhotographs)
	}
	tested := map[part]map[string]bool{dev: {}, final: {}}
	for _, p := range []part{dev, final} {
		for number := range 12 {
			s, err := newSplit(p, number+1, .8, cutouts, kept)
			if err != nil {
				t.Fatal(err)
			}
			in := map[string]string{} // where an object is
			for name, list := range map[string][]collage.Cutout{"labelled": s.labelled, "stream": s.stream, "test": s.test} {
				for _, c := range list {
					key := collage.Classes[c.Class].Name + "/" + c.Object
					if have, is := in[key]; is && have != name {
						t.Errorf("split %s: object %s is in %s and in %s", s, key, have, name)
					}
					in[key] = name
					if want := p == final && name == "test"; kept.objects[key] != want {
						t.Errorf("split %s: object %s is in %s; kept for FINAL: %v", s, key, name, kept.objects[key])
					}
					if name == "test" {
						tested[p][key] = true
					}
				}
			}
			scenes := slices.Concat(slices.Concat(s.scenes...), s.cameras, s.others)
			slices.Sort(scenes)
			if n := len(scenes); len(slices.Compact(scenes)) != n {
				t.Errorf("split %s: a photograph has two purposes: %q", s, scenes)
			}
			for _, name := range slices.Concat(s.scenes...) {
				if kept.photographs[name] {
					t.Errorf("split %s: %s is kept for FINAL and a labelled scene", s, name)
				}
			}
			for _, name := range slices.Concat(s.cameras, s.others) {
				if kept.photographs[name] != (p == final) {
					t.Errorf("split %s: tested on %s; kept for FINAL: %v", s, name, kept.photographs[name])
				}
			}
		}
	}
	for key := range tested[final] {
		if tested[dev][key] {
			t.Errorf("%s is tested by both", key)
		}
	}
}

func TestTheListOfFinalIsWhole(t *testing.T) {
	kept, err := readFrozen(finalText)
	if err != nil {
		t.Fatal(err)
	}
	if len(kept.photographs) != finalPhotographs {
		t.Errorf("%d photographs, want %d", len(kept.photographs), finalPhotographs)
	}
	of := map[string]int{}
	for key := range kept.objects {
		class, _, _ := strings.Cut(key, "/")
		of[class]++
	}
	for _, c := range collage.Classes {
		if of[c.Name] < 3 {
			t.Errorf("%d objects of class %s", of[c.Name], c.Name)
		}
	}
	for _, text := range []string{"", "object", "photograph nowhere.jpg", "tree x"} {
		if _, err := readFrozen(text); err == nil {
			t.Errorf("%q is taken for a list", text)
		}
	}
}

func TestRhoIsTheShareOfLabelledPicturesInScenesOfTheirClass(t *testing.T) {
	cutouts := standIns(24)
	kept, err := readFrozen(freeze(cutouts))
	if err != nil {
		t.Fatal(err)
	}
	var material string
	for _, rho := range []float64{.6, .8, 1} {
		s, err := newSplit(dev, 3, rho, cutouts, kept)
		if err != nil {
			t.Fatal(err)
		}
		d := &studio{split: s, fixed: make([]camera, cameraCount), labelled: 40}
		own, all := 0, 0
		for _, l := range d.labelShots() {
			all++
			own += int(one(slices.Contains(s.scenes[l.cutout.Class], l.scene)))
		}
		if got := float64(own) / float64(all); got != rho {
			t.Errorf("rho %g: %g of the labelled pictures have a scene of their class", rho, got)
		}
		shown := fmt.Sprint(picturesOf(s.material(), d, 16))
		if material != "" && shown != material {
			t.Errorf("rho %g has other test pictures", rho)
		}
		material = shown
	}
}

func TestTestSetsAreBalanced(t *testing.T) {
	cutouts := standIns(24)
	kept, err := readFrozen(freeze(cutouts))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSplit(dev, 1, .8, cutouts, kept)
	if err != nil {
		t.Fatal(err)
	}
	d := &studio{split: s, fixed: make([]camera, cameraCount)}
	for set, shown := range picturesOf(s.material(), d, 80).Sets {
		classes, pairs := map[byte]int{}, map[[2]int]int{}
		for i, of := range shown.Of {
			classes[shown.class(i)]++
			pairs[of]++
			own := slices.Contains(s.scenes[shown.class(i)-'a'], shown.Scenes[of[1]])
			if set == "aligned" && !own || set == "crossed" && own {
				t.Errorf("%s: a picture of class %c on %s", set, shown.class(i), shown.Scenes[of[1]])
			}
		}
		for class, n := range classes {
			if n != 80 {
				t.Errorf("%s: %d pictures of class %c, want 80", set, n, class)
			}
		}
		if set == "deployment" && len(pairs) != len(shown.Objects)*cameraCount {
			t.Errorf("%d objects are shown in %d combinations with %d views", len(shown.Objects), len(pairs), cameraCount)
		}
	}
}
