//go:build gocv_videoio

package main

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"gocv.io/x/gocv"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

func TestNewestReplacesWhatNobodyTook(t *testing.T) {
	n := newNewest()
	img := gocv.NewMat()
	put := func(v float64, restarted bool) {
		next := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(v, v, v, 0), 4, 4, gocv.MatTypeCV8UC3)
		if err := next.CopyTo(&img); err != nil {
			t.Fatal(err)
		}
		next.Close()
		img = n.put(img, int64(v), restarted)
	}
	check := func(seq uint64, v uint8, restarted bool) {
		t.Helper()
		s, err := n.take()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.img.GetUCharAt(0, 0); s.seq != seq || got != v || s.mono != int64(v) || s.restarted != restarted {
			t.Errorf("seq %d, value %d, restarted %v; want %d, %d, %v", s.seq, got, s.restarted, seq, v, restarted)
		}
	}
	put(1, false)
	check(1, 1, false)
	put(2, false)
	put(3, true) // the seam must not be lost with the picture that shows it
	put(4, false)
	check(4, 4, true)
	put(5, false)
	n.close(io.EOF)
	check(5, 5, false) // the last one is still handed over
	if _, err := n.take(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

func TestNewestWithTwoGoroutines(t *testing.T) {
	const total = 2000
	n := newNewest()
	var both sync.WaitGroup
	both.Go(func() {
		img := gocv.NewMat()
		for i := range total {
			m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(float64(i%250), 0, 0, 0), 8, 8, gocv.MatTypeCV8UC1)
			_ = m.CopyTo(&img) // a fresh copy cannot fail
			m.Close()
			img = n.put(img, int64(i), false)
		}
		n.close(io.EOF)
	})
	last := uint64(0)
	for {
		s, err := n.take()
		if err != nil {
			break
		}
		if s.seq <= last || s.seq != uint64(s.mono)+1 {
			t.Fatalf("picture %d of time %d after %d", s.seq, s.mono, last)
		}
		for y := range 8 { // the picture that is lent is not written
			if got := s.img.GetUCharAt(y, y); got != uint8(s.mono%250) {
				t.Fatalf("picture %d holds %d", s.seq, got)
			}
		}
		last = s.seq
	}
	both.Wait()
	if last != total {
		t.Errorf("the last picture is %d, want %d", last, total)
	}
}

func TestPrivacyAreasCoverTheirEdgesAndOverlaps(t *testing.T) {
	const w, h = 100, 50
	areas := areas{}
	privacy := [][][2]float64{
		{{0.1, 0.2}, {0.5, 0.2}, {0.5, 0.8}, {0.1, 0.8}},
		{{0.3, 0.4}, {1, 0.4}, {1, 1}, {0.3, 1}}, // overlaps, and reaches the corner
	}
	for range 2 { // the second time from what was computed before
		img := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(9, 9, 9, 0), h, w, gocv.MatTypeCV8UC3)
		if err := areas.blank(&img, privacy); err != nil {
			t.Fatal(err)
		}
		shown, err := areas.visible(w, h, privacy)
		if err != nil {
			t.Fatal(err)
		}
		for y := range h {
			for x := range w {
				hidden := x >= 10 && x <= 50 && y >= 10 && y <= 40 || x >= 30 && y >= 20
				if got := img.GetUCharAt(y, 3*x) == 0; got != hidden {
					t.Fatalf("pixel %d, %d: blanked %v, want %v", x, y, got, hidden)
				}
				if got := shown[y*w+x] == 0; got != hidden {
					t.Fatalf("pixel %d, %d of the mask: hidden %v, want %v", x, y, got, hidden)
				}
			}
		}
		img.Close()
	}
}

func TestFit(t *testing.T) {
	for _, c := range [][5]int{
		{1920, 1080, 640, 640, 360},
		{1080, 1920, 640, 360, 640},
		{640, 480, 640, 640, 480},
		{320, 240, 640, 320, 240},
		{4000, 1, 640, 640, 1},
		{641, 641, 640, 640, 640},
	} {
		if w, h := fit(c[0], c[1], c[2]); w != c[3] || h != c[4] {
			t.Errorf("%d x %d within %d: %d x %d, want %d x %d", c[0], c[1], c[2], w, h, c[3], c[4])
		}
	}
}

// TestLookerTakesEveryKindOfPicture: grey, colour, with alpha; others are refused in words.
func TestLookerTakesEveryKindOfPicture(t *testing.T) {
	l := looker{req: wire.Request{MaxSide: 32}, sequence: true}
	for seq, kind := range []gocv.MatType{gocv.MatTypeCV8UC1, gocv.MatTypeCV8UC3, gocv.MatTypeCV8UC4} {
		img := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(10, 20, 30, 40), 48, 64, kind)
		f, err := l.at(shot{img: img, seq: uint64(seq + 1), mono: monotonic()})
		if err != nil {
			t.Fatal(err)
		}
		want := [3]byte{30, 20, 10} // RGB of BGR
		if kind == gocv.MatTypeCV8UC1 {
			want = [3]byte{10, 10, 10}
		}
		if f.Width != 32 || f.Height != 24 || [3]byte(f.RGB[:3]) != want {
			t.Errorf("%v: %d x %d, %v, want 32 x 24, %v", kind, f.Width, f.Height, f.RGB[:3], want)
		}
		img.Close()
	}
	img := gocv.NewMatWithSize(8, 8, gocv.MatTypeCV32FC1)
	defer img.Close()
	var f *fault
	if _, err := l.at(shot{img: img}); !errors.As(err, &f) {
		t.Errorf("a picture of floats: %v", err)
	}
}

func TestWaitUntil(t *testing.T) {
	due := time.Now().Add(30 * time.Millisecond)
	if got := waitUntil(due); !got.Equal(due) || time.Now().Before(due) {
		t.Errorf("returned %v before %v was there", time.Now(), due)
	}
	late := time.Now().Add(-time.Hour)
	if got := waitUntil(late); got.Sub(late) < time.Hour {
		t.Errorf("what is an hour late is due again %v later", got.Sub(late))
	}
}

func BenchmarkLooker(b *testing.B) {
	img := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(10, 20, 30, 40), 1080, 1920, gocv.MatTypeCV8UC3)
	defer img.Close()
	l := looker{req: wire.Request{MaxSide: 640, Privacy: [][][2]float64{{{0, 0}, {0.3, 0}, {0.3, 0.3}}}}, sequence: true}
	for b.Loop() {
		if _, err := l.at(shot{img: img, mono: monotonic()}); err != nil {
			b.Fatal(err)
		}
	}
}
