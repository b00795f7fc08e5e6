package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// answerTime is how long a device may take to answer a verb that is over soon.
type answerTime struct {
	Timeout time.Duration `default:"1m" help:"For a device to answer."`
}

type fleetCancel struct {
	targets
	answerTime
	ID string `placeholder:"ID" help:"Only the command with this id (default: whatever adaptation runs)."`
}

func (fleetCancel) Help() string {
	return `  fovea fleet cancel line-3
  fovea fleet cancel --all`
}

func (v fleetCancel) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	return f.tell(ctx, out, v.targets, v.answerTime, fleet.VerbCancel, fleet.CancelArgs{ID: v.ID})
}

type fleetPromote struct {
	targets
	answerTime
	Version int64 `placeholder:"N" help:"Only if the candidate that waits is this version."`
}

func (fleetPromote) Help() string {
	return `A candidate waits where the device's configuration asks for approval. Devices take this verb only if their
configuration (mqtt.allow) says so.

  fovea fleet promote line-3
  fovea fleet promote --select site=hall-2`
}

func (v fleetPromote) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	return f.tell(ctx, out, v.targets, v.answerTime, fleet.VerbPromote, fleet.PromoteArgs{Version: v.Version})
}

type fleetRollback struct {
	targets
	answerTime
	Version int64 `default:"-1" placeholder:"N" help:"The version to go back to (default: the parent of the live one)."`
}

func (fleetRollback) Help() string {
	return `  fovea fleet rollback line-3
  fovea fleet rollback --select site=hall-2
  fovea fleet rollback line-3 --version 0      the base model`
}

func (v fleetRollback) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	args := fleet.RollbackArgs{}
	if v.Version >= 0 {
		args.Version = &v.Version
	}
	return f.tell(ctx, out, v.targets, v.answerTime, fleet.VerbRollback, args)
}

// told is a device's answer.
type told struct {
	Device string             `json:"device"`
	State  fleet.CommandState `json:"state"`
	Error  string             `json:"error,omitempty"` // no answer
}

// tell sends a verb to each device, all at once, and writes the answers.
func (f *fleetVerb) tell(ctx context.Context, out io.Writer, to targets, limit answerTime, verb fleet.Verb, args any) error {
	o, end, err := f.connected(ctx)
	if err != nil {
		return err
	}
	defer end()
	devices, absent, err := to.choose(o.Devices())
	if err != nil {
		return err
	}
	bar := newProgress(int64(len(devices)), string(verb))
	answers := make([]told, len(devices))
	var g sync.WaitGroup
	for i, device := range devices {
		g.Go(func() {
			limited, cancel := context.WithTimeout(ctx, limit.Timeout)
			defer cancel()
			state, err := o.Do(limited, fleet.Request{Device: device, Verb: verb, Args: args})
			answers[i] = told{Device: device, State: state}
			if err != nil {
				answers[i].Error = fmt.Sprintf("no end within %v; it may still come to one", limit.Timeout)
			}
			_ = bar.Add(1)
		})
	}
	g.Wait()
	_ = bar.Finish()
	if ctx.Err() != nil {
		return &exitError{exitFailure, fmt.Errorf("interrupted: %s was sent, and devices do it all the same", verb)}
	}

	if f.JSON {
		if err := writeIndented(out, answers); err != nil {
			return err
		}
	} else {
		writeAnswers(out, answers)
		if len(absent) > 0 {
			fmt.Fprintf(out, "left out, offline: %v\n", absent)
		}
	}
	failed := len(slices.DeleteFunc(answers, func(a told) bool { return a.State.State == fleet.PhaseSuccessful }))
	if failed > 0 {
		return &exitError{exitDevices, fmt.Errorf("%s: %d of %d devices did not do it", verb, failed, len(devices))}
	}
	return nil
}

func writeAnswers(out io.Writer, answers []told) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, a := range answers {
		said := a.Error
		if said == "" {
			said = list(string(a.State.Code), a.State.Reason)
		}
		var result fleet.AdaptResult
		if json.Unmarshal(a.State.Result, &result) == nil && result.Version != nil {
			said = list(said, fmt.Sprintf("v%d", *result.Version))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", a.Device, a.State.State, printable(said))
	}
	_ = w.Flush()
}

type fleetForget struct {
	Devices []string `arg:"" name:"device" help:"Devices by name."`
	Online  bool     `help:"Also those that are online; they say all again at their next connect."`
}

func (fleetForget) Help() string {
	return `Clears the retained messages of devices that are gone for good, those for Home Assistant too.

  fovea fleet forget old-line-3`
}

func (v fleetForget) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	o, end, err := f.connected(ctx)
	if err != nil {
		return err
	}
	defer end()
	for _, device := range v.Devices {
		if d, _ := o.Device(device); d.Online && !v.Online {
			return &exitError{exitDevices, fmt.Errorf("%s is online: stop it first, or give --online", device)}
		}
		n, err := o.Forget(ctx, device, 2*settleFor)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %d messages cleared\n", device, n)
	}
	return nil
}
