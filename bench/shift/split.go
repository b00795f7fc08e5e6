package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

// photographs show no object of the classes. Below /usr/share.
var photographs = []string{
	"backgrounds/Bridge_by_Sander_Klootwijk.jpg", "backgrounds/Dragonfly_by_Bolly.jpg", "backgrounds/Picture_0B_by_freespace.jpg",
	"backgrounds/Picture_1A_by_freespace.jpg", "backgrounds/Wine_by_Jakkub_Mede.jpg", "backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg",
	"backgrounds/analogpattern_by_Peter_Nerlich.jpg", "backgrounds/greentock_by_Peter_Nerlich.jpg", "backgrounds/life_by_Aitzol_Berasategi.jpg",
	"backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg", "backgrounds/sunset_by_Aitzol_Berasategi.jpg", "backgrounds/mate/nature/Aqua.jpg",
	"backgrounds/mate/nature/Blinds.jpg", "backgrounds/mate/nature/Dune.jpg", "backgrounds/mate/nature/GreenMeadow.jpg",
	"backgrounds/mate/nature/RainDrops.jpg", "backgrounds/mate/nature/Storm.jpg", "backgrounds/mate/nature/Wood.jpg",
	"doc/opencv-doc/examples/data/aero1.jpg", "doc/opencv-doc/examples/data/board.jpg", "doc/opencv-doc/examples/data/box_in_scene.png",
	"doc/opencv-doc/examples/data/building.jpg", "doc/opencv-doc/examples/data/home.jpg", "doc/opencv-doc/examples/data/left.jpg",
	"doc/opencv-doc/examples/data/leuvenA.jpg", "doc/opencv-doc/examples/data/rubberwhale1.png", "doc/opencv-doc/examples/data/stuff.jpg",
	"doc/opencv-doc/examples/text/scenetext03.jpg", "doc/opencv-doc/examples/text/scenetext04.jpg",
}

// part says what a split is for: recipes are chosen on dev, and final runs once.
type part string

const (
	dev   part = "dev"
	final part = "final"
	data  part = "data" // a user's folder
)

// finalText lists what no split of dev touches: "object CLASS NAME" and "photograph NAME", a line each. It was drawn
// once, by freeze, and stays.
//
//go:embed final.txt
var finalText string

// frozen is the content of final.txt.
type frozen struct {
	objects     map[string]bool // class/object
	photographs map[string]bool
}

func readFrozen(text string) (frozen, error) {
	f := frozen{map[string]bool{}, map[string]bool{}}
	for n, line := range strings.Split(strings.TrimSpace(text), "\n") {
		kind, name, _ := strings.Cut(line, " ")
		switch {
		case kind == "object" && name != "":
			f.objects[name] = true
		case kind == "photograph" && slices.Contains(photographs, name):
			f.photographs[name] = true
		default:
			return f, fmt.Errorf("final.txt:%d: %q, want \"object CLASS/NAME\" or \"photograph NAME\" of a photograph in split.go", n+1, line)
		}
	}
	return f, nil
}

const (
	finalSeed        = 2206_01161
	finalPhotographs = 6
)

// freeze draws FINAL: a third of each class's objects, and photographs.
func freeze(cutouts []collage.Cutout) string {
	random := rand.New(rand.NewPCG(finalSeed, 0))
	var b strings.Builder
	for class, names := range objects(cutouts) {
		random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		names = names[:len(names)/3]
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&b, "object %s/%s\n", collage.Classes[class].Name, name)
		}
	}
	for _, i := range random.Perm(len(photographs))[:finalPhotographs] {
		fmt.Fprintf(&b, "photograph %s\n", photographs[i])
	}
	return b.String()
}

// objects are the names of each class's objects, in order. A group of near-duplicates is one object.
func objects(cutouts []collage.Cutout) [][]string {
	of := make([][]string, len(collage.Classes))
	for _, c := range cutouts {
		if !slices.Contains(of[c.Class], c.Object) {
			of[c.Class] = append(of[c.Class], c.Object)
		}
	}
	for _, names := range of {
		slices.Sort(names)
	}
	return of
}

// split is one draw of who is what: which objects are labelled, which pass before the cameras unlabelled, which are
// tested; which photographs are labelled scenes, which are the cameras' views.
type split struct {
	Part   part    `json:"part"`
	Number int     `json:"number"` // from 1
	Rho    float64 `json:"rho"`    // share of labelled pictures whose scene is one of their class

	labelled, stream, test []collage.Cutout
	scenes                 [][]string // labelled ones, a list a class
	cameras, others        []string
}

// material names what does not depend on rho: the test pictures and the cameras' views.
func (s split) material() string { return fmt.Sprintf("%s-%d", s.Part, s.Number) }

func (s split) String() string { return fmt.Sprintf("%s-%d-rho%g", s.Part, s.Number, s.Rho) }

const (
	scenesOfClass = 2
	cameraCount   = 4
	otherCount    = 4 // of dev; final has what its photographs leave
)

// newSplit draws a split. The same numbers give the same split, whatever rho is.
func newSplit(p part, number int, rho float64, cutouts []collage.Cutout, f frozen) (*split, error) {
	s := &split{Part: p, Number: number, Rho: rho}
	random := rand.New(rand.NewPCG(uint64(number), 1))
	role := map[string]*[]collage.Cutout{} // of each object
	for class, names := range objects(cutouts) {
		key := func(name string) string { return collage.Classes[class].Name + "/" + name }
		random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		var open []string
		for _, name := range names {
			if f.objects[key(name)] {
				if p == final {
					role[key(name)] = &s.test
				}
				continue
			}
			open = append(open, name)
		}
		tested := (len(open) + 2) / 4
		seen := max(2, (len(open)+2)/5)
		for i, name := range open {
			switch {
			case i < tested:
				if p == dev {
					role[key(name)] = &s.test
				}
			case i < tested+seen:
				role[key(name)] = &s.stream
			default:
				role[key(name)] = &s.labelled
			}
		}
	}
	for _, c := range cutouts {
		if list := role[collage.Classes[c.Class].Name+"/"+c.Object]; list != nil {
			*list = append(*list, c)
		}
	}
	var open, kept []string
	for _, i := range random.Perm(len(photographs)) {
		if f.photographs[photographs[i]] {
			kept = append(kept, photographs[i])
		} else {
			open = append(open, photographs[i])
		}
	}
	for range collage.Classes {
		s.scenes = append(s.scenes, open[:scenesOfClass])
		open = open[scenesOfClass:]
	}
	if p == dev {
		s.cameras, s.others = open[:cameraCount], open[cameraCount:cameraCount+otherCount]
	} else {
		s.cameras, s.others = kept[:cameraCount], kept[cameraCount:]
	}
	for class, c := range collage.Classes {
		for _, list := range [][]collage.Cutout{s.labelled, s.stream, s.test} {
			if !slices.ContainsFunc(list, func(o collage.Cutout) bool { return o.Class == class }) {
				return nil, fmt.Errorf("split %s: class %s has no object in one of its parts: are all cut-outs installed?", s, c.Name)
			}
		}
	}
	return s, nil
}

// ofClass are the cut-outs of a class, shuffled.
func ofClass(cutouts []collage.Cutout, class int, random *rand.Rand) []*collage.Cutout {
	var list []*collage.Cutout
	for i := range cutouts {
		if cutouts[i].Class == class {
			list = append(list, &cutouts[i])
		}
	}
	slices.SortFunc(list, func(a, b *collage.Cutout) int { return cmp.Compare(a.Name, b.Name) })
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}
