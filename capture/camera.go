package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

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
type Camera struct {
	cfg    Config
	name   string // of the source, without secrets
	clean  redactor
	log    *slog.Logger
	wake   chan<- struct{}
	frames chan Frame
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	state   State
	history history
	current *grabber // nil while none runs
}

// Open checks the configuration and starts the camera. The only errors are
// those of Config.Validate: a source that cannot be read is a State, not an
// error, and is tried again until it can.
func Open(cfg Config, opt Options) (*Camera, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("camera %s: %w", cfg.ID, err)
	}
	if cfg.MaxSide == 0 {
		cfg.MaxSide = defaultMaxSide
	}
	if cfg.MemoryLimit == 0 {
		cfg.MemoryLimit = defaultMemoryLimit
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	clean := newRedactor(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	c := &Camera{
		cfg: cfg, name: clean.clean(cfg.Source), clean: clean,
		log: opt.Log.With("camera", cfg.ID), wake: opt.Wake,
		frames: make(chan Frame, 1), cancel: cancel, done: make(chan struct{}),
	}
	c.state = State{Camera: cfg.ID, Source: c.name, Phase: Connecting, Since: time.Now()}
	go c.run(ctx)
	return c, nil
}

// Frames is the hand-over slot: a channel of capacity 1 in which the newest
// frame replaces one that nobody took. It is closed by Close.
func (c *Camera) Frames() <-chan Frame { return c.frames }

// Close ends the grabber and returns when it and every goroutine of the camera
// is gone. It may be called more than once; the error is always nil.
func (c *Camera) Close() error {
	c.cancel()
	<-c.done
	return nil
}

// run starts one grabber after the other.
func (c *Camera) run(ctx context.Context) {
	defer close(c.done)
	defer close(c.frames)
	var wait backoff
	hasty := 0    // stalls in a row that were judged by a few frames
	slow := false // the last attempt gave no frame in time
	for {
		p := &pace{began: time.Now(), slow: slow}
		if hasty >= mostHasty { // the source may be slower than its first burst makes believe
			p.patience = learning
		}
		err := c.attempt(ctx, p)
		switch {
		case ctx.Err() != nil:
			c.enter(Closed, nil)
			return
		case err == nil:
			c.enter(Ended, nil)
			<-ctx.Done()
			c.enter(Closed, nil)
			return
		}

		pause := c.failed(err, p, &wait)
		slow = errors.Is(err, errStalled) && p.frames == 0
		if errors.Is(err, errStalled) && 0 < p.frames && p.frames <= fewFrames {
			hasty++
		} else {
			hasty = 0
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// failed records why an attempt ended and returns how long to wait before the next.
func (c *Camera) failed(err error, p *pace, wait *backoff) time.Duration {
	if p.frames > 0 && p.delivered() >= steady {
		wait.reset()
	}
	pause := wait.wait()
	if errors.Is(err, errRefused) {
		pause = refusedBackoff
	}
	phase := Lost
	if errors.Is(err, errStalled) && p.frames > 0 {
		phase = Stalled
	}
	c.enter(phase, err)
	return pause
}

var (
	errStalled = errors.New("stalled")
	errRefused = errors.New("refused")
)

// failure is an error whose text is for a person; kind tells the program what to do.
type failure struct {
	text string
	kind error // errStalled, errRefused or nil
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// attempt runs one grabber until it ends: nil where the source was read to its
// end, else why not.
func (c *Camera) attempt(ctx context.Context, p *pace) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	g, err := startGrabber(c.cfg, c.clean, c.log)
	if err != nil {
		return err
	}
	base := c.started(g)
	stopKill := context.AfterFunc(ctx, g.kill)
	ended, err := c.read(g, p, base)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		g.exited()
	}
	stopKill()
	if errors.Is(err, errStalled) && p.frames > 0 {
		c.enter(Stalled, err) // at once, however long the child takes to die
	}
	exit := g.stop()
	c.stopped()
	if ended {
		return nil
	}
	return c.reason(g, p, err, exit)
}

// read takes messages until the stream ends or breaks; ended tells that the
// grabber said so itself.
func (c *Camera) read(g *grabber, p *pace, base uint64) (ended bool, err error) {
	r := wire.NewReader(g.frames, c.cfg.MaxSide)
	for {
		if err := g.frames.SetReadDeadline(p.deadline(time.Now())); err != nil {
			return false, fmt.Errorf("set a deadline: %w", err)
		}
		m, err := r.Next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, c.stall(p)
		} else if err != nil {
			return false, err
		}
		switch m := m.(type) {
		case wire.Hello:
			p.announce(m.FPS)
			c.opened(m)
			c.log.Debug("source is open", "decoder", c.State().Decoder, "width", m.Width, "height", m.Height, "fps", m.FPS)
		case wire.Frame:
			now := time.Now()
			p.frame(now)
			age := time.Duration(monotonic() - m.Mono)
			if age < 0 {
				return false, fmt.Errorf("%w: frame from the future", wire.ErrCorrupt)
			}
			r.Recycle(c.deliver(m, base+m.Seq, now.Add(-age), now))
		case wire.Alive:
			p.alive(time.Now())
		case wire.Bad:
			p.alive(time.Now())
			c.bad(m.Text)
		case wire.Note:
			c.note(m.Text)
		case wire.End:
			return true, nil
		case wire.Fault:
			if m.Explained {
				return false, &failure{text: m.Text}
			}
			return false, errors.New(m.Text)
		}
	}
}

func (c *Camera) stall(p *pace) error {
	if p.frames == 0 {
		return &failure{text: fmt.Sprintf("no picture within %.0f s; is the source sending?", time.Since(p.began).Seconds()), kind: errStalled}
	}
	return &failure{text: fmt.Sprintf("no picture for %.1f s; reading is started again", time.Since(p.last).Seconds()), kind: errStalled}
}

// reason says in a sentence why an attempt failed, once its grabber is gone and
// its log complete. What the log says counts before the first frame alone:
// later, decoders complain of much that did no harm.
func (c *Camera) reason(g *grabber, p *pace, err, exit error) error {
	var known *failure
	_, excess := g.memory()
	log := g.log()
	advice, react, found := explain(log)
	found = found && p.frames == 0
	unasked := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case excess:
		return &failure{text: fmt.Sprintf("the grabber took more than %d MiB of memory and was stopped; it starts again. If that repeats, raise memory_limit or lower the source's resolution", c.cfg.MemoryLimit>>20)}
	case errors.Is(err, errStalled) && found:
		return &failure{text: advice, kind: errStalled}
	case errors.As(err, &known), errors.Is(err, wire.ErrCorrupt):
		return err
	case unasked && !(found && react == hopeless):
		text := fmt.Sprintf("the grabber ended unasked (%v); it starts again", exit)
		if n := len(log); n > 0 {
			text += "; its last words: " + strings.Join(log[max(0, n-3):], " | ")
		}
		return errors.New(text)
	case found && react == refused:
		return &failure{text: advice, kind: errRefused}
	case found:
		return errors.New(advice)
	}
	return err
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}
