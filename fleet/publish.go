package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
)

// set encodes v and makes it the newest value of a retained topic.
func (d *Device) set(topic string, qos byte, v any, every time.Duration) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("mqtt: encode %s: %w", topic, err)
	}
	d.out.set(outgoing{topic: topic, qos: qos, retained: true, payload: payload}, every)
	return nil
}

// SetHealth publishes h: within a second if something changed that a person
// would want to know, else once a minute. Call it as often as you like, at
// least once a minute.
func (d *Device) SetHealth(h Health) error {
	h = d.complete(h)
	key := changeKey(h)
	d.mu.Lock()
	defer d.mu.Unlock() // lastKey is that of what is to be sent: were it newer, it would keep the newer back
	every := statusEvery
	if key != d.lastKey {
		every = changeEvery
	}
	d.lastKey = key
	return d.set(d.topics.Status(), 1, h, every)
}

// complete fills the fields of h that are the device's own.
func (d *Device) complete(h Health) Health {
	h.Schema = HealthSchema
	if h.TS.IsZero() {
		h.TS = time.Now()
	}
	h.TS = stamp(h.TS)
	if h.Reasons == nil {
		h.Reasons = []string{}
	}
	if h.Setup.Missing == nil {
		h.Setup.Missing = []string{}
	}
	if h.Labels == nil {
		h.Labels = map[string]string{}
	}
	if h.Cameras == nil {
		h.Cameras = map[string]Camera{}
	}
	s := d.Status()
	h.MQTT = MQTT{Queue: s.Queue, DroppedTotal: s.Dropped, ReconnectsTotal: s.Reconnects}
	dropNonFinite(reflect.ValueOf(&h).Elem())
	return h
}

// stamp is a time as payloads write it: UTC, to the millisecond.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// changeKey is equal for two Healths that differ only in what moves all the
// time.
func changeKey(h Health) string {
	cameras := maps.Clone(h.Cameras)
	for id, c := range cameras {
		cameras[id] = Camera{State: c.State, Quality: c.Quality}
	}
	key, err := json.Marshal(Health{
		TimeSynced: h.TimeSynced, BootID: h.BootID, Version: h.Version, Health: h.Health, Reasons: h.Reasons,
		Labels: h.Labels, Setup: h.Setup, Cameras: cameras,
		Model: Model{Version: h.Model.Version, SHA256: h.Model.SHA256, Probation: h.Model.Probation},
		Adapt: Adapt{State: h.Adapt.State, LastVerdict: h.Adapt.LastVerdict, LastReason: h.Adapt.LastReason, PausedBy: h.Adapt.PausedBy},
	})
	if err != nil {
		panic(err) // strings, integers and maps of strings alone
	}
	return string(key)
}

// SetModel publishes the model card.
func (d *Device) SetModel(m ModelCard) error {
	if m.InstalledVersion == "" {
		m.InstalledVersion = strconv.FormatInt(m.Version, 10)
	}
	if m.LatestVersion == "" {
		m.LatestVersion = m.InstalledVersion
	}
	m.ReleaseSummary = cut(m.ReleaseSummary, 255)
	return d.set(d.topics.Model(), 1, m, 0)
}

// cut shortens s to at most n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// SetCamera publishes whether a camera delivers.
func (d *Device) SetCamera(cam string, online bool) error {
	if err := CheckName(cam); err != nil {
		return fmt.Errorf("mqtt: camera: %w", err)
	}
	word := Offline
	if online {
		word = Online
	}
	d.out.set(outgoing{topic: d.topics.CameraAvailability(cam), qos: 1, retained: true, payload: []byte(word)}, 0)
	return nil
}

// SetCameraState publishes what a camera shows: at once if the label is
// another than before, else at most once in Config.StateEvery.
func (d *Device) SetCameraState(cam string, s CameraState) error {
	if err := CheckName(cam); err != nil {
		return fmt.Errorf("mqtt: camera: %w", err)
	}
	s.TS = stamp(s.TS)
	dropNonFinite(reflect.ValueOf(&s).Elem())
	d.mu.Lock()
	defer d.mu.Unlock() // as in SetHealth
	last, known := d.lastCamera[cam]
	d.lastCamera[cam] = s
	every := d.cfg.StateEvery
	if !known || last.Label != s.Label {
		every = 0
	}
	return d.set(d.topics.CameraState(cam), 0, s, every)
}

// RemoveCamera takes a camera that is configured no more off the broker.
func (d *Device) RemoveCamera(cam string) error {
	d.mu.Lock()
	delete(d.lastCamera, cam)
	d.mu.Unlock()
	for _, topic := range []string{d.topics.CameraAvailability(cam), d.topics.CameraState(cam)} {
		d.out.drop(topic)
		if err := d.out.push(queued{Topic: topic, Retained: true}); err != nil {
			return fmt.Errorf("mqtt: remove camera %s: %w", cam, err)
		}
	}
	return nil
}

// ImageLimit is the most bytes of a published picture.
const ImageLimit = 512 << 10

const noImages = "pictures are not published: set mqtt.images to true in the device's configuration"

// PublishImage publishes a JPEG with the relevance overlay, of at most
// ImageLimit bytes, if the device is connected; one that is not out yet gives
// way to the next. Where Config.Images is false it is an *Error with
// NotAllowed.
func (d *Device) PublishImage(cam string, jpeg []byte) error {
	if err := CheckName(cam); err != nil {
		return fmt.Errorf("mqtt: camera: %w", err)
	}
	if !d.cfg.Images {
		return &Error{Code: NotAllowed, Reason: noImages}
	}
	if len(jpeg) > ImageLimit {
		return fmt.Errorf("mqtt: a picture of camera %s has %d bytes, at most %d are published", cam, len(jpeg), ImageLimit)
	}
	if d.Status().Connected {
		d.out.pass(outgoing{topic: d.topics.CameraImage(cam), payload: jpeg}, 0, false)
	}
	return nil
}

// SetAuto publishes whether the device adapts by itself, and who set it.
func (d *Device) SetAuto(on bool, source AutoSource) error {
	word := "OFF"
	if on {
		word = "ON"
	}
	d.out.set(outgoing{topic: d.topics.Auto(), qos: 1, retained: true, payload: []byte(word)}, 0)
	if source.TS.IsZero() {
		source.TS = time.Now()
	}
	source.TS = stamp(source.TS)
	return d.set(d.topics.AutoSource(), 1, source, 0)
}

// Emit queues an event.
func (d *Device) Emit(e Event) error {
	if e.TS.IsZero() {
		e.TS = time.Now()
	}
	e.TS = stamp(e.TS)
	d.mu.Lock()
	d.lastID++
	e.ID = d.eventRun + "-" + strconv.FormatUint(d.lastID, 10)
	d.mu.Unlock()
	payload, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("mqtt: encode event %s: %w", e.Type, err)
	}
	if err := d.out.push(queued{Topic: d.topics.Event(), Payload: payload}); err != nil {
		return fmt.Errorf("mqtt: queue event %s: %w", e.Type, err)
	}
	return nil
}
