package main

import (
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// newProgress returns a progress bar of total steps on standard error, or, where that is no terminal, one
// that shows nothing; total -1 is not known. Call Add for each step and Finish at the end.
func newProgress(total int64, what string) *progressbar.ProgressBar {
	return newBar(total, what, progressbar.OptionShowIts(), progressbar.OptionShowCount())
}

// newByteProgress is newProgress counting bytes: the bar is an io.Writer that counts what is written to it.
func newByteProgress(total int64, what string) *progressbar.ProgressBar {
	return newBar(total, what, progressbar.OptionShowBytes(true))
}

func newBar(total int64, what string, more ...progressbar.Option) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total, append([]progressbar.Option{
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetVisibility(term.IsTerminal(int(os.Stderr.Fd()))),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(),
	}, more...)...)
}
