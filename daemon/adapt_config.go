package main

import (
	"time"

	"github.com/robfig/cron/v3"

	"github.com/seed-a98b2d25/fovea/adapt"
)

// AdaptConfig says when and how the model of this device is adapted to what its cameras see. Nothing goes live that
// the gate has not judged better.
type AdaptConfig struct {
	// Whether it is started by itself: by the schedule, by enough new samples, by falling relevance. The switch on a
	// dashboard overrules it. Commands work either way.
	Auto bool `yaml:"auto,omitempty"`

	// auto: a candidate that the gate promotes goes live. manual: it waits for the command promote.
	Approval string `yaml:"approval,omitempty" jsonschema:"enum=auto,enum=manual"`

	// What is changed. head: the head alone, in about a minute; backbone: the last blocks; both.
	Recipe string `yaml:"recipe,omitempty" jsonschema:"enum=head,enum=backbone,enum=both"`

	// When it may start by itself, as cron has it: minute hour day month weekday, in the time zone of this machine.
	// A prefix CRON_TZ=Europe/Berlin names another one. Empty: at any time.
	Schedule string `yaml:"schedule,omitempty"`

	// So many new samples with a mask since the last run start one.
	NewSamples int `yaml:"new_samples,omitempty" jsonschema:"minimum=1,maximum=1000000"`

	// A mean share of relevance on the object below this starts one too. 0: never.
	Foreground float64 `yaml:"foreground,omitempty" jsonschema:"minimum=0,maximum=1"`

	// Least time between two runs that nobody asked for.
	Cooldown time.Duration `yaml:"cooldown,omitempty"`

	// Most runs in 24 hours that nobody asked for.
	Daily int `yaml:"daily,omitempty" jsonschema:"minimum=1,maximum=1000"`

	// A run pauses while the hottest part of this machine is above it, degrees Celsius. 0: never.
	MaxCelsius float64 `yaml:"max_celsius,omitempty" jsonschema:"minimum=0,maximum=150"`

	// Most memory of the run's process; it is ended above. 0: no limit.
	MemoryMegabytes int `yaml:"memory_megabytes,omitempty" jsonschema:"minimum=0,maximum=1000000"`

	// Longest time of a run.
	Limit time.Duration `yaml:"limit,omitempty"`

	// Share of the time that a run may compute, above 0 to 1. It has the lowest priority in any case.
	Busy float64 `yaml:"busy,omitempty" jsonschema:"minimum=0.05,maximum=1"`

	// Most megabytes of weights that are kept. Base, live and last good model stay in any case.
	KeepMegabytes int `yaml:"keep_megabytes,omitempty" jsonschema:"minimum=1,maximum=1000000"`

	Probation ProbationConfig  `yaml:"probation,omitempty"`
	Gate      adapt.Thresholds `yaml:"gate,omitempty"`
}

func defaultAdapt() AdaptConfig {
	return AdaptConfig{
		Auto: true, Approval: "auto", Recipe: string(adapt.RecipeHead), NewSamples: 60,
		Cooldown: 6 * time.Hour, Daily: 2, MaxCelsius: 85, MemoryMegabytes: 3000, Limit: 2 * time.Hour, Busy: 1, KeepMegabytes: 1000,
		Probation: defaultProbation(), Gate: adapt.DefaultThresholds,
	}
}

func (c AdaptConfig) check(fault func(field, format string, args ...any)) {
	oneOf := func(field, value string, words ...string) {
		for _, w := range words {
			if value == w {
				return
			}
		}
		fault(field, "%q, want one of %q", value, words)
	}
	oneOf("adapt.approval", c.Approval, "auto", "manual")
	oneOf("adapt.recipe", c.Recipe, "head", "backbone", "both")
	if c.Schedule != "" {
		if _, err := cron.ParseStandard(c.Schedule); err != nil {
			fault("adapt.schedule", "%v; five fields are wanted: minute hour day month weekday, such as 0 3 * * *", err)
		}
	}
	if c.Cooldown < 0 {
		fault("adapt.cooldown", "%v, want 0 or more", c.Cooldown)
	}
	if c.Limit < time.Second {
		fault("adapt.limit", "%v, want a second or more", c.Limit)
	}
	if !(c.Busy > 0 && c.Busy <= 1) {
		fault("adapt.busy", "%g, want above 0 to 1", c.Busy)
	}
	for _, n := range []struct {
		field string
		value float64
		least float64
	}{
		{"new_samples", float64(c.NewSamples), 1},
		{"daily", float64(c.Daily), 1},
		{"keep_megabytes", float64(c.KeepMegabytes), 1},
		{"memory_megabytes", float64(c.MemoryMegabytes), 0},
		{"max_celsius", c.MaxCelsius, 0},
		{"foreground", c.Foreground, 0},
		{"probation.every", float64(c.Probation.Every), 1},
		{"probation.frames", float64(c.Probation.Frames), 20},
		{"probation.disagreement", c.Probation.Disagreement, 0},
		{"probation.confidence", c.Probation.Confidence, 0},
		{"probation.latency", c.Probation.Latency, 1},
	} {
		if !(n.value >= n.least) {
			fault("adapt."+n.field, "%g, want %g or more", n.value, n.least)
		}
	}
	if err := c.Gate.Validate(); err != nil {
		fault("adapt.gate", "%v", err)
	}
}

// settings are those of a run.
func (c AdaptConfig) settings(seed uint64) adapt.RunSettings {
	s := adapt.DefaultRun.Seeded(seed)
	s.Recipe, s.Gate = adapt.Recipe(c.Recipe), c.Gate
	return s
}
