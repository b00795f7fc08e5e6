package realparts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// HomeAssistant is a real one, with its MQTT integration set up as a person does it.
type HomeAssistant struct {
	Version string
	// Discovery is the form of discovery that this version reads: device since 2024.12, else component.
	Discovery string

	t     *testing.T
	bin   string
	dir   string
	url   string
	token string
	cmd   *exec.Cmd // nil: stopped
}

// StartHomeAssistant runs the one of the folder (a Python environment) that FOVEA_HASS names, on a broker, until the
// test ends; without it the test is skipped. docs/fleet.md says how such a folder is made.
func StartHomeAssistant(t *testing.T, broker *Mosquitto) *HomeAssistant {
	t.Helper()
	folder := os.Getenv("FOVEA_HASS")
	if folder == "" {
		t.Skip("FOVEA_HASS names no Python environment with Home Assistant")
	}
	port := FreePort(t)
	h := &HomeAssistant{t: t, bin: filepath.Join(folder, "bin", "hass"), dir: t.TempDir(), url: "http://127.0.0.1:" + port}
	conf := "http:\n  server_host: 127.0.0.1\n  server_port: " + port + "\napi:\nconfig:\nonboarding:\nlogger:\n  default: warning\n"
	if err := os.WriteFile(filepath.Join(h.dir, "configuration.yaml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Stop)
	h.Start()

	var code struct {
		AuthCode string `json:"auth_code"`
	}
	h.ask("POST", "/api/onboarding/users", map[string]any{"client_id": h.url + "/", "name": "o", "username": "o", "password": "pw-12345", "language": "en"}, &code)
	var token struct {
		AccessToken string `json:"access_token"`
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code.AuthCode}, "client_id": {h.url + "/"}}
	h.decode(h.send("POST", "/auth/token", "application/x-www-form-urlencoded", strings.NewReader(form.Encode())), &token)
	h.token = token.AccessToken
	var flow struct {
		FlowID string `json:"flow_id"`
		Type   string `json:"type"`
	}
	brokerPort, err := strconv.Atoi(broker.Port)
	if err != nil {
		t.Fatal(err)
	}
	h.ask("POST", "/api/config/config_entries/flow", map[string]any{"handler": "mqtt"}, &flow)
	h.ask("POST", "/api/config/config_entries/flow/"+flow.FlowID, map[string]any{"broker": "127.0.0.1", "port": brokerPort}, &flow)
	if flow.Type != "create_entry" {
		t.Fatalf("the MQTT integration is not set up: %+v", flow)
	}

	h.ask("GET", "/api/config", nil, h)
	var year, month int
	if _, err := fmt.Sscanf(h.Version, "%d.%d", &year, &month); err != nil {
		t.Fatal(err)
	}
	if h.Discovery = "device"; year < 2024 || year == 2024 && month < 12 {
		h.Discovery = "component"
	}
	t.Logf("Home Assistant %s, discovery %s", h.Version, h.Discovery)
	return h
}

// Start runs a stopped one again.
func (h *HomeAssistant) Start() {
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
	Within(h.t, 3*time.Minute, "Home Assistant answers", func() bool {
		answer, err := http.Get(h.url + "/api/onboarding")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// Stop ends it as a service manager does.
func (h *HomeAssistant) Stop() {
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

// Call calls a service, such as button/press, on an entity.
func (h *HomeAssistant) Call(service, entity string) {
	h.t.Helper()
	h.ask("POST", "/api/services/"+service, map[string]any{"entity_id": entity}, new(any))
}

// Picture is what an image entity shows.
func (h *HomeAssistant) Picture(entity string) []byte {
	h.t.Helper()
	return h.send("GET", "/api/image_proxy/"+entity, "", nil)
}

// Enable switches an entity on that is off by default, as its settings page does. Home Assistant is stopped.
func (h *HomeAssistant) Enable(entity string) {
	h.t.Helper()
	file := filepath.Join(h.dir, ".storage", "core.entity_registry")
	text, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	var registry map[string]any
	if err := json.Unmarshal(text, &registry); err != nil {
		h.t.Fatal(err)
	}
	for _, e := range registry["data"].(map[string]any)["entities"].([]any) {
		e := e.(map[string]any)
		if e["entity_id"] != entity {
			continue
		}
		e["disabled_by"] = nil
		if text, err = json.Marshal(registry); err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			h.t.Fatal(err)
		}
		return
	}
	h.t.Fatalf("%s was never announced", entity)
}

// Entity is an entity's state with its attributes.
type Entity struct {
	State      string
	Attributes map[string]any
}

// Entities are those whose name, behind the platform, begins so: the name of a device.
func (h *HomeAssistant) Entities(name string) map[string]Entity {
	h.t.Helper()
	var all []struct {
		EntityID string `json:"entity_id"`
		Entity
	}
	h.ask("GET", "/api/states", nil, &all)
	ours := map[string]Entity{}
	for _, e := range all {
		if _, behind, _ := strings.Cut(e.EntityID, "."); strings.HasPrefix(behind, name) {
			ours[e.EntityID] = e.Entity
		}
	}
	return ours
}

// ask sends v as JSON, nil as nothing, and decodes the answer.
func (h *HomeAssistant) ask(method, path string, v, into any) {
	h.t.Helper()
	var body bytes.Buffer
	if v != nil {
		if err := json.NewEncoder(&body).Encode(v); err != nil {
			h.t.Fatal(err)
		}
	}
	h.decode(h.send(method, path, "application/json", &body), into)
}

func (h *HomeAssistant) decode(text []byte, into any) {
	h.t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		h.t.Fatalf("%v in %s", err, text)
	}
}

// send returns the body of an answer that is none of an error.
func (h *HomeAssistant) send(method, path, kind string, body io.Reader) []byte {
	h.t.Helper()
	r, err := http.NewRequest(method, h.url+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Authorization", "Bearer "+h.token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		h.t.Fatalf("%s %s: %s %s %v", method, path, answer.Status, text, err)
	}
	return text
}

// Within waits until ok, at most limit, and says how long it took.
func Within(t *testing.T, limit time.Duration, what string, ok func() bool) {
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
