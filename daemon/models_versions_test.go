package main

import (
	"encoding/json"
	"image/jpeg"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

// versions are what the verb says.
func (p *program) versions() (list modelsList) {
	p.t.Helper()
	text := runVerbLine(p.t, 0, "models", "list", "--json", "-c", p.file)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		p.t.Fatalf("%v\n%s", err, text)
	}
	return list
}

// says runs a verb about models and looks for a text in what it prints.
func (p *program) says(want int, text string, args ...string) string {
	p.t.Helper()
	said := runVerbLine(p.t, want, append(append([]string{"models"}, args...), "-c", p.file)...)
	if !strings.Contains(said, text) {
		p.t.Errorf("models %q does not say %q:\n%s", args, text, said)
	}
	return said
}

// From the first order to the way back, by the verbs of an operator on the device.
func TestVersionsByVerb(t *testing.T) {
	p := cycling(t, quiet)
	p.says(exitFailure, "no adaptation runs", "cancel")
	p.says(exitFailure, "no candidate waits", "promote")
	p.says(exitFailure, "not made by an adaptation", "replay", "0")
	p.says(0, "version 1 promoted: ", "adapt", "--force")
	p.wait("version 1", func() bool { return p.live.Load().version == 1 })

	list := p.versions()
	if len(list.Versions) != 2 || list.Versions[0].State != "base" {
		t.Fatalf("%+v", list.Versions)
	}
	one := list.Versions[1]
	if one.State != "live" || one.Parent == nil || *one.Parent != 0 || one.Before == nil || one.After == nil || *one.After <= *one.Before || !one.Replay || one.Promoted == nil {
		t.Errorf("version 1: %+v", one)
	}
	newest := list.Record[len(list.Record)-1] // its probation may have passed meanwhile
	if newest.Word != "promoted" || newest.Version == nil || *newest.Version != 1 || newest.Why != "the command line" || len(newest.Gate) < 12 {
		t.Errorf("record: %+v", newest)
	}
	p.says(0, "version 1", "list")
	for _, name := range []string{"1", one.SHA256[:12], one.Digest} {
		p.says(0, "promote: ", "show", name)
	}
	if text := p.says(0, "gain", "show", "1"); strings.Count(text, " kept ") < 12 {
		t.Errorf("checks:\n%s", text)
	}
	p.says(exitFailure, "no version 7 is kept", "show", "7")
	p.says(0, "2 versions, 0 broken", "verify")
	p.says(0, "version 1: same digest", "replay", "1")

	p.pageShowsMaps(one)
	p.pageTakesOrders()

	p.says(0, "version 0", "rollback")
	p.wait("version 0", func() bool { return p.live.Load().version == 0 })
	if back := p.versions(); back.Record[0].Word != "rolled back" || *back.Record[0].Version != 1 || *back.Record[0].To != 0 || back.Versions[1].Probation != store.ProbationRolledBack {
		t.Errorf("after the way back: %+v, %+v", back.Record[0], back.Versions[1])
	}

	runVerbLine(t, 0, "samples", "purge", "--yes", "-c", p.file)
	for _, name := range []string{packsDir, mapsDir} {
		if _, err := os.Stat(filepath.Join(p.dir, "state", name)); !os.IsNotExist(err) {
			t.Errorf("after a purge %s: %v", name, err)
		}
	}
	p.says(exitFailure, "no longer kept", "replay", "1")

	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	p.says(0, "2 versions, 0 broken", "verify") // from the files
	p.says(exitFailure, "no daemon", "rollback")
	weights := filepath.Join(p.dir, "state", "models", one.SHA256+".safetensors")
	data, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(weights, data, 0o600); err != nil {
		t.Fatal(err)
	}
	p.says(exitFailure, "version 1: ", "verify")
}

// pageShowsMaps looks at the maps of a version as the page does.
func (p *program) pageShowsMaps(one modelVersion) {
	p.t.Helper()
	if len(one.Maps) != mapsShown {
		p.t.Fatalf("%d maps", len(one.Maps))
	}
	for i, m := range one.Maps {
		code, body := p.get("/api/models/" + one.SHA256 + "/maps/" + mapName(i))
		picture, err := jpeg.Decode(strings.NewReader(body))
		if code != http.StatusOK || err != nil || picture.Bounds().Dx() != 2*tileSide+mapGap {
			p.t.Fatalf("map %d: %d, %v", i, code, err)
		}
		if m.Explained == "" || m.Camera == "" || m.Parent.OnObject == nil || m.Candidate.OnObject == nil || m.Candidate.Score <= 0 {
			p.t.Errorf("map %d: %+v", i, m)
		}
	}
	for _, path := range []string{"/maps/4.jpg", "/maps/../../../token", "/maps/maps.json"} {
		if code, _ := p.get("/api/models/1" + path); code != http.StatusNotFound {
			p.t.Errorf("%s: %d", path, code)
		}
	}
}

// pageTakesOrders gives orders over the page, with and without the token.
func (p *program) pageTakesOrders() {
	p.t.Helper()
	post := func(path, body, token string) int {
		p.t.Helper()
		r, err := http.NewRequest(http.MethodPost, p.page()+path, strings.NewReader(body))
		if err != nil {
			p.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			p.t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	for _, path := range []string{"/api/adapt", "/api/cancel", "/api/promote", "/api/rollback", "/api/auto"} {
		if code := post(path, `{}`, "wrong"); code != http.StatusUnauthorized {
			p.t.Errorf("%s without the token: %d", path, code)
		}
	}
	for _, r := range []struct {
		path, body string
		want       int
	}{
		{"/api/cancel", ``, http.StatusConflict},
		{"/api/promote", `{"version": 1}`, http.StatusConflict},
		{"/api/auto", `{}`, http.StatusUnprocessableEntity},
		{"/api/auto", `{"of": true}`, http.StatusBadRequest},
		{"/api/auto", `{"on": true}`, http.StatusNoContent},
		{"/api/auto", `{"on": false}`, http.StatusNoContent},
	} {
		if code := post(r.path, r.body, p.token); code != r.want {
			p.t.Errorf("%s %s: %d, want %d", r.path, r.body, code, r.want)
		}
	}
	var now adaptation
	_, body := p.get("/api/adapt")
	if err := json.Unmarshal([]byte(body), &now); err != nil {
		p.t.Fatal(err)
	}
	if now.Auto.On || now.Auto.Source.Source != fleet.SourceLocal || now.Version != 1 || now.Record == 0 || now.State != fleet.AdaptIdle {
		p.t.Errorf("%+v", now)
	}
}

// The record says what became of a candidate, also where a person had the last word.
func TestRecordInWords(t *testing.T) {
	promoted := time.Now()
	numbers := numbering{"a": {Number: 1, Promoted: &promoted}, "b": {Number: 2, Promoted: &promoted}, "c": {Number: 3}}
	verdict := func(model string, d adapt.Decision) adapt.Receipt {
		return adapt.Receipt{Event: adapt.EventVerdict, Model: model, Report: &adapt.RunReport{Verdict: adapt.Verdict{Decision: d}}}
	}
	var bodies []json.RawMessage // newest first
	for _, r := range []adapt.Receipt{
		verdict("c", adapt.Promote),
		{Event: adapt.EventPassed, Model: "b"},
		{Event: adapt.EventPromotion, Model: "b"},
		verdict("b", adapt.Promote),
		verdict("x", adapt.Reject), verdict("x", adapt.Waiting),
		{Event: adapt.EventFailure, Reason: "cancelled"},
		verdict("a", adapt.Promote),
	} {
		text, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, text)
	}
	bodies = append(bodies, json.RawMessage(`{"rolled_back":"b","to":"a","reason":"it collapsed"}`), json.RawMessage(`{"version":1,"min_reader":9}`))
	var verdicts []store.Verdict
	for _, b := range bodies {
		verdicts = append(verdicts, store.Verdict{Body: b})
	}
	want := "waiting passed approved waiting rejected waiting failed promoted rolled back unreadable"
	var words []string
	for _, e := range recordOf(verdicts, numbers) {
		words = append(words, e.Word)
	}
	if got := strings.Join(words, " "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestSameRun(t *testing.T) {
	run := func(candidate string, swap float64, d adapt.Decision) *adapt.RunReport {
		return &adapt.RunReport{
			Candidate: candidate, Figures: &adapt.Comparison{LabelledSwap: adapt.Paired{Candidate: &swap}},
			Verdict: adapt.Verdict{Decision: d, Checks: []adapt.Check{{Name: "gain"}}},
		}
	}
	here, there := map[string]string{"threads": "2"}, map[string]string{"threads": "4"}
	for _, c := range []struct {
		name  string
		after *adapt.RunReport
		is    map[string]string
		want  string
	}{
		{"the same", run("a", .8, adapt.Promote), here, "same digest"},
		{"another checkpoint on the same machine", run("b", .8, adapt.Promote), here, "differs"},
		{"another machine, close", run("b", .81, adapt.Promote), there, "equivalent"},
		{"another machine, far", run("b", .7, adapt.Promote), there, "differs"},
		{"another machine, another verdict", run("b", .8, adapt.Reject), there, "differs"},
	} {
		if got, why := sameRun(run("a", .8, adapt.Promote), c.after, here, c.is); got != c.want || (got == "same digest") != (why == nil) {
			t.Errorf("%s: %s %q, want %s", c.name, got, why, c.want)
		}
	}
}
