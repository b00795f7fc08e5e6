package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
)

type fleetAdapt struct {
	targets
	Canary      canary        `default:"10%" placeholder:"N|N%" help:"How many go first (default: 10%). The rest follows only if these do well. 100%: all at once."`
	MaxFailures int           `placeholder:"N" help:"So many devices may be rejected, fail, fall back or not answer; one more stops the rollout, and what it promoted is rolled back (default: 0)."`
	Wait        bool          `help:"Follow it to the end. Without it the canaries are started, and that is all."`
	Name        string        `placeholder:"NAME" help:"Of the rollout (default: by the time). The same line with the same name takes up a rollout again: no device adapts twice."`
	Force       bool          `help:"Adapt even if drift and schedule do not ask for it."`
	Timeout     time.Duration `default:"24h" help:"For one device, from the command to the end of its probation."`
	DryRun      bool          `help:"Say which devices would be told, and which go first."`
}

func (fleetAdapt) Help() string {
	return `Each device gets a command of its own and answers with progress and verdict; a promoted candidate is then followed
through its probation. Devices that are offline are left out and told.

  fovea fleet adapt --select site=hall-2 --dry-run
  fovea fleet adapt --select site=hall-2 --canary 10% --max-failures 2 --wait
  fovea fleet adapt line-3 --force --wait

Interrupted? The devices go on by themselves. Take it up again with the name that it printed:
  fovea fleet adapt --select site=hall-2 --canary 10% --max-failures 2 --wait --name r1124-2050-x7k2

With --json each change is a line, and the last line is the report.`
}

// canary is how many devices go first: a number, or a share in percent.
type canary struct {
	number  int
	percent float64
}

// UnmarshalText reads "5" and "10%".
func (c *canary) UnmarshalText(text []byte) error {
	wrong := fmt.Errorf("%q: write a number of devices, such as 5, or a share of them, such as 10%%", text)
	if share, ok := strings.CutSuffix(string(text), "%"); ok {
		p, err := strconv.ParseFloat(share, 64)
		if err != nil || !(p > 0 && p <= 100) {
			return wrong
		}
		*c = canary{percent: p}
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 {
		return wrong
	}
	*c = canary{number: n}
	return nil
}

// of is how many of n devices go first, at least one.
func (c canary) of(n int) int {
	if c.percent > 0 {
		return max(1, int(c.percent*float64(n)/100+0.5))
	}
	return min(c.number, n)
}

func (v fleetAdapt) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	o, end, err := f.connected(ctx)
	if err != nil {
		return err
	}
	defer end()
	devices, absent, err := v.choose(o.Devices())
	if err != nil {
		return err
	}
	r := fleet.Rollout{
		Name: v.Name, Devices: devices, Canary: v.Canary.of(len(devices)), Args: fleet.AdaptArgs{Force: v.Force},
		MaxFailures: v.MaxFailures, Limit: v.Timeout, StartOnly: !v.Wait,
	}
	if r.Name == "" {
		r.Name = "r" + time.Now().Format("0102-1504") + "-" + strings.ToLower(rand.Text()[:4])
	}
	if !f.JSON {
		v.announce(out, r, absent)
	}
	if v.DryRun {
		if f.JSON {
			return writeIndented(out, map[string]any{"name": r.Name, "canaries": r.Canaries(), "devices": devices, "offline": absent})
		}
		fmt.Fprintf(out, "devices   %s\nNothing was sent.\n", strings.Join(devices, " "))
		return nil
	}

	var follow interface {
		changed(fleet.RolloutDevice)
		end()
	}
	if f.JSON {
		follow = jsonLines{json.NewEncoder(out)}
	} else {
		follow = newRolloutBars(out, len(devices))
	}
	r.Follow = follow.changed
	report, err := o.Rollout(ctx, r)
	follow.end()
	if f.JSON {
		if err := json.NewEncoder(out).Encode(report); err != nil {
			return err
		}
	} else if len(report.Devices) > 0 {
		conclude(out, report)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return &exitError{exitFailure, fmt.Errorf("interrupted; what runs goes on, and nothing was rolled back: take it up again with --name %s, or end it with \"fovea fleet cancel\" and \"fovea fleet rollback\"", r.Name)}
	case err != nil:
		return &exitError{exitUsage, err}
	case report.Stopped != "":
		return &exitError{exitDevices, fmt.Errorf("rollout %s stopped: %s", r.Name, report.Stopped)}
	case report.Failures > 0:
		return &exitError{exitDevices, fmt.Errorf("rollout %s: %d of %d devices did not do well", r.Name, report.Failures, len(report.Devices))}
	}
	return nil
}

// announce says what is about to happen.
func (v fleetAdapt) announce(out io.Writer, r fleet.Rollout, absent []string) {
	fmt.Fprintf(out, "rollout   %s: %d devices, at most %d may fail\n", r.Name, len(r.Devices), r.MaxFailures)
	if len(absent) > 0 {
		fmt.Fprintf(out, "left out  %d offline: %s\n", len(absent), strings.Join(absent, " "))
	}
	if canaries := r.Canaries(); len(canaries) > 0 {
		fmt.Fprintf(out, "canaries  %s\n", strings.Join(canaries, " "))
	}
	if r.StartOnly && !v.DryRun {
		fmt.Fprintf(out, "Only the first are started. To follow them and go on: the same line with --wait --name %s\n", r.Name)
	}
}

// jsonLines writes each change as a line.
type jsonLines struct{ *json.Encoder }

func (j jsonLines) changed(d fleet.RolloutDevice) { _ = j.Encode(d) }
func (jsonLines) end()                            {}

// conclude counts the outcomes, those of failures with their devices.
func conclude(out io.Writer, r fleet.RolloutReport) {
	by := map[fleet.Outcome][]string{}
	var order []fleet.Outcome
	for _, d := range r.Devices {
		if by[d.Outcome] == nil {
			order = append(order, d.Outcome)
		}
		by[d.Outcome] = append(by[d.Outcome], d.Device)
	}
	slices.Sort(order)
	fmt.Fprintf(out, "\nrollout %s, %s\n", r.Name, time.Duration(r.Seconds*float64(time.Second)).Round(100*time.Millisecond))
	for _, o := range order {
		fmt.Fprintf(out, "  %4d %s", len(by[o]), o)
		if o.Failure() || o == fleet.OutcomeStuck || o == fleet.OutcomeUnknown {
			fmt.Fprintf(out, ": %s", strings.Join(by[o], " "))
		}
		fmt.Fprintln(out)
	}
}
