package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// rolloutBars shows a rollout: a line for each device that is through, and, on a terminal, below these lines a
// bar for each of the devices that adapt, as many as fit, and one for all.
type rolloutBars struct {
	out      io.Writer
	terminal *os.File // nil: lines alone
	total    int
	through  map[string]bool
	order    []string           // of the devices that adapt
	share    map[string]float64 // of each: 0..1
	drawn    int                // lines of bars below the last line
	last     time.Time          // drawn
}

func newRolloutBars(out io.Writer, total int) *rolloutBars {
	b := &rolloutBars{out: out, total: total, through: map[string]bool{}, share: map[string]float64{}}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		b.terminal = file
	}
	return b
}

// changed takes in what the rollout says of a device; calls come one at a time.
func (b *rolloutBars) changed(d fleet.RolloutDevice) {
	if d.Outcome == "" {
		b.advance(d)
		return
	}
	kind := "device"
	if d.Canary {
		kind = "canary"
	}
	line := fmt.Sprintf("%s  %s  %s", kind, d.Device, d.Outcome)
	if d.Version != nil {
		line += fmt.Sprintf(" (v%d)", *d.Version)
	}
	if d.Reason != "" {
		line += ": " + printable(d.Reason)
	}
	b.through[d.Device] = true // one that is taken back was so before
	b.order = slices.DeleteFunc(b.order, func(name string) bool { return name == d.Device })
	b.clear()
	fmt.Fprintln(b.out, line)
	b.draw()
}

// advance moves a device's bar: the command takes nine of its ten parts, the probation the rest.
func (b *rolloutBars) advance(d fleet.RolloutDevice) {
	if b.terminal == nil || d.State == "" {
		return
	}
	if !slices.Contains(b.order, d.Device) {
		b.order = append(b.order, d.Device)
	}
	switch {
	case d.Version != nil:
		b.share[d.Device] = 0.9
	case d.Progress != nil:
		b.share[d.Device] = 0.9 * *d.Progress
	}
	if time.Since(b.last) > 100*time.Millisecond {
		b.clear()
		b.draw()
	}
}

func (b *rolloutBars) clear() {
	if b.drawn > 0 {
		fmt.Fprintf(b.out, "\x1b[%dA\x1b[J", b.drawn)
		b.drawn = 0
	}
}

func (b *rolloutBars) draw() {
	if b.terminal == nil {
		return
	}
	width, height, err := term.GetSize(int(b.terminal.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	lines := []string{fmt.Sprintf("%s %d of %d through", barOf(float64(len(b.through))/float64(b.total)), len(b.through), b.total)}
	for i, name := range b.order {
		if len(lines)+2 >= height {
			lines = append(lines, fmt.Sprintf("and %d more", len(b.order)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("%s %3.0f %% %s", barOf(b.share[name]), 100*b.share[name], name))
	}
	for _, line := range lines {
		fmt.Fprintln(b.out, line[:min(len(line), max(width, 1))]) // a longer one would be two lines of the screen
	}
	b.drawn, b.last = len(lines), time.Now()
}

// barOf is a bar of 30 characters for a share of 0..1.
func barOf(share float64) string {
	const width = 30
	full := int(share*width + 0.5)
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "]"
}

// end takes the bars away.
func (b *rolloutBars) end() { b.clear() }
