package capture

import (
	"time"

	"github.com/seed-a98b2d25/fovea/capture/internal/scene"
)

// Frame is one picture of a camera. The receiver owns it, RGB and Motion.Mask
// included: nothing writes to them again.
type Frame struct {
	Camera string

	// Seq counts the pictures that the camera's grabbers took from the source,
	// from 1, over all restarts. A gap is a picture that was dropped because a
	// newer one arrived first.
	Seq uint64

	// Time is when the decoder gave the picture. It carries a monotonic
	// reading, so time.Since(f.Time) is the picture's age whatever the wall
	// clock does.
	Time time.Time

	Width, Height int     // pixels; the longer side is at most Config.MaxSide
	RGB           []byte  // [Height][Width][3], 8 bits a channel, sRGB order R G B, privacy areas 0
	Quality       Quality // what is wrong with the picture, if anything
	Motion        Motion
}

// Motion says where the picture differs from the camera's own background, a
// running mean and variance of every cell over the last half minute (Wren et
// al., "Pfinder", 1997). Privacy areas never move.
type Motion struct {
	// Width and Height of Mask in cells of 8 x 8 pixels, rounded up; both zero
	// and Mask nil while the background is still being learnt (about 2 s after
	// the grabber started) and for folders, whose pictures are not a sequence.
	Width, Height int
	Mask          []byte // [Height][Width], 255 foreground, 0 background
}

// Cell is the side in pixels of the square that one cell of Motion.Mask covers.
const Cell = scene.Cell

// Share is the part of the picture that moves, 0 to 1; 0 without a mask.
func (m Motion) Share() float64 {
	if len(m.Mask) == 0 {
		return 0
	}
	n := 0
	for _, v := range m.Mask {
		if v != 0 {
			n++
		}
	}
	return float64(n) / float64(len(m.Mask))
}

// Quality names what is wrong with a picture as a picture.
type Quality uint8

const (
	// OK: nothing noticed.
	OK = Quality(scene.OK)
	// Black: practically no light anywhere outside the privacy areas.
	Black = Quality(scene.Black)
	// Blank: one even colour that is not black: lens covered, glare, or the
	// grey of a decoder that lost its reference picture.
	Blank = Quality(scene.Blank)
	// Repeated: bit for bit the picture before it, or one of the last
	// seconds. One in a row is common in a still scene.
	Repeated = Quality(scene.Repeated)
	// Frozen: bit for bit the same picture for at least 2.5 s, though pictures
	// keep arriving.
	Frozen = Quality(scene.Frozen)
)

var qualityNames = [...]string{"ok", "black", "blank", "repeated", "frozen"}

// String gives the name used in topics and metrics: ok, black, blank,
// repeated, frozen.
func (q Quality) String() string {
	if int(q) >= len(qualityNames) {
		return "unknown"
	}
	return qualityNames[q]
}
