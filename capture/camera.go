package capture

import "log/slog"

// Options are what a Camera needs from the program around it. The zero value works.
type Options struct {
	// Log receives changes of phase and the grabber's own output (at level
	// debug), without secrets. nil is slog.Default().
	Log *slog.Logger

	// Wake, if not nil, gets a non-blocking send after each frame put into the
	// slot and each change of phase. One channel of capacity 1 can serve all
	// cameras: wait on it, then look at each camera's Frames in turn.
	Wake chan<- struct{}
}

// Camera keeps one source read, for as long as it takes, until Close.
type Camera struct{}

// Open checks the configuration and starts the camera. The only errors are
// those of Config.Validate: a source that cannot be read is a State, not an
// error, and is tried again until it can.
func Open(cfg Config, opt Options) (*Camera, error) { panic("not yet") }

// Frames is the hand-over slot: a channel of capacity 1 in which the newest
// frame replaces one that nobody took. It is closed by Close.
func (c *Camera) Frames() <-chan Frame { panic("not yet") }

// State is a snapshot; it never blocks on the grabber.
func (c *Camera) State() State { panic("not yet") }

// Close ends the grabber and returns when it and every goroutine of the camera
// is gone. It may be called more than once.
func (c *Camera) Close() error { panic("not yet") }
