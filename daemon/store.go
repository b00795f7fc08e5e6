package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

// checkLimit is how long the check of a database may take, which damage can lead in circles: a minute, and a second for
// each 10 MB. Here 300 MB take a second.
func checkLimit(file string) time.Duration {
	limit := time.Minute
	if info, err := os.Stat(file); err == nil {
		limit += time.Duration(info.Size()/10e6) * time.Second
	}
	return limit
}

// openStore opens the state folder. Only a locked one is an error: the service manager tries again. Without a
// store inference goes on, and the status says what is wrong.
func (d *daemon) openStore(ctx context.Context) error {
	config, _ := d.configs.get()
	var checks time.Duration
	for _, name := range storeFiles {
		file := filepath.Join(config.StateDir, name)
		os.Remove(file + checking) // of a check that was killed
		checks += checkLimit(file)
	}
	d.notifier.extendStart(checks)
	s, err := store.Open(ctx, config.StateDir, config.Samples.options(d))
	switch {
	case errors.Is(err, store.ErrLocked):
		return err
	case err != nil:
		d.log.Error("no store", "error", err)
		d.problems.set("store", err.Error()+"; nothing is kept until the daemon is started again")
		return nil
	}
	d.store = s
	d.problems.set("store", strings.Join(s.Alarms, "; "))
	return nil
}

func (d *daemon) closeStore() {
	if d.store == nil {
		return
	}
	if err := d.store.Close(); err != nil {
		d.log.Error("store not closed", "error", err)
	}
}

// samples is nil where there is no store of them, or none are to be kept.
func (d *daemon) samples() *store.Samples {
	if config, _ := d.configs.get(); d.store == nil || config.Samples.Megabytes == 0 {
		return nil
	}
	return d.store.Samples
}

// memory is what outlives the process of the connection to the broker, where there is a store.
func (d *daemon) memory() (fleet.Queue, fleet.CommandLog) {
	if d.store == nil {
		return fleet.NewQueue(fleet.QueueLimit), fleet.NewCommandLog()
	}
	return d.store.State.Queue, d.store.State.Commands
}

func (c SamplesConfig) options(d *daemon) store.Options {
	return store.Options{
		Samples: store.Limits{Bytes: int64(c.Megabytes) * 1e6, MaxAge: time.Duration(c.MaxAgeDays) * 24 * time.Hour},
		Check:   checkInChild, Log: d.log,
	}
}

// checked is what the child says of a file.
type checked struct {
	File    string `json:"file"`
	Verdict string `json:"verdict"` // sound, damaged, newer, unknown
	Problem string `json:"problem,omitempty"`
}

// verdictOf puts a check into words.
func verdictOf(file string, err error) checked {
	c := checked{File: file, Verdict: "sound"}
	if err != nil {
		c.Verdict, c.Problem = "unknown", err.Error()
	}
	switch {
	case errors.Is(err, store.ErrTooNew):
		c.Verdict = "newer"
	case errors.Is(err, store.ErrDamaged):
		c.Verdict = "damaged"
	}
	return c
}

// checkInChild examines a database in a process of its own: damage can kill the one that reads it.
func checkInChild(ctx context.Context, file string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, checkLimit(file))
	defer cancel()
	child := exec.CommandContext(limited, program, "db", "check", "--json", file)
	child.WaitDelay = time.Second
	var said bytes.Buffer
	child.Stdout = &said
	ended := child.Run()
	if child.ProcessState == nil { // it did not begin
		return fmt.Errorf("check %s: %w", file, ended)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var c checked
	if err := json.Unmarshal(said.Bytes(), &c); err != nil {
		return fmt.Errorf("%w: reading it ended the process that did: %v", store.ErrDamaged, ended)
	}
	switch c.Verdict {
	case "sound":
		return nil
	case "damaged":
		return fmt.Errorf("%w: %s", store.ErrDamaged, c.Problem)
	case "newer":
		return fmt.Errorf("%w: %s", store.ErrTooNew, c.Problem)
	}
	return errors.New(c.Problem)
}

// lookAtStore puts what is kept into a health record.
func (d *daemon) lookAtStore(h *fleet.Health, config *Config, now time.Time) {
	h.Storage.FreeBytes = freeBytes(config.StateDir)
	samples := d.samples()
	if samples == nil {
		return
	}
	s := samples.Summary()
	h.Storage.BytesUsed, h.Storage.BytesLimit, h.Storage.Samples = s.FileBytes, s.Limit, int64(s.Samples)
	if !s.Oldest.IsZero() {
		h.Storage.OldestSampleAgeSeconds = fleet.Known(max(0, now.Sub(s.Oldest).Seconds()))
	}
	h.Adapt.SamplesReady = d.keeper.ready.Load()
}
