package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// A Discovery is how a device makes itself known to Home Assistant.
type Discovery string

// The forms.
const (
	DiscoveryDevice    Discovery = "device"    // one message a device; Home Assistant since 2024.12
	DiscoveryComponent Discovery = "component" // one message an entity; older ones
	DiscoveryOff       Discovery = "off"
)

// reannounceWithin is how long after Home Assistant has started a device may
// take to announce itself again, so that not all do at once.
const reannounceWithin = 5 * time.Second

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

// deviceTopic is where DiscoveryDevice announces a device.
func (h HomeAssistant) deviceTopic(device string) string {
	return h.Prefix + "/device/" + device + "/config"
}

// componentTopic is where DiscoveryComponent announces one entity.
func (h HomeAssistant) componentTopic(platform, device, component string) string {
	return h.Prefix + "/" + platform + "/" + device + "/" + component + "/config"
}

// Info is how a device presents itself to people.
type Info struct {
	Name    string            // "" is the device's id
	Model   string            // of the hardware
	Version string            // of the daemon
	URL     string            // of the device's own page; "" is none
	Cameras map[string]string // names by camera id; an empty name is the id
}

// Describe announces the device to Home Assistant. Call it after Handle, and
// again when something of it changed: what is gone is taken back.
func (d *Device) Describe(info Info) error {
	if info.Name == "" {
		info.Name = d.cfg.Device
	}
	for cam := range info.Cameras {
		if err := CheckName(cam); err != nil {
			return fmt.Errorf("mqtt: camera: %w", err)
		}
	}
	messages, err := d.discovery(info)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.described = info.Cameras
	for topic := range d.announced {
		if _, still := messages[topic]; !still {
			messages[topic] = nil
		}
	}
	d.announced = messages
	// What is taken back goes first: an entity that is announced under a second
	// topic while it still has the first is refused.
	for _, gone := range []bool{true, false} {
		for _, topic := range slices.Sorted(maps.Keys(messages)) {
			if (messages[topic] == nil) == gone {
				d.out.set(outgoing{topic: topic, qos: 1, retained: true, payload: messages[topic]}, 0)
			}
		}
	}
	return nil
}

// homeAssistantSays announces the device again when Home Assistant has started.
func (d *Device) homeAssistantSays(ctx context.Context, a arrival) {
	if string(a.payload) != Online || a.retained { // a retained one comes at our connect, which announces anyway
		return
	}
	time.AfterFunc(rand.N(reannounceWithin), func() {
		if ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		topics := slices.Collect(maps.Keys(d.announced))
		d.mu.Unlock()
		d.out.again(topics)
	})
}

// component is one entity: Home Assistant's keys and what they are.
type component map[string]any

// discovery returns the payload of every discovery topic that this device may
// ever have used, nil for the forms that are not chosen.
func (d *Device) discovery(info Info) (map[string][]byte, error) {
	h := d.cfg.HomeAssistant
	dev := map[string]any{
		"ids": []string{d.cfg.Root + "-" + d.cfg.Device}, "name": info.Name, "mf": "Fovea",
		"mdl": info.Model, "sw": info.Version,
	}
	if info.URL != "" {
		dev["cu"] = info.URL
	}
	origin := map[string]any{"name": "fovea", "sw": info.Version}
	components, gone := d.components(info), d.gone(info)

	messages := map[string][]byte{h.deviceTopic(d.cfg.Device): nil}
	for name, c := range components {
		messages[h.componentTopic(c["p"].(string), d.cfg.Device, name)] = nil
	}
	for name, platform := range gone {
		messages[h.componentTopic(platform, d.cfg.Device, name)] = nil
		components[name] = component{"p": platform} // which takes it back
	}
	switch h.Discovery {
	case DiscoveryDevice:
		text, err := json.Marshal(map[string]any{
			"dev": dev, "o": origin, "qos": 1,
			"availability": d.availability(""), "availability_mode": "all",
			"cmps": components,
		})
		if err != nil {
			return nil, fmt.Errorf("mqtt: encode the device's description: %w", err)
		}
		messages[h.deviceTopic(d.cfg.Device)] = text
	case DiscoveryComponent:
		for name, c := range components {
			if _, taken := gone[name]; taken {
				continue
			}
			topic := h.componentTopic(c["p"].(string), d.cfg.Device, name)
			one := maps.Clone(c)
			delete(one, "p")
			one["dev"], one["o"], one["qos"] = dev, origin, 1
			text, err := json.Marshal(one)
			if err != nil {
				return nil, fmt.Errorf("mqtt: encode the description of %s: %w", name, err)
			}
			messages[topic] = text
		}
	}
	return messages, nil
}

// availability lists what must be online for an entity to be: the device, and
// its camera if it has one.
func (d *Device) availability(cam string) []map[string]string {
	list := []map[string]string{{"topic": d.topics.Availability()}}
	if cam != "" {
		list = append(list, map[string]string{"topic": d.topics.CameraAvailability(cam)})
	}
	return list
}

// gone names entities that may have been announced before but are not part of
// the device any more, with their platforms: those of verbs that it does not
// offer, of pictures that it does not publish, and of cameras that it had at
// the last Describe.
func (d *Device) gone(info Info) map[string]string {
	gone := map[string]string{}
	for _, e := range []struct {
		name, platform string
		here           bool
	}{
		{"adapt", "button", d.commands.offers(VerbAdapt)},
		{"rollback", "button", d.commands.offers(VerbRollback)},
		{"snapshot", "button", d.commands.offers(VerbSnapshot)},
		{"auto", "switch", d.commands.offers(VerbAuto)},
		{"auto-state", "binary_sensor", !d.commands.offers(VerbAuto)},
	} {
		if !e.here {
			gone[e.name] = e.platform
		}
	}
	for cam := range info.Cameras {
		if !d.cfg.Images {
			gone["camera-"+cam+"-image"] = "image"
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for cam := range d.described {
		if _, here := info.Cameras[cam]; !here {
			for _, name := range []string{"label", "score", "relevance"} {
				gone["camera-"+cam+"-"+name] = "sensor"
			}
			gone["camera-"+cam+"-image"] = "image"
		}
	}
	return gone
}

// components are the device's entities by name.
func (d *Device) components(info Info) map[string]component {
	all := map[string]component{}
	add := func(name, platform, cam string, c component) {
		c["p"] = platform
		c["unique_id"] = d.cfg.Root + "_" + d.cfg.Device + "_" + name
		c["availability"], c["availability_mode"] = d.availability(cam), "all"
		all[name] = c
	}
	for cam, name := range info.Cameras {
		if name == "" {
			name = cam
		}
		// The names and platforms of these are known to gone, too.
		state := d.topics.CameraState(cam)
		add("camera-"+cam+"-label", "sensor", cam, component{
			"name": name + " label", "state_topic": state, "value_template": "{{ value_json.label }}", "icon": "mdi:eye",
		})
		add("camera-"+cam+"-score", "sensor", cam, component{
			"name": name + " score", "state_topic": state, "value_template": "{{ (value_json.score * 100) | round(1) }}",
			"unit_of_measurement": "%", "state_class": "measurement",
		})
		add("camera-"+cam+"-relevance", "sensor", cam, component{
			"name": name + " foreground relevance", "state_topic": state, "unit_of_measurement": "%", "state_class": "measurement",
			"value_template": "{{ (value_json.foreground_relevance * 100) | round(1) if value_json.foreground_relevance is defined else 'None' }}",
		})
		if d.cfg.Images {
			add("camera-"+cam+"-image", "image", cam, component{
				"name": name, "image_topic": d.topics.CameraImage(cam), "content_type": "image/jpeg", "enabled_by_default": false,
			})
		}
	}

	status := d.topics.Status()
	add("problem", "binary_sensor", "", component{
		"name": "Problem", "state_topic": status, "device_class": "problem", "entity_category": "diagnostic",
		"value_template":           "{{ 'OFF' if value_json.health == 'ok' else 'ON' }}",
		"json_attributes_topic":    status,
		"json_attributes_template": "{{ {'health': value_json.health, 'reasons': value_json.reasons, 'missing': value_json.setup.missing} | tojson }}",
	})
	offered := d.commands.offers
	button := func(name string, v Verb, label, icon string) {
		if offered(v) {
			add(name, "button", "", component{"name": label, "command_topic": d.topics.Set(string(v)), "payload_press": "PRESS", "icon": icon})
		}
	}
	button("adapt", VerbAdapt, "Adapt now", "mdi:school")
	button("rollback", VerbRollback, "Roll back", "mdi:undo")
	button("snapshot", VerbSnapshot, "Take pictures", "mdi:camera")
	auto := component{
		"name": "Automatic adaptation", "state_topic": d.topics.Auto(), "payload_on": "ON", "payload_off": "OFF",
		"json_attributes_topic": d.topics.AutoSource(),
	}
	if offered(VerbAuto) {
		auto["command_topic"] = d.topics.Set(string(VerbAuto))
		add("auto", "switch", "", auto)
	} else { // to be seen, not changed
		add("auto-state", "binary_sensor", "", auto)
	}
	update := component{
		"name": "Model", "state_topic": d.topics.Model(),
		// Home Assistant refuses other keys, and null.
		"value_template": "{{ dict(value_json.items() | selectattr('0', 'in', ['installed_version', 'latest_version', 'title', 'release_summary'])) | tojson }}",
	}
	if offered(VerbPromote) {
		update["command_topic"], update["payload_install"] = d.topics.Set(string(VerbPromote)), "PRESS"
	}
	add("model", "update", "", update)
	add("adaptation", "event", "", component{"name": "Adaptation", "state_topic": d.topics.Event(), "event_types": EventTypes})

	diagnostic := func(name, label, template string, more component) {
		c := component{"name": label, "state_topic": status, "value_template": template, "entity_category": "diagnostic", "state_class": "measurement"}
		maps.Copy(c, more)
		add(name, "sensor", "", c)
	}
	// A value that is not known is absent, which Home Assistant calls None.
	diagnostic("fps", "Frame rate", "{{ value_json.cameras.values() | selectattr('fps', 'defined') | map(attribute='fps') | sum | round(2) }}", component{"unit_of_measurement": "fps"})
	diagnostic("latency", "Latency p95", "{{ value_json.inference.p95_seconds | default('None') }}", component{"unit_of_measurement": "s", "device_class": "duration", "suggested_display_precision": 3})
	diagnostic("swap-consistency", "Swap consistency", "{{ (value_json.model.swap_consistency * 100) | round(1) if value_json.model.swap_consistency is defined else 'None' }}", component{"unit_of_measurement": "%"})
	diagnostic("drift", "Drift", "{{ value_json.model.drift_score | default('None') }}", nil)
	diagnostic("disk", "Free disk", "{{ value_json.storage.free_bytes }}", component{"unit_of_measurement": "B", "device_class": "data_size"})
	diagnostic("temperature", "Temperature", "{{ (value_json.thermal | default({})).celsius | default('None') }}", component{"unit_of_measurement": "°C", "device_class": "temperature"})
	return all
}
