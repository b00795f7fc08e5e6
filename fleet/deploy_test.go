package fleet

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// TestDeployedMosquitto runs Mosquitto with the configuration and the rights of
// deploy/mosquitto: devices prove who they are by certificates, and neither
// commands, reads or impersonates the other.
func TestDeployedMosquitto(t *testing.T) {
	text, err := os.ReadFile("../deploy/mosquitto/acl")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), deviceACL) {
		t.Error("deploy/mosquitto/acl has other rights for devices than docs/mqtt.md")
	}
	ca := realparts.NewAuthority(t)
	later := time.Now().Add(time.Hour)
	cert, key := ca.Issue("127.0.0.1", later)
	conf, err := os.ReadFile("../deploy/mosquitto/mosquitto.conf")
	if err != nil {
		t.Fatal(err)
	}
	acl := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(acl, text, 0o600); err != nil {
		t.Fatal(err)
	}
	lines := string(conf)
	for old, now := range map[string]string{
		"listener 8883\n":             "", // the test's own stands before it
		"/etc/mosquitto/fovea/ca.pem": ca.File, "/etc/mosquitto/fovea/broker.pem": cert, "/etc/mosquitto/fovea/broker.key": key, "/etc/mosquitto/fovea/acl": acl,
	} {
		if !strings.Contains(lines, old) {
			t.Fatalf("mosquitto.conf does not say %q any more", old)
		}
		lines = strings.ReplaceAll(lines, old, now)
	}
	m := realparts.StartMosquitto(t, lines)
	as := func(user string) Config {
		cert, key := ca.Issue(user, later)
		return Config{Device: "line-3", Broker: "mqtts://" + m.Addr(), CAFile: ca.File, CertFile: cert, KeyFile: key}
	}

	cfg := as("line-3")
	d := newDevice(t, cfg)
	ran := make(chan string, 10)
	if err := d.Handle(VerbSpec{Verb: VerbAdapt, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
		ran <- cmd.ID
		return AdaptResult{Verdict: NotNeeded}, nil
	}}); err != nil {
		t.Fatal(err)
	}
	if err := d.Describe(testInfo); err != nil {
		t.Fatal(err)
	}
	run(t, d)
	operator, watcher := observe(t, as("operator"), "fovea/#"), observe(t, as("watcher"), "fovea/#")
	home := observe(t, as("homeassistant"), "homeassistant/#")
	for _, o := range []*observer{operator, watcher} {
		o.wants(d.Topics().Availability(), Online)
	}
	eventually(t, "Home Assistant sees the device", func() bool { return len(home.all("homeassistant/device/line-3/config")) > 0 })

	// Each of these is acknowledged by the broker, and thrown away.
	stranger := observe(t, as("line-4"), "fovea/#")
	for _, o := range []*observer{stranger, watcher} {
		o.publish(d.Topics().Command("adapt", "evil"), "", false)
		o.publish(d.Topics().Set("adapt"), "PRESS", false)
		o.publish(d.Topics().Availability(), Offline, true)
	}
	home.publish(d.Topics().Command("adapt", "evil"), "", false)
	home.publish(d.Topics().Set("adapt"), "PRESS", false)
	operator.publish(d.Topics().Command("adapt", "good"), "", false)
	eventually(t, "the press and the operator's command ran", func() bool { return len(ran) == 2 })
	for range 2 {
		if id := <-ran; id != "good" && !strings.HasPrefix(id, "set-") {
			t.Errorf("%s ran", id)
		}
	}
	if got := operator.last(d.Topics().Availability()); got != Online {
		t.Errorf("somebody else said that line-3 is %s", got)
	}
	stranger.mu.Lock()
	for _, a := range stranger.got {
		if strings.HasPrefix(a.topic, "fovea/line-3/") {
			t.Errorf("line-4 reads %s", a.topic)
		}
	}
	stranger.mu.Unlock()

	// Who has no certificate is nobody.
	nobody := newDevice(t, Config{Device: "line-5", Broker: "mqtts://" + m.Addr(), CAFile: ca.File})
	run(t, nobody)
	problem(t, nobody, TLSClient)

	// The operator's tool works with the operator's rights alone.
	o := startOperator(t, as("operator"))
	eventually(t, "the operator sees the device", func() bool { return o.seen("line-3").Online })
	report, err := o.Rollout(t.Context(), Rollout{Name: "r", Devices: []string{"line-3"}, MaxFailures: 1})
	if err != nil || report.Devices[0].State != PhaseSuccessful || report.Devices[0].Outcome != OutcomeNotNeeded {
		t.Errorf("%+v, %v", report, err)
	}
	if n, err := o.Forget(t.Context(), "line-3", time.Second); err != nil || n == 0 {
		t.Errorf("forget: %d, %v", n, err)
	}
	eventually(t, "its description is cleared", func() bool { return home.last("homeassistant/device/line-3/config") == "" })
}
