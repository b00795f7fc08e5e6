package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

// cycle is how the model of this device changes: a trigger or a command, a pack, a child that makes a candidate, the
// gate, promotion, probation, the way back. One goroutine does it, one thing at a time.
type cycle struct {
	orders chan order        // capacity 0: whoever runs is not interrupted
	ends   chan probationEnd // capacity 1: from the inference goroutine
	state  atomic.Pointer[cycleState]
	cancel atomic.Pointer[context.CancelCauseFunc] // of the run; nil: none
	child  trainerLimits
}

// cycleState is what the status says of it.
type cycleState struct {
	Adapt fleet.Adapt
	Stage adapt.Progress // of the run
}

// trainerLimits are what only tests change.
type trainerLimits struct {
	program string
	silence time.Duration
	env     []string
}

func newCycle() *cycle {
	c := &cycle{orders: make(chan order), ends: make(chan probationEnd, 1), child: trainerLimits{silence: 10 * time.Minute}}
	c.state.Store(&cycleState{Adapt: fleet.Adapt{State: fleet.AdaptIdle}})
	return c
}

// order is what the cycle is told to do.
type order struct {
	verb     fleet.Verb // adapt, promote, rollback
	command  string     // id; "" for a trigger
	why      string     // for people
	force    bool       // adapt even where nothing is new
	version  *int64     // rollback, promote: which
	ctx      context.Context
	progress func(float64)
	done     chan outcome // capacity 1
}

type outcome struct {
	result fleet.AdaptResult
	err    error
}

// probationEnd is what the inference goroutine says of a probation.
type probationEnd struct {
	sha    string
	reason string // it was tripped; "" it passed
}

var errCancelled = errors.New("cancelled")

// do gives an order and waits for what came of it.
func (c *cycle) do(ctx context.Context, o order) (fleet.AdaptResult, error) {
	o.ctx, o.done = ctx, make(chan outcome, 1)
	if o.progress == nil {
		o.progress = func(float64) {}
	}
	soon := time.NewTimer(2 * time.Second)
	defer soon.Stop()
	select {
	case c.orders <- o:
	case <-ctx.Done():
		return fleet.AdaptResult{}, ctx.Err()
	case <-soon.C:
		return fleet.AdaptResult{}, &fleet.Error{Code: fleet.Busy, Reason: "an adaptation runs: wait for it, or cancel it"}
	}
	r := <-o.done
	return r.result, r.err
}

// stop ends the run; it says whether there was one.
func (c *cycle) stop() bool {
	cancel := c.cancel.Load()
	if cancel != nil {
		(*cancel)(errCancelled)
	}
	return cancel != nil
}

// update changes what the status says.
func (c *cycle) update(change func(*cycleState)) {
	next := *c.state.Load()
	change(&next)
	c.state.Store(&next)
}

// adaptations is the cycle until ctx is done.
func (d *daemon) adaptations(ctx context.Context) error {
	if d.store == nil {
		return d.refuseOrders(ctx)
	}
	d.sweepWork()
	tick := time.NewTicker(triggerEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case end := <-d.cycle.ends:
			d.endProbation(end)
		case o := <-d.cycle.orders:
			result, err := d.obey(ctx, o)
			o.done <- outcome{result, err}
		case now := <-tick.C:
			if why := d.triggered(now); why != "" {
				_, _ = d.obey(ctx, order{verb: fleet.VerbAdapt, why: why, ctx: ctx, progress: func(float64) {}, done: nil}) // it is logged and recorded
			}
		}
	}
}

func (d *daemon) refuseOrders(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-d.cycle.orders:
			o.done <- outcome{err: errNoStore}
		}
	}
}

// obey carries one order out, told and recorded.
func (d *daemon) obey(ctx context.Context, o order) (fleet.AdaptResult, error) {
	switch o.verb {
	case fleet.VerbPromote:
		return d.approve(ctx, o)
	case fleet.VerbRollback:
		return d.goBack(ctx, o)
	}
	return d.adaptNow(ctx, o)
}

// adaptNow is one run from its trigger to its verdict.
func (d *daemon) adaptNow(ctx context.Context, o order) (fleet.AdaptResult, error) {
	config, _ := d.configs.get()
	info, err := d.mayAdapt(config)
	if err != nil {
		return fleet.AdaptResult{}, err
	}
	began := time.Now()
	run, stop := context.WithCancelCause(o.ctx)
	defer stop(nil)
	defer context.AfterFunc(ctx, func() { stop(context.Canceled) })()
	d.cycle.cancel.Store(&stop)
	defer d.cycle.cancel.Store(nil)
	d.cycle.update(func(s *cycleState) {
		s.Adapt.State, s.Adapt.PausedBy, s.Stage = fleet.AdaptRunning, "", adapt.Progress{}
	})
	d.log.Info("adaptation", "why", o.why, "command", o.command)
	d.emit(fleet.Event{Type: fleet.AdaptStarted, Command: o.command, Reason: o.why})

	result, err := d.adaptOnce(run, config, info, o)
	if err != nil && errors.Is(context.Cause(run), errCancelled) {
		err = errCancelled
	}
	d.noteRun(time.Now())
	d.cycle.update(func(s *cycleState) {
		s.Adapt.State, s.Adapt.PausedBy, s.Stage = fleet.AdaptIdle, "", adapt.Progress{}
		s.Adapt.LastDurationSeconds = fleet.Known(time.Since(began).Seconds())
		s.Adapt.LastVerdict, s.Adapt.LastReason = result.Verdict, result.Reason
		if err != nil {
			s.Adapt.LastReason = err.Error()
		}
	})
	event := fleet.Event{Command: o.command, Version: result.Version, Reason: result.Reason}
	switch {
	case ctx.Err() != nil: // the daemon stops; a command is answered at the next start
		return result, err
	case err != nil:
		event.Type, event.Reason = fleet.AdaptFailed, err.Error()
		d.record(adapt.Receipt{Event: adapt.EventFailure, Reason: o.why + ": " + err.Error()})
		d.log.Error("adaptation failed", "error", err)
	case result.Verdict == fleet.Promoted:
		event.Type = fleet.AdaptPromoted
	case result.Verdict == fleet.Rejected:
		event.Type = fleet.AdaptRejected
	default:
		event.Type = fleet.AdaptWaits
	}
	if err == nil {
		d.log.Info("adaptation ended", "verdict", result.Verdict, "reason", result.Reason, "seconds", time.Since(began).Seconds())
	}
	d.emit(event)
	return result, err
}

// adaptOnce draws a pack, lets a child make a candidate of it, and does what the gate says.
func (d *daemon) adaptOnce(ctx context.Context, config *Config, info adapt.PackInfo, o order) (fleet.AdaptResult, error) {
	samples, standing := d.samples(), d.models().Standing()
	if fresh := d.freshSamples(); !o.force && fresh == 0 {
		return fleet.AdaptResult{Verdict: fleet.NotNeeded, Reason: "no sample is new since the last run"}, nil
	}
	work := filepath.Join(config.StateDir, workDir)
	if err := os.RemoveAll(work); err != nil {
		return fleet.AdaptResult{}, err
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return fleet.AdaptResult{}, err
	}
	defer os.RemoveAll(work)
	pack := filepath.Join(work, packFile)
	digest, n, err := drawPack(pack, samples, info)
	if errors.Is(err, adapt.ErrFew) {
		return fleet.AdaptResult{Verdict: fleet.Waiting, Reason: err.Error()}, nil
	}
	if err != nil {
		return fleet.AdaptResult{}, err
	}
	d.log.Info("pack drawn", "samples", n, "sha256", digest)

	report, err := d.train(ctx, config, work, pack, standing, o)
	if err != nil {
		if few := adapt.ErrFew.Error(); len(err.Error()) >= len(few) && err.Error()[:len(few)] == few {
			return fleet.AdaptResult{Verdict: fleet.Waiting, Reason: err.Error()}, nil
		}
		return fleet.AdaptResult{}, err
	}
	verdict := adapt.Receipt{Event: adapt.EventVerdict, Model: report.Candidate, Reason: o.why, Report: report, Environment: environment()}
	if report.Verdict.Decision != adapt.Promote {
		d.record(verdict)
		word := fleet.Rejected
		if report.Verdict.Decision == adapt.Waiting {
			word = fleet.Waiting
		}
		return fleet.AdaptResult{Verdict: word, Reason: report.Verdict.Reason}, nil
	}
	if err := d.keepPack(config, pack, digest); err != nil {
		return fleet.AdaptResult{}, err
	}
	return d.candidate(ctx, config, filepath.Join(work, outDir, "model.safetensors"), verdict, standing)
}

// The work folder in the state folder; it is empty between runs.
const (
	workDir  = "work"
	packFile = "run.pack"
	outDir   = "candidate"
	packsDir = "packs" // of promoted models, for replay: <digest>.pack
)

// sweepWork empties what a run left that was killed with the daemon.
func (d *daemon) sweepWork() {
	config, _ := d.configs.get()
	if err := os.RemoveAll(filepath.Join(config.StateDir, workDir)); err != nil {
		d.log.Warn("left over from an adaptation", "error", err)
	}
}

// mayAdapt says why this device cannot adapt, or what a pack has to say.
func (d *daemon) mayAdapt(config *Config) (adapt.PackInfo, error) {
	refuse := func(format string, args ...any) (adapt.PackInfo, error) {
		return adapt.PackInfo{}, &fleet.Error{Code: fleet.Failed, Reason: fmt.Sprintf(format, args...)}
	}
	live := d.live.Load()
	switch {
	case live == nil:
		return refuse("no model is served yet")
	case d.samples() == nil:
		return refuse("no samples are kept: samples.megabytes is 0, or the store could not be opened")
	case live.net.Config.Classes < 2:
		return refuse("the model has no head: fit one with \"fovea head fit\"")
	case !live.net.Config.LayerScale:
		return refuse("the model's backbone was trained with labels, so it cannot part object and background: take a self-supervised one (DINOv2)")
	case d.models().Standing().Probation.State == store.ProbationRunning:
		return refuse("version %d is on probation: wait until it has passed or was taken back", live.version)
	}
	labelled, err := adapt.ReadLabelled(filepath.Join(config.Model.Dir, adapt.LabelledDir))
	if err != nil || !labelled.Divided() {
		return refuse("the model folder %s has no labelled pictures with a part kept apart, so no candidate could be judged: make it with \"fovea head fit\"", config.Model.Dir)
	}
	return adapt.PackInfo{Base: d.baseDigest(), Labelled: labelled.Digest()}, nil
}

// train runs the child and reads its report.
func (d *daemon) train(ctx context.Context, config *Config, work, pack string, standing store.Standing, o order) (*adapt.RunReport, error) {
	live := d.live.Load()
	settings, err := json.Marshal(config.Adapt.settings(uint64(standing.Numbers) + 1))
	if err != nil {
		return nil, err
	}
	settingsFile := filepath.Join(work, "settings.json")
	if err := os.WriteFile(settingsFile, settings, 0o600); err != nil {
		return nil, err
	}
	out := filepath.Join(work, outDir)
	stages := map[string][2]float64{"plates": {0, .05}, "tune": {.05, .5}, "refit": {.5, .75}, "figures": {.75, .95}, "half": {.95, 1}}
	t := trainer{
		program: d.cycle.child.program,
		arguments: []string{
			"adapt", "--pack", pack, "--base", config.Model.Dir, "--parent", d.models().File(standing.Active),
			"--settings", settingsFile, "--out", out, "--backend", live.backend.Kind, "--lines", "--maps",
		},
		environment: append(config.Model.plugins().Environment(), d.cycle.child.env...),
		memory:      int64(config.Adapt.MemoryMegabytes) << 20, limit: config.Adapt.Limit, silence: d.cycle.child.silence,
		busy: config.Adapt.Busy, hold: d.heat(config), log: d.log,
		paused: func(why string) {
			d.cycle.update(func(s *cycleState) {
				if s.Adapt.State, s.Adapt.PausedBy = fleet.AdaptRunning, why; why != "" {
					s.Adapt.State = fleet.AdaptPaused
				}
			})
		},
		progress: func(p adapt.Progress) {
			d.cycle.update(func(s *cycleState) { s.Stage = p })
			if span, known := stages[p.Stage]; known && p.Of > 0 {
				o.progress(span[0] + (span[1]-span[0])*float64(p.Done)/float64(p.Of))
			}
		},
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	o.progress(1)
	return readRunReport(filepath.Join(out, reportFile))
}

// heat returns why a run has to pause for the machine's temperature; it goes on 5 degrees below the limit.
func (d *daemon) heat(config *Config) func() string {
	var hot bool
	var asked time.Time
	return func() string {
		if limit := config.Adapt.MaxCelsius; limit > 0 && time.Since(asked) > time.Second {
			asked = time.Now()
			if celsius, known := hottestZone(); known {
				hot = celsius > limit || hot && celsius > limit-5
			}
		}
		if hot {
			return "heat"
		}
		return ""
	}
}

// environment is what the digest of a candidate depends on beside its report.
func environment() map[string]string {
	return map[string]string{
		"program": version(), "go": runtime.Version(), "machine": runtime.GOOS + "/" + runtime.GOARCH, "hardware": hardware(), "threads": fmt.Sprint(runtime.NumCPU()),
	}
}

// emit sends an event, where there is a broker.
func (d *daemon) emit(e fleet.Event) {
	if device := d.device.Load(); device != nil {
		if err := device.Emit(e); err != nil {
			d.log.Error("not published", "event", e.Type, "error", err)
		}
	}
}
