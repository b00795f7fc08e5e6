package adapt

import (
	"bytes"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/model"
)

// TestCutMasksOfAPicture: whatever a random network cuts, its mask has the picture's size, is empty outside of what
// the network sees, and is refused below the floor.
func TestCutMasksOfAPicture(t *testing.T) {
	k := tiny(3)
	k.Config.Classes, k.Config.Labels = 0, nil
	k.Preprocess.KeepAspect = true // the network sees the middle square
	net, err := model.NewNet(openBackend(t, model.BackendGo), k)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	p := &Picture{Width: 80, Height: 40, RGB: bytes.Repeat([]byte{90, 120, 150}, 80*40)}
	for y := 10; y < 30; y++ {
		for x := 28; x < 52; x++ {
			copy(p.RGB[3*(y*80+x):], []byte{250, 20, 10})
		}
	}
	o := DefaultMasks
	o.Floor = 0
	mask, err := CutMasks(net, o)("a.png", p)
	if err != nil {
		t.Fatal(err)
	}
	if len(mask) != 80*40 {
		t.Fatalf("mask of %d pixels", len(mask))
	}
	view, object := k.Preprocess.View(80, 40), 0
	for i, v := range mask {
		if x := i % 80; v != 0 && (x < view.Min.X || x >= view.Max.X) {
			t.Fatalf("pixel %d, %d lies outside of the view %v and in the mask", x, i/80, view)
		}
		if v == 255 {
			object++
		}
	}
	if object == 0 || object == view.Dx()*view.Dy() {
		t.Errorf("the object covers %d of %d pixels", object, view.Dx()*view.Dy())
	}
	o.Floor = 1.01
	if _, err := CutMasks(net, o)("a.png", p); err == nil || !strings.Contains(err.Error(), "quality") {
		t.Errorf("a mask below the floor: %v", err)
	}
}
