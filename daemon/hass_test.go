package main

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// TestHomeAssistant is the promise to people who use it, kept by the real daemon on the small world. It needs a real
// Home Assistant: see docs/fleet.md.
func TestHomeAssistant(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	h := realparts.StartHomeAssistant(t, m)
	grab, err := realGrabber()
	if err != nil {
		t.Fatal(err)
	}
	k := newKilled(t, fmt.Sprintf(`
device: {id: gate-7}
cameras: [{id: yard, source: %q, loop: true, fps: 2, grabber: %q}]
inference: {relevance_every: 2}
samples: {every: 1h}
mqtt: {url: %q, discovery: %s, images: true, allow: [health, adapt, cancel, promote, rollback, auto, snapshot]}
`, pictures(t), grab, m.URL(), h.Discovery)+strings.Replace(quiet, "auto: false", "auto: false, approval: manual, new_samples: 1000", 1)) // no adaptation but the button's
	sub := listen(t, "-h", "127.0.0.1", "-p", m.Port)

	k.start()
	wanted := []string{
		"sensor.gate_7_yard_label", "sensor.gate_7_yard_score", "sensor.gate_7_yard_foreground_relevance", "binary_sensor.gate_7_problem",
		"button.gate_7_adapt_now", "button.gate_7_roll_back", "button.gate_7_take_pictures", "switch.gate_7_automatic_adaptation",
		"update.gate_7_model", "event.gate_7_adaptation", "sensor.gate_7_frame_rate", "sensor.gate_7_latency_p95",
		"sensor.gate_7_swap_consistency", "sensor.gate_7_drift", "sensor.gate_7_free_disk", "sensor.gate_7_temperature",
	}
	entity := func(id string) realparts.Entity { return h.Entities("gate_7")[id] }
	there := func() bool {
		has := h.Entities("gate_7")
		for _, id := range wanted {
			if e, ok := has[id]; !ok || e.State == "unavailable" {
				return false
			}
		}
		return has["sensor.gate_7_yard_label"].State != "unknown" && has["update.gate_7_model"].State != "unknown"
	}
	realparts.Within(t, time.Minute, "the device is there with all its entities", there)
	has := h.Entities("gate_7")
	for _, id := range wanted {
		t.Logf("%s: %s", id, has[id].State)
	}
	if has["update.gate_7_model"].State != "off" || has["switch.gate_7_automatic_adaptation"].State != "off" {
		t.Errorf("at first: %+v", has)
	}

	h.Call("switch/turn_on", "switch.gate_7_automatic_adaptation")
	realparts.Within(t, patience, "the switch is on, and the device says who did it", func() bool {
		e := entity("switch.gate_7_automatic_adaptation")
		return e.State == "on" && e.Attributes["source"] == fleet.SourceRemote
	})
	time.Sleep(10 * time.Second) // a second press of one verb within this is the first one again
	h.Call("switch/turn_off", "switch.gate_7_automatic_adaptation")
	realparts.Within(t, patience, "and off", func() bool { return entity("switch.gate_7_automatic_adaptation").State == "off" })

	h.Call("button/press", "button.gate_7_adapt_now")
	realparts.Within(t, patience, "the button starts an adaptation", func() bool {
		said := sub.all("fovea/gate-7/event")
		return strings.Contains(said, string(fleet.AdaptStarted)) && strings.Contains(said, `"command":"set-`)
	})
	realparts.Within(t, 2*patience, "the update entity shows the candidate", func() bool {
		e := entity("update.gate_7_model")
		return e.State == "on" && e.Attributes["installed_version"] == "0" && e.Attributes["latest_version"] == "1" && e.Attributes["release_summary"] != ""
	})
	realparts.Within(t, patience, "the event entity, that it waits", func() bool {
		return entity("event.gate_7_adaptation").Attributes["event_type"] == string(fleet.AdaptWaits)
	})
	h.Call("update/install", "update.gate_7_model")
	realparts.Within(t, patience, "its install button makes the candidate live", func() bool {
		e := entity("update.gate_7_model")
		return e.State == "off" && e.Attributes["installed_version"] == "1"
	})

	unavailable := func() bool {
		has := h.Entities("gate_7")
		return has["sensor.gate_7_yard_label"].State == "unavailable" && has["update.gate_7_model"].State == "unavailable" && has["button.gate_7_adapt_now"].State == "unavailable"
	}
	const keepAlive = 30 * time.Second // of fleet.Config
	k.command.Process.Kill()           // -9: its kernel closes the connection
	k.command.Wait()
	realparts.Within(t, keepAlive, "after kill -9 it is unavailable", unavailable)
	k.start()
	realparts.Within(t, time.Minute, "it is back", there)
	k.command.Process.Signal(syscall.SIGSTOP) // the connection stays: as where the power is cut
	realparts.Within(t, keepAlive*3/2+20*time.Second, "without a word it is unavailable after 1.5 times the keep-alive of 30 s", unavailable)
	k.command.Process.Signal(syscall.SIGCONT)
	realparts.Within(t, time.Minute, "it is back", there)

	h.Stop()
	h.Enable("image.gate_7_yard") // which is off by default
	began := time.Now()
	h.Start()
	realparts.Within(t, 30*time.Second, "after a restart of Home Assistant all is back", there)
	t.Logf("%.1f s from the start of the process", time.Since(began).Seconds())

	realparts.Within(t, patience, "the image that was switched on is there", func() bool { return entity("image.gate_7_yard").State == "unknown" })
	h.Call("button/press", "button.gate_7_take_pictures")
	realparts.Within(t, patience, "the button brings a picture", func() bool { return entity("image.gate_7_yard").State != "unknown" })
	if picture, err := jpeg.DecodeConfig(bytes.NewReader(h.Picture("image.gate_7_yard"))); err != nil || picture.Width != 96 || picture.Height != 64 {
		t.Errorf("the picture: %+v, %v", picture, err)
	}
}
