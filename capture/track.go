package capture

import (
	"slices"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

// rateWindow is the time over which State.FPS is measured.
const rateWindow = 5 * time.Second

// history is what a State is computed from, besides the counters it holds itself.
type history struct {
	started  int         // grabbers
	restarts []time.Time // of the last hour
	stalls   []time.Time
	arrivals []time.Time // of frames, within rateWindow
	running  time.Time   // first frame of this grabber
	logged   string      // last error that went to the log
}

// State is a snapshot; it never blocks on the grabber.
func (c *Camera) State() State {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := &c.history
	h.restarts = since(h.restarts, now.Add(-time.Hour))
	h.stalls = since(h.stalls, now.Add(-time.Hour))
	h.arrivals = since(h.arrivals, now.Add(-rateWindow))

	s := c.state
	s.RestartsLastHour, s.StallsLastHour = len(h.restarts), len(h.stalls)
	if n := len(h.arrivals); n > 0 {
		window := min(rateWindow, max(now.Sub(h.running), time.Second))
		s.FPS = float64(n) / window.Seconds()
	}
	if !s.LastFrame.IsZero() {
		s.LastFrameAge = now.Sub(s.LastFrame)
	}
	if c.current != nil {
		s.PID = c.current.cmd.Process.Pid
		s.MemoryBytes, _ = c.current.memory()
	}
	return s
}

// opened notes what reads the source.
func (c *Camera) opened(m wire.Hello) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Decoder = m.Backend; m.Codec != "" {
		c.state.Decoder += ", " + m.Codec
	}
}

// since drops the times before start; times are in order.
func since(times []time.Time, start time.Time) []time.Time {
	i, _ := slices.BinarySearchFunc(times, start, time.Time.Compare)
	return slices.Delete(times, 0, i)
}

// started notes a new grabber and returns the sequence number that its frames follow.
func (c *Camera) started(g *grabber) (base uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = g
	c.history.running = time.Time{}
	if c.history.started++; c.history.started > 1 {
		c.state.Restarts++
		c.history.restarts = append(c.history.restarts, time.Now())
	}
	return c.state.Frames
}

func (c *Camera) stopped() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = nil
}

// deliver puts a frame into the slot, replaces the one that nobody took, and
// returns the pixels of the replaced one for use again. Only the supervising
// goroutine sends, so that the second send cannot block.
func (c *Camera) deliver(m wire.Frame, seq uint64, taken, now time.Time) (free []byte) {
	f := Frame{
		Camera: c.cfg.ID, Seq: seq, Time: taken, Width: m.Width, Height: m.Height, RGB: m.RGB,
		Quality: Quality(m.Quality), Motion: Motion{Width: m.MaskWidth, Height: m.MaskHeight, Mask: m.Mask},
	}
	// Counted before it can be taken: who holds a frame finds it in State.
	c.mu.Lock()
	s, h := &c.state, &c.history
	s.Dropped += seq - s.Frames - 1 // within the grabber
	s.Frames = seq
	s.Quality, s.Width, s.Height, s.LastFrame = f.Quality, f.Width, f.Height, taken
	if h.running.IsZero() {
		h.running = now
	}
	h.arrivals = append(since(h.arrivals, now.Add(-rateWindow)), now)
	select {
	case old := <-c.frames:
		s.Dropped++
		free = old.RGB
	default:
	}
	c.frames <- f
	first := s.Phase != Running
	c.mu.Unlock()

	if first {
		c.enter(Running, nil)
	} else {
		c.poke()
	}
	return free
}

func (c *Camera) bad(text string) {
	text = c.clean.clean(text)
	c.log.Debug("picture skipped", "reason", text)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.BadFrames++
	c.state.LastError, c.state.LastErrorAt = text, time.Now()
}

// note records what is wrong with a source that goes on all the same.
func (c *Camera) note(text string) {
	text = c.clean.clean(text)
	c.log.Warn("camera", "note", text)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.LastError, c.state.LastErrorAt = text, time.Now()
}

// enter changes the phase, with the error that is the reason, if any. A retry
// that fails as the one before does is not logged again.
func (c *Camera) enter(phase Phase, err error) {
	now := time.Now()
	c.mu.Lock()
	changed := c.state.Phase != phase
	if changed {
		c.state.Phase, c.state.Since = phase, now
	}
	if changed && phase == Stalled {
		c.history.stalls = append(c.history.stalls, now)
	}
	text := ""
	if err != nil {
		text = c.describe(err)
		c.state.LastError, c.state.LastErrorAt = text, now
	}
	news := changed || text != c.history.logged
	c.history.logged = text
	c.mu.Unlock()

	if news {
		if err != nil {
			c.log.Warn("camera "+phase.String(), "error", text)
		} else {
			c.log.Info("camera " + phase.String())
		}
	}
	c.poke()
}

func (c *Camera) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// describe puts the source before an error that does not name it already.
func (c *Camera) describe(err error) string {
	text := c.clean.clean(err.Error())
	if strings.Contains(text, c.name) {
		return text
	}
	return c.name + ": " + text
}
