//go:build gocv_videoio

// Command fovea-grab reads one camera for the fovea daemon: the only program of
// the project that links OpenCV. It is told what to read by one line of JSON on
// stdin, writes messages to file descriptor 3 (package capture/internal/wire),
// and exits when stdin closes. It is not meant to be started by hand.
//
// It is built with -tags "gocv_specific_modules gocv_videoio".
package main

// #include <stdio.h>
// static void line_buffer_stdout(void) { setvbuf(stdout, NULL, _IOLBF, 0); }
import "C"

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"gocv.io/x/gocv"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

const framesFD = 3

func main() {
	out := os.NewFile(framesFD, "frames")
	if info, err := out.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 { // by hand it may be Go's own, for its poller
		fmt.Fprintln(os.Stderr, "fovea-grab is started by fovea, with a pipe on file descriptor 3; it is not meant to be run by hand")
		os.Exit(2)
	}
	// OpenCV prints FFmpeg's warnings to C's stdout, which the parent reads; in a
	// full buffer they would be lost when this process ends.
	C.line_buffer_stdout()
	// Should memory run out, this process is to go before the daemon. A machine
	// that does not allow it is no reason to stop.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)

	w := wire.NewWriter(out)
	req, err := readRequest()
	if err != nil {
		fail(w, &fault{text: err.Error()})
	}
	// One thread for OpenCV's own loops: they are short, and the cores belong to the model.
	gocv.SetNumThreads(1)
	if err := grab(req, w); err != nil {
		fail(w, err)
	}
}

// readRequest reads the one line of stdin, then leaves a goroutine that ends
// the process when stdin closes, even while a decoder hangs in C.
func readRequest() (wire.Request, error) {
	var req wire.Request
	in := bufio.NewReaderSize(os.Stdin, 64<<10)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return req, fmt.Errorf("read the request: %w", err)
	}
	if err := json.Unmarshal(line, &req); err != nil {
		return req, fmt.Errorf("read the request: %w", err)
	}
	if req.Version != wire.Version {
		return req, fmt.Errorf("fovea speaks version %d of the protocol, fovea-grab version %d; install both from the same build", req.Version, wire.Version)
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(0)
	}()
	return req, nil
}

// fault is a reason to stop that a person should read.
type fault struct {
	text   string
	opaque bool // the reason is in the decoder's log, not in text
}

func (f *fault) Error() string { return f.text }

func faultf(format string, args ...any) error { return &fault{text: fmt.Sprintf(format, args...)} }

// fail reports the error as the last message. If even that cannot be written
// the parent is gone and nobody is left to tell.
func fail(w *wire.Writer, err error) {
	f, ok := err.(*fault)
	if !ok {
		f = &fault{text: err.Error(), opaque: true}
	}
	_ = w.Send(wire.Fault{Text: f.text, Explained: !f.opaque})
	os.Exit(1)
}
