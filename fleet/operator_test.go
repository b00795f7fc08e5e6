package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

func startOperator(t *testing.T, cfg Config) *Operator {
	t.Helper()
	o, err := NewOperator(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); o.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return o
}

// seen returns what the operator knows of a device.
func (o *Operator) seen(device string) Seen {
	for _, d := range o.Devices() {
		if d.Device == device {
			return d
		}
	}
	return Seen{}
}

// TestOperatorAndSimulatedFleet: a table of devices, a command to each with its
// answer, their endings, and one forgotten.
func TestOperatorAndSimulatedFleet(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Broker: m.URL()}
	o := startOperator(t, cfg)

	endings := map[string]Ending{"good": EndPromoted, "same": EndRejected, "bad": EndRolledBack, "broken": EndFailed, "slow": EndPromoted}
	stops := map[string]func(){}
	for name, ending := range endings {
		sim := Simulation{Ending: ending, Adapt: 200 * time.Millisecond, Probation: 200 * time.Millisecond, Every: 100 * time.Millisecond, Labels: map[string]string{"site": name}}
		if name == "slow" {
			sim.Adapt = time.Hour
		}
		cfg.Device = name
		s, err := NewSimulated(cfg, sim, quiet)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		stops[name] = func() { cancel(); <-done }
		t.Cleanup(stops[name])
	}
	eventually(t, "all are in the table", func() bool {
		online := 0
		for _, d := range o.Devices() {
			if d.Online && d.Health != nil && d.Model != nil && d.Health.Labels["site"] == d.Device {
				online++
			}
		}
		return online == len(endings)
	})

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		ends = map[string]CommandState{}
	)
	for name := range endings {
		wg.Go(func() {
			s, err := o.Do(ctx, Request{Device: name, Verb: VerbAdapt, Args: AdaptArgs{Force: true}, ExpiresIn: time.Hour, Follow: func(s CommandState) {
				if name == "slow" && s.State == PhaseExecuting {
					cancelState, err := o.Do(ctx, Request{Device: name, Verb: VerbCancel, Args: CancelArgs{ID: s.ID}})
					if err != nil || cancelState.State != PhaseSuccessful && cancelState.Reason != "no adaptation is running" {
						t.Errorf("cancel: %+v %v", cancelState, err)
					}
				}
			}})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ends[name] = s
		})
	}
	wg.Wait()
	verdict := func(name string) string {
		var r AdaptResult
		json.Unmarshal(ends[name].Result, &r)
		return fmt.Sprintf("%s %s%s", ends[name].State, r.Verdict, ends[name].Code)
	}
	for name, want := range map[string]string{
		"good": "successful promoted", "same": "successful rejected", "bad": "successful promoted",
		"broken": "failed failed", "slow": "failed canceled",
	} {
		if got := verdict(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	eventually(t, "the bad one is rolled back", func() bool {
		d := o.seen("bad")
		return d.Health.Model.Probation == ProbationRolledBack && d.Health.Model.Version == 0 && d.Model.Probation == ProbationRolledBack
	})
	eventually(t, "the good one passes", func() bool { return o.seen("good").Health.Model.Probation == ProbationPassed })
	s, err := o.Do(ctx, Request{Device: "good", Verb: VerbRollback})
	if err != nil || s.State != PhaseSuccessful {
		t.Errorf("rollback: %+v %v", s, err)
	}

	stops["slow"]()
	eventually(t, "it is seen to be offline", func() bool { return !o.seen("slow").Online })
	n, err := o.Forget(ctx, "slow", time.Second)
	if err != nil || n < 10 {
		t.Errorf("forget cleared %d: %v", n, err)
	}
	eventually(t, "it is forgotten", func() bool { return o.seen("slow").Device == "" })
	left := observe(t, cfg, "fovea/slow/#", "homeassistant/+/slow/#", "fovea/good/availability")
	left.wants("fovea/good/availability", Online)
	if len(left.got) != 1 {
		t.Errorf("%d retained messages are left of it", len(left.got)-1)
	}

	soon, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := o.Do(soon, Request{Device: "nobody", Verb: VerbHealth}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a device that is not there: %v", err)
	}
	for _, r := range []Request{{Device: "A"}, {Device: "a", ID: "set"}, {Device: "a", Args: 7}} {
		if _, err := o.Do(ctx, r); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestOperatorSeesAllRetained: more retained messages than a broker queues for
// one client.
func TestOperatorSeesAllRetained(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Broker: m.URL()}
	w := observe(t, cfg)
	const n = 2000
	var last func(time.Duration) error
	for i := range n {
		last = w.session.send(outgoing{topic: fmt.Sprintf("fovea/d-%d/status", i), qos: 1, retained: true, payload: []byte(`{"health":"ok"}`)})
		if i%200 == 0 {
			last(patience)
		}
	}
	if err := last(patience); err != nil {
		t.Fatal(err)
	}
	o := startOperator(t, cfg)
	eventually(t, "all devices are seen", func() bool { return len(o.Devices()) == n })
}

// TestOperatorWaitsForRetained: with a broker that is slow to send what it
// retains, the operator counts as connected once it has come.
func TestOperatorWaitsForRetained(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	o := startOperator(t, Config{Broker: "mqtt://" + l.Addr().String()})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	next := func() packets.ControlPacket {
		t.Helper()
		p, err := packets.ReadPacket(conn)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	grant := func() {
		t.Helper()
		asked, ok := next().(*packets.SubscribePacket)
		if !ok {
			t.Fatal("no SUBSCRIBE came")
		}
		answer := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		answer.MessageID, answer.ReturnCodes = asked.MessageID, make([]byte, len(asked.Topics))
		answer.Write(conn)
	}
	next() // CONNECT
	conn.Write([]byte{0x20, 2, 0, 0})
	grant()
	time.Sleep(300 * time.Millisecond)
	if ok, _, _, _ := o.Connected(); ok {
		t.Error("connected before anything was told")
	}
	retained := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	retained.Retain, retained.TopicName, retained.Payload = true, "fovea/gate-1/availability", []byte(Online)
	retained.Write(conn)
	grant()
	eventually(t, "connected, and told", func() bool { ok, _, _, _ := o.Connected(); return ok && o.seen("gate-1").Online })
}

func TestOperatorSurvivesHostileDevices(t *testing.T) {
	o, err := NewOperator(Config{Broker: "mqtt://h"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for i := range devicesLimit + 100 {
		o.receive(arrival{topic: fmt.Sprintf("fovea/d-%d/availability", i), payload: []byte(Online)})
	}
	o.receive(arrival{topic: "fovea/d-1/status", payload: []byte(`{"health":"ok"}`)})
	for _, text := range []string{"{", "[]", `{"cameras":7}`, "\xff"} {
		o.receive(arrival{topic: "fovea/d-1/status", payload: []byte(text)})
		o.receive(arrival{topic: "fovea/d-1/cmd/adapt/x/state", payload: []byte(text)})
	}
	o.receive(arrival{topic: "fovea/A/status", payload: []byte(`{}`)})
	if d := o.seen("d-1"); d.Health == nil || d.Health.Health != HealthOK || len(o.Devices()) != devicesLimit {
		t.Errorf("%+v of %d", d, len(o.Devices()))
	}
}
