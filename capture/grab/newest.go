//go:build gocv_videoio

package main

import (
	"sync"

	"gocv.io/x/gocv"
)

// shot is one decoded picture.
type shot struct {
	img       gocv.Mat // borrowed: valid until the next take
	seq       uint64   // from 1, in the order of decoding
	mono      int64    // when it was decoded, CLOCK_MONOTONIC ns
	restarted bool     // first picture after the seam of a loop
}

// newest hands pictures from the decoding to the sending goroutine: capacity 1,
// the newest replaces one that was not taken, which shows as a gap in seq.
// Three Mats rotate, none is allocated a frame.
type newest struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting shot
	full    bool
	lent    gocv.Mat // at the taker
	seq     uint64
	end     error
}

func newNewest() *newest {
	n := &newest{waiting: shot{img: gocv.NewMat()}, lent: gocv.NewMat()}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// put hands img over and returns another Mat to decode into.
func (n *newest) put(img gocv.Mat, mono int64, restarted bool) gocv.Mat {
	n.mu.Lock()
	defer n.mu.Unlock()
	free := n.waiting.img
	restarted = restarted || n.full && n.waiting.restarted
	n.seq++
	n.waiting, n.full = shot{img: img, seq: n.seq, mono: mono, restarted: restarted}, true
	n.changed.Signal()
	return free
}

// close lets take return err once the last picture is taken.
func (n *newest) close(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end = err
	n.changed.Signal()
}

// take waits for a picture. Its Mat is the taker's until the next take.
func (n *newest) take() (shot, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.full && n.end == nil {
		n.changed.Wait()
	}
	if !n.full {
		return shot{}, n.end
	}
	s := n.waiting
	n.waiting.img, n.lent, n.full = n.lent, s.img, false
	return s, nil
}
