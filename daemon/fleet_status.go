package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
)

type fleetStatus struct{ selection }

func (fleetStatus) Help() string {
	return `  fovea fleet status line-3
  fovea fleet status --select site=hall-2 --json`
}

func (v fleetStatus) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	if v.empty() {
		return &exitError{exitUsage, fmt.Errorf("of which device? name it, or give --select KEY=VALUE")}
	}
	devices, err := v.seen(ctx, f)
	if err != nil {
		return err
	}
	if f.JSON {
		return writeIndented(out, devices)
	}
	for i, d := range devices {
		if i > 0 {
			fmt.Fprintln(out)
		}
		describeDevice(out, d, time.Now())
	}
	return nil
}

// describeDevice writes a line for each thing that is known.
func describeDevice(out io.Writer, d fleet.Seen, now time.Time) {
	line := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			fmt.Fprintf(out, "%-11s %s\n", name, printable(text))
		}
	}
	h := d.Health
	if h == nil {
		line("device", "%s, %s, has said nothing of its health", d.Device, stateOf(d))
		return
	}
	line("device", "%s, %s, said %s; fovea %s, up %s", d.Device, stateOf(d), age(now, h), h.Version, shortDuration(time.Duration(h.UptimeSeconds)*time.Second))
	line("labels", "%s", labelsOf(h.Labels))
	for _, reason := range h.Reasons {
		line("why", "%s", reason)
	}
	line("model", "%s", modelLine(d))
	line("quality", "%s", list(
		share("relevance on the object", h.Model.ForegroundRelevance), share("right with the background exchanged", h.Model.LabelledSwapAccuracy),
		share("unchanged by the exchange", h.Model.SwapConsistency), share("drift", h.Model.DriftScore)))
	line("adapt", "%s", list(adaptOf(d), h.Adapt.LastReason, held(h.Adapt.PausedBy), fmt.Sprintf("%d samples ready", h.Adapt.SamplesReady)))
	line("inference", "%s", list(withUnit(h.Inference.RateHz, " frames/s"), inMilliseconds("median", h.Inference.P50Seconds), inMilliseconds("p95", h.Inference.P95Seconds), h.Inference.Device))
	for _, id := range slices.Sorted(maps.Keys(h.Cameras)) {
		c := h.Cameras[id]
		line("camera", "%s", list(id+" "+c.State, withUnit(c.FPS, " frames/s"), c.Quality, counted(c.ReconnectsLastHour, "reconnects in the last hour"), counted(c.StallsLastHour, "stalls in the last hour")))
	}
	line("storage", "%d samples, %.1f of %.1f GB, %.1f GB free", h.Storage.Samples, gigabytes(h.Storage.BytesUsed), gigabytes(h.Storage.BytesLimit), gigabytes(h.Storage.FreeBytes))
	line("mqtt", "%s", list(fmt.Sprintf("%d queued", h.MQTT.Queue), counted(int64(h.MQTT.DroppedTotal), "dropped"), counted(int64(h.MQTT.ReconnectsTotal), "reconnects")))
	line("memory", "%d MB", h.Memory.RSSBytes>>20)
	if h.Thermal != nil {
		line("hottest", "%s", withUnit(h.Thermal.Celsius, " °C"))
	}
	if e := d.Event; e != nil {
		line("event", "%s", list(string(e.Type), e.TS.Format(time.RFC3339), e.Camera, e.Reason))
	}
}

func modelLine(d fleet.Seen) string {
	m := d.Health.Model
	text := fmt.Sprintf("v%d", m.Version)
	if m.Parent != nil {
		text += fmt.Sprintf(", adapted from v%d", *m.Parent)
	}
	if m.Probation != "" {
		text += ", probation " + m.Probation
	}
	if c := d.Model; c != nil {
		text = list(text, c.Title)
		if c.LatestVersion != c.InstalledVersion {
			text += ", v" + c.LatestVersion + " waits for approval (fovea fleet promote)"
		}
	}
	return text
}

// list joins what is not empty.
func list(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func share(name string, v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%s %.2f", name, *v)
}

func inMilliseconds(name string, v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%s %.0f ms", name, *v*1000)
}

func counted(n int64, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s", n, what)
}

func held(by string) string {
	if by == "" {
		return ""
	}
	return "held by " + by
}

func gigabytes(n int64) float64 { return float64(n) / 1e9 }
