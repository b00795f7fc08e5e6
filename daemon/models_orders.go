package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// Verbs that tell the daemon of this device what its broker's operators can: they need the daemon to run.

type modelsAdaptVerb struct {
	samplesOf
	Force bool `help:"Even where no sample is new since the last run."`
}

func (modelsAdaptVerb) Help() string {
	return `Draws a pack of the kept samples, makes a candidate, and lets the gate judge it. It waits for the verdict; a run goes
on when this is interrupted: "fovea models cancel" ends it.`
}

func (v modelsAdaptVerb) Run(ctx context.Context, out io.Writer) error {
	return v.order(ctx, out, "/api/adapt", map[string]any{"wait": true, "force": v.Force})
}

type modelsPromoteVerb struct {
	samplesOf
	Version *int64 `arg:"" optional:"" help:"Number of the candidate, to be sure which."`
}

func (v modelsPromoteVerb) Run(ctx context.Context, out io.Writer) error {
	return v.order(ctx, out, "/api/promote", map[string]any{"version": v.Version})
}

type modelsRollbackVerb struct {
	samplesOf
	Version *int64 `arg:"" optional:"" help:"Number of an earlier good version (default: the one before the live one)."`
}

func (v modelsRollbackVerb) Run(ctx context.Context, out io.Writer) error {
	return v.order(ctx, out, "/api/rollback", map[string]any{"version": v.Version})
}

type modelsCancelVerb struct{ samplesOf }

func (v modelsCancelVerb) Run(ctx context.Context, out io.Writer) error {
	return v.order(ctx, out, "/api/cancel", nil)
}

type modelsAutoVerb struct {
	samplesOf
	Switch string `arg:"" enum:"on,off" help:"on or off; it outlives a restart, and counts instead of adapt.auto."`
}

func (v modelsAutoVerb) Run(ctx context.Context, out io.Writer) error {
	return v.order(ctx, out, "/api/auto", map[string]any{"on": v.Switch == "on"})
}

// order sends one to the daemon that runs, and prints what came of it.
func (v samplesOf) order(ctx context.Context, out io.Writer, path string, args any) error {
	config, err := loadConfig(v.Config)
	if err != nil {
		return err
	}
	c, err := dialDaemon(config)
	if err != nil {
		return err
	}
	if c == nil {
		return errors.New("no daemon of this configuration runs: start it with \"fovea run\", or name its configuration with --config")
	}
	defer c.close()
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	var answer []byte
	if err := c.do(ctx, http.MethodPost, path, bytes.NewReader(body), func(r io.Reader) (err error) {
		answer, err = io.ReadAll(io.LimitReader(r, 1<<20))
		return err
	}); err != nil || len(answer) == 0 {
		return err
	}
	var result fleet.AdaptResult
	if err := json.Unmarshal(answer, &result); err != nil {
		return err
	}
	if result.Version != nil {
		fmt.Fprintf(out, "version %d ", *result.Version)
	}
	if result.Verdict != "" {
		fmt.Fprintf(out, "%s: ", result.Verdict)
	}
	fmt.Fprintln(out, printable(result.Reason))
	return nil
}
