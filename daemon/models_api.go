package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

// modelsAPI tells the page and the verbs of the versions of this device's model, and how each came about.
type modelsAPI struct {
	state *store.State
	dir   string // state folder
}

// modelsList is the answer to GET /api/models.
type modelsList struct {
	Versions []modelVersion `json:"versions"` // by number
	Record   []modelEvent   `json:"record"`   // newest first, at most recordShown
}

// modelVersion is a kept model.
type modelVersion struct {
	Number     int64      `json:"number"`
	SHA256     string     `json:"sha256"` // of the weights file
	Digest     string     `json:"digest"` // of the checkpoint, as frames and reports name it
	Parent     *int64     `json:"parent,omitempty"`
	State      string     `json:"state"` // live, candidate, base, good; "" for another
	Created    time.Time  `json:"created"`
	Promoted   *time.Time `json:"promoted,omitempty"`
	Probation  string     `json:"probation,omitempty"` // running, passed, rolled_back
	RolledBack *time.Time `json:"rolled_back,omitempty"`
	Reason     string     `json:"reason,omitempty"` // of the roll-back
	Before     *float64   `json:"before,omitempty"` // labelled-swap accuracy of the parent, by the gate
	After      *float64   `json:"after,omitempty"`  // its own
	Bytes      int64      `json:"bytes"`
	Replay     bool       `json:"replay"` // its pack is kept
	Maps       []mapShown `json:"maps,omitempty"`
}

// modelDetails is the answer to GET /api/models/VERSION; the files are "" where they are gone.
type modelDetails struct {
	modelVersion
	Report        *adapt.RunReport  `json:"report,omitempty"` // nil: it was not adapted here
	Gate          []gateRow         `json:"gate,omitempty"`
	Environment   map[string]string `json:"environment,omitempty"` // of the run
	Weights       string            `json:"weights"`
	ParentWeights string            `json:"parent_weights,omitempty"`
	Pack          string            `json:"pack,omitempty"`
}

// modelEvent is an entry of the record for people.
type modelEvent struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Word    string    `json:"word"`              // promoted, approved, rejected, waiting, failed, passed, rolled back
	Version *int64    `json:"version,omitempty"` // the candidate; of a roll-back the one that went
	To      *int64    `json:"to,omitempty"`      // of a roll-back: what is live again
	Why     string    `json:"why,omitempty"`     // what led to it
	Said    string    `json:"said,omitempty"`    // by the gate
	Seconds float64   `json:"seconds,omitempty"` // of the run
	Gate    []gateRow `json:"gate,omitempty"`    // of the newest runs
}

// gateRow is one check of the gate with the figure that it is about.
type gateRow struct {
	Name      string   `json:"name"`
	OK        *bool    `json:"ok"` // null: too few pictures
	Parent    *float64 `json:"parent,omitempty"`
	Candidate *float64 `json:"candidate,omitempty"`
	Low       *float64 `json:"low,omitempty"` // of the difference, 95 of 100
	High      *float64 `json:"high,omitempty"`
	Bound     *float64 `json:"bound,omitempty"`
	Text      string   `json:"text"`
}

const (
	recordShown = 60
	runsShown   = 6 // with their figures
)

func (a *modelsAPI) readRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/models", func(w http.ResponseWriter, _ *http.Request) {
		list, err := a.list()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, list)
	})
	mux.HandleFunc("GET /api/models/{version}", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := a.find(r.PathValue("version"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		writeJSON(w, a.details(receipt))
	})
	mux.HandleFunc("GET /api/models/{version}/maps/{file}", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := a.find(r.PathValue("version"))
		n, bad := strconv.Atoi(strings.TrimSuffix(r.PathValue("file"), ".jpg"))
		if err != nil || bad != nil {
			http.NotFound(w, r)
			return
		}
		picture, err := os.ReadFile(filepath.Join(a.dir, mapsDir, receipt.SHA256, mapName(n)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "image/jpeg")
		w.Header().Set("Cache-Control", "no-store") // what is purged here must not stay there
		_, _ = w.Write(picture)
	})
}

// verifyRoutes are for who may connect to the socket: they read every weights file through.
func (a *modelsAPI) verifyRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/models/verify", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, a.verify(r.Context())) })
}

func (a *modelsAPI) list() (modelsList, error) {
	list := modelsList{Versions: []modelVersion{}}
	standing, numbers := a.state.Models.Standing(), numbering{}
	for _, r := range a.state.Models.List() {
		numbers[r.SHA256], numbers[r.Digest] = r, r
		list.Versions = append(list.Versions, a.version(r, standing))
	}
	verdicts, err := a.state.Verdicts(recordShown)
	if err != nil {
		return list, err
	}
	list.Record = recordOf(verdicts, numbers)
	return list, nil
}

func (a *modelsAPI) version(r store.Receipt, s store.Standing) modelVersion {
	v := modelVersion{
		Number: r.Number, SHA256: r.SHA256, Digest: r.Digest, State: standingOf(r, s), Created: r.Created, Promoted: r.Promoted,
		RolledBack: r.Rejected, Reason: r.Reason, Bytes: r.Bytes, Maps: readMaps(filepath.Join(a.dir, mapsDir, r.SHA256)),
	}
	if parent, err := a.state.Models.Get(r.Parent); err == nil {
		v.Parent = &parent.Number
	}
	switch {
	case s.Probation.Model == r.SHA256 && s.Probation.State == store.ProbationRunning:
		v.Probation = store.ProbationRunning
	case r.Rejected != nil:
		v.Probation = store.ProbationRolledBack
	case r.Passed != nil:
		v.Probation = store.ProbationPassed
	}
	if report := reportOf(r); report != nil {
		v.Replay = a.pack(report) != ""
		if f := report.Figures; f != nil {
			v.Before, v.After = f.LabelledSwap.Parent, f.LabelledSwap.Candidate
		}
	}
	return v
}

// standingOf is what a model counts as, the first that holds.
func standingOf(r store.Receipt, s store.Standing) string {
	switch r.SHA256 {
	case s.Active:
		return "live"
	case s.Candidate:
		return "candidate"
	case s.Base:
		return "base"
	}
	for _, good := range s.Good {
		if good == r.SHA256 {
			return "good"
		}
	}
	return ""
}

func reportOf(r store.Receipt) *adapt.RunReport {
	var details versionDetails
	if r.Details == nil || json.Unmarshal(r.Details, &details) != nil {
		return nil
	}
	return details.Report
}

// pack is the file of the pack that a run learned from; "" where it is gone.
func (a *modelsAPI) pack(report *adapt.RunReport) string {
	file := filepath.Join(a.dir, packsDir, report.Pack+".pack")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

func (a *modelsAPI) details(r store.Receipt) modelDetails {
	models := a.state.Models
	d := modelDetails{modelVersion: a.version(r, models.Standing()), Report: reportOf(r), Weights: models.File(r.SHA256)}
	if _, err := models.Get(r.Parent); err == nil {
		d.ParentWeights = models.File(r.Parent)
	}
	if d.Report == nil {
		return d
	}
	d.Gate, d.Pack = gateRows(d.Report), a.pack(d.Report)
	verdicts, _ := a.state.Verdicts(-1) // what cannot be read, verify tells
	for _, v := range verdicts {
		if !bytes.Contains(v.Body, []byte(r.Digest)) {
			continue
		}
		if one, err := adapt.DecodeReceipt(v.Body); err == nil && one.Event == adapt.EventVerdict && one.Model == r.Digest {
			d.Environment = one.Environment
			break
		}
	}
	return d
}

// find takes a number, or the beginning of the digest of weights or checkpoint.
func (a *modelsAPI) find(name string) (found store.Receipt, err error) {
	matches := 0
	number, bad := strconv.ParseInt(name, 10, 64)
	for _, r := range a.state.Models.List() {
		if bad == nil && r.Number == number {
			return r, nil
		}
		if len(name) >= 6 && (strings.HasPrefix(r.SHA256, name) || strings.HasPrefix(r.Digest, name)) {
			found = r
			matches++
		}
	}
	switch matches {
	case 1:
		return found, nil
	case 0:
		return found, fmt.Errorf("no version %s is kept: \"fovea models list\" shows those that are", name)
	}
	return found, fmt.Errorf("%d versions begin with %s: give more of the digest, or the number", matches, name)
}

// verified is what models verify found.
type verified struct {
	Verdicts int      `json:"verdicts"` // in the chain
	Versions int      `json:"versions"`
	Broken   []string `json:"broken"`
}

// verify walks the chain of verdicts and reads every weights file through.
func (a *modelsAPI) verify(ctx context.Context) verified {
	v := verified{Broken: []string{}}
	list, err := a.state.Verdicts(-1)
	if v.Verdicts = len(list); err == nil {
		err = a.state.VerifyVerdicts()
	}
	if err != nil {
		v.Broken = append(v.Broken, "record: "+err.Error())
	}
	for _, r := range a.state.Models.List() {
		if ctx.Err() != nil {
			break
		}
		v.Versions++
		if err := a.state.Models.Verify(r.SHA256); err != nil {
			v.Broken = append(v.Broken, fmt.Sprintf("version %d: %v", r.Number, err))
		} else if report := reportOf(r); report != nil && report.Candidate != r.Digest {
			v.Broken = append(v.Broken, fmt.Sprintf("version %d: its receipt names checkpoint %.12s, its report %.12s", r.Number, r.Digest, report.Candidate))
		}
	}
	return v
}

// numbering finds a version by the digest of its weights or checkpoint.
type numbering map[string]store.Receipt

func (n numbering) of(digest string) *int64 {
	if r, known := n[digest]; known && digest != "" {
		return &r.Number
	}
	return nil
}

// recordOf puts verdicts, newest first, into words.
func recordOf(verdicts []store.Verdict, numbers numbering) []modelEvent {
	events, approved, runs := []modelEvent{}, map[string]bool{}, 0
	for _, v := range verdicts {
		e := modelEvent{Seq: v.Seq, Time: v.Time}
		var back struct {
			From   string `json:"rolled_back"`
			To     string `json:"to"`
			Reason string `json:"reason"`
		}
		if json.Unmarshal(v.Body, &back) == nil && back.From != "" {
			e.Word, e.Version, e.To, e.Why = "rolled back", numbers.of(back.From), numbers.of(back.To), back.Reason
			events = append(events, e)
			continue
		}
		r, err := adapt.DecodeReceipt(v.Body)
		if err != nil {
			e.Word, e.Why = "unreadable", err.Error()
			events = append(events, e)
			continue
		}
		e.Version, e.Why = numbers.of(r.Model), r.Reason
		switch r.Event {
		case adapt.EventFailure:
			e.Word = "failed"
		case adapt.EventPromotion:
			e.Word, approved[r.Model] = "approved", true
		case adapt.EventPassed:
			e.Word = "passed"
		case adapt.EventVerdict:
			e.Word = verdictWord(r, approved, numbers)
		default:
			e.Word = string(r.Event)
		}
		if r.Event == adapt.EventVerdict && r.Report != nil {
			e.Said, e.Seconds = r.Report.Verdict.Reason, r.Report.Seconds
			if runs++; runs <= runsShown {
				e.Gate = gateRows(r.Report)
			}
		}
		events = append(events, e)
	}
	return events
}

// verdictWord says what became of a candidate: one that the gate let pass waits where a person approved it later, or
// nobody has yet.
func verdictWord(r *adapt.Receipt, approved map[string]bool, numbers numbering) string {
	if r.Report == nil {
		return string(fleet.Rejected)
	}
	switch r.Report.Verdict.Decision {
	case adapt.Reject:
		return string(fleet.Rejected)
	case adapt.Waiting:
		return string(fleet.Waiting)
	}
	if version, known := numbers[r.Model]; approved[r.Model] || known && version.Promoted == nil {
		return string(fleet.Waiting)
	}
	return string(fleet.Promoted)
}

// gateRows are the checks of a verdict, each with its figure where it is about one.
func gateRows(r *adapt.RunReport) []gateRow {
	figures := map[string]adapt.Paired{}
	if f := r.Figures; f != nil {
		figures = map[string]adapt.Paired{
			"gain": f.LabelledSwap, "follow": f.Follow, "labelled": f.Labelled, "background": f.Background, "auroc": f.AUROC,
			"drop": f.Drop, "spread": f.Effective, "crowding": f.Crowding, "agreement_base": f.AgreementBase, "margin": f.Margin,
			"agreement_parent": {Candidate: f.AgreementParent}, "latency": {Parent: &f.Latency.Parent, Candidate: &f.Latency.Candidate},
		}
	}
	rows := []gateRow{}
	for _, c := range r.Verdict.Checks {
		f := figures[c.Name]
		rows = append(rows, gateRow{
			Name: c.Name, OK: c.OK, Parent: f.Parent, Candidate: f.Candidate, Low: f.Low, High: f.High, Bound: c.Bound, Text: c.Text,
		})
	}
	return rows
}
