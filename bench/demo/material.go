package main

import (
	"math/rand/v2"
	"slices"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

// Scenes without an object of the classes. None is used for two purposes.
var (
	labelledScenes = []string{
		"backgrounds/Bridge_by_Sander_Klootwijk.jpg", "backgrounds/Dragonfly_by_Bolly.jpg", "backgrounds/Wine_by_Jakkub_Mede.jpg",
		"backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg", "backgrounds/life_by_Aitzol_Berasategi.jpg",
		"backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg", "backgrounds/mate/nature/Aqua.jpg",
		"backgrounds/mate/nature/Blinds.jpg", "backgrounds/mate/nature/Dune.jpg", "backgrounds/mate/nature/GreenMeadow.jpg",
		"backgrounds/mate/nature/RainDrops.jpg", "backgrounds/mate/nature/Storm.jpg", "backgrounds/mate/nature/Wood.jpg",
		"doc/opencv-doc/examples/data/home.jpg", "doc/opencv-doc/examples/text/scenetext03.jpg", "doc/opencv-doc/examples/text/scenetext04.jpg",
	}
	testScenes = []string{
		"backgrounds/sunset_by_Aitzol_Berasategi.jpg", "backgrounds/seeding_by_Clements_Engelhardt.jpg",
		"doc/opencv-doc/examples/text/scenetext05.jpg", "doc/opencv-doc/examples/data/box_in_scene.png",
	}
	cameras = []camera{
		{"square", "doc/opencv-doc/examples/data/leuvenA.jpg"},
		{"lawn", "doc/opencv-doc/examples/data/building.jpg"},
	}
)

// camera is a fixed view.
type camera struct{ name, scene string }

// material is what the demonstration is made of. No object is both in labelled and in unseen.
type material struct {
	photographs      collage.Photographs
	labelled, unseen []collage.Cutout
}

// gather reads the cut-outs and draws, of each class, a third of the objects to stay unseen.
func gather(share string, seed uint64) (*material, error) {
	m := &material{photographs: collage.Photographs{Share: share}}
	cutouts, err := collage.ReadCutouts(share)
	if err != nil {
		return nil, err
	}
	for i := range collage.Classes {
		var objects []string
		for _, c := range cutouts {
			if c.Class == i && !slices.Contains(objects, c.Object) {
				objects = append(objects, c.Object)
			}
		}
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		random.Shuffle(len(objects), func(a, b int) { objects[a], objects[b] = objects[b], objects[a] })
		apart := objects[:len(objects)/3]
		for _, c := range cutouts {
			switch {
			case c.Class != i:
			case slices.Contains(apart, c.Object):
				m.unseen = append(m.unseen, c)
			default:
				m.labelled = append(m.labelled, c)
			}
		}
	}
	return m, nil
}

func classNames() []string {
	names := make([]string, len(collage.Classes))
	for i, c := range collage.Classes {
		names[i] = c.Name
	}
	return names
}
