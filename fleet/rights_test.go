package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// TestRights runs a device and another one's credentials against Mosquitto with
// the ACL of docs/mqtt.md: neither can command or impersonate the other, and
// the device works.
func TestRights(t *testing.T) {
	dir := t.TempDir()
	passwords, acl := filepath.Join(dir, "passwords"), filepath.Join(dir, "acl")
	for i, user := range []string{"gate-1", "gate-2", "operator"} {
		args := []string{"-b", passwords, user, "secret"}
		if i == 0 {
			args = append([]string{"-c"}, args...)
		}
		if out, err := exec.Command("mosquitto_passwd", args...).CombinedOutput(); err != nil {
			t.Skipf("mosquitto_passwd: %v %s: apt-get install mosquitto", err, out)
		}
	}
	if err := os.WriteFile(acl, []byte(deviceACL+"\nuser operator\ntopic readwrite #\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := realparts.StartMosquitto(t, "password_file "+passwords+"\nacl_file "+acl)
	as := func(user string) Config {
		return Config{Device: "gate-1", Broker: strings.Replace(m.URL(), "//", "//"+user+":secret@", 1)}
	}

	d := newDevice(t, as("gate-1"))
	ran := make(chan string, 10)
	for _, v := range []Verb{VerbHealth, VerbAdapt} {
		if err := d.Handle(VerbSpec{Verb: v, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
			ran <- cmd.ID
			return Health{Health: HealthOK}, nil
		}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Describe(testInfo); err != nil {
		t.Fatal(err)
	}
	run(t, d)
	operator := observe(t, as("operator"), "#")
	operator.wants(d.Topics().Availability(), Online)
	eventually(t, "discovery arrives", func() bool { return len(operator.all("homeassistant/device/gate-1/config")) > 0 })

	stranger := observe(t, as("gate-2"), "#")
	stranger.publish(d.Topics().Command("adapt", "evil"), "", false)
	stranger.publish(d.Topics().Set("adapt"), "PRESS", false)
	stranger.publish(d.Topics().fleetWide().Command("health", "evil"), "", false)
	stranger.publish(d.Topics().Status(), "{}", true)
	operator.publish(d.Topics().Command("health", "good"), "", false)
	done := func(verb, id string) CommandState {
		t.Helper()
		var s CommandState
		eventually(t, id+" is answered", func() bool {
			return json.Unmarshal([]byte(operator.last(d.Topics().CommandState(verb, id))), &s) == nil && s.Final()
		})
		return s
	}
	if s := done("health", "good"); s.State != PhaseSuccessful {
		t.Errorf("health: %+v", s)
	}
	if id := <-ran; id != "good" || len(ran) != 0 {
		t.Errorf("%s ran, and %d more", id, len(ran))
	}
	if got := operator.all(d.Topics().Status()); got != nil {
		t.Errorf("gate-2 wrote the status of gate-1: %q", got)
	}
	stranger.mu.Lock()
	for _, a := range stranger.got {
		if strings.HasPrefix(a.topic, "fovea/gate-1/") {
			t.Errorf("gate-2 reads %s", a.topic)
		}
	}
	stranger.mu.Unlock()

	// To all, a retained one, 1 MB, and what comes again at the next connect.
	operator.publish("fovea/all/cmd/health/fleet", "", false)
	if s := done("health", "fleet"); s.State != PhaseSuccessful {
		t.Errorf("to all: %+v", s)
	}
	operator.publish(d.Topics().Command("adapt", "huge"), strings.Repeat("x", 1<<20), false)
	if s := done("adapt", "huge"); s.Code != TooLarge {
		t.Errorf("1 MB: %+v", s)
	}
	// A standing subscription sees a retained message without its flag: it runs
	// once. At the next connect it comes again, with the flag, and is known.
	operator.publish(d.Topics().Command("adapt", "kept"), "", true)
	done("adapt", "kept")
	operator.publish(d.Topics().Set("adapt"), "PRESS", true)
	eventually(t, "the press runs", func() bool { return len(ran) == 3 })
	m.Stop()
	eventually(t, "the loss is noticed", func() bool { return !d.Status().Connected })
}

// TestRetainedCommandsAtConnect: what waits on the broker with the retain flag
// when a device connects does not run.
func TestRetainedCommandsAtConnect(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Device: "gate-1", Broker: m.URL()}
	o := observe(t, cfg, "fovea/#")
	o.publish("fovea/gate-1/cmd/adapt/kept", "", true)
	o.publish("fovea/gate-1/cmd/adapt/kept2", "{}", true)
	o.publish("fovea/gate-1/cmd/adapt/set", "PRESS", true)
	d := newDevice(t, cfg)
	d.Handle(VerbSpec{Verb: VerbAdapt, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
		t.Errorf("%s ran", cmd.ID)
		return nil, nil
	}})
	run(t, d)
	for _, id := range []string{"kept2", retainedPressID} {
		o.wantsCode(d.Topics().CommandState("adapt", id), RetainedCommand)
	}
}

func (o *observer) wantsCode(topic string, want Code) {
	o.t.Helper()
	var s CommandState
	eventually(o.t, fmt.Sprintf("%s says %s", topic, want), func() bool {
		return json.Unmarshal([]byte(o.last(topic)), &s) == nil && s.Code == want
	})
}

// TestHangingHandlerDoesNotHangTheStop: a handler that ignores its context is
// recorded as canceled, and the device says offline.
func TestHangingHandlerDoesNotHangTheStop(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Device: "gate-1", Broker: m.URL()}
	o := observe(t, cfg, "fovea/#")
	d := newDevice(t, cfg)
	release, began := make(chan struct{}), make(chan struct{})
	defer close(release)
	d.Handle(VerbSpec{Verb: VerbHealth, Handler: func(context.Context, Command, func(float64)) (any, error) {
		close(began)
		<-release
		return nil, nil
	}})
	stop := run(t, d)
	o.wants(d.Topics().Availability(), Online)
	eventually(t, "commands arrive", func() bool {
		o.publish(d.Topics().Command("health", "h"), "", false)
		select {
		case <-began:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	stop()
	o.wantsCode(d.Topics().CommandState("health", "h"), Canceled)
	o.wants(d.Topics().Availability(), Offline)
}
