package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// simulatedFleet runs n devices on a broker, named d-000 and so on, and waits
// until the operator sees them all. end chooses how each adapts.
func simulatedFleet(t *testing.T, o *Operator, broker string, n int, sim func(device string) Simulation) (devices []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var g sync.WaitGroup
	t.Cleanup(func() { cancel(); g.Wait() })
	for i := range n {
		name := fmt.Sprintf("d-%03d", i)
		devices = append(devices, name)
		s, err := NewSimulated(Config{Device: name, Broker: broker, HomeAssistant: HomeAssistant{Discovery: DiscoveryOff}}, sim(name), quiet)
		if err != nil {
			t.Fatal(err)
		}
		g.Go(func() { s.Run(ctx) })
	}
	eventually(t, "all devices are online", func() bool {
		online := 0
		for _, d := range o.Devices() {
			if d.Online && d.Health != nil {
				online++
			}
		}
		return online == n
	})
	return devices
}

func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("d-%03d", i))
	}
	return all
}

// brisk is a simulation that is over soon.
func brisk(end Ending) Simulation {
	return Simulation{Ending: end, Adapt: 300 * time.Millisecond, Probation: 300 * time.Millisecond, Every: time.Minute}
}

func (r RolloutReport) wants(t *testing.T, want map[Outcome]int) {
	t.Helper()
	for o, n := range r.Outcomes() {
		if want[o] != n {
			t.Errorf("%d devices are %s, want %d", n, o, want[o])
		}
	}
	for o, n := range want {
		if r.Outcomes()[o] != n {
			t.Errorf("%d devices are %s, want %d", r.Outcomes()[o], o, n)
		}
	}
	if t.Failed() {
		t.Fatalf("report: %+v", r)
	}
}

// wantVersions checks what is live in the end. It is patient: a status that was
// lost on the way to the operator comes again within a minute.
func wantVersions(t *testing.T, o *Operator, want func(device string) int64) {
	t.Helper()
	wrong := func() (devices []string) {
		for _, d := range o.Devices() {
			if d.Health.Model.Version != want(d.Device) {
				devices = append(devices, d.Device)
			}
		}
		return devices
	}
	for end := time.Now().Add(2 * statusEvery); len(wrong()) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("these serve another version than they should: %v", wrong())
		}
	}
}

// TestRolloutGoesThrough: the canaries first, then the rest; one failure is
// within what may fail.
func TestRolloutGoesThrough(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	o := startOperator(t, Config{Broker: m.URL()})
	r := Rollout{Name: "monday", Devices: names(12), Canary: 3, MaxFailures: 1}
	canaries := r.Canaries()
	same := slices.DeleteFunc(names(12), func(d string) bool { return slices.Contains(canaries, d) })[0]
	simulatedFleet(t, o, m.URL(), 12, func(d string) Simulation {
		if d == same {
			sim := brisk(EndRejected)
			sim.Adapt = 2 * time.Second // progress is told once a second
			return sim
		}
		return brisk(EndPromoted)
	})

	var sequence []RolloutDevice
	r.Follow = func(d RolloutDevice) { sequence = append(sequence, d) }
	report, err := o.Rollout(t.Context(), r)
	if err != nil || report.Stopped != "" || report.Failures != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	report.wants(t, map[Outcome]int{OutcomePromoted: 11, OutcomeRejected: 1})
	wantVersions(t, o, func(d string) int64 {
		if d == same {
			return 0
		}
		return 1
	})
	ended, progress := 0, false
	for _, d := range sequence {
		if d.Canary && d.Outcome != "" {
			ended++
		}
		if !d.Canary && ended < 3 {
			t.Fatalf("%s began before the canaries had ended", d.Device)
		}
		progress = progress || d.Progress != nil && *d.Progress > 0
	}
	if !progress {
		t.Error("no progress was told")
	}
	if got := report.Devices[:3]; !slices.EqualFunc(got, canaries, func(d RolloutDevice, name string) bool { return d.Device == name && d.Canary }) {
		t.Errorf("canaries %v, want %v", got, canaries)
	}

	// Run again it is the same rollout: stored answers, nothing runs twice.
	again, err := o.Rollout(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	again.wants(t, map[Outcome]int{OutcomePromoted: 11, OutcomeRejected: 1})
	wantVersions(t, o, func(d string) int64 {
		if d == same {
			return 0
		}
		return 1
	})
}

// TestRolloutStopsAfterCanaries: the rest is never touched, and what was
// promoted is taken back.
func TestRolloutStopsAfterCanaries(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	o := startOperator(t, Config{Broker: m.URL()})
	r := Rollout{Name: "tuesday", Devices: names(12), Canary: 4, MaxFailures: 2}
	canaries := r.Canaries()
	endings := map[string]Ending{canaries[0]: EndRolledBack, canaries[1]: EndFailed, canaries[2]: EndRejected}
	simulatedFleet(t, o, m.URL(), 12, func(d string) Simulation {
		if end, bad := endings[d]; bad {
			return brisk(end)
		}
		return brisk(EndPromoted)
	})
	report, err := o.Rollout(t.Context(), r)
	if err != nil || !strings.HasPrefix(report.Stopped, "3 failed, 2 may") {
		t.Fatalf("%+v, %v", report, err)
	}
	report.wants(t, map[Outcome]int{OutcomeRolledBack: 1, OutcomeFailed: 1, OutcomeRejected: 1, OutcomeTakenBack: 1, OutcomeNotStarted: 8})
	wantVersions(t, o, func(string) int64 { return 0 })
	for _, d := range o.Devices() {
		if !slices.Contains(canaries, d.Device) && d.Event != nil {
			t.Errorf("%s was touched: %+v", d.Device, d.Event)
		}
	}
}

// TestRolloutStopsWhileOthersRun: what adapts is canceled, what is on probation
// or has passed it is taken back, one that is busy waits its turn and is left
// alone.
func TestRolloutStopsWhileOthersRun(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	o := startOperator(t, Config{Broker: m.URL()})
	slow, probation := brisk(EndPromoted), brisk(EndPromoted)
	slow.Adapt, probation.Probation = time.Hour, time.Hour
	late := brisk(EndFailed)
	late.Adapt = 3 * time.Second
	sims := map[string]Simulation{"d-000": slow, "d-001": probation, "d-002": late, "d-003": brisk(EndPromoted), "d-004": slow}
	devices := simulatedFleet(t, o, m.URL(), 5, func(d string) Simulation { return sims[d] })

	busy, stopBusy := context.WithCancel(t.Context())
	began := make(chan struct{})
	var g sync.WaitGroup
	g.Go(func() {
		o.Do(busy, Request{Device: "d-004", Verb: VerbAdapt, ID: "another", Follow: func(s CommandState) {
			if s.State == PhaseExecuting {
				select {
				case <-began:
				default:
					close(began)
				}
			}
		}})
	})
	<-began
	report, err := o.Rollout(t.Context(), Rollout{Name: "w", Devices: devices})
	if err != nil || report.Stopped == "" {
		t.Fatalf("%+v, %v", report, err)
	}
	stopBusy()
	g.Wait()
	report.wants(t, map[Outcome]int{OutcomeCanceled: 1, OutcomeTakenBack: 2, OutcomeFailed: 1, OutcomeNotStarted: 1})
	wantVersions(t, o, func(string) int64 { return 0 })
	if d, _ := o.Device("d-004"); d.Health.Adapt.State != AdaptRunning {
		t.Errorf("the adaptation that was not ours is %s", d.Health.Adapt.State)
	}
}

// TestRolloutInterrupted: a rollout whose operator goes away, taken up again.
func TestRolloutInterrupted(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	o := startOperator(t, Config{Broker: m.URL()})
	sim := brisk(EndPromoted)
	sim.Adapt = 2 * time.Second
	devices := simulatedFleet(t, o, m.URL(), 6, func(string) Simulation { return sim })
	r := Rollout{Name: "again", Devices: devices, Canary: 2}

	started := r
	started.StartOnly = true
	report, err := o.Rollout(t.Context(), started)
	if err != nil {
		t.Fatal(err)
	}
	report.wants(t, map[Outcome]int{OutcomeStarted: 2, OutcomeNotStarted: 4})

	ctx, cancel := context.WithCancel(t.Context())
	interrupted := r
	interrupted.Follow = func(d RolloutDevice) {
		if !d.Canary && d.State == PhaseExecuting {
			cancel()
		}
	}
	if report, err = o.Rollout(ctx, interrupted); err == nil || report.Outcomes()[OutcomePromoted] != 2 || report.Outcomes()[OutcomeUnknown] == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if report, err = o.Rollout(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	report.wants(t, map[Outcome]int{OutcomePromoted: 6})
	wantVersions(t, o, func(string) int64 { return 1 }) // each adapted once
}

// TestRolloutWithoutAnswer: a device that is not there fails in time.
func TestRolloutWithoutAnswer(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	o := startOperator(t, Config{Broker: m.URL()})
	report, err := o.Rollout(t.Context(), Rollout{Name: "r", Devices: []string{"nobody"}, MaxFailures: 1, Limit: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	report.wants(t, map[Outcome]int{OutcomeNoAnswer: 1})
	for _, r := range []Rollout{{Name: "a b", Devices: []string{"d"}}, {Name: "r"}, {Name: "r", Devices: []string{"D"}}, {Name: "r", Devices: []string{"d", "d"}}} {
		if _, err := o.Rollout(t.Context(), r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

// TestLargeFleet is 300 devices on one Mosquitto (60 without FOVEA_SOAK), a
// canary of a tenth, three made to fail: once among the canaries, once among
// the rest. It prints wall time and what the broker had to do.
func TestLargeFleet(t *testing.T) {
	n := 60
	if os.Getenv("FOVEA_SOAK") != "" {
		n = 300
	}
	m := realparts.StartMosquitto(t, "allow_anonymous true\nsys_interval 1\nmax_queued_messages 10000") // as deploy/mosquitto has it
	o := startOperator(t, Config{Broker: m.URL()})
	first := Rollout{Name: "first", Devices: names(n), Canary: n / 10, MaxFailures: 2}
	bad := first.Canaries()[:3]
	began := time.Now()
	simulatedFleet(t, o, m.URL(), n, func(d string) Simulation {
		sim := Simulation{Adapt: 2 * time.Second, Probation: time.Second}
		if slices.Contains(bad, d) {
			sim.Ending = EndRolledBack
		}
		return sim
	})
	t.Logf("%d devices online after %.1f s; %s", n, time.Since(began).Seconds(), load(t, m))

	report, err := o.Rollout(t.Context(), first)
	if err != nil || report.Stopped == "" {
		t.Fatalf("%+v, %v", report, err)
	}
	t.Logf("canary of %d with 3 that fail: stopped in %.1f s (%s), %v; %s", first.Canary, report.Seconds, report.Stopped, report.Outcomes(), load(t, m))
	for _, d := range report.Devices {
		want := d.Outcome == OutcomeNotStarted
		if d.Canary {
			want = d.Outcome == OutcomeTakenBack || d.Outcome == OutcomeRolledBack
		}
		if !want {
			t.Errorf("%+v", d)
		}
	}
	wantVersions(t, o, func(string) int64 { return 0 })

	// The same three are among the rest now: by then all others were promoted.
	second := first
	for i := 0; second.Name == first.Name || slices.ContainsFunc(second.Canaries(), func(d string) bool { return slices.Contains(bad, d) }); i++ {
		second.Name = "second-" + strconv.Itoa(i)
	}
	report, err = o.Rollout(t.Context(), second)
	if err != nil || report.Stopped == "" {
		t.Fatalf("%+v, %v", report, err)
	}
	t.Logf("3 of the %d after a good canary fail: stopped in %.1f s, %v; %s", n-second.Canary, report.Seconds, report.Outcomes(), load(t, m))
	for _, d := range report.Devices {
		if d.Outcome != OutcomeTakenBack && d.Outcome != OutcomeRolledBack || d.Canary && d.Outcome != OutcomeTakenBack {
			t.Errorf("%+v", d)
		}
	}
	wantVersions(t, o, func(string) int64 { return 0 })
}

// load is what the broker has done so far.
func load(t *testing.T, m *realparts.Mosquitto) string {
	t.Helper()
	o := observe(t, Config{Broker: m.URL()}, "$SYS/broker/messages/#", "$SYS/broker/publish/messages/dropped")
	defer o.session.close()
	eventually(t, "the broker tells its load", func() bool { return o.last("$SYS/broker/messages/sent") != "(nothing)" })
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(m.Process()), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // from field 3 of proc(5): 14 and 15 are CPU time in 1/100 s, 24 pages
	number := func(i int) int { n, _ := strconv.Atoi(fields[i-3]); return n }
	eventually(t, "and what it dropped", func() bool { return o.last("$SYS/broker/publish/messages/dropped") != "(nothing)" })
	return fmt.Sprintf("broker: %s messages in, %s out, %s dropped, %.2f s of CPU, %d MB", o.last("$SYS/broker/messages/received"), o.last("$SYS/broker/messages/sent"), o.last("$SYS/broker/publish/messages/dropped"),
		float64(number(14)+number(15))/100, number(24)*os.Getpagesize()>>20)
}
