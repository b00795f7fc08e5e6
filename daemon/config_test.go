package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"

	"github.com/seed-a98b2d25/fovea/capture"
)

var update = flag.Bool("update", false, "write what the tests compare with")

// Each testdata/NAME.bad.yaml is refused with the faults in its comments, "# fault: LINE:COLUMN: TEXT", in
// that order and no others; TEXT is how the rest of the message begins.
func TestBadConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d bad configurations, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(data)) {
				if _, text, ok := strings.Cut(line, "# fault: "); ok {
					want = append(want, strings.TrimSpace(text))
				}
			}
			_, err = parseConfig(data, file)
			var refused *configError
			if !errors.As(err, &refused) {
				t.Fatalf("not refused: %v", err)
			}
			var got []string
			for i, f := range refused.faults {
				text := fmt.Sprintf("%d:%d: %s: %s", f.line, f.column, f.field, f.problem)
				if f.field == "" {
					text = fmt.Sprintf("%d:%d: %s", f.line, f.column, f.problem)
				}
				if i < len(want) && strings.HasPrefix(text, want[i]) {
					text = want[i]
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			if !strings.Contains(err.Error(), fmt.Sprintf("%s:%d:", file, refused.faults[0].line)) {
				t.Errorf("the error does not say where:\n%v", err)
			}
		})
	}
}

func TestGoodConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.good.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d good configurations, %v", len(files), err)
	}
	for _, file := range files {
		if _, err := loadConfig(file); err != nil {
			t.Error(err)
		}
	}
}

func TestConfigurationOverDefaults(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	credential := filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), "door-password")
	if err := os.WriteFile(credential, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STATE_DIRECTORY", "/srv/state:/srv/other")
	c, err := loadConfig("testdata/full.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.StateDir = "/srv/state"
	want.Device = DeviceConfig{ID: "007", Labels: map[string]string{"site": "hall-2", "floor": "1"}}
	want.Model.Dir = filepath.Join(here, "models/base")
	want.Model.Plugins.CPU = PluginConfig{Path: "/opt/cpu.so", SHA256: strings.Repeat("0a", 32)}
	want.Inference.RelevanceEvery = 0
	door := CameraConfig{PasswordFile: credential}
	door.Config = capture.Config{
		ID: "door", Source: "rtsp://10.0.0.7/stream1", Username: "viewer", FPS: 5,
		Privacy: []capture.Polygon{{{0, 0}, {0.5, 0}, {0.5, 1}}},
	}
	hall := CameraConfig{}
	hall.Config = capture.Config{ID: "hall", Source: filepath.Join(here, "hall.mp4"), FPS: 5, Loop: true}
	want.Cameras = []CameraConfig{door, hall}
	want.MQTT.URL, want.MQTT.Username = "mqtts://broker.example", "line-3"
	want.MQTT.PasswordFile = filepath.Join(here, "mqtt-password")
	want.Web.Listen = webOff
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// The example that users begin with is right, and shows every key.
func TestExampleConfiguration(t *testing.T) {
	if _, err := parseConfig([]byte(exampleConfig), "fovea.example.yaml"); err != nil {
		t.Error(err)
	}
	shown := strings.NewReplacer("# ", "", "#", "").Replace(exampleConfig)
	var schema struct {
		Defs map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(configSchema), &schema); err != nil {
		t.Fatal(err)
	}
	rare := map[string]bool{"transport": true, "max_side": true, "memory_limit": true, "grabber": true}
	for group, def := range schema.Defs {
		for key := range def.Properties {
			if !rare[key] && !strings.Contains(shown, key+":") {
				t.Errorf("the example does not show %s of %s", key, group)
			}
		}
	}
}

// The published schema is made from the types and their comments: "go test -run Schema -update ./daemon".
func TestSchema(t *testing.T) {
	schema := schemaOf(t)
	for _, file := range []string{"config.schema.json", "../docs/schema/config.json"} {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, schema, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(schema), string(got)); diff != "" {
			t.Errorf("%s is not what the types say (-want +got); run with -update:\n%s", file, diff)
		}
	}
	for field, d := range undescribed(t, schema) {
		t.Errorf("%s has no comment: %s", field, d)
	}
}

func schemaOf(t *testing.T) []byte {
	t.Helper()
	r := &jsonschema.Reflector{FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true}
	t.Chdir("..")
	for _, room := range []string{"daemon", "capture", "adapt"} {
		if err := r.AddGoComments("github.com/seed-a98b2d25/fovea", "./"+room); err != nil {
			t.Fatal(err)
		}
	}
	s := r.Reflect(&Config{})
	s.ID = "https://raw.githubusercontent.com/seed-a98b2d25/fovea/main/docs/schema/config.json"
	s.Title = "Configuration of Fovea"
	s.Definitions["CameraConfig"].Required = []string{"id", "source"}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("daemon")
	return append(data, '\n')
}

// undescribed returns the properties of simple types that have no description.
func undescribed(t *testing.T, schema []byte) map[string]string {
	t.Helper()
	var s struct {
		Defs map[string]struct {
			Properties map[string]struct {
				Ref         string `json:"$ref"`
				Description string `json:"description"`
			} `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(schema, &s); err != nil {
		t.Fatal(err)
	}
	plain := map[string]bool{ // the name says it
		"MQTTConfig.username": true, "MQTTConfig.key_file": true, "WebConfig.tls_key": true, "LogConfig.level": true,
		"CameraConfig.password": true, "CameraConfig.height": true, "CameraConfig.fourcc": true,
	}
	missing := map[string]string{}
	for group, def := range s.Defs {
		for key, p := range def.Properties {
			if p.Ref == "" && p.Description == "" && !plain[group+"."+key] {
				missing[group+"."+key] = "a user cannot know what it does"
			}
		}
	}
	return missing
}

func TestDidYouMean(t *testing.T) {
	known := []string{"source", "loop", "fps", "privacy"}
	for key, want := range map[string]string{
		"sorce": "; did you mean source?", "modle": "; known here: source, loop, fps, privacy", "privcay": "; did you mean privacy?",
	} {
		if got := didYouMean(key, known); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(exampleConfig))
	f.Add([]byte("cameras:\n  - &a {id: x, source: y}\n  - <<: *a\n    id: z\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data, "fuzz.yaml")
		if (c == nil) == (err == nil) {
			t.Fatalf("configuration %v, error %v", c, err)
		}
	})
}
