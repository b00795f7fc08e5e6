package fleet

import (
	"fmt"
	"regexp"
	"strings"
)

// Everyone is the device name that addresses the whole fleet. No device may
// carry it.
const Everyone = "all"

var (
	nameForm = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	idForm   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	rootForm = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`)
)

// CheckName refuses what cannot be the name of a device or a camera in a
// topic: it must match [a-z0-9-]{1,63} and not be "all".
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("name %q: use 1 to 63 of the characters a-z, 0-9 and -", name)
	}
	if name == Everyone {
		return fmt.Errorf("name %q is reserved for the whole fleet: choose another", name)
	}
	return nil
}

// CheckID refuses what cannot be the id of a command: it must match
// [A-Za-z0-9_-]{1,64} and not be "set" or "state".
func CheckID(id string) error {
	if !idForm.MatchString(id) {
		return fmt.Errorf("command id %q: use 1 to 64 of the characters A-Z, a-z, 0-9, _ and -", id)
	}
	if id == "set" || id == "state" {
		return fmt.Errorf("command id %q is reserved: choose another", id)
	}
	return nil
}

// CheckRoot refuses what cannot be the root of the topics: it must be one or
// more levels of A-Z, a-z, 0-9, _ and - without wildcards, and no leading or
// trailing slash.
func CheckRoot(root string) error {
	if !rootForm.MatchString(root) || len(root) > 200 {
		return fmt.Errorf("root topic %q: use levels of A-Z, a-z, 0-9, _ and -, separated by /", root)
	}
	return nil
}

// Topics are the topics of one device below a root. Device may be "+" in an
// operator's subscriptions and [Everyone] where the whole fleet is meant.
type Topics struct {
	Root   string // "fovea" unless configured
	Device string // [a-z0-9-]{1,63}
}

func (t Topics) of(levels ...string) string {
	return t.Root + "/" + t.Device + "/" + strings.Join(levels, "/")
}

// Availability is retained, QoS 1: "online", or "offline" by the last will.
func (t Topics) Availability() string { return t.of("availability") }

// Status is retained, QoS 1: [Health].
func (t Topics) Status() string { return t.of("status") }

// Model is retained, QoS 1: [ModelCard].
func (t Topics) Model() string { return t.of("model") }

// Event is not retained, QoS 1: [Event].
func (t Topics) Event() string { return t.of("event") }

// CameraAvailability is retained, QoS 1: "online" or "offline".
func (t Topics) CameraAvailability(cam string) string { return t.of("camera", cam, "availability") }

// CameraState is retained, QoS 0: [CameraState].
func (t Topics) CameraState(cam string) string { return t.of("camera", cam, "state") }

// CameraImage is not retained, QoS 0: a JPEG with the relevance overlay.
func (t Topics) CameraImage(cam string) string { return t.of("camera", cam, "image") }

// Auto is retained, QoS 1: "ON" or "OFF", whether the device adapts by itself.
func (t Topics) Auto() string { return t.of("settings", "auto") }

// AutoSource is retained, QoS 1: [AutoSource], who set it.
func (t Topics) AutoSource() string { return t.of("settings", "auto", "source") }

// Verb is retained, QoS 1: [VerbCard], what the verb takes; empty when the
// device does not offer it.
func (t Topics) Verb(verb string) string { return t.of("cmd", verb) }

// Set takes "PRESS", "ON", "OFF" or JSON from a dashboard; QoS 1, not retained.
func (t Topics) Set(verb string) string { return t.of("cmd", verb, "set") }

// Command takes a request with the caller's id; QoS 1, not retained.
func (t Topics) Command(verb, id string) string { return t.of("cmd", verb, id) }

// CommandState is retained, QoS 1: [CommandState], cleared after 24 hours.
func (t Topics) CommandState(verb, id string) string { return t.of("cmd", verb, id, "state") }

// fleetWide is where commands to every device arrive.
func (t Topics) fleetWide() Topics { return Topics{Root: t.Root, Device: Everyone} }

// A topicKind names the shape of a topic in parse's answer.
type topicKind int

const (
	foreign topicKind = iota // not one of ours
	availabilityTopic
	statusTopic
	modelTopic
	eventTopic
	cameraAvailabilityTopic
	cameraStateTopic
	cameraImageTopic
	autoTopic
	autoSourceTopic
	verbTopic
	setTopic
	commandTopic
	commandStateTopic
)

// parsedTopic is a topic taken apart; fields that its kind lacks are empty.
type parsedTopic struct {
	kind                topicKind
	device              string
	camera, verb, cmdID string
}

// parseTopic takes apart a topic below root. Names are not judged: an id or a
// device comes back as it was written.
func parseTopic(root, topic string) parsedTopic {
	rest, ok := strings.CutPrefix(topic, root+"/")
	if !ok {
		return parsedTopic{}
	}
	l := strings.Split(rest, "/")
	p := parsedTopic{device: l[0]}
	switch {
	case len(l) == 2 && l[1] == "availability":
		p.kind = availabilityTopic
	case len(l) == 2 && l[1] == "status":
		p.kind = statusTopic
	case len(l) == 2 && l[1] == "model":
		p.kind = modelTopic
	case len(l) == 2 && l[1] == "event":
		p.kind = eventTopic
	case len(l) == 4 && l[1] == "camera" && l[3] == "availability":
		p.kind, p.camera = cameraAvailabilityTopic, l[2]
	case len(l) == 4 && l[1] == "camera" && l[3] == "state":
		p.kind, p.camera = cameraStateTopic, l[2]
	case len(l) == 4 && l[1] == "camera" && l[3] == "image":
		p.kind, p.camera = cameraImageTopic, l[2]
	case len(l) == 3 && l[1] == "settings" && l[2] == "auto":
		p.kind = autoTopic
	case len(l) == 4 && l[1] == "settings" && l[2] == "auto" && l[3] == "source":
		p.kind = autoSourceTopic
	case len(l) == 3 && l[1] == "cmd":
		p.kind, p.verb = verbTopic, l[2]
	case len(l) == 4 && l[1] == "cmd" && l[3] == "set":
		p.kind, p.verb = setTopic, l[2]
	case len(l) == 4 && l[1] == "cmd":
		p.kind, p.verb, p.cmdID = commandTopic, l[2], l[3]
	case len(l) == 5 && l[1] == "cmd" && l[4] == "state":
		p.kind, p.verb, p.cmdID = commandStateTopic, l[2], l[3]
	}
	return p
}
