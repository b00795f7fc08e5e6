package main

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

const (
	triggerEvery   = 5 * time.Second
	foregroundLeft = 30 // frames with a mask before their mean counts
)

// runs is what outlives a restart of how often and when this device adapted; times are only compared while the
// clock is trusted.
type runs struct {
	Times []time.Time `json:"times"` // of the last 24 hours, oldest first
	Seq   uint64      `json:"seq"`   // the newest sample at the last run
}

const (
	runsSetting = "runs"
	autoSetting = "auto"
)

func (d *daemon) pastRuns() (r runs) {
	if _, err := d.store.State.Setting(runsSetting, &r); err != nil {
		d.log.Error("earlier adaptations are not known", "error", err)
	}
	return r
}

// noteRun remembers that a run ended.
func (d *daemon) noteRun(now time.Time) {
	r := d.pastRuns().with(now)
	if samples := d.samples(); samples != nil {
		r.Seq = newestSample(samples)
	}
	if err := d.store.State.SetSetting(runsSetting, r); err != nil {
		d.log.Error("a run is not remembered", "error", err)
	}
}

func newestSample(samples *store.Samples) (seq uint64) {
	for _, m := range samples.List(nil) {
		seq = max(seq, m.Seq)
	}
	return seq
}

// freshSamples counts the samples with a mask that no run has seen.
func (d *daemon) freshSamples() int {
	samples := d.samples()
	if samples == nil {
		return 0
	}
	last := d.pastRuns().Seq
	return len(samples.List(func(m *store.Meta) bool { return m.Seq > last && m.Mask != nil && m.Mask.Accepted }))
}

// autoState is the switch, once somebody has touched it.
type autoState struct {
	On     bool             `json:"on"`
	Source fleet.AutoSource `json:"source"`
}

// auto is what the switch says, or the configuration where nobody has touched it.
func (d *daemon) auto() autoState {
	config, _ := d.configs.get()
	if d.store != nil {
		var touched autoState
		if found, err := d.store.State.Setting(autoSetting, &touched); err == nil && found {
			return touched
		}
	}
	return autoState{config.Adapt.Auto, fleet.AutoSource{Source: fleet.SourceConfig, TS: d.started}}
}

// setAuto turns the switch; it outlives a restart.
func (d *daemon) setAuto(on bool, source string) error {
	if d.store == nil {
		return errNoStore
	}
	s := autoState{on, fleet.AutoSource{Source: source, TS: time.Now()}}
	if err := d.store.State.SetSetting(autoSetting, s); err != nil {
		return err
	}
	if device := d.device.Load(); device != nil {
		return device.SetAuto(s.On, s.Source)
	}
	return nil
}

// adaptStatus is how the cycle stands.
func (d *daemon) adaptStatus() fleet.Adapt {
	a := d.cycle.state.Load().Adapt
	if models := d.models(); models != nil && a.State == fleet.AdaptIdle && models.Standing().Candidate != "" {
		a.State = fleet.AdaptWaiting
	}
	return a
}

// triggered says why a run is due, or "".
func (d *daemon) triggered(now time.Time) string {
	config, _ := d.configs.get()
	on := d.auto().On
	due, scheduled := d.nextDue(config, now)
	d.cycle.update(func(s *cycleState) {
		s.Adapt.NextDue = nil
		if on && scheduled && !due.IsZero() {
			s.Adapt.NextDue = &due
		}
	})
	if !on || d.live.Load() == nil || d.samples() == nil || d.models().Standing().Candidate != "" {
		return ""
	}
	if d.models().Standing().Probation.State == store.ProbationRunning {
		return ""
	}
	synced := timeSynced()
	if d.pastRuns().rest(config.Adapt, now, synced, time.Since(d.started)) || scheduled && (!synced || now.Before(due)) {
		return ""
	}
	why := ""
	if fresh := d.freshSamples(); fresh >= config.Adapt.NewSamples {
		why = fmt.Sprintf("%d new samples", fresh)
	} else if mean := d.keeper.foreground.Load(); config.Adapt.Foreground > 0 && mean != nil && mean.frames >= foregroundLeft && mean.share < config.Adapt.Foreground {
		why = fmt.Sprintf("relevance on the object fell to %.2f", mean.share)
	}
	if why == "" {
		return ""
	}
	if _, err := d.mayAdapt(config); err != nil {
		d.cycle.update(func(s *cycleState) { s.Adapt.LastReason = err.Error() })
		return ""
	}
	return why
}

// rest says whether a run that nobody asked for would come too soon, in a process that is up so long.
func (r runs) rest(c AdaptConfig, now time.Time, synced bool, up time.Duration) bool {
	if !synced { // the clock says nothing: the cool-down counts from the start
		return up < c.Cooldown && len(r.Times) > 0
	}
	recent := 0
	for _, t := range r.Times {
		if age := now.Sub(t); age >= 0 && age < 24*time.Hour {
			recent++
		}
	}
	if n := len(r.Times); n > 0 {
		if age := now.Sub(r.Times[n-1]); age >= 0 && age < c.Cooldown {
			return true
		}
	}
	return recent >= c.Daily
}

// after is the time from which on the schedule is looked up: the last run, or the start as today's clock has it where
// there was none, or one that this clock has not come to yet.
func (r runs) after(now time.Time, up time.Duration) time.Time {
	if n := len(r.Times); n > 0 && r.Times[n-1].Before(now) {
		return r.Times[n-1]
	}
	return now.Add(-up)
}

// with is what is remembered once a run has ended.
func (r runs) with(now time.Time) runs {
	var times []time.Time
	for _, t := range append(r.Times, now) {
		if now.Sub(t) < 24*time.Hour {
			times = append(times, t)
		}
	}
	return runs{Times: times, Seq: r.Seq}
}

// nextDue is the first time after the last run that the schedule names; without a schedule any time is right.
func (d *daemon) nextDue(config *Config, now time.Time) (due time.Time, scheduled bool) {
	if config.Adapt.Schedule == "" {
		return time.Time{}, false
	}
	schedule, err := cron.ParseStandard(config.Adapt.Schedule)
	if err != nil { // it was checked
		return time.Time{}, false
	}
	return schedule.Next(d.pastRuns().after(now, time.Since(d.started))), true
}
