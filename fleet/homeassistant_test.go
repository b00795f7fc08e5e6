package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// haDevice is a device that offers everything, or only what is allowed by
// default.
func haDevice(t *testing.T, form Discovery, allow []Verb) *Device {
	t.Helper()
	d, err := New(Config{Device: "gate-1", Broker: "mqtt://h", Allow: allow, Images: true, HomeAssistant: HomeAssistant{Discovery: form}}, NewQueue(10), NewCommandLog(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range Verbs {
		if err := d.Handle(VerbSpec{Verb: v, Handler: func(context.Context, Command, func(float64)) (any, error) { return nil, nil }}); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

var testInfo = Info{Name: "Gate", Model: "Jetson", Version: "1.2", URL: "http://gate:8080", Cameras: map[string]string{"yard": "Yard"}}

// TestDiscoveryForms compares what is said to Home Assistant with the files of
// testdata; -update writes them.
func TestDiscoveryForms(t *testing.T) {
	for _, form := range []Discovery{DiscoveryDevice, DiscoveryComponent, DiscoveryOff} {
		d := haDevice(t, form, Verbs)
		messages, err := d.discovery(testInfo)
		if err != nil {
			t.Fatal(err)
		}
		shown := map[string]any{}
		for topic, text := range messages {
			var v any
			if text != nil {
				if err := json.Unmarshal(text, &v); err != nil {
					t.Fatal(err)
				}
			}
			shown[topic] = v
		}
		text, err := json.MarshalIndent(shown, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "testdata/discovery-"+string(form)+".json", append(text, '\n'))
	}
}

func TestDiscoveryRules(t *testing.T) {
	d := haDevice(t, DiscoveryDevice, nil)
	seen := map[any]bool{}
	components := d.components(testInfo)
	for name, c := range components {
		if c["p"] == nil || c["unique_id"] == nil || seen[c["unique_id"]] {
			t.Errorf("%s: %v", name, c)
		}
		seen[c["unique_id"]] = true
		if _, both := c["availability_topic"]; both || c["availability_mode"] != "all" {
			t.Errorf("%s: availability %v", name, c)
		}
		if cam := strings.HasPrefix(name, "camera-"); len(c["availability"].([]map[string]string)) == 2 != cam {
			t.Errorf("%s: availability %v", name, c["availability"])
		}
	}
	if components["camera-yard-image"]["enabled_by_default"] != false {
		t.Error("pictures are on by default")
	}
	// Not allowed from remote by default: nothing to press.
	if components["auto"] != nil || components["auto-state"]["command_topic"] != nil || components["model"]["command_topic"] != nil {
		t.Errorf("auto %v, model %v", components["auto-state"], components["model"])
	}
	if types := fmt.Sprint(components["adaptation"]["event_types"]); !strings.Contains(types, "adapt_failed") || !strings.Contains(types, "adapt_waiting") {
		t.Errorf("event types %s", types)
	}
}

// TestNoPictures: where pictures are not published there is no entity that
// waits for them, and an earlier one is taken back.
func TestNoPictures(t *testing.T) {
	d, err := New(Config{Device: "gate-1", Broker: "mqtt://h", Allow: Verbs}, NewQueue(10), NewCommandLog(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Handle(VerbSpec{Verb: VerbSnapshot, Handler: func(context.Context, Command, func(float64)) (any, error) { return nil, nil }}); err != nil {
		t.Fatal(err)
	}
	messages, err := d.discovery(testInfo)
	if err != nil {
		t.Fatal(err)
	}
	var message struct{ Cmps map[string]map[string]any }
	if err := json.Unmarshal(messages["homeassistant/device/gate-1/config"], &message); err != nil {
		t.Fatal(err)
	}
	for name, platform := range map[string]string{"camera-yard-image": "image", "snapshot": "button"} {
		if c := message.Cmps[name]; len(c) != 1 || c["p"] != platform {
			t.Errorf("%s is announced: %v", name, c)
		}
	}
}

// TestSwitchingForms: the form that was used before is taken back, first.
func TestSwitchingForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrokerSide()
		for _, form := range []Discovery{DiscoveryComponent, DiscoveryDevice, DiscoveryComponent, DiscoveryOff} {
			d := haDevice(t, form, Verbs)
			if err := d.Describe(testInfo); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go d.out.drain(ctx, b)
			synctest.Wait()
			devices, components := 0, 0
			for topic := range b.retained {
				switch {
				case strings.HasPrefix(topic, "homeassistant/device/"):
					devices++
				case strings.HasPrefix(topic, "homeassistant/"):
					components++
				}
			}
			want := map[Discovery]string{DiscoveryDevice: "1 0", DiscoveryComponent: "0 17", DiscoveryOff: "0 0"}[form]
			if got := fmt.Sprint(devices, " ", components); got != want {
				t.Errorf("%s: %s messages, want %s", form, got, want)
			}
			cancel()
			synctest.Wait()
		}
	})
}

func TestCameraTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := haDevice(t, DiscoveryDevice, Verbs)
		one.Describe(testInfo)
		messages, err := one.discovery(Info{})
		if err != nil {
			t.Fatal(err)
		}
		var message struct{ Cmps map[string]map[string]any }
		if err := json.Unmarshal(messages["homeassistant/device/gate-1/config"], &message); err != nil {
			t.Fatal(err)
		}
		if c := message.Cmps["camera-yard-label"]; len(c) != 1 || c["p"] != "sensor" {
			t.Errorf("the camera's label is not taken back: %v", c)
		}
		d, b := haDevice(t, DiscoveryComponent, Verbs), newBrokerSide()
		go d.out.drain(t.Context(), b)
		const topic = "homeassistant/sensor/gate-1/camera-yard-label/config"
		d.Describe(testInfo)
		synctest.Wait()
		if b.retained[topic] == "" {
			t.Fatal("the camera was not announced")
		}
		d.Describe(Info{})
		synctest.Wait()
		if b.retained[topic] != "" {
			t.Error("the camera is still announced")
		}
	})
}

func TestAnnouncedAgainWhenHomeAssistantStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{}, NewCommandLog(), NewQueue(10))
		defer k.close()
		k.Describe(testInfo)
		synctest.Wait()
		const topic = "homeassistant/device/gate-1/config"
		count := func() int { return len(k.broker.got[topic]) }
		k.receive(arrival{topic: "homeassistant/status", payload: []byte(Online), retained: true})
		k.receive(arrival{topic: "homeassistant/status", payload: []byte(Offline)})
		time.Sleep(reannounceWithin)
		synctest.Wait()
		if count() != 1 {
			t.Errorf("announced %d times, want once", count())
		}
		k.receive(arrival{topic: "homeassistant/status", payload: []byte(Online)})
		time.Sleep(reannounceWithin)
		synctest.Wait()
		if count() != 2 {
			t.Errorf("announced %d times, want twice", count())
		}
	})
}

// TestTemplates renders Home Assistant's templates over real payloads, where
// Python's Jinja is installed.
func TestTemplates(t *testing.T) {
	if exec.Command("python3", "-c", "import jinja2").Run() != nil {
		t.Skip("python3-jinja2 is not installed: apt-get install python3-jinja2")
	}
	d := haDevice(t, DiscoveryDevice, Verbs)
	h := d.complete(Health{Health: HealthDegraded, Reasons: []string{"dark"}})
	full := d.complete(Health{
		Health: HealthOK, Cameras: map[string]Camera{"a": {FPS: Known(2.5)}, "b": {FPS: Known(1)}, "c": {}},
		Thermal: &Thermal{Celsius: Known(51)}, Model: Model{SwapConsistency: Known(0.875), DriftScore: Known(0.2)},
		Inference: Inference{P95Seconds: Known(0.25)}, Storage: Storage{FreeBytes: 7},
	})
	card := ModelCard{Version: 3, SHA256: "ab", InstalledVersion: "3", LatestVersion: "4"}
	var (
		cases       [][2]any // template, payload
		want, names []string
	)
	for _, c := range []struct {
		component, key string
		payload        any
		want           string
	}{
		{"problem", "value_template", h, "ON"},
		{"problem", "value_template", full, "OFF"},
		{"problem", "json_attributes_template", h, `{"health": "degraded", "missing": [], "reasons": ["dark"]}`},
		{"fps", "value_template", h, "0"},
		{"fps", "value_template", full, "3.5"},
		{"latency", "value_template", h, "None"},
		{"latency", "value_template", full, "0.25"},
		{"swap-consistency", "value_template", h, "None"},
		{"swap-consistency", "value_template", full, "87.5"},
		{"drift", "value_template", h, "None"},
		{"drift", "value_template", full, "0.2"},
		{"disk", "value_template", full, "7"},
		{"temperature", "value_template", h, "None"},
		{"temperature", "value_template", full, "51"},
		{"model", "value_template", card, `{"installed_version": "3", "latest_version": "4"}`},
		{"camera-yard-label", "value_template", CameraState{Label: "bird"}, "bird"},
		{"camera-yard-score", "value_template", CameraState{Score: 0.731}, "73.1"},
		{"camera-yard-relevance", "value_template", CameraState{}, "None"},
		{"camera-yard-relevance", "value_template", CameraState{ForegroundRelevance: Known(0.5)}, "50.0"},
	} {
		template := d.components(testInfo)[c.component][c.key].(string)
		cases = append(cases, [2]any{template, c.payload})
		want = append(want, c.want)
		names = append(names, c.key+" of "+c.component)
	}
	input, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	const script = `import json, sys, jinja2
env = jinja2.Environment(undefined=jinja2.StrictUndefined)
print(json.dumps([env.from_string(t).render(value_json=p) for t, p in json.load(sys.stdin)]))`
	python := exec.Command("python3", "-c", script)
	python.Stdin, python.Stderr = bytes.NewReader(input), os.Stderr
	out, err := python.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s: %q, want %q", names[i], got[i], want[i])
		}
	}
}

// golden compares text with a file; -update writes it.
func golden(t *testing.T, path string, text []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(kept) != string(text) {
		t.Errorf("%s is not what the code says: look at the difference, then run go test ./fleet -update", path)
	}
}
