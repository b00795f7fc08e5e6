package capture

import (
	"math/rand/v2"
	"time"
)

const (
	firstFrameLimit = 15 * time.Second // from the start of a grabber to its first frame
	leastStall      = 2500 * time.Millisecond
	stallIntervals  = 5
	learning        = 10 * time.Second // limit until three frames have shown the real interval

	steady       = 10 * time.Second // a grabber that delivered for so long was healthy
	leastBackoff = 250 * time.Millisecond
	// mostBackoff leaves, of the 10 s within which frames must be back after a
	// source's return, time for FFmpeg to open a slow stream (up to 5 s).
	mostBackoff = 3 * time.Second
	// refusedBackoff follows a refused password: cameras lock out who tries too often.
	refusedBackoff = 30 * time.Second
)

// pace judges from the times of arrival when a source has stalled: after
// max(2.5 s, 5 frame intervals) without a message.
type pace struct {
	began    time.Time     // of the grabber, or its last sign of life before a frame
	interval time.Duration // announced at first, then as observed
	first    time.Time     // arrival of the first frame
	last     time.Time     // arrival of the newest frame
	frames   int
	patience time.Duration // least limit, grown by earlier stalls (see Camera.run)
}

// announce takes the frame rate that the source claims; 0 is unknown.
func (p *pace) announce(fps float64) {
	if fps > 0 {
		p.interval = time.Duration(float64(time.Second) / fps)
	}
}

// alive notes that the source works, though it gave no frame.
func (p *pace) alive(now time.Time) { p.began = now }

// frame notes the arrival of a frame. Longer gaps are believed sooner than
// shorter ones: a burst says little about the interval.
func (p *pace) frame(now time.Time) {
	if p.frames++; p.frames == 1 {
		p.first, p.last = now, now
		return
	}
	gap := now.Sub(p.last)
	p.last = now
	if gap > p.interval {
		p.interval += (gap - p.interval) / 2
	} else {
		p.interval += (gap - p.interval) / 8
	}
}

// deadline is when the source has stalled if nothing arrives after now.
func (p *pace) deadline(now time.Time) time.Time {
	switch p.frames {
	case 0:
		return p.began.Add(firstFrameLimit)
	case 1, 2:
		return now.Add(max(learning, stallIntervals*p.interval))
	}
	return now.Add(max(leastStall, p.patience, stallIntervals*p.interval))
}

// delivered is how long frames kept coming.
func (p *pace) delivered() time.Duration { return p.last.Sub(p.first) }

// backoff is the wait before the next attempt: doubled after each failure,
// jittered so that many cameras behind one switch do not return at once.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) wait() time.Duration {
	b.next = min(max(2*b.next, leastBackoff), mostBackoff)
	return b.next/2 + rand.N(b.next/2)
}
