package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/toyworld"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// toyModel writes the model folder of the small world: a base with its labelled pictures.
func toyModel(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "base")
	b, err := model.OpenBackend(model.BackendGo, model.Plugins{})
	if err != nil {
		t.Fatal(err)
	}
	if err := toyworld.WriteModel(t.Context(), b, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// cycling is a program on the small world, with samples of two cameras that its store keeps.
func cycling(t *testing.T, more string) *program {
	t.Helper()
	return cyclingIn(t, toyModel(t), more)
}

func cyclingIn(t *testing.T, dir, more string) *program {
	t.Helper()
	p := start(t, fmt.Sprintf("model: {dir: %q, backend: go}\n%s", dir, more))
	p.wait("a model", func() bool { return p.live.Load() != nil })
	keepToySamples(t, p.samples(), p.live.Load().net.Digest)
	return p
}

// keepToySamples keeps samples as the cameras of the small world would have sent them.
func keepToySamples(t *testing.T, samples *store.Samples, base string) {
	t.Helper()
	all, err := toySamples(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if _, err := samples.Put(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

func toySamples(base string) (all []store.Sample, err error) {
	r := rand.New(rand.NewPCG(5, 5))
	err = toyworld.Watch(r, func(v toyworld.View) error {
		s := store.Sample{
			Meta:       store.Meta{Camera: v.Camera, Time: v.Time, Width: toyworld.Side, Height: toyworld.Side, Backbone: base, Why: "test"},
			MaskPixels: v.Mask,
		}
		if v.Mask != nil {
			s.Mask = &store.Mask{Width: toyworld.Side, Height: toyworld.Side, View: [4]int{0, 0, toyworld.Side, toyworld.Side}, Quality: .9, Accepted: true}
		}
		for range 8 {
			s.Features = append(s.Features, float32(r.NormFloat64()))
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, toyworld.Picture(v.RGB), &jpeg.Options{Quality: 95}); err != nil {
			return err
		}
		s.JPEG = b.Bytes()
		all = append(all, s)
		return nil
	})
	return all, err
}

// adapt gives the order and waits.
func (p *program) adapt(ctx context.Context) (fleet.AdaptResult, error) {
	return p.cycle.do(ctx, order{verb: fleet.VerbAdapt, why: "test", force: true})
}

const quiet = "adapt: {auto: false, probation: {every: 1, frames: 20}, gate: {latency: 100}}\n"

// A whole cycle: candidate, verdict, promotion, and what is remembered of it after a restart.
func TestCyclePromotes(t *testing.T) {
	dir := toyModel(t)
	p := cyclingIn(t, dir, quiet)
	base := p.models().Standing().Base
	var share []float64
	result, err := p.cycle.do(t.Context(), order{verb: fleet.VerbAdapt, why: "test", force: true, progress: func(v float64) { share = append(share, v) }})
	if err != nil {
		t.Fatal(err)
	}
	if result.Verdict != fleet.Promoted || result.Version == nil || *result.Version != 1 {
		t.Fatalf("%+v", result)
	}
	if len(share) < 3 || !slices.IsSorted(share) || share[len(share)-1] < .99 {
		t.Errorf("progress %v", share)
	}
	p.wait("version 1", func() bool { return p.live.Load().version == 1 })
	standing := p.models().Standing()
	if standing.Base != base || standing.Active == base || standing.Probation.State != store.ProbationRunning {
		t.Errorf("standing %+v", standing)
	}
	verdicts, err := p.store.State.Verdicts(-1)
	if err != nil || len(verdicts) != 1 {
		t.Fatalf("%d verdicts, %v", len(verdicts), err)
	}
	r, err := adapt.DecodeReceipt(verdicts[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.Report == nil || r.Report.Candidate != p.live.Load().net.Digest || r.Report.Parent != r.Report.Base || r.Report.Verdict.Decision != adapt.Promote {
		t.Errorf("receipt %+v", r)
	}
	if f := r.Report.Figures.LabelledSwap; !(*f.Candidate > *f.Parent) {
		t.Errorf("labelled swaps %v to %v", *f.Parent, *f.Candidate)
	}
	p.wait("the verdict in the status", func() bool { return p.state().Health.Adapt.LastVerdict != "" })
	h := p.state().Health
	if h.Model.Version != 1 || h.Model.LabelledSwapAccuracy == nil || h.Model.SwapConsistency == nil || h.Model.SwapPairs == 0 || h.Adapt.LastVerdict != fleet.Promoted {
		t.Errorf("health %+v %+v", h.Model, h.Adapt)
	}
	if err := p.store.State.VerifyVerdicts(); err != nil {
		t.Error(err)
	}
	if _, err := p.adapt(t.Context()); err == nil || !strings.Contains(err.Error(), "probation") {
		t.Errorf("a second one during the probation: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(p.stateDir(), workDir)); len(entries) > 0 {
		t.Errorf("the work folder holds %d files", len(entries))
	}
}

func (p *program) stateDir() string { c, _ := p.configs.get(); return c.StateDir }

// A candidate waits for the command promote, and what is live changes then.
func TestCycleWaitsForApproval(t *testing.T) {
	p := cycling(t, strings.Replace(quiet, "auto: false", "auto: false, approval: manual", 1))
	result, err := p.adapt(t.Context())
	if err != nil || result.Verdict != fleet.Waiting || *result.Version != 1 {
		t.Fatalf("%+v %v", result, err)
	}
	if p.live.Load().version != 0 || p.state().Health.Adapt.State == "" {
		t.Errorf("live version %d", p.live.Load().version)
	}
	p.wait("the candidate in the status", func() bool { return p.state().Health.Adapt.State == fleet.AdaptWaiting })
	other := int64(7)
	if _, err := p.cycle.do(t.Context(), order{verb: fleet.VerbPromote, why: "test", version: &other}); err == nil {
		t.Error("another version was approved")
	}
	result, err = p.cycle.do(t.Context(), order{verb: fleet.VerbPromote, why: "test"})
	if err != nil || result.Verdict != fleet.Promoted {
		t.Fatalf("%+v %v", result, err)
	}
	p.wait("version 1", func() bool { return p.live.Load().version == 1 })
	if _, err := p.cycle.do(t.Context(), order{verb: fleet.VerbRollback, why: "test"}); err != nil {
		t.Fatal(err)
	}
	p.wait("version 0", func() bool { return p.live.Load().version == 0 })
	if s := p.models().Standing(); s.Active != s.Base || s.Probation.State != store.ProbationRolledBack {
		t.Errorf("standing %+v", s)
	}
}

// force promotes a checkpoint as if the gate had been open.
func (p *program) force(t *testing.T, change func(*model.Checkpoint)) error {
	t.Helper()
	config, _ := p.configs.get()
	c, err := model.Load(config.Model.Dir)
	if err != nil {
		t.Fatal(err)
	}
	change(c)
	receipt, err := addModel(p.models(), c, store.Receipt{Digest: c.Digest(), Parent: p.models().Standing().Active})
	if err != nil {
		t.Fatal(err)
	}
	verdict := adapt.Receipt{Event: adapt.EventVerdict, Model: c.Digest(), Reason: "forced", Report: &adapt.RunReport{}}
	_, err = p.goLive(t.Context(), receipt, verdict)
	return err
}

// Bad models that slipped through the gate are taken back by the probation, at once.
func TestProbationTakesBack(t *testing.T) {
	clip := pictures(t)
	for name, change := range map[string]func(*model.Checkpoint){
		"collapsed": func(c *model.Checkpoint) { c.Params.HeadBias[1] += 1e3 },
		"flat": func(c *model.Checkpoint) {
			clear(c.Params.HeadWeight)
			clear(c.Params.HeadBias)
		},
		"its classes mixed up": func(c *model.Checkpoint) {
			n := c.Config.Dim
			w, b := c.Params.HeadWeight, c.Params.HeadBias
			first, rest := slices.Clone(w[:n]), slices.Clone(w[n:])
			copy(w, rest)
			copy(w[len(rest):], first)
			b[0], b[1], b[2] = b[1], b[2], b[0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := toyModel(t)
			p := start(t, fmt.Sprintf("model: {dir: %q, backend: go}\ninference: {relevance_every: 0}\ncameras: [{id: yard, source: %q, loop: true, fps: 10, grabber: GRAB}]\n", dir, clip)+quiet)
			p.wait("frames", func() bool { return p.state().camera("yard").Classified > 3 })
			if err := p.force(t, change); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			p.wait("the parent", func() bool { return p.live.Load().version == 0 })
			p.wait("the record", func() bool { return p.models().Standing().Probation.State == store.ProbationRolledBack })
			t.Logf("taken back %.1f s after its promotion", time.Since(began).Seconds())
			if s := p.models().Standing(); s.Active != s.Base {
				t.Errorf("standing %+v", s)
			}
		})
	}
}

// Weights that overflow are not warmed, so they are never live.
func TestNotFiniteIsNotPromoted(t *testing.T) {
	p := start(t, fmt.Sprintf("model: {dir: %q, backend: go}\n", toyModel(t))+quiet)
	p.wait("a model", func() bool { return p.live.Load() != nil })
	err := p.force(t, func(c *model.Checkpoint) {
		for i := range c.Params.NormWeight {
			c.Params.NormWeight[i] = math.MaxFloat32
		}
	})
	if err == nil || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("%v", err)
	}
	if s := p.models().Standing(); s.Active != s.Base || p.live.Load().version != 0 {
		t.Errorf("standing %+v", s)
	}
}

// The same weights under another number pass their probation.
func TestProbationPasses(t *testing.T) {
	dir := toyModel(t)
	p := start(t, fmt.Sprintf("model: {dir: %q, backend: go}\ninference: {relevance_every: 0}\ncameras: [{id: yard, source: %q, loop: true, fps: 10, grabber: GRAB}]\n", dir, pictures(t))+
		strings.Replace(quiet, "frames: 20", "frames: 20, latency: 100", 1))
	p.wait("frames", func() bool { return p.state().camera("yard").Classified > 3 })
	if err := p.force(t, func(c *model.Checkpoint) { c.Params.HeadBias[0] += 1e-6 }); err != nil {
		t.Fatal(err)
	}
	p.wait("the end of the probation", func() bool { return p.models().Standing().Probation.State == store.ProbationPassed })
	if s := p.models().Standing(); s.LastGood() != s.Active || s.Active == s.Base || p.live.Load().version != 1 {
		t.Errorf("standing %+v", s)
	}
}

// A child that crashes, hangs, or takes too much memory or time: the daemon goes on, says why, and nothing changed.
func TestCycleSurvivesItsChild(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		misbehave, config, says string
	}{
		"crash":   {"segv", "", "crashed"},
		"stopped": {"stop", "", "no progress"},
		"memory":  {"memory", "memory_megabytes: 300, ", "more memory"},
		"time":    {"sleep", "limit: 1s, ", "longer"},
		"error":   {"error", "", "what is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := cycling(t, strings.Replace(quiet, "auto: false", c.config+"auto: false", 1))
			p.cycle.child = trainerLimits{program: self, silence: 3 * time.Second, env: []string{"FOVEA_TEST_CHILD=" + c.misbehave}}
			before := p.progress.Load()
			_, err := p.adapt(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			p.wait("inference going on", func() bool { return p.progress.Load() > before })
			if s := p.models().Standing(); s.Active != s.Base || s.Candidate != "" {
				t.Errorf("standing %+v", s)
			}
			if s := p.state().Health.Adapt; s.LastReason == "" {
				p.wait("the reason in the status", func() bool { return strings.Contains(p.state().Health.Adapt.LastReason, c.says) })
			}
			if why := p.triggered(time.Now()); why != "" {
				t.Errorf("tried again at once: %s", why)
			}
		})
	}
}

// misbehave is what a child does in the tests above.
func misbehave(how string) {
	fmt.Println(`{"stage":"plates","done":0,"of":2}`)
	switch how {
	case "segv":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "memory":
		var all [][]byte
		for range 100 {
			b := make([]byte, 16<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			time.Sleep(20 * time.Millisecond)
		}
		fmt.Println(len(all))
	case "error":
		fmt.Fprintln(os.Stderr, "fovea: adapt: what is wrong")
		os.Exit(1)
	}
	time.Sleep(time.Minute)
}

// Cancelled, an adaptation ends and leaves nothing.
func TestCycleIsCancelled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := cycling(t, quiet)
	p.cycle.child = trainerLimits{program: self, silence: time.Minute, env: []string{"FOVEA_TEST_CHILD=sleep"}}
	ended := make(chan error, 1)
	go func() { _, err := p.adapt(t.Context()); ended <- err }()
	p.wait("the run", func() bool {
		return p.state().Health.Adapt.State == fleet.AdaptRunning && p.cycle.state.Load().Stage.Stage != ""
	})
	if _, err := p.cycle.do(t.Context(), order{verb: fleet.VerbAdapt, why: "second", force: true}); err == nil || !strings.Contains(err.Error(), "runs") {
		t.Errorf("a second run: %v", err)
	}
	if !p.cycle.stop() {
		t.Error("nothing to cancel")
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "cancelled") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(p.stateDir(), workDir)); err == nil {
		t.Error("the work folder is still there")
	}
}

// By a command with an id: accepted, executing, successful; the same id again runs nothing.
func TestAdaptByCommand(t *testing.T) {
	p := cycling(t, quiet)
	s := p.subscribe()
	p.wait("the broker", func() bool { return p.state().Broker.Connected })
	topic := "fovea/" + p.id + "/cmd/adapt/morning-1"
	p.publish(topic, `{"force":true}`)
	p.wait("its end", func() bool { return strings.Contains(s.all(topic+"/state"), "successful") })
	said := s.all(topic + "/state")
	for _, word := range []string{"accepted", "executing", `"verdict":"promoted"`} {
		if !strings.Contains(said, word) {
			t.Errorf("no %s in\n%s", word, said)
		}
	}
	before := len(s.all(topic + "/state"))
	p.publish(topic, `{"force":true}`)
	p.wait("the stored answer", func() bool { return len(s.all(topic+"/state")) > before })
	if p.models().Standing().Numbers != 1 {
		t.Error("it ran twice")
	}
}

// publish sends a message with Mosquitto's client.
func (p *program) publish(topic, payload string, more ...string) {
	p.t.Helper()
	args := append(p.brokerFlags(), append([]string{"-q", "1", "-t", topic, "-m", payload}, more...)...)
	if out, err := exec.Command("mosquitto_pub", args...).CombinedOutput(); err != nil {
		p.t.Fatalf("mosquitto_pub: %v\n%s", err, out)
	}
}

// Triggers: enough new samples; not while the switch is off, within the cool-down, beyond the daily cap.
func TestTriggers(t *testing.T) {
	p := cycling(t, "adapt: {auto: false, new_samples: 100, cooldown: 1h, daily: 2}\n")
	at := func(config string, runs runs) string {
		t.Helper()
		c, err := parseConfig([]byte(config), "/tmp/fovea.yaml")
		if err != nil {
			t.Fatal(err)
		}
		now, _ := p.configs.get()
		next := *now
		next.Adapt = c.Adapt
		p.configs.set(&next)
		if err := p.store.State.SetSetting(runsSetting, runs); err != nil {
			t.Fatal(err)
		}
		return p.triggered(time.Now())
	}
	now := time.Now()
	const on = "adapt: {auto: true, new_samples: 100, cooldown: 1h, daily: 2}\n"
	for name, c := range map[string]struct {
		config string
		runs   runs
		want   bool
		clock  bool // its answer rests on the clock
	}{
		"off":        {"adapt: {auto: false, new_samples: 100}\n", runs{}, false, false},
		"enough":     {on, runs{}, true, false},
		"too few":    {strings.Replace(on, "100", "1000", 1), runs{}, false, false},
		"seen":       {on, runs{Seq: 1 << 40}, false, false},
		"cool-down":  {on, runs{Times: []time.Time{now.Add(-time.Minute)}}, false, false},
		"after it":   {on, runs{Times: []time.Time{now.Add(-2 * time.Hour)}}, true, true},
		"daily cap":  {on, runs{Times: []time.Time{now.Add(-5 * time.Hour), now.Add(-4 * time.Hour)}}, false, false},
		"not due":    {strings.Replace(on, "auto: true", "auto: true, schedule: 0 0 1 1 *", 1), runs{}, false, false},
		"every hour": {strings.Replace(on, "auto: true", "auto: true, schedule: '* * * * *'", 1), runs{Times: []time.Time{now.Add(-2 * time.Hour)}}, true, true},
	} {
		if c.clock {
			c.want = c.want && timeSynced()
		}
		if why := at(c.config, c.runs); (why != "") != c.want {
			t.Errorf("%s: %q", name, why)
		}
	}
	if err := p.setAuto(false, fleet.SourceRemote); err != nil {
		t.Fatal(err)
	}
	if why := at(on, runs{}); why != "" {
		t.Errorf("the switch is off: %q", why)
	}
	text, _ := json.Marshal(p.auto())
	if !strings.Contains(string(text), "remote") {
		t.Errorf("%s", text)
	}
}
