package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
)

// The whole way on the demonstration, with nobody at it: the daemon collects, adapts, judges and promotes, says so
// over MQTT, and is right more often on cut-outs and scenes that nobody labelled. FOVEA_DEMO names the folder that
// "make demo" makes; a quarter of an hour.
func TestDemonstrationAdapts(t *testing.T) {
	demo := os.Getenv("FOVEA_DEMO")
	if demo == "" {
		t.Skip("FOVEA_DEMO names no folder of the demonstration")
	}
	demo, err := filepath.Abs(demo)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(demo, "model")
	p := start(t, fmt.Sprintf(`
model: {dir: %q}
inference: {fps: 2.17, relevance_every: 3}
cameras:
  - {id: square, source: %q, loop: true, grabber: GRAB}
  - {id: lawn, source: %q, loop: true, grabber: GRAB}
samples: {every: 1s, apart: 0.01, novel: 0.02}
adapt: {new_samples: 60, cooldown: 20m, daily: 20}
`, dir, filepath.Join(demo, "square.mp4"), filepath.Join(demo, "lawn.mp4")))
	broker := p.subscribe()

	last := &adapt.Receipt{}
	for limit := time.Now().Add(30 * time.Minute); last.Report == nil; time.Sleep(time.Second) {
		if time.Now().After(limit) {
			t.Fatalf("no verdict in half an hour; log of the daemon:\n%s", p.log)
		}
		verdicts, err := p.store.State.Verdicts(-1)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts {
			if last, err = adapt.DecodeReceipt(v.Body); err != nil {
				t.Fatal(err)
			}
		}
	}
	f := last.Report.Figures
	t.Logf("labelled-swap accuracy %s, follow index %s, AUROC %s, in %.0f s: %s: %s",
		pairText(f.LabelledSwap), pairText(f.Follow), pairText(f.AUROC), last.Report.Seconds, last.Report.Verdict.Decision, last.Report.Verdict.Reason)
	if last.Report.Verdict.Decision != adapt.Promote {
		t.Fatalf("not promoted: %s", last.Report.Verdict.Reason)
	}
	p.wait("version 1", func() bool { return p.live.Load().version == 1 })
	p.wait("the promotion over MQTT", func() bool {
		return strings.Contains(broker.all("fovea/"+p.id+"/event"), `"`+string(fleet.AdaptPromoted)+`"`)
	})
	var told fleet.Health
	p.wait("the figures over MQTT", func() bool {
		return json.Unmarshal([]byte(broker.of("fovea/"+p.id+"/status")), &told) == nil && told.Model.Version == 1
	})
	if m := told.Model; m.LabelledSwapAccuracy == nil || *m.LabelledSwapAccuracy != *f.LabelledSwap.Candidate || m.SwapConsistency == nil || *m.SwapConsistency != *f.Follow.Candidate {
		t.Errorf("the receipt has %v and %v, the broker %+v", *f.LabelledSwap.Candidate, *f.Follow.Candidate, m)
	}

	base, err := model.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	live, err := base.WithWeights(p.models().File(p.models().Standing().Active))
	if err != nil {
		t.Fatal(err)
	}
	adapted := filepath.Join(t.TempDir(), "adapted")
	if err := live.Save(adapted); err != nil {
		t.Fatal(err)
	}
	accuracy := func(dir string) proportion {
		var r evalReport
		if err := json.Unmarshal([]byte(runVerbLine(t, 0, "eval", "--json", "--model", dir, "--data", filepath.Join(demo, "test"))), &r); err != nil {
			t.Fatal(err)
		}
		return r.Top1.Accuracy
	}
	before, after := accuracy(dir), accuracy(adapted)
	t.Logf("on pictures that nobody labelled: %v, then %v", before, after)
	if after.Share < before.Share {
		t.Error("the promoted model is right less often on pictures that nobody labelled")
	}
}

func pairText(p adapt.Paired) string {
	if p.Parent == nil || p.Low == nil {
		return "unknown"
	}
	return fmt.Sprintf("%.3f -> %.3f (%+.3f to %+.3f)", *p.Parent, *p.Candidate, *p.Low, *p.High)
}
