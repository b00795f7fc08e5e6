package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/seed-a98b2d25/fovea/fleet"
)

type fleetLs struct{ selection }

func (fleetLs) Help() string {
	return `  fovea fleet ls
  fovea fleet ls --select site=hall-2
  fovea fleet ls --json | jq -r '.[] | select(.health.health != "ok") | .device'`
}

func (v fleetLs) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	devices, err := v.seen(ctx, f)
	if err != nil {
		return err
	}
	if f.JSON {
		return writeIndented(out, devices)
	}
	for _, line := range table(devices, time.Now()) {
		fmt.Fprintln(out, line)
	}
	return nil
}

func writeIndented(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// offline is the word for a device that is not there.
const offline = "offline"

// stateOf is a device's health in one word.
func stateOf(d fleet.Seen) string {
	switch {
	case !d.Online:
		return offline
	case d.Health == nil:
		return "?"
	}
	return d.Health.Health
}

// worst sorts the states that somebody should look at to the front.
func worst(a, b fleet.Seen) int {
	rank := func(d fleet.Seen) int {
		return slices.Index([]string{fleet.HealthFailing, offline, fleet.HealthDegraded, "?", fleet.HealthOK}, stateOf(d))
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Device, b.Device))
}

// table is a heading, a line for each device, and a count.
func table(devices []fleet.Seen, now time.Time) []string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	row("DEVICE", "HEALTH", "MODEL", "PROBATION", "ADAPT", "CAMERAS", "RATE", "SAID", "LABELS", "WHY")
	count := map[string]int{}
	for _, d := range devices {
		state := stateOf(d)
		count[state]++
		h := d.Health
		if h == nil {
			fmt.Fprintf(w, "%s\t%s\t\t\t\t\t\t\t\t\n", d.Device, state)
			continue
		}
		why := ""
		if len(h.Reasons) > 0 {
			why = h.Reasons[0]
		}
		row(d.Device, state, fmt.Sprintf("v%d", h.Model.Version), h.Model.Probation, adaptOf(d), camerasOf(h),
			withUnit(h.Inference.RateHz, "/s"), age(now, h), labelsOf(h.Labels), why)
	}
	w.Flush()
	lines := strings.Split(strings.TrimRight(text.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	sum := fmt.Sprintf("%d devices", len(devices))
	for _, state := range []string{fleet.HealthOK, fleet.HealthDegraded, fleet.HealthFailing, "?", offline} {
		if count[state] > 0 {
			sum += fmt.Sprintf(", %d %s", count[state], state)
		}
	}
	return append(lines, "", sum)
}

// adaptOf is what adaptation does, or what the last one came to.
func adaptOf(d fleet.Seen) string {
	switch {
	case d.Health.Adapt.State != fleet.AdaptIdle:
		return d.Health.Adapt.State
	case d.Health.Adapt.LastVerdict != "":
		return string(d.Health.Adapt.LastVerdict)
	}
	return d.Health.Adapt.State
}

// camerasOf counts the cameras that deliver.
func camerasOf(h *fleet.Health) string {
	online := 0
	for _, c := range h.Cameras {
		if c.State == fleet.CameraOnline {
			online++
		}
	}
	return fmt.Sprintf("%d/%d", online, len(h.Cameras))
}

func withUnit(v *float64, unit string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.1f%s", *v, unit)
}

// age is how long ago the device measured what it says.
func age(now time.Time, h *fleet.Health) string {
	if !h.TimeSynced {
		return "?" // its clock cannot be believed
	}
	return shortDuration(now.Sub(h.TS)) + " ago"
}

func shortDuration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// printable is text from a device without what would move a terminal's cursor.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

type fleetWatch struct{ selection }

func (fleetWatch) Help() string {
	return `The table of "ls", those first that somebody should look at. On a terminal it is drawn again as things change;
elsewhere, and with --json, each change is a line. It goes on when the broker is away. Ctrl-C ends it.

  fovea fleet watch
  fovea fleet watch --json | jq -c 'select(.event.event_type == "camera_lost") | [.device, .event.camera]'`
}

func (v fleetWatch) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	o, end, err := f.operator(ctx)
	if err != nil {
		return err
	}
	defer end()
	terminal, isFile := out.(*os.File)
	live := isFile && !f.JSON && term.IsTerminal(int(terminal.Fd()))
	told := map[string]string{} // the last line of each device
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		devices, err := v.of(o.Devices())
		if err != nil && len(v.Devices) == 0 { // with names: they may come yet
			return err
		}
		if live {
			redraw(terminal, devices, o)
		} else if err := tellChanges(out, devices, told, f.JSON); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C: // ages grow
		case <-o.Changed():
			select { // a fleet's changes come in crowds
			case <-ctx.Done():
				return nil
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// redraw fills the terminal.
func redraw(terminal *os.File, devices []fleet.Seen, o *fleet.Operator) {
	width, height, err := term.GetSize(int(terminal.Fd()))
	if err != nil || height < 5 {
		width, height = 80, 24
	}
	slices.SortFunc(devices, worst)
	lines := table(devices, time.Now())
	sum := lines[len(lines)-1]
	if ok, _, reason, hint := o.Connected(); !ok && reason != "" {
		sum += "; not connected: " + reason + "; " + hint
	}
	lines = lines[:min(len(lines)-1, height-2)]
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, line := range append(lines, sum) {
		if r := []rune(line); len(r) > width {
			line = string(r[:width-1]) + "…"
		}
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	io.WriteString(terminal, b.String())
}

// tellChanges writes a line for each device that changed in what a person would want to know.
func tellChanges(out io.Writer, devices []fleet.Seen, told map[string]string, asJSON bool) error {
	for _, d := range devices {
		line := changeLine(d)
		if line == told[d.Device] {
			continue
		}
		told[d.Device] = line
		if asJSON {
			text, err := json.Marshal(d)
			if err != nil {
				return err
			}
			line = string(text)
		} else {
			line = time.Now().Format(time.TimeOnly) + " " + line
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

func changeLine(d fleet.Seen) string {
	line := d.Device + " " + stateOf(d)
	if h := d.Health; h != nil {
		line += fmt.Sprintf(" v%d", h.Model.Version)
		if h.Model.Probation != "" {
			line += " probation " + h.Model.Probation
		}
		line += ", adapt " + adaptOf(d) + ", cameras " + camerasOf(h)
		if len(h.Reasons) > 0 {
			line += ": " + h.Reasons[0]
		}
	}
	if e := d.Event; e != nil {
		line += fmt.Sprintf(" (%s %s)", e.Type, e.TS.Format(time.RFC3339))
	}
	return printable(line)
}
