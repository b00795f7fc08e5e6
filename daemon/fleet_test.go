package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// verb runs a command line.
func verb(ctx context.Context, args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = execute(ctx, args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// The operator's tool, all verbs, on eight simulated devices and a real broker.
func TestFleetVerbs(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte("url: "+m.URL()+"\nusername: operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(want int, args ...string) (out, errs string) {
		t.Helper()
		code, out, errs := verb(t.Context(), append([]string{"fleet", "--config", file}, args...)...)
		if code != want {
			t.Fatalf("fovea fleet %s: %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, errs)
		}
		return out, errs
	}
	shows := func(text string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("not there: %s\n%s", w, text)
			}
		}
	}

	ctx, stop := context.WithCancel(t.Context())
	simulated := make(chan int, 1)
	go func() {
		code, _, _ := verb(ctx, "fleet", "simulate", "--broker", m.URL(), "-n", "8", "--failing", "1", "--adapt", "200ms", "--probation", "200ms", "--label", "model=vit-s")
		simulated <- code
	}()
	end := func() int { stop(); return <-simulated }
	defer func() { stop() }()

	var devices []fleet.Seen
	for limit := time.Now().Add(patience); len(devices) < 8; {
		out, _ := do(0, "ls", "--json")
		if err := json.Unmarshal([]byte(out), &devices); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if time.Now().After(limit) {
			t.Fatalf("devices: %s", out)
		}
	}
	out, _ := do(0, "ls")
	shows(out, "sim-008", "8 devices, 8 ok", "model=vit-s,site=site-4", "1/1")
	out, _ = do(0, "ls", "--select", "site=site-2", "--select", "model=vit-*")
	shows(out, "sim-002", "sim-006", "2 devices, 2 ok")
	out, _ = do(0, "ls", "--select", "device=sim-00[12]")
	shows(out, "2 devices")
	out, _ = do(0, "status", "sim-003")
	shows(out, "sim-003, ok", "site=site-3", "cam-1 online", "v0, simulated")

	out, _ = do(0, "adapt", "--all", "--canary", "2", "--dry-run")
	shows(out, "8 devices, at most 0 may fail", "canaries", "Nothing was sent")
	out, _ = do(0, "adapt", "--select", "site=site-1", "--wait")
	shows(out, "2 promoted", "(v1)")
	out, errs := do(exitDevices, "adapt", "--all", "--canary", "50%", "--wait", "--name", "everywhere")
	shows(out, "1 rolled_back: sim-008", "taken_back")
	shows(errs, "rollout everywhere stopped: 1 failed, 0 may; the last was sim-008: rolled_back")
	out, _ = do(exitDevices, "adapt", "sim-002", "sim-008", "--wait", "--json", "--max-failures", "1")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var report fleet.RolloutReport
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &report); err != nil || report.Failures != 1 || report.Stopped != "" || len(lines) < 5 {
		t.Errorf("report %+v, %v in %s", report, err, out)
	}
	out, _ = do(0, "adapt", "sim-003", "--name", "later")
	shows(out, "--wait --name later", "started")
	out, _ = do(0, "adapt", "sim-003", "--name", "later", "--wait")
	shows(out, "1 promoted")

	out, _ = do(0, "rollback", "sim-002", "sim-003")
	shows(out, "sim-002  successful", "sim-003  successful")
	out, errs = do(exitDevices, "cancel", "--all")
	shows(out, "no adaptation is running")
	shows(errs, "8 of 8 devices did not do it")
	out, _ = do(exitDevices, "promote", "sim-001")
	shows(out, "no candidate waits for approval")

	_, errs = do(exitUsage, "rollback")
	shows(errs, "which devices?")
	_, errs = do(exitUsage, "ls", "--select", "site")
	shows(errs, "write it as KEY=VALUE")
	_, errs = do(exitUsage, "adapt", "--all", "--canary", "0%")
	shows(errs, "10%")
	_, errs = do(exitDevices, "adapt", "nobody")
	shows(errs, "no device nobody has said anything")
	_, errs = do(exitDevices, "forget", "sim-001")
	shows(errs, "sim-001 is online")
	_, errs = do(exitNoBroker, "ls", "--broker", "mqtt://127.0.0.1:1")
	shows(errs, "unreachable", "check the port")

	watched, stopWatch := context.WithTimeout(t.Context(), 2*time.Second)
	defer stopWatch()
	code, out, _ := verb(watched, "fleet", "--config", file, "watch", "--select", "device=sim-002")
	if code != 0 || !strings.Contains(out, "sim-002 ok v0 probation rolled_back") || strings.Contains(out, "sim-001") {
		t.Errorf("watch: %d %s", code, out)
	}

	if code := end(); code != 0 {
		t.Errorf("simulate ended with %d", code)
	}
	out, _ = do(0, "ls")
	shows(out, "8 devices, 8 offline")
	_, errs = do(exitDevices, "rollback", "--all")
	shows(errs, "8 of them offline")
	out, _ = do(0, "forget", "sim-001")
	shows(out, "messages cleared")
	out, _ = do(0, "ls")
	shows(out, "7 devices, 7 offline")
}

func TestFleetFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("url: mqtts://broker.example\nusername: operator\npassword_file: secret\nca_file: /etc/ca.pem\nroot: plant\n")
	f := fleetVerb{Config: file}
	c, err := f.connection()
	if err != nil || c.Broker != "mqtts://operator@broker.example" || c.PasswordFile != filepath.Join(filepath.Dir(file), "secret") || c.CAFile != "/etc/ca.pem" || c.Root != "plant" {
		t.Errorf("%+v, %v", c, err)
	}
	f.Broker, f.User = "mqtt://other:1884", "me"
	if c, err = f.connection(); err != nil || c.Broker != "mqtt://me@other:1884" {
		t.Errorf("flags over the file: %+v, %v", c, err)
	}
	write("url: mqtt://h\npasword_file: x\n")
	var faults *configError
	if _, err = f.connection(); !errors.As(err, &faults) || faults.faults[0].line != 2 {
		t.Errorf("a wrong key: %v", err)
	}
	code, _, errs := verb(t.Context(), "fleet", "ls", "--config", file)
	if code != exitConfiguration || !strings.Contains(errs, "did you mean password_file") {
		t.Errorf("%d %s", code, errs)
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // an operator without a file
	if code, _, errs = verb(t.Context(), "fleet", "ls"); code != exitUsage || !strings.Contains(errs, "which broker?") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestCanary(t *testing.T) {
	for text, want := range map[string]map[int]int{"10%": {1: 1, 4: 1, 300: 30, 14: 1, 15: 2}, "100%": {7: 7}, "5": {3: 3, 300: 5}} {
		var c canary
		if err := c.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		for n, first := range want {
			if got := c.of(n); got != first {
				t.Errorf("%s of %d is %d, want %d", text, n, got, first)
			}
		}
	}
	for _, text := range []string{"", "0", "-1", "0%", "101%", "NaN%", "x", "5.5"} {
		if err := new(canary).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// What a hostile device says of itself cannot move the operator's terminal.
func TestTableIsPrintable(t *testing.T) {
	d := fleet.Seen{Device: "d", Online: true, Health: &fleet.Health{
		Health: fleet.HealthDegraded, Reasons: []string{"\x1b[2Jgone\r\n\u009bx"}, Labels: map[string]string{"\x1b]0;": "\x07"},
		Model: fleet.Model{Probation: "\x1b[1m"}, Adapt: fleet.Adapt{State: "\x1bc"},
	}, Event: &fleet.Event{Type: "\x1b[31m"}}
	var b bytes.Buffer
	describeDevice(&b, d, time.Now())
	text := strings.Join(table([]fleet.Seen{d}, time.Now()), "") + changeLine(d) + strings.ReplaceAll(b.String(), "\n", "")
	for _, r := range text {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			t.Fatalf("%q", text)
		}
	}
}

// A frame of bars takes as many lines as it says, so that the next one covers it.
func TestBars(t *testing.T) {
	if got := barOf(0) + barOf(0.5) + barOf(1); got != "["+strings.Repeat(" ", 30)+"]["+strings.Repeat("=", 15)+strings.Repeat(" ", 15)+"]["+strings.Repeat("=", 30)+"]" {
		t.Errorf("bars %s", got)
	}
	var out bytes.Buffer
	b := newRolloutBars(&out, 2)
	null, err := os.Open(os.DevNull) // no terminal: 80 x 24
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	b.terminal = null
	b.changed(fleet.RolloutDevice{Device: "a", State: fleet.PhaseExecuting, Progress: fleet.Known(0.5)})
	b.changed(fleet.RolloutDevice{Device: "a", Canary: true, Outcome: fleet.OutcomeRejected, Reason: "not better"})
	b.end()
	want := barOf(0) + " 0 of 2 through\n" + barOf(0.45) + "  45 % a\n\x1b[2A\x1b[Jcanary  a  rejected: not better\n" + barOf(0.5) + " 1 of 2 through\n\x1b[1A\x1b[J"
	if got := out.String(); got != want {
		t.Errorf("bars\n%q, want\n%q", got, want)
	}
}
