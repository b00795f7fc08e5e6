package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// homeAssistant is a real one, with its MQTT integration set up as a person
// does it.
type homeAssistant struct {
	t     *testing.T
	bin   string
	dir   string
	url   string
	token string
	cmd   *exec.Cmd
}

// newHomeAssistant starts the one in the folder (a Python environment) that
// FOVEA_HASS names.
func newHomeAssistant(t *testing.T, broker *mosquitto) *homeAssistant {
	t.Helper()
	folder := os.Getenv("FOVEA_HASS")
	if folder == "" {
		t.Skip("FOVEA_HASS names no Python environment with Home Assistant")
	}
	h := &homeAssistant{t: t, bin: filepath.Join(folder, "bin", "hass"), dir: t.TempDir(), url: fmt.Sprintf("http://127.0.0.1:%d", freePort(t))}
	port := h.url[strings.LastIndex(h.url, ":")+1:]
	conf := "http:\n  server_host: 127.0.0.1\n  server_port: " + port + "\napi:\nconfig:\nonboarding:\nlogger:\n  default: warning\n"
	if err := os.WriteFile(filepath.Join(h.dir, "configuration.yaml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.stop)
	h.start()

	var code struct {
		AuthCode string `json:"auth_code"`
	}
	h.ask("POST", "/api/onboarding/users", map[string]any{"client_id": h.url + "/", "name": "o", "username": "o", "password": "pw-12345", "language": "en"}, &code)
	var token struct {
		AccessToken string `json:"access_token"`
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code.AuthCode}, "client_id": {h.url + "/"}}
	h.decode(http.PostForm(h.url+"/auth/token", form))(&token)
	h.token = token.AccessToken
	var flow struct {
		FlowID string `json:"flow_id"`
		Type   string `json:"type"`
	}
	h.ask("POST", "/api/config/config_entries/flow", map[string]any{"handler": "mqtt"}, &flow)
	h.ask("POST", "/api/config/config_entries/flow/"+flow.FlowID, map[string]any{"broker": "127.0.0.1", "port": broker.port}, &flow)
	if flow.Type != "create_entry" {
		t.Fatalf("the MQTT integration is not set up: %+v", flow)
	}
	return h
}

func (h *homeAssistant) start() {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.cmd = exec.Command(h.bin, "--skip-pip", "-c", h.dir)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	within(h.t, 2*time.Minute, "Home Assistant answers", func() bool {
		answer, err := http.Get(h.url + "/api/onboarding")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

func (h *homeAssistant) stop() {
	if h.cmd == nil {
		return
	}
	h.cmd.Process.Signal(syscall.SIGTERM)
	h.cmd.Wait()
	h.cmd = nil
	if h.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(h.dir, "log"))
		h.t.Logf("Home Assistant: %s", log)
	}
}

// ask sends v as JSON and decodes the answer.
func (h *homeAssistant) ask(method, path string, v, into any) {
	h.t.Helper()
	var body bytes.Buffer
	if v != nil {
		if err := json.NewEncoder(&body).Encode(v); err != nil {
			h.t.Fatal(err)
		}
	}
	r, err := http.NewRequest(method, h.url+path, &body)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+h.token)
	h.decode(http.DefaultClient.Do(r))(into)
}

func (h *homeAssistant) decode(answer *http.Response, err error) func(any) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return func(into any) {
		h.t.Helper()
		if err != nil || answer.StatusCode >= 300 || json.Unmarshal(text, into) != nil {
			h.t.Fatalf("%s %s: %s %s %v", answer.Request.Method, answer.Request.URL, answer.Status, text, err)
		}
	}
}

type entity struct {
	State      string
	Attributes map[string]any
}

// entities are the states of all entities of the device gate-7.
func (h *homeAssistant) entities() map[string]entity {
	h.t.Helper()
	var all []struct {
		EntityID   string `json:"entity_id"`
		State      string
		Attributes map[string]any
	}
	h.ask("GET", "/api/states", nil, &all)
	ours := map[string]entity{}
	for _, e := range all {
		if _, name, _ := strings.Cut(e.EntityID, "."); strings.HasPrefix(name, "gate_7") {
			ours[e.EntityID] = entity{e.State, e.Attributes}
		}
	}
	return ours
}

// within is eventually with a promise to keep, and says how long it took.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("after %.1f s: %s", time.Since(began).Seconds(), what)
}

// TestHomeAssistant is the promise to people who use it. It needs a real one:
// see docs/fleet.md.
func TestHomeAssistant(t *testing.T) {
	m := newMosquitto(t, "allow_anonymous true")
	m.start()
	o := observe(t, Config{Broker: m.url()}, "fovea/#")
	h := newHomeAssistant(t, m)
	var about struct{ Version string }
	h.ask("GET", "/api/config", nil, &about)
	form := DiscoveryDevice
	var year, month int
	if _, err := fmt.Sscanf(about.Version, "%d.%d", &year, &month); err != nil {
		t.Fatal(err)
	}
	if year < 2024 || year == 2024 && month < 12 {
		form = DiscoveryComponent
	}
	t.Logf("Home Assistant %s, discovery %s", about.Version, form)

	device := startChild(t, m.url(), form)
	wanted := []string{
		"sensor.gate_7_yard_label", "sensor.gate_7_yard_score", "sensor.gate_7_yard_foreground_relevance", "binary_sensor.gate_7_problem",
		"button.gate_7_adapt_now", "button.gate_7_roll_back", "binary_sensor.gate_7_automatic_adaptation", "update.gate_7_model", "event.gate_7_adaptation",
		"sensor.gate_7_frame_rate", "sensor.gate_7_latency_p95", "sensor.gate_7_swap_consistency", "sensor.gate_7_drift", "sensor.gate_7_free_disk", "sensor.gate_7_temperature",
	}
	there := func() bool {
		has := h.entities()
		for _, id := range wanted {
			if e, ok := has[id]; !ok || e.State == "unavailable" {
				return false
			}
		}
		return has["sensor.gate_7_yard_label"].State != "unknown" && has["update.gate_7_model"].State != "unknown"
	}
	within(t, time.Minute, "the device is there with all its entities", there)
	has := h.entities()
	for _, id := range wanted {
		t.Logf("%s: %s", id, has[id].State)
	}
	if has["update.gate_7_model"].State != "off" || has["binary_sensor.gate_7_problem"].State != "off" {
		t.Errorf("at first: %+v", has)
	}

	h.ask("POST", "/api/services/button/press", map[string]any{"entity_id": "button.gate_7_adapt_now"}, new(any))
	within(t, time.Minute, "the button starts an adaptation", func() bool { return strings.Contains(o.last("fovea/gate-7/event"), "adapt_") })
	within(t, time.Minute, "the update entity shows the candidate", func() bool {
		e := h.entities()["update.gate_7_model"]
		return e.State == "on" && e.Attributes["installed_version"] == "0" && e.Attributes["latest_version"] == "1"
	})
	if e := h.entities()["event.gate_7_adaptation"]; e.Attributes["event_type"] == nil {
		t.Errorf("the event entity: %+v", e)
	}
	h.ask("POST", "/api/services/update/install", map[string]any{"entity_id": "update.gate_7_model"}, new(any))
	within(t, time.Minute, "its install button makes the candidate live", func() bool {
		e := h.entities()["update.gate_7_model"]
		return e.State == "off" && e.Attributes["installed_version"] == "1"
	})

	unavailable := func() bool { return h.entities()["sensor.gate_7_yard_label"].State == "unavailable" }
	device.Process.Kill() // -9: its kernel closes the connection
	device.Wait()
	within(t, 15*time.Second, "after kill -9 it is unavailable", unavailable)
	device = startChild(t, m.url(), form)
	within(t, time.Minute, "it is back", there)
	device.Process.Signal(syscall.SIGSTOP) // the connection stays: as where the power is cut
	within(t, 15*time.Second, "without a word it is unavailable after 1.5 times the keep-alive of 5 s", unavailable)
	device.Process.Signal(syscall.SIGCONT)
	within(t, time.Minute, "it is back", there)

	h.stop()
	began := time.Now()
	h.start()
	within(t, 30*time.Second, "after a restart of Home Assistant all is back", there)
	t.Logf("%.1f s from the start of the process", time.Since(began).Seconds())
}

// startChild runs this test program as the device gate-7, to be killed.
func startChild(t *testing.T, broker string, form Discovery) *exec.Cmd {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run", "^TestHomeAssistantDevice$")
	child.Env = append(os.Environ(), "FOVEA_TEST_BROKER="+broker, "FOVEA_TEST_DISCOVERY="+string(form))
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	return child
}

// TestHomeAssistantDevice is the child of TestHomeAssistant.
func TestHomeAssistantDevice(t *testing.T) {
	broker := os.Getenv("FOVEA_TEST_BROKER")
	if broker == "" {
		t.Skip("only for TestHomeAssistant")
	}
	s, err := NewSimulated(Config{
		Device: "gate-7", Broker: broker, KeepAlive: 5 * time.Second,
		HomeAssistant: HomeAssistant{Discovery: Discovery(os.Getenv("FOVEA_TEST_DISCOVERY"))},
	}, Simulation{Cameras: []string{"yard"}, Every: time.Second, Adapt: 3 * time.Second, Ending: EndWaiting}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
