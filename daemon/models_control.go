package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

// adaptation is the answer to GET /api/adapt: how the cycle stands. It is cheap; the page asks every second, and for
// the rest when Record or Version has changed.
type adaptation struct {
	fleet.Adapt
	Stage      adapt.Progress `json:"stage"` // of the run
	Auto       autoState      `json:"auto"`
	Fresh      int            `json:"fresh"`       // samples with a mask that no run has seen
	NewSamples int            `json:"new_samples"` // that make a run due
	Approval   string         `json:"approval"`
	Version    int64          `json:"version"` // live
	Candidate  *int64         `json:"candidate,omitempty"`
	Probation  bool           `json:"probation"` // of the live version runs
	Record     uint64         `json:"record"`    // number of its newest entry
}

func (d *daemon) adaptation() adaptation {
	config, _ := d.configs.get()
	state := d.cycle.state.Load()
	a := adaptation{Adapt: d.adaptStatus(), Stage: state.Stage, Auto: d.auto(), NewSamples: config.Adapt.NewSamples, Approval: config.Adapt.Approval}
	a.SamplesReady = d.keeper.ready.Load()
	if live := d.live.Load(); live != nil {
		a.Version = live.version
	}
	if d.store == nil {
		return a
	}
	a.Fresh = d.freshSamples()
	standing := d.models().Standing()
	a.Probation = standing.Probation.State == store.ProbationRunning
	if candidate, err := d.models().Get(standing.Candidate); err == nil {
		a.Candidate = &candidate.Number
	}
	if newest, err := d.store.State.Verdicts(1); err == nil && len(newest) > 0 {
		a.Record = newest[0].Seq
	}
	return a
}

// modelRoutes are of the page and of the socket; by names which, in the record.
func (d *daemon) modelRoutes(mux *http.ServeMux, by string) {
	mux.HandleFunc("GET /api/adapt", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, d.adaptation()) })
	mux.HandleFunc("POST /api/adapt", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Force bool `json:"force"`
			Wait  bool `json:"wait"`
		}
		if bodyOf(w, r, &body) {
			d.command(w, r, order{verb: fleet.VerbAdapt, why: by, force: body.Force}, body.Wait)
		}
	})
	for path, verb := range map[string]fleet.Verb{"POST /api/promote": fleet.VerbPromote, "POST /api/rollback": fleet.VerbRollback} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			var body struct {
				Version *int64 `json:"version"`
			}
			if bodyOf(w, r, &body) {
				d.command(w, r, order{verb: verb, why: by, version: body.Version}, true)
			}
		})
	}
	mux.HandleFunc("POST /api/cancel", func(w http.ResponseWriter, _ *http.Request) {
		if !d.cycle.stop() {
			http.Error(w, "no adaptation runs", http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /api/auto", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			On *bool `json:"on"`
		}
		if !bodyOf(w, r, &body) {
			return
		}
		if body.On == nil {
			http.Error(w, `send {"on": true} or {"on": false}`, http.StatusUnprocessableEntity)
			return
		}
		if err := d.setAuto(*body.On, fleet.SourceLocal); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// bodyOf reads a request in JSON; an empty one is {}.
func bodyOf(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		http.Error(w, "the request is not what this takes: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// startWait is how long an answer waits for a refusal of what then goes on by itself; longer than cycle.do does.
const startWait = 3 * time.Second

// command gives the cycle an order. What was begun goes on when the asker leaves; POST /api/cancel ends it.
func (d *daemon) command(w http.ResponseWriter, r *http.Request, o order, wait bool) {
	done := make(chan outcome, 1)
	go func() {
		result, err := d.cycle.do(context.WithoutCancel(r.Context()), o)
		done <- outcome{result, err}
	}()
	var begun <-chan time.Time
	if !wait {
		begun = time.After(startWait)
	}
	select {
	case out := <-done:
		answerOutcome(w, out)
	case <-begun:
		w.WriteHeader(http.StatusAccepted)
	case <-r.Context().Done():
	}
}

func answerOutcome(w http.ResponseWriter, out outcome) {
	var told *fleet.Error
	switch {
	case out.err == nil:
		writeJSON(w, out.result)
	case errors.As(out.err, &told) && told.Code == fleet.Invalid:
		http.Error(w, told.Reason, http.StatusUnprocessableEntity)
	case errors.As(out.err, &told):
		http.Error(w, told.Reason, http.StatusConflict)
	case errors.Is(out.err, errNoStore):
		http.Error(w, out.err.Error(), http.StatusServiceUnavailable)
	default:
		http.Error(w, out.err.Error(), http.StatusInternalServerError)
	}
}
