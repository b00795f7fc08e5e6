package capture

import (
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/capture/internal/scene"
)

func TestStallLimit(t *testing.T) {
	start := time.Now()
	for name, test := range map[string]struct {
		announced float64
		gaps      []time.Duration
		want      time.Duration // after the last frame; before any frame, after the start
	}{
		"no frame yet":           {25, nil, firstFrameLimit},
		"first frame":            {25, repeat(0, 1), leastStall},
		"first frame, no rate":   {0, repeat(0, 1), learning},
		"first frame, slow":      {0.1, repeat(0, 1), 50 * time.Second},
		"25 a second":            {25, repeat(40*time.Millisecond, 100), leastStall},
		"1 a second":             {1, repeat(time.Second, 20), 5 * time.Second},
		"1 a second, said 25":    {25, repeat(time.Second, 20), 5 * time.Second},
		"25 a second, said 1":    {1, repeat(40*time.Millisecond, 100), leastStall},
		"one in ten seconds":     {0, repeat(10*time.Second, 20), 50 * time.Second},
		"a hiccup of one second": {25, append(repeat(40*time.Millisecond, 100), time.Second), leastStall},
		"then 1 a second":        {25, append(repeat(40*time.Millisecond, 100), repeat(time.Second, 20)...), 5 * time.Second},
	} {
		p := &pace{began: start}
		p.announce(test.announced)
		now := start
		for _, gap := range test.gaps {
			now = now.Add(gap)
			p.frame(now)
		}
		if got := p.deadline(now).Sub(now); got < test.want*98/100 || got > test.want*102/100 {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestSkippedPicturesAreNoStall(t *testing.T) {
	start := time.Now()
	p := &pace{began: start}
	now := start.Add(14 * time.Second)
	p.alive(now)
	if got := p.deadline(now).Sub(now); got != firstFrameLimit {
		t.Errorf("after a skipped picture the first frame has %v, want %v", got, firstFrameLimit)
	}
}

func TestSecondFirstFrameHasTwiceTheTime(t *testing.T) {
	now := time.Now()
	p := &pace{began: now, slow: true}
	if got := p.deadline(now.Add(time.Second)).Sub(now); got != 2*firstFrameLimit {
		t.Errorf("%v, want %v", got, 2*firstFrameLimit)
	}
}

func repeat(d time.Duration, n int) []time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = d
	}
	return all
}

func TestBackoff(t *testing.T) {
	var b backoff
	full := leastBackoff
	for i := range 20 {
		if got := b.wait(); got < full/2 || got > full {
			t.Errorf("wait %d is %v, want %v to %v", i, got, full/2, full)
		}
		full = min(2*full, mostBackoff)
	}
	if mostBackoff > 5*time.Second {
		t.Errorf("back-off of up to %v; a source that returns must be read within 10 s", mostBackoff)
	}
	b.reset()
	if got := b.wait(); got > leastBackoff {
		t.Errorf("%v after a reset", got)
	}
}

func TestQualityIsNumberedAsTheGrabberDoes(t *testing.T) {
	for q, name := range map[scene.Quality]string{scene.OK: "ok", scene.Black: "black", scene.Blank: "blank", scene.Repeated: "repeated", scene.Frozen: "frozen"} {
		if got := Quality(q).String(); got != name {
			t.Errorf("%d is %q, want %q", q, got, name)
		}
	}
	if got := Quality(77).String() + Phase(77).String(); got != "unknownunknown" {
		t.Error(got)
	}
}
