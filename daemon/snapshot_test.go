package main

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// The command snapshot publishes the newest picture under its relevance, where the configuration allows it, and only then.
func TestSnapshot(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	folder := pictures(t)
	config := fmt.Sprintf(`
device: {id: line-3}
model: {dir: %q, backend: go}
inference: {relevance_every: 2}
cameras:
  - {id: yard, source: %q, fps: 5, loop: true, grabber: GRAB}
  - {id: gone, source: /nowhere/clip.mp4, grabber: GRAB}
mqtt: {url: %q, allow: [snapshot, reload], images: IMAGES}
`, tinyModel(t), folder, m.URL())
	with := func(images string) string { return strings.ReplaceAll(config, "IMAGES", images) }
	p := start(t, with("true"))
	p.wait("an answer", func() bool { return p.state().camera("yard").Classified > 0 }) // the first is explained
	p.wait("the broker", func() bool { return p.state().Broker.Connected })
	o, end, err := (&fleetVerb{Broker: m.URL()}).connected(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	ask := func(v fleet.Verb, camera string) fleet.CommandState {
		t.Helper()
		r := fleet.Request{Device: "line-3", Verb: v}
		if v == fleet.VerbSnapshot {
			r.Args = fleet.SnapshotArgs{Camera: camera}
		}
		state, err := o.Do(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	topics := fleet.Topics{Root: "fovea", Device: "line-3"}
	sub := listen(t, "-h", "127.0.0.1", "-p", m.Port)
	p.wait("the subscription", func() bool {
		return sub.of(topics.Availability()) == fleet.Online && sub.of(topics.Verb("snapshot")) != ""
	})

	if s := ask(fleet.VerbSnapshot, "yard"); s.State != fleet.PhaseSuccessful {
		t.Fatalf("%+v", s)
	}
	p.wait("the picture", func() bool { return sub.of(topics.CameraImage("yard")) != "" })
	picture, err := jpeg.Decode(strings.NewReader(sub.of(topics.CameraImage("yard"))))
	if err != nil || picture.Bounds() != image.Rect(0, 0, 96, 64) {
		t.Fatalf("%v, %v", picture, err)
	}
	for n := range 4 { // under its relevance a frame is grey, darkened and coloured by the scale
		plain, err := adapt.ReadPicture(filepath.Join(folder, fmt.Sprintf("%d.png", n)))
		if err != nil {
			t.Fatal(err)
		}
		if sameColours(picture, rgba(plain)) {
			t.Errorf("picture %d went out as it is", n)
		}
	}
	late := listen(t, "-h", "127.0.0.1", "-p", m.Port)
	p.wait("what is retained", func() bool { return late.of(topics.Verb("snapshot")) != "" })
	if late.of(topics.CameraImage("yard")) != "" {
		t.Error("the picture is retained")
	}

	before := len(sub.all(topics.CameraImage("yard")))
	if s := ask(fleet.VerbSnapshot, ""); s.Code != fleet.Failed || !strings.Contains(s.Reason, "gone") {
		t.Errorf("of all cameras, one of which shows nothing: %+v", s)
	}
	p.wait("the other's picture", func() bool { return len(sub.all(topics.CameraImage("yard"))) > before })
	if s := ask(fleet.VerbSnapshot, "nobody"); s.Code != fleet.Invalid || s.Field != "camera" {
		t.Errorf("of a camera that is not there: %+v", s)
	}

	p.write(with("false"))
	p.hangups <- os.Interrupt
	p.wait("the verb taken back", func() bool { return sub.of(topics.Verb("snapshot")) == "" })
	if s := ask(fleet.VerbSnapshot, ""); s.Code != fleet.NotAllowed || !strings.Contains(s.Reason, "mqtt.images") {
		t.Errorf("where pictures may not leave: %+v", s)
	}
}

// sameColours says whether two pictures of one size differ little, on average.
func sameColours(a, b image.Image) bool {
	var sum, n float64
	for y := range b.Bounds().Dy() {
		for x := range b.Bounds().Dx() {
			r1, g1, b1, _ := a.At(x, y).RGBA()
			r2, g2, b2, _ := b.At(x, y).RGBA()
			for _, pair := range [][2]uint32{{r1, r2}, {g1, g2}, {b1, b2}} {
				sum += math.Abs(float64(pair[0])-float64(pair[1])) / 0xffff
				n++
			}
		}
	}
	return sum/n < .05
}

func noise(width, height int) *answer {
	a := &answer{frame: capture.Frame{Width: width, Height: height, RGB: make([]byte, 3*width*height)}}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range a.frame.RGB {
		a.frame.RGB[i] = byte(r.Uint32())
	}
	return a
}

// However large and noisy a frame is, its picture may be published.
func TestSnapshotIsSmall(t *testing.T) {
	for _, side := range []image.Point{{640, 640}, {4096, 2304}, {96, 64}} {
		picture, err := noise(side.X, side.Y).snapshot()
		if err != nil || len(picture) > fleet.ImageLimit {
			t.Errorf("%v: %d bytes, %v", side, len(picture), err)
		}
		c, err := jpeg.DecodeConfig(bytes.NewReader(picture))
		if err != nil || max(c.Width, c.Height) > snapshotSide {
			t.Errorf("%v: %d x %d, %v", side, c.Width, c.Height, err)
		}
	}
}
