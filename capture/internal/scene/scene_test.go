package scene

import (
	"math/rand/v2"
	"testing"
	"time"
)

const w, h = 162, 121 // neither a multiple of Cell

// noisy is a still scene with a gradient and sensor noise.
func noisy(r *rand.Rand) []byte {
	rgb := make([]byte, w*h*3)
	for i := range rgb {
		rgb[i] = byte(60 + i/3%w/2 + r.IntN(9) - 4)
	}
	return rgb
}

func square(rgb []byte, x0, y0, side int, v byte) {
	for y := y0; y < y0+side; y++ {
		for x := x0; x < x0+side; x++ {
			copy(rgb[3*(y*w+x):], []byte{v, v / 2, v})
		}
	}
}

func at(i int) time.Duration { return time.Duration(i) * 100 * time.Millisecond }

func TestJudgeNamesWhatItSees(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	flat := func(v byte) []byte {
		b := make([]byte, w*h*3)
		for i := range b {
			b[i] = v + byte(r.IntN(3))
		}
		return b
	}
	lamp := flat(2) // a dark place with one lamp is no black picture
	square(lamp, 40, 40, 24, 250)
	hidden := make([]byte, w*h) // all visible but the lamp
	for i := range hidden {
		x, y := i%w, i/w
		if x < 40 || x >= 64 || y < 40 || y >= 64 {
			hidden[i] = 1
		}
	}
	for _, c := range []struct {
		name    string
		rgb     []byte
		visible []byte
		want    Quality
	}{
		{"scene", noisy(r), nil, OK},
		{"no light", flat(3), nil, Black},
		{"grey of a lost decoder", flat(128), nil, Blank},
		{"glare", flat(252), nil, Blank},
		{"lamp at night", lamp, nil, OK},
		{"the lamp is in a privacy area", lamp, hidden, Black},
		{"all hidden", noisy(r), make([]byte, w*h), Black},
	} {
		if got := NewJudge().Look(c.rgb, w, h, c.visible, 0); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestJudgeNoticesRepetition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	j := NewJudge()
	a, b := noisy(r), noisy(r)
	look := func(i int, rgb []byte, want Quality) {
		t.Helper()
		if got := j.Look(rgb, w, h, nil, at(i)); got != want {
			t.Errorf("picture %d: %d, want %d", i, got, want)
		}
	}
	look(0, a, OK)
	look(1, a, Repeated)
	look(2, b, OK)
	look(3, a, Repeated) // a sequence that comes again
	look(4, b, Repeated)
	for i := 5; i < 29; i++ {
		look(i, b, Repeated)
	}
	look(29, b, Frozen) // 2.5 s after picture 4
	look(30, noisy(r), OK)
	j.Restart()
	look(31, b, OK)
	for i := range memory {
		look(32+i, noisy(r), OK)
	}
	look(32+memory, b, OK) // forgotten by now
	if len(j.known) > memory {
		t.Errorf("%d digests remembered, at most %d", len(j.known), memory)
	}
}

func TestBackgroundFindsWhatMovesAndLittleElse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b Background
	for i := range 20 {
		if mask, _, _ := b.Look(noisy(r), w, h, at(i)); mask != nil {
			t.Fatalf("a mask after %v, while learning", at(i))
		}
	}
	for i := 20; i < 60; i++ {
		x := 2 * (i - 20)
		rgb := noisy(r)
		square(rgb, x, 40, 32, 255)
		mask, mw, mh := b.Look(rgb, w, h, at(i))
		if mw != 21 || mh != 16 || len(mask) != mw*mh {
			t.Fatalf("mask of %d x %d, %d bytes", mw, mh, len(mask))
		}
		var inside, missed, outside int
		for c, m := range mask {
			cx, cy := c%mw*Cell, c/mw*Cell
			in := cx >= x && cx+Cell <= x+32 && cy >= 40 && cy+Cell <= 72
			near := cx+Cell > x && cx < x+32 && cy+Cell > 40 && cy < 72
			switch {
			case in && m == 255:
				inside++
			case in:
				missed++
			case !near && m == 255:
				outside++
			}
		}
		if missed > 0 || inside < 9 || outside > 0 {
			t.Errorf("square at %d: %d cells found, %d missed, %d false", x, inside, missed, outside)
		}
	}
	if mask, _, _ := b.Look(noisy(r), w, h, at(60)); share(mask) != 0 {
		t.Errorf("the square is gone and %.3f still moves", share(mask))
	}
}

func TestWhatStaysBecomesBackground(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b Background
	for i := range 25 {
		b.Look(noisy(r), w, h, at(i))
	}
	after := time.Duration(0)
	for now := at(25); now < 10*time.Minute && after == 0; now += time.Second {
		rgb := noisy(r)
		square(rgb, 60, 40, 32, 120)
		if mask, _, _ := b.Look(rgb, w, h, now); mask != nil && share(mask) == 0 {
			after = now
		}
	}
	if after < 30*time.Second || after > 6*time.Minute {
		t.Errorf("an object that stays was background after %v", after)
	}
}

func TestLightSwitchedIsNoMotion(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b Background
	for i := range 30 {
		b.Look(noisy(r), w, h, at(i))
	}
	masks := 0
	for i := 30; i < 80; i++ {
		rgb := noisy(r)
		for k := range rgb {
			rgb[k] += 60
		}
		mask, _, _ := b.Look(rgb, w, h, at(i))
		if mask != nil {
			masks++
			if share(mask) > 0 {
				t.Errorf("at %v %.2f of the picture moves", at(i), share(mask))
			}
		}
	}
	if masks == 0 {
		t.Error("the background was not learnt anew within 5 s")
	}
}

func BenchmarkLook(b *testing.B) {
	const w, h = 640, 480
	rgb := make([]byte, w*h*3)
	for i := range rgb {
		rgb[i] = byte(i * 7)
	}
	b.Run("quality", func(b *testing.B) {
		j := NewJudge()
		for b.Loop() {
			j.Look(rgb, w, h, nil, 0)
		}
	})
	b.Run("motion", func(b *testing.B) {
		var m Background
		now := time.Duration(0)
		for b.Loop() {
			now += 40 * time.Millisecond
			m.Look(rgb, w, h, now)
		}
	})
}
