package capture

import (
	"math/rand/v2"
	"time"
)

const (
	// firstFrameLimit is from the start of a grabber to its first frame. It is
	// doubled once where it was too short: an overloaded machine takes long to
	// start, and starting again and again takes longer.
	firstFrameLimit = 15 * time.Second
	leastStall      = 2500 * time.Millisecond
	stallIntervals  = 5
	learning        = 10 * time.Second // limit where nothing is known of the interval

	fewFrames = 8 // say little about a source's interval
	mostHasty = 3 // so many stalls in a row are judged by them alone

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
	interval time.Duration // between signs of life: announced at first, then as observed
	first    time.Time     // arrival of the first frame
	last     time.Time     // the newest frame or other sign of life
	frames   int
	patience time.Duration // least limit, after stalls that were judged hastily
	slow     bool          // the grabber before had no frame within firstFrameLimit
}

// announce takes the frame rate that the source claims; 0 is unknown.
func (p *pace) announce(fps float64) {
	if fps > 0 {
		p.interval = time.Duration(float64(time.Second) / fps)
	}
}

// frame notes the arrival of a frame.
func (p *pace) frame(now time.Time) {
	if p.frames++; p.frames == 1 {
		p.first, p.last = now, now
		return
	}
	p.alive(now)
}

// alive notes that the source works, with or without a frame.
func (p *pace) alive(now time.Time) {
	if p.frames == 0 {
		p.began = now
		return
	}
	gap := now.Sub(p.last)
	p.last = now
	p.interval += (gap - p.interval) / 4
}

// deadline is when the source has stalled if nothing arrives after now.
func (p *pace) deadline(now time.Time) time.Time {
	switch {
	case p.frames == 0 && p.slow:
		return p.began.Add(2 * firstFrameLimit)
	case p.frames == 0:
		return p.began.Add(firstFrameLimit)
	case p.interval == 0: // the first frame of a source that announced no rate
		return now.Add(learning)
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
