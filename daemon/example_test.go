package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The example, which the packages install as /etc/fovea/fovea.yaml, changes nothing as it stands: what it
// shows as a default is one.
func TestExampleIsTheDefaults(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/fovea")
	c, err := parseConfig([]byte(exampleConfig), "/etc/fovea/fovea.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("the example as it stands (-defaults +example):\n%s", diff)
	}

	// With everything in force it must be right, and differ from the defaults only in what has none.
	commentedOut := regexp.MustCompile(`(?m)^( *)#([^ #\n])`)
	inForce := commentedOut.ReplaceAllString(exampleConfig, "$1$2")
	inForce = regexp.MustCompile(`(?m)^( *)#  `).ReplaceAllString(inForce, "$1  ")
	if c, err = parseConfig([]byte(inForce), "/etc/fovea/fovea.yaml"); err != nil {
		t.Fatalf("with everything in force: %v\n%s", err, inForce)
	}
	if len(c.Cameras) < 5 || c.Device.ID == "" || c.Model.Plugins.CPU.SHA256 == "" || c.MQTT.KeyFile == "" {
		t.Errorf("not everything is in force: %+v", c)
	}
	if c.Socket != systemSocket || c.sockets()[0] != want.sockets()[0] {
		t.Errorf("the example shows socket %s, the default is %s", c.Socket, want.sockets()[0])
	}
	c.Adapt.Schedule = ""
	c.Socket, c.Device, c.Model.Dir, c.Model.Plugins, c.Cameras = "", DeviceConfig{}, "", PluginsConfig{}, want.Cameras
	c.MQTT.URL, c.MQTT.Username, c.MQTT.PasswordFile = "", "", ""
	c.MQTT.CAFile, c.MQTT.CertFile, c.MQTT.KeyFile = "", "", ""
	c.Web.TLSCert, c.Web.TLSKey, c.Web.Hosts = "", "", nil
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("what the example shows as defaults (-defaults +example):\n%s", diff)
	}
	if strings.Contains(inForce, "\n#state_dir") {
		t.Error("a key was left commented out")
	}
}
