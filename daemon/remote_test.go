package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// The operator's tool on a real daemon: it is in the table, answers, takes what its configuration allows, and
// Home Assistant is told of it and of a camera that a reload brings.
func TestDaemonInAFleet(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	base := fmt.Sprintf("device: {id: line-3, labels: {site: hall-2, model: vit-s}}\nmqtt: {url: %q, allow: [health, reload]}\n", m.URL())
	p := start(t, base)
	do := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := verb(t.Context(), append([]string{"fleet", "--broker", m.URL()}, args...)...)
		if code != want {
			t.Fatalf("fovea fleet %v: %d, want %d\n%s%s", args, code, want, out, errs)
		}
		return out
	}
	p.wait("the broker", func() bool { return p.state().Broker.Connected })
	var devices []fleet.Seen
	p.wait("its health", func() bool {
		return json.Unmarshal([]byte(do(0, "ls", "--json", "--select", "site=hall-2", "--select", "model=vit-s")), &devices) == nil &&
			len(devices) == 1 && devices[0].Health != nil
	})
	if h := devices[0].Health; h.Health != fleet.HealthDegraded || h.Labels["site"] != "hall-2" || len(h.Setup.Missing) == 0 {
		t.Errorf("health %+v", h)
	}
	if out := do(exitDevices, "adapt", "line-3", "--wait"); !strings.Contains(out, "unsupported") && !strings.Contains(out, "not_allowed") {
		t.Errorf("adapt: %s", out)
	}

	o, end, err := (&fleetVerb{Broker: m.URL()}).connected(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	ask := func(v fleet.Verb) fleet.CommandState {
		t.Helper()
		state, err := o.Do(t.Context(), fleet.Request{Device: "line-3", Verb: v})
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	var health fleet.Health
	if s := ask(fleet.VerbHealth); json.Unmarshal(s.Result, &health) != nil || health.Labels["site"] != "hall-2" {
		t.Errorf("health: %+v", s)
	}
	if s := ask(fleet.VerbRollback); s.State != fleet.PhaseFailed {
		t.Errorf("rollback: %+v", s)
	}

	sub := listen(t, "-h", "127.0.0.1", "-p", m.Port)
	topic := "homeassistant/device/line-3/config"
	p.wait("its description", func() bool { return strings.Contains(sub.of(topic), `"cmps"`) })
	if text := sub.of(topic); strings.Contains(text, "camera-") || strings.Contains(text, `"platform":"button"`) {
		t.Errorf("described: %s", text)
	}
	p.write(base + fmt.Sprintf("cameras: [{id: yard, source: %q, fps: 2, loop: true, grabber: GRAB}]\n", pictures(t)))
	if s := ask(fleet.VerbReload); s.State != fleet.PhaseSuccessful {
		t.Errorf("reload: %+v", s)
	}
	p.wait("the camera in the description", func() bool { return strings.Contains(sub.of(topic), "camera-yard-label") })
	p.write("wrong: key\n")
	if s := ask(fleet.VerbReload); s.State != fleet.PhaseFailed || !strings.Contains(s.Reason, "unknown key") {
		t.Errorf("reload of a bad configuration: %+v", s)
	}
}

// Everything that can be wrong with a broker is told on the status page, in the log and in the health JSON,
// with what to do.
func TestBrokerProblems(t *testing.T) {
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	ca, strange := realparts.NewAuthority(t), realparts.NewAuthority(t)
	cert, key := ca.Issue("127.0.0.1", later)
	oldCert, oldKey := ca.Issue("127.0.0.1", past)
	secure := realparts.StartMosquitto(t, fmt.Sprintf("allow_anonymous true\ncertfile %s\nkeyfile %s", cert, key))
	old := realparts.StartMosquitto(t, fmt.Sprintf("allow_anonymous true\ncertfile %s\nkeyfile %s", oldCert, oldKey))
	asking := realparts.StartMosquitto(t, fmt.Sprintf("allow_anonymous true\ncertfile %s\nkeyfile %s\ncafile %s\nrequire_certificate true", cert, key, ca.File))
	denied := realparts.StartMosquitto(t, "allow_anonymous false")
	tls := func(m *realparts.Mosquitto, caFile string) string {
		return fmt.Sprintf("url: \"mqtts://%s\", ca_file: %q", m.Addr(), caFile)
	}

	for _, c := range []struct {
		name, config, reason, hint string
	}{
		{"nothing there", "url: \"mqtt://127.0.0.1:1\"", "nothing listens at mqtt://127.0.0.1:1", "check the port"},
		{"CONNACK 1", "url: \"" + realparts.StartRefusing(t, 1, false) + "\"", "(CONNACK 1)", "MQTT 3.1.1"},
		{"CONNACK 2", "url: \"" + realparts.StartRefusing(t, 2, false) + "\"", "(CONNACK 2)", "allow this id on the broker"},
		{"CONNACK 3", "url: \"" + realparts.StartRefusing(t, 3, false) + "\"", "(CONNACK 3)", "look at the broker's log"},
		{"CONNACK 4", "url: \"" + realparts.StartRefusing(t, 4, false) + "\"", "(CONNACK 4)", "check "},
		{"CONNACK 5, by Mosquitto", "url: \"" + denied.URL() + "\"", "(CONNACK 5)", "check "},
		{"wrong CA", tls(secure, strange.File), "an authority that this device does not know", "set ca_file"},
		{"no CA file", tls(secure, "/nowhere.pem"), "/nowhere.pem", "check that the file exists"},
		{"expired certificate of the broker", tls(old, ca.File), "the broker's certificate is valid from", "renew the certificate on the broker"},
		{"no certificate of ours", tls(asking, ca.File), "", "set cert_file and key_file"},
		{"expired certificate of ours", tls(asking, ca.File) + fmt.Sprintf(", cert_file: %q, key_file: %q", oldCert, oldKey), "", "renew the client certificate"},
		{"TLS port without TLS", fmt.Sprintf("url: %q", secure.URL()), "", "write mqtts://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "mqtt: {"+c.config+"}\n")
			p.wait("the problem", func() bool { return p.state().Broker.Problem != "" })
			s := p.state()
			if !strings.Contains(s.Broker.Problem, c.reason) || !strings.Contains(s.Broker.Problem, c.hint) || s.Broker.Connected {
				t.Errorf("on the page: %+v", s.Broker)
			}
			if why := strings.Join(s.Health.Reasons, "\n"); !strings.Contains(why, "mqtt: ") || s.Health.Health == fleet.HealthOK {
				t.Errorf("in the health JSON: %s %s", s.Health.Health, why)
			}
			if !strings.Contains(p.log.String(), "part=mqtt") || !strings.Contains(p.log.String(), c.reason) {
				t.Errorf("not in the log")
			}
			if _, text := p.get("/metrics"); !strings.Contains(text, "fovea_mqtt_connected 0") {
				t.Error("not in the metrics")
			}
			t.Log(s.Broker.Problem)
		})
	}
}

// Two daemons that were given one id take the connection from each other: both slow down, and it is told.
func TestTwoDaemonsWithOneID(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	config := fmt.Sprintf("device: {id: line-3}\nmqtt: {url: %q}\n", m.URL())
	pair := []*program{start(t, config), start(t, config)}
	var alarmed *program
	pair[0].wait("the alarm", func() bool {
		for _, p := range pair {
			if strings.Contains(p.state().Broker.Problem, "another client with the id") {
				alarmed = p
			}
		}
		return alarmed != nil
	})
	if s := alarmed.state(); !strings.Contains(s.Broker.Problem, `"fovea-line-3"`) || !strings.Contains(strings.Join(s.Health.Reasons, ""), "another client") {
		t.Errorf("%+v", s.Broker)
	}
	if !strings.Contains(alarmed.log.String(), "problem=takeover") {
		t.Error("not in the log")
	}
}
