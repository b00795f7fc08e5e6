//go:build gocv_videoio

package main

import (
	"errors"
	"image"
	"io"
	"time"

	"gocv.io/x/gocv"
	"golang.org/x/sys/unix"

	"github.com/seed-a98b2d25/fovea/capture/internal/scene"
	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

// source is one opened source of pictures. Only the decoding goroutine uses it.
type source interface {
	hello() wire.Hello
	// next waits for the next wanted picture and decodes it into img. It
	// returns a badPicture for one that was skipped, errRestarted where a loop
	// begins again (img holds nothing), io.EOF at the end, else a *fault.
	next(img *gocv.Mat) error
	// sequence: the pictures follow each other in time, so that motion and
	// repetition mean something.
	sequence() bool
}

// badPicture is a picture that could not be decoded; the source goes on.
type badPicture struct{ text string }

func (b badPicture) Error() string { return b.text }

// errRestarted is the seam of a loop.
var errRestarted = errors.New("the source began again")

// grab opens the source and sends its frames until it ends or fails. Decoding
// has a goroutine of its own that never waits for the sending one, so that a
// live source is always read as fast as it sends.
func grab(req wire.Request, w *wire.Writer) error {
	notify := func(m any) { _ = w.Send(m) } // a lost parent shows at the next frame
	src, err := open(req, notify)
	if err != nil {
		return err
	}
	if err := w.Send(src.hello()); err != nil {
		return err
	}
	box := newNewest()
	go decode(src, box, notify)

	look := looker{req: req, sequence: src.sequence()}
	for {
		shot, err := box.take()
		switch {
		case err == io.EOF:
			return w.Send(wire.End{})
		case err != nil:
			return err
		}
		frame, err := look.at(shot)
		if err != nil {
			return err
		}
		if err := w.Send(frame); err != nil {
			return err
		}
	}
}

func decode(src source, box *newest, notify func(any)) {
	img := gocv.NewMat()
	restarted := false
	for {
		err := src.next(&img)
		var bad badPicture
		switch {
		case err == errRestarted:
			restarted = true
		case errors.As(err, &bad):
			notify(wire.Bad{Text: bad.text})
		case err != nil:
			box.close(err)
			return
		default:
			img = box.put(img, monotonic(), restarted)
			restarted = false
		}
	}
}

// looker turns a decoded picture into a frame: privacy areas first, then scale,
// then what the picture is worth.
type looker struct {
	req        wire.Request
	sequence   bool
	areas      areas
	small      gocv.Mat
	judge      *scene.Judge
	background scene.Background
}

func (l *looker) at(s shot) (*wire.Frame, error) {
	if l.judge == nil {
		l.small, l.judge = gocv.NewMat(), scene.NewJudge()
	}
	if s.restarted || !l.sequence {
		l.judge.Restart()
	}
	if err := toBGR(&s.img); err != nil {
		return nil, err
	}
	if err := l.areas.blank(&s.img, l.req.Privacy); err != nil {
		return nil, err
	}
	w, h := fit(s.img.Cols(), s.img.Rows(), l.req.MaxSide)
	if w == s.img.Cols() && h == s.img.Rows() {
		if err := gocv.CvtColor(s.img, &l.small, gocv.ColorBGRToRGB); err != nil {
			return nil, err
		}
	} else {
		if err := gocv.Resize(s.img, &l.small, image.Pt(w, h), 0, 0, gocv.InterpolationArea); err != nil {
			return nil, err
		}
		if err := gocv.CvtColor(l.small, &l.small, gocv.ColorBGRToRGB); err != nil {
			return nil, err
		}
	}
	// The pixels stay OpenCV's memory: they are written to the pipe before the next picture.
	rgb, err := l.small.DataPtrUint8()
	if err != nil {
		return nil, err
	}
	visible, err := l.areas.visible(w, h, l.req.Privacy)
	if err != nil {
		return nil, err
	}
	now := time.Duration(s.mono)
	f := &wire.Frame{Seq: s.seq, Mono: s.mono, Width: w, Height: h, RGB: rgb}
	f.Quality = l.judge.Look(rgb, w, h, visible, now)
	if l.sequence {
		f.Mask, f.MaskWidth, f.MaskHeight = l.background.Look(rgb, w, h, now)
	}
	return f, nil
}

// toBGR gives img three channels of 8 bits, whatever a pipeline delivered.
func toBGR(img *gocv.Mat) error {
	switch img.Type() {
	case gocv.MatTypeCV8UC3:
		return nil
	case gocv.MatTypeCV8UC1:
		return gocv.CvtColor(*img, img, gocv.ColorGrayToBGR)
	case gocv.MatTypeCV8UC4:
		return gocv.CvtColor(*img, img, gocv.ColorBGRAToBGR)
	}
	return faultf("the source delivers pictures of type %v; convert them to 8-bit BGR (in a pipeline: videoconvert ! video/x-raw,format=BGR)", img.Type())
}

// fit scales w x h down so that the longer side is at most side.
func fit(w, h, side int) (int, int) {
	long := max(w, h)
	if long <= side {
		return w, h
	}
	return max(1, (w*side+long/2)/long), max(1, (h*side+long/2)/long)
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, which parent and child share.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}
