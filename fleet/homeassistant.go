package fleet

import (
	"context"
	"fmt"
)

// A Discovery is how a device makes itself known to Home Assistant.
type Discovery string

// The forms.
const (
	DiscoveryDevice    Discovery = "device"    // one message a device; Home Assistant since 2024.12
	DiscoveryComponent Discovery = "component" // one message an entity; older ones
	DiscoveryOff       Discovery = "off"
)

// HomeAssistant says how a device makes itself known.
type HomeAssistant struct {
	Discovery Discovery // "" is DiscoveryDevice
	Prefix    string    // "" is homeassistant
}

func (h HomeAssistant) withDefaults() HomeAssistant {
	if h.Discovery == "" {
		h.Discovery = DiscoveryDevice
	}
	if h.Prefix == "" {
		h.Prefix = "homeassistant"
	}
	return h
}

func (h HomeAssistant) check() error {
	switch h.Discovery {
	case DiscoveryDevice, DiscoveryComponent, DiscoveryOff:
	default:
		return fmt.Errorf("discovery %q: use device, component or off", h.Discovery)
	}
	return CheckRoot(h.Prefix)
}

// statusTopic is where Home Assistant says that it has started.
func (h HomeAssistant) statusTopic() string { return h.Prefix + "/status" }

func (d *Device) homeAssistantSays(context.Context, arrival) {}
