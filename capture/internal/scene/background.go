package scene

import (
	"math"
	"time"
)

// Cell is the side in pixels of the square that one cell of a mask covers.
const Cell = 8

// The background model is a running Gaussian average (Wren, Azarbayejani,
// Darrell, Pentland: "Pfinder", PAMI 1997) of every cell's mean colour, with
// selective update: what is foreground enters the background slower.
const (
	memoryBackground = 30 * time.Second  // time constant of a cell that is background
	memoryForeground = 120 * time.Second // and of one that is foreground
	deviations       = 3                 // a cell moves beyond so many standard deviations
	leastDifference  = 10                // and at least so many levels of 255 in one channel
	sceneChange      = 0.7               // more than this share at once is light or a moved camera: learn anew
	learnFor         = 2 * time.Second
	learnFrames      = 5
)

// Background learns what a fixed camera sees when nothing moves. The zero
// value is ready.
type Background struct {
	w, h       int // cells
	mean, vari []float32
	cells      []float32 // colours of the picture at hand, [h][w][3]
	learnt     int       // frames since learning began
	began      time.Duration
	last       time.Duration
}

// Restart forgets the background.
func (b *Background) Restart() { *b = Background{} }

// Look takes the picture rgb [h][w][3] of time now (any monotonic clock) into
// the model and returns which cells moved: 255 or 0, in rows of mw, columns of
// mh. It returns nil and zeros while it is still learning. The mask is the caller's.
func (b *Background) Look(rgb []byte, w, h int, now time.Duration) (mask []byte, mw, mh int) {
	mw, mh = (w+Cell-1)/Cell, (h+Cell-1)/Cell
	if b.w != mw || b.h != mh {
		*b = Background{w: mw, h: mh, mean: make([]float32, mw*mh*3), vari: make([]float32, mw*mh*3), cells: make([]float32, mw*mh*3)}
	}
	averageCells(b.cells, rgb, w, h)
	if b.learnt == 0 {
		b.began = now
	}
	b.learnt++
	// While learning, a plain average over the frames seen so far.
	if b.learnt <= learnFrames || now-b.began < learnFor {
		b.learn(1 / float32(b.learnt))
		b.last = now
		return nil, 0, 0
	}

	mask = b.foreground()
	if share(mask) > sceneChange {
		b.learnt = 0
		return nil, 0, 0
	}
	b.update(mask, now-b.last)
	b.last = now
	return withoutSpecks(mask, mw, mh), mw, mh
}

func (b *Background) learn(rate float32) {
	for i, c := range b.cells {
		d := c - b.mean[i]
		b.mean[i] += rate * d
		b.vari[i] = (1 - rate) * (b.vari[i] + rate*d*d)
	}
}

func (b *Background) foreground() []byte {
	mask := make([]byte, b.w*b.h)
	for i := range mask {
		for c := 3 * i; c < 3*i+3; c++ {
			d := b.cells[c] - b.mean[c]
			if d*d > max(leastDifference*leastDifference, deviations*deviations*b.vari[c]) {
				mask[i] = 255
				break
			}
		}
	}
	return mask
}

func (b *Background) update(mask []byte, dt time.Duration) {
	still := float32(1 - math.Exp(-dt.Seconds()/memoryBackground.Seconds()))
	moving := float32(1 - math.Exp(-dt.Seconds()/memoryForeground.Seconds()))
	for i, m := range mask {
		for c := 3 * i; c < 3*i+3; c++ {
			d := b.cells[c] - b.mean[c]
			if m == 0 {
				b.mean[c] += still * d
				b.vari[c] = (1 - still) * (b.vari[c] + still*d*d)
			} else { // the variance stays: an object says nothing about the noise behind it
				b.mean[c] += moving * d
			}
		}
	}
}

// averageCells writes the mean colour of each Cell x Cell square of rgb, the
// last row and column of squares cut where the picture ends. Every second row
// of pixels is enough to tell a cell's colour, and half the work.
func averageCells(cells []float32, rgb []byte, w, h int) {
	mw := (w + Cell - 1) / Cell
	sums := make([]uint32, mw*3)
	for y0 := 0; y0 < h; y0 += Cell {
		clear(sums)
		rows := 0
		for y := y0; y < min(y0+Cell, h); y += 2 {
			addRow(sums, rgb[3*y*w:3*(y+1)*w])
			rows++
		}
		for i, sum := range sums {
			columns := min(Cell, w-i/3*Cell)
			cells[3*mw*(y0/Cell)+i] = float32(sum) / float32(rows*columns)
		}
	}
}

// addRow adds one row of pixels to the sums of its cells, [cells][3].
func addRow(sums []uint32, row []byte) {
	for ; len(row) > 0; sums = sums[3:] {
		n := min(3*Cell, len(row))
		var r, g, b uint32
		for i := 0; i+2 < n; i += 3 {
			r += uint32(row[i])
			g += uint32(row[i+1])
			b += uint32(row[i+2])
		}
		sums[0] += r
		sums[1] += g
		sums[2] += b
		row = row[n:]
	}
}

// withoutSpecks drops foreground cells with fewer than two foreground cells
// among their eight neighbours.
func withoutSpecks(mask []byte, w, h int) []byte {
	clean := make([]byte, len(mask))
	for y := range h {
		for x := range w {
			if mask[y*w+x] == 0 {
				continue
			}
			n := -1 // itself
			for v := max(0, y-1); v <= min(h-1, y+1); v++ {
				for u := max(0, x-1); u <= min(w-1, x+1); u++ {
					if mask[v*w+u] != 0 {
						n++
					}
				}
			}
			if n >= 2 {
				clean[y*w+x] = 255
			}
		}
	}
	return clean
}

func share(mask []byte) float64 {
	n := 0
	for _, m := range mask {
		if m != 0 {
			n++
		}
	}
	return float64(n) / float64(len(mask))
}
