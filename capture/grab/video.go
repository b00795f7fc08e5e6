//go:build gocv_videoio

package main

import (
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"gocv.io/x/gocv"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

// propN are properties that gocv v0.43 has no names for.
const (
	propOpenTimeout gocv.VideoCaptureProperties = 53 // ms, FFmpeg only: breaks GStreamer
	propReadTimeout gocv.VideoCaptureProperties = 54
)

// live reads a source that sets its own pace: a stream, a device, a pipeline.
type live struct {
	capture *gocv.VideoCapture
	limit   float64 // frames a second, 0: all
	due     time.Time
	gone    func() error // what to say when no more pictures come
	notify  func(any)
	sign    time.Time // of the last picture sent or sign of life
	backend string
}

func (l *live) hello() wire.Hello {
	return wire.Hello{
		Backend: l.backend, Codec: codec(l.capture),
		Width:  dimension(l.capture, gocv.VideoCaptureFrameWidth),
		Height: dimension(l.capture, gocv.VideoCaptureFrameHeight),
		FPS:    ownRate(l.capture),
	}
}

func (l *live) sequence() bool { return true }

// next takes every picture off the source and decodes to pixels only what the
// limit lets through.
func (l *live) next(img *gocv.Mat) error {
	l.skipUntilDue()
	if !l.capture.Read(img) || img.Empty() {
		return l.gone()
	}
	if l.limit > 0 {
		now, period := time.Now(), seconds(1/l.limit)
		l.sign = now
		if l.due = l.due.Add(period); l.due.Before(now.Add(-period)) {
			l.due = now
		}
	}
	return nil
}

// skipUntilDue drops pictures until the next wanted one. gocv's Grab does not
// tell when there are none left; then it returns at once, again and again, and
// a few such returns hand over to Read, which tells.
func (l *live) skipUntilDue() {
	const atOnce, patience = time.Millisecond, 8
	for quick := 0; time.Now().Before(l.due) && quick < patience; {
		began := time.Now()
		if err := l.capture.Grab(1); err != nil {
			return
		}
		if time.Since(began) < atOnce {
			quick++
		} else {
			quick = 0
			l.showLife()
		}
	}
}

// showLife tells the parent, between frames that are far apart, that the
// source is not frozen.
func (l *live) showLife() {
	const period = 400 * time.Millisecond
	if now := time.Now(); now.Sub(l.sign) >= period {
		l.sign = now
		l.notify(wire.Alive{})
	}
}

// file reads a video that could be read faster than it was recorded, and paces it.
type file struct {
	name   string // for messages
	reopen func() (*gocv.VideoCapture, error)
	notify func(any)
	loop   bool
	limit  float64

	capture *gocv.VideoCapture
	fps     float64
	count   int       // pictures that the container announces, 0 if unknown
	index   int       // of the next picture
	start   time.Time // when picture 0 was due
	due     float64   // seconds into the video of the next wanted picture
	noted   bool      // the early end was reported
}

func (f *file) open() error {
	c, err := f.reopen()
	if err != nil {
		return err
	}
	f.capture, f.index, f.due, f.start = c, 0, 0, time.Now()
	if f.fps = ownRate(c); f.fps == 0 {
		f.fps = 25
	}
	f.count = announced(c)
	return nil
}

func (f *file) hello() wire.Hello {
	return wire.Hello{
		Backend: "FFMPEG", Codec: codec(f.capture),
		Width:  dimension(f.capture, gocv.VideoCaptureFrameWidth),
		Height: dimension(f.capture, gocv.VideoCaptureFrameHeight),
		FPS:    rate(f.fps, f.limit),
	}
}

func (f *file) sequence() bool { return true }

func (f *file) next(img *gocv.Mat) error {
	for f.limit > 0 && f.position() < f.due {
		if err := f.capture.Grab(1); err != nil {
			break
		}
		f.index++
	}
	const late = time.Second // behind by more: this machine is too slow, play slower rather than race
	if when := f.start.Add(seconds(f.position())); time.Since(when) > late {
		f.start = time.Now().Add(-seconds(f.position()))
	} else {
		waitUntil(when)
	}
	if !f.capture.Read(img) || img.Empty() {
		return f.turn()
	}
	if f.limit > 0 {
		f.due += 1 / f.limit
	}
	f.index++
	return nil
}

// position is the time of the next picture within the video, in seconds.
func (f *file) position() float64 { return float64(f.index) / f.fps }

// turn ends the file or begins it again.
func (f *file) turn() error {
	if f.index == 0 {
		return &fault{text: "no picture can be decoded from " + f.name + "; ffprobe tells more", opaque: true}
	}
	if missing := f.count - f.index; missing > max(2, f.count/10) && !f.noted {
		f.noted = true
		f.notify(wire.Note{Text: f.name + " ends after " + strconv.Itoa(f.index) + " of " + strconv.Itoa(f.count) + " pictures: truncated or damaged; copy or record it again"})
	}
	if !f.loop {
		return io.EOF
	}
	// The next round starts when the last picture has been shown for its time.
	waitUntil(f.start.Add(seconds(f.position())))
	f.capture.Close()
	if err := f.open(); err != nil {
		return err
	}
	return errRestarted
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// codec is what a source is encoded with, "" where it does not tell.
func codec(c *gocv.VideoCapture) string {
	letters := c.CodecString()
	for _, r := range letters {
		if r < ' ' || r > '~' {
			return ""
		}
	}
	return strings.TrimSpace(letters)
}

// ownRate is the rate that a source announces, 0 where that makes no sense.
func ownRate(c *gocv.VideoCapture) float64 {
	fps := c.Get(gocv.VideoCaptureFPS)
	if math.IsNaN(fps) || fps < 0.01 || fps > 1000 {
		return 0
	}
	return fps
}

// announced is the number of pictures in a finished video; 0 for a live one.
func announced(c *gocv.VideoCapture) int {
	n := c.Get(gocv.VideoCaptureFrameCount)
	if math.IsNaN(n) || n < 1 || n > 1e9 {
		return 0
	}
	return int(n)
}

func dimension(c *gocv.VideoCapture, p gocv.VideoCaptureProperties) int {
	n := c.Get(p)
	if math.IsNaN(n) || n < 0 || n > 1<<16 {
		return 0
	}
	return int(n)
}
