package fleet

import (
	"strings"
	"testing"
)

func TestTopics(t *testing.T) {
	dev := Topics{Root: "site/fovea", Device: "gate-1"}
	for _, c := range []struct {
		topic string
		want  parsedTopic
	}{
		{dev.Availability(), parsedTopic{kind: availabilityTopic}},
		{dev.Status(), parsedTopic{kind: statusTopic}},
		{dev.Model(), parsedTopic{kind: modelTopic}},
		{dev.Event(), parsedTopic{kind: eventTopic}},
		{dev.CameraAvailability("yard"), parsedTopic{kind: cameraAvailabilityTopic, camera: "yard"}},
		{dev.CameraState("yard"), parsedTopic{kind: cameraStateTopic, camera: "yard"}},
		{dev.CameraImage("yard"), parsedTopic{kind: cameraImageTopic, camera: "yard"}},
		{dev.Auto(), parsedTopic{kind: autoTopic}},
		{dev.AutoSource(), parsedTopic{kind: autoSourceTopic}},
		{dev.Verb("adapt"), parsedTopic{kind: verbTopic, verb: "adapt"}},
		{dev.Set("adapt"), parsedTopic{kind: setTopic, verb: "adapt"}},
		{dev.Command("adapt", "a_1"), parsedTopic{kind: commandTopic, verb: "adapt", cmdID: "a_1"}},
		{dev.CommandState("adapt", "a_1"), parsedTopic{kind: commandStateTopic, verb: "adapt", cmdID: "a_1"}},
	} {
		c.want.device = "gate-1"
		if got := parseTopic(dev.Root, c.topic); got != c.want {
			t.Errorf("%s: parsed as %+v, want %+v", c.topic, got, c.want)
		}
	}
	for _, topic := range []string{"", "site/fovea", "fovea/gate-1/status", "site/fovea/gate-1/cmd", "site/fovea/gate-1/cmd/adapt/a/b"} {
		if got := parseTopic(dev.Root, topic); got.kind != foreign {
			t.Errorf("%q: parsed as %+v, want foreign", topic, got)
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, good := range map[string]bool{"gate-1": true, long: true, long + "a": false, "": false, "Gate": false, "a/b": false, "+": false, "#": false, "all": false, "a_b": false, "a\n": false} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
	for id, good := range map[string]bool{"aZ_-9": true, long + "a": true, long + "ab": false, "": false, "set": false, "state": false, "a/b": false, "+": false, "é": false} {
		if err := CheckID(id); (err == nil) != good {
			t.Errorf("CheckID(%q) = %v", id, err)
		}
	}
	for root, good := range map[string]bool{"fovea": true, "site/fovea": true, "": false, "/fovea": false, "fovea/": false, "a//b": false, "a/+": false, "#": false} {
		if err := CheckRoot(root); (err == nil) != good {
			t.Errorf("CheckRoot(%q) = %v", root, err)
		}
	}
}
