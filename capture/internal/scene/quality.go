// Package scene looks at a camera's pictures one after the other: what is wrong
// with a picture, and what moves in it. It needs nothing but the pixels.
package scene

import (
	"hash/maphash"
	"time"
)

// Quality is numbered as capture.Quality; a test of that package compares them.
type Quality uint8

const (
	OK Quality = iota
	Black
	Blank
	Repeated
	Frozen
)

// FrozenAfter is how long the same picture must keep arriving to be Frozen.
const FrozenAfter = 2500 * time.Millisecond

const (
	blackLuma  = 32  // a picture is black where nearly all luma lies below, of 255
	blankRange = 8   // a picture is blank where nearly all luma lies in so narrow a range
	outliers   = 200 // "nearly all": all but one part in so many at each end
	memory     = 256 // pictures remembered to notice a repeating sequence
	stride     = 4   // every fourth pixel of every fourth row is looked at
)

// Judge names what is wrong with the pictures of one source. The zero value is
// not ready: use NewJudge.
type Judge struct {
	seed   maphash.Seed
	recent [memory]uint64 // digests, a ring
	known  map[uint64]int // how often each digest is in the ring
	next   int
	last   uint64
	since  time.Duration // when the picture with the digest last first came
	seen   int
}

// NewJudge returns a Judge that has seen nothing.
func NewJudge() *Judge {
	return &Judge{seed: maphash.MakeSeed(), known: make(map[uint64]int, memory)}
}

// Look judges one picture rgb [h][w][3] taken at now (any monotonic clock).
// visible [h][w] is 0 where a privacy area hides the picture; nil is all visible.
func (j *Judge) Look(rgb []byte, w, h int, visible []byte, now time.Duration) Quality {
	digest := maphash.Bytes(j.seed, rgb)
	same := j.seen > 0 && digest == j.last
	if !same {
		j.since = now
	}
	again := j.known[digest] > 0
	j.remember(digest)

	switch darkest, brightest := lumaRange(rgb, w, h, visible); {
	case brightest < blackLuma:
		return Black
	case brightest-darkest < blankRange:
		return Blank
	case same && now-j.since >= FrozenAfter:
		return Frozen
	case again:
		return Repeated
	}
	return OK
}

// Restart forgets the pictures seen, as a looping file begins again: what it
// shows then is no fault of a camera.
func (j *Judge) Restart() {
	*j = Judge{seed: j.seed, known: make(map[uint64]int, memory)}
}

func (j *Judge) remember(digest uint64) {
	if j.seen >= memory {
		old := j.recent[j.next]
		if j.known[old]--; j.known[old] == 0 {
			delete(j.known, old)
		}
	}
	j.recent[j.next] = digest
	j.known[digest]++
	j.next = (j.next + 1) % memory
	j.last = digest
	j.seen++
}

// lumaRange is the darkest and brightest luma (Rec. 601) of the visible
// picture, outliers left out; 0, 0 where nothing is visible.
func lumaRange(rgb []byte, w, h int, visible []byte) (darkest, brightest int) {
	var histogram [256]int
	total := 0
	for y := 0; y < h; y += stride {
		for x := 0; x < w; x += stride {
			i := y*w + x
			if visible != nil && visible[i] == 0 {
				continue
			}
			p := rgb[3*i : 3*i+3]
			histogram[(299*int(p[0])+587*int(p[1])+114*int(p[2]))/1000]++
			total++
		}
	}
	if total == 0 {
		return 0, 0
	}
	skip := total / outliers
	for n := histogram[0]; n <= skip; n += histogram[darkest] {
		darkest++
	}
	brightest = 255
	for n := histogram[255]; n <= skip; n += histogram[brightest] {
		brightest--
	}
	return darkest, brightest
}
