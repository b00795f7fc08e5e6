package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// retryBroker is how long an embedded broker that could not start is left before it is tried again.
const retryBroker = 5 * time.Second

// talk keeps the device on its broker, or on the embedded one where none is configured.
func (d *daemon) talk(ctx context.Context, c MQTTConfig) error {
	config := fleet.Config{
		Device: d.id, Root: c.Root, Broker: c.URL,
		PasswordFile: c.PasswordFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		Images: c.Images, Allow: verbsOf(c.Allow), TimeSynced: timeSynced,
		HomeAssistant: fleet.HomeAssistant{Discovery: fleet.Discovery(c.Discovery)},
	}
	if u, err := url.Parse(c.URL); err == nil && c.Username != "" {
		u.User = url.User(c.Username)
		config.Broker = u.String()
	}
	if c.URL == "" {
		broker := d.startBroker(ctx, c.Listen)
		if broker == nil {
			return nil
		}
		defer func() {
			if err := broker.Stop(); err != nil {
				d.log.Warn("embedded broker", "error", err)
			}
		}()
		config.Broker, config.PasswordFile = broker.URL(), broker.PasswordFile()
	}
	queue, commands := d.memory()
	device, err := fleet.New(config, queue, commands, d.log.With("part", "mqtt"))
	if err == nil {
		err = d.offer(device)
	}
	if err != nil {
		d.problems.set("mqtt", err.Error())
		d.log.Error("not on MQTT", "error", err)
		return nil
	}
	d.problems.set("mqtt", "")
	d.device.Store(device)
	defer d.device.Store(nil)
	if a := d.auto(); device.SetAuto(a.On, a.Source) != nil {
		d.log.Warn("the switch of automatic adaptation is not published")
	}
	return device.Run(ctx)
}

// startBroker starts the embedded broker, as often as it takes; nil means that ctx is done.
func (d *daemon) startBroker(ctx context.Context, listen string) *fleet.Broker {
	config, _ := d.configs.get()
	for ctx.Err() == nil {
		broker, err := fleet.NewBroker(listen, filepath.Join(config.StateDir, "mqtt-password"), d.log)
		if err == nil {
			err = broker.Start()
		}
		if err == nil {
			return broker
		}
		if d.problems.set("mqtt", err.Error()+"; name another in mqtt.listen, or give the url of a broker that runs") {
			d.log.Error("no embedded broker", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryBroker):
		}
	}
	return nil
}

// tell gives the broker what a new status says. told holds each camera's state as the fleet was told it; an
// event goes out when that changes.
func (d *daemon) tell(s *status, told map[string]string) {
	device := d.device.Load()
	if device == nil {
		return
	}
	tried := func(err error) {
		if err != nil {
			d.log.Error("not published", "error", err)
		}
	}
	tried(d.describe(device, s))
	tried(device.SetHealth(s.Health))
	if m := s.Model; m != nil {
		tried(device.SetModel(d.modelCard(s, m)))
	}
	for id, camera := range s.Health.Cameras {
		before := told[id]
		told[id] = camera.State
		tried(device.SetCamera(id, camera.State == fleet.CameraOnline))
		switch {
		case camera.State == fleet.CameraLost && before != fleet.CameraLost:
			tried(device.Emit(fleet.Event{Type: fleet.CameraWasLost, Camera: id, Reason: s.problemOf(id)}))
		case camera.State == fleet.CameraOnline && before == fleet.CameraLost:
			tried(device.Emit(fleet.Event{Type: fleet.CameraBack, Camera: id}))
		}
	}
	for id := range told {
		if _, configured := s.Health.Cameras[id]; !configured {
			delete(told, id)
			tried(device.RemoveCamera(id))
		}
	}
}

// modelCard is the live model, and the candidate that waits beside it.
func (d *daemon) modelCard(s *status, m *modelStatus) fleet.ModelCard {
	card := fleet.ModelCard{
		Version: m.Version, SHA256: m.SHA256, Title: m.Title, ReleaseSummary: m.Source,
		Parent: s.Health.Model.Parent, Verdict: s.Health.Adapt.LastVerdict, Probation: s.Health.Model.Probation,
	}
	if models := d.models(); models != nil {
		if candidate, err := models.Get(models.Standing().Candidate); err == nil {
			card.LatestVersion, card.ReleaseSummary = fmt.Sprint(candidate.Number), short(d.cycle.state.Load().Adapt.LastReason, 255)
		}
	}
	return card
}

// short cuts a text to n bytes, at a letter.
func short(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

func (s *status) problemOf(camera string) string {
	for _, c := range s.Cameras {
		if c.ID == camera {
			return c.Problem
		}
	}
	return ""
}

// publish gives the broker an answer; it never waits for the network.
func (d *daemon) publish(w *watched, a *answer) {
	device := d.device.Load()
	if device == nil || len(a.guesses) == 0 {
		return
	}
	share, _ := w.foreground.get()
	err := device.SetCameraState(w.config.ID, fleet.CameraState{
		TS: a.frame.Time.Round(0), Label: a.guesses[0].Label, Score: a.guesses[0].Score, Margin: a.margin, Model: a.by.version,
		ForegroundRelevance: share, SecondLook: !a.second.Empty(),
	})
	if err != nil {
		d.log.Error("not published", "camera", w.config.ID, "error", err)
	}
}

// brokerStatus is the connection as the page and the health JSON show it.
func (d *daemon) brokerStatus() (b brokerStatus, h fleet.MQTT) {
	config, _ := d.configs.get()
	b = brokerStatus{Embedded: config.MQTT.URL == "", Topic: config.MQTT.Root + "/" + d.id}
	if device := d.device.Load(); device != nil {
		s := device.Status()
		b.Connected, b.Address = s.Connected, s.Broker
		h = fleet.MQTT{Queue: s.Queue, DroppedTotal: s.Dropped, ReconnectsTotal: s.Reconnects}
		if s.Reason != "" {
			b.Problem = s.Reason
			if s.Hint != "" {
				b.Problem += "; " + s.Hint
			}
		}
	}
	return b, h
}
