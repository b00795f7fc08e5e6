package main

import (
	"context"
	"fmt"
	"time"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
)

// status is everything that a reader outside sees of one moment: the page, /api/status, /metrics, MQTT.
// Nothing writes to it once it is published.
type status struct {
	Device  string         `json:"device"`
	Health  fleet.Health   `json:"health"`
	Model   *modelStatus   `json:"model,omitempty"` // nil: none is served
	Cameras []cameraStatus `json:"cameras"`         // in the order of the configuration
	Broker  brokerStatus   `json:"broker"`
}

// modelStatus is the model card as the page shows it.
type modelStatus struct {
	Title   string   `json:"title"` // such as "ViT-S/16, 7 classes"
	Dir     string   `json:"dir"`
	Source  string   `json:"source,omitempty"` // where the weights came from
	SHA256  string   `json:"sha256"`
	Version int64    `json:"version"`
	Input   [2]int   `json:"input"`   // height and width in pixels
	Grid    [2]int   `json:"grid"`    // rows and columns of patches
	Classes []string `json:"classes"` // their names, at most the first 100
	Count   int      `json:"class_count"`
	Backend string   `json:"backend"`
	Skipped []string `json:"skipped,omitempty"` // why each faster backend was not taken
}

// cameraStatus is a camera as the page shows it.
type cameraStatus struct {
	ID         string     `json:"id"`
	Source     string     `json:"source"` // without secrets
	Phase      string     `json:"phase"`  // connecting, running, stalled, lost, ended, closed
	Since      time.Time  `json:"since"`
	Problem    string     `json:"problem,omitempty"` // what is wrong now and what to do
	Quality    string     `json:"quality,omitempty"`
	Decoder    string     `json:"decoder,omitempty"` // what reads the source, such as "FFMPEG, h264"
	Width      int        `json:"width,omitempty"`   // of a frame, pixels
	Height     int        `json:"height,omitempty"`
	SourceFPS  float64    `json:"source_fps"` // frames a second that arrive
	FPS        float64    `json:"fps"`        // frames a second that are classified
	Classified uint64     `json:"classified_total"`
	Dropped    uint64     `json:"dropped_frames_total"`
	Looks      uint64     `json:"second_looks_total"` // frames looked at a second time
	Skipped    uint64     `json:"second_looks_skipped_total"`
	LastFrame  *time.Time `json:"last_frame,omitempty"`
	Seq        uint64     `json:"seq"` // of the newest answer; 0 before the first
	Guesses    []guess    `json:"guesses"`
	Margin     float64    `json:"margin"`
}

// brokerStatus is the connection to the broker as the page shows it.
type brokerStatus struct {
	Connected bool   `json:"connected"`
	Address   string `json:"address"` // without a password
	Embedded  bool   `json:"embedded"`
	Topic     string `json:"topic"` // below it lies all that this device says
	Problem   string `json:"problem,omitempty"`
}

const (
	lookEvery  = 250 * time.Millisecond
	rateWindow = 5 * time.Second  // of frames a second
	slowWindow = 60 * time.Second // of the percentiles of latency
)

// lookAround takes the status four times a second and tells it to the broker.
func (d *daemon) lookAround(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	told := map[string]string{} // each camera's state, as the fleet was told
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s := d.look(now)
			d.status.Store(s)
			d.history.add(d.pointOf(now, s))
			d.tell(s, told)
		}
	}
}

// look takes the status of this moment.
func (d *daemon) look(now time.Time) *status {
	config, _ := d.configs.get()
	s := &status{Device: d.id, Cameras: []cameraStatus{}}
	h := &s.Health
	s.Broker, h.MQTT = d.brokerStatus()
	h.Schema = fleet.HealthSchema
	h.TS, h.TimeSynced, h.BootID = now, timeSynced(), bootID()
	h.UptimeSeconds, h.Version = int64(now.Sub(d.started).Seconds()), version()
	h.Labels = config.Device.Labels
	h.Adapt = d.adaptStatus()
	h.Memory = fleet.Memory{RSSBytes: residentMemory(), LimitBytes: memoryLimit()}
	d.lookAtStore(h, config, now)
	if celsius, ok := hottestZone(); ok {
		h.Thermal = &fleet.Thermal{Celsius: fleet.Known(celsius)}
	}

	if live := d.live.Load(); live != nil {
		s.Model = modelStatusOf(live)
		h.Model = fleet.Model{Version: live.version, SHA256: live.net.Digest}
		h.Model.ForegroundRelevance = d.keeper.foregroundOf(live.net.Digest)
		h.Inference.Device = live.backend.Kind
		d.lineage(live, &h.Model)
	}
	if rate, _, _, ok := d.timing.since(now, rateWindow); ok {
		h.Inference.RateHz = fleet.Known(rate)
	}
	if _, p50, p95, ok := d.timing.since(now, slowWindow); ok {
		h.Inference.P50Seconds, h.Inference.P95Seconds = fleet.Known(p50), fleet.Known(p95)
	}

	h.Cameras = map[string]fleet.Camera{}
	for _, w := range *d.cameras.Load() {
		page, health := w.look(now)
		s.Cameras = append(s.Cameras, page)
		h.Cameras[page.ID] = health
	}
	h.Setup.Missing = append(config.missing(), missingModelParts(s.Model)...)
	h.Health, h.Reasons = d.judge(s)
	return s
}

// look describes one camera.
func (w *watched) look(now time.Time) (cameraStatus, fleet.Camera) {
	c := w.camera.State()
	fps, _, _, _ := w.timing.since(now, rateWindow)
	page := cameraStatus{
		ID: w.config.ID, Source: c.Source, Phase: c.Phase.String(), Since: c.Since,
		Decoder: c.Decoder, Width: c.Width, Height: c.Height, SourceFPS: c.FPS, FPS: fps,
		Classified: w.answers.Load(), Dropped: c.Dropped, Looks: w.looks.Load(), Skipped: w.looksSkipped.Load(), Guesses: []guess{},
	}
	health := fleet.Camera{
		State: fleet.CameraLost, FPS: fleet.Known(fps),
		ReconnectsLastHour: int64(c.RestartsLastHour), StallsLastHour: int64(c.StallsLastHour),
		BadFramesTotal: int64(c.BadFrames), DroppedFramesTotal: int64(c.Dropped),
		SecondLooksTotal: int64(page.Looks), SecondLooksSkipped: int64(page.Skipped),
	}
	switch c.Phase {
	case capture.Running:
		health.State = fleet.CameraOnline
	case capture.Connecting:
		health.State = fleet.CameraStarting
	case capture.Ended:
		page.Problem = "read to its end; set loop: true to begin again"
	}
	if !c.LastFrame.IsZero() {
		page.LastFrame = &c.LastFrame
		health.LastFrameAgeSeconds = fleet.Known(c.LastFrameAge.Seconds())
		page.Quality = c.Quality.String()
		health.Quality = page.Quality
	}
	if c.Phase != capture.Running && c.Phase != capture.Ended && c.LastError != "" {
		page.Problem = c.LastError
	}
	if a, _ := w.latest.get(); a != nil {
		page.Seq, page.Margin = a.frame.Seq, a.margin
		if a.guesses != nil {
			page.Guesses = a.guesses
		}
	}
	return page, health
}

func modelStatusOf(live *served) *modelStatus {
	c := live.net.Config
	m := &modelStatus{
		Title: modelTitle(c), Dir: live.dir, Source: live.source, SHA256: live.net.Digest, Version: live.version,
		Input: [2]int{c.ImageHeight, c.ImageWidth}, Backend: live.backend.Kind, Skipped: live.backend.Skipped,
		Classes: []string{}, Count: c.Classes,
	}
	m.Grid[0], m.Grid[1] = c.Grid()
	for i := range min(c.Classes, 100) {
		m.Classes = append(m.Classes, c.Label(i))
	}
	return m
}

// missingModelParts tells what a served model, or the lack of one, leaves to do.
func missingModelParts(m *modelStatus) []string {
	var all []string
	if m == nil {
		return nil
	}
	if m.Count == 0 {
		all = append(all, "The model has no head, so frames have no label: fit one to your own classes with \"fovea head fit --base "+m.Dir+"\".")
	}
	if len(m.Skipped) > 0 && m.Backend == "go" {
		all = append(all, "No XLA plugin opened, so inference runs several times slower than it could: put one where model.plugins.cpu.path says ("+m.Skipped[len(m.Skipped)-1]+").")
	}
	return all
}

// judge sums up: failing does not do its job, degraded does it with something missing or worse than it should be.
func (d *daemon) judge(s *status) (word string, reasons []string) {
	reasons = []string{}
	online, configured := 0, len(s.Cameras)
	for _, c := range s.Cameras {
		switch {
		case c.Phase == capture.Running.String():
			online++
			if c.Quality != capture.OK.String() && c.Quality != capture.Repeated.String() && c.Quality != "" {
				reasons = append(reasons, fmt.Sprintf("camera %s: the picture is %s", c.ID, c.Quality))
			}
		case c.Phase != capture.Connecting.String():
			reasons = append(reasons, fmt.Sprintf("camera %s is %s: %s", c.ID, c.Phase, c.Problem))
		}
	}
	reasons = append(reasons, d.problems.all()...)
	if s.Broker.Problem != "" {
		reasons = append(reasons, "mqtt: "+s.Broker.Problem)
	}
	if config, _ := d.configs.get(); config.Model.Dir != "" && s.Model == nil && d.problems.of("model") == "" {
		reasons = append(reasons, "model: being loaded and compiled")
	}
	reasons = append(reasons, s.Health.Setup.Missing...)
	switch {
	case d.problems.of("inference") != "", d.problems.of("model") != "" && s.Model == nil,
		configured > 0 && online == 0 && s.allTried():
		return fleet.HealthFailing, reasons
	case len(reasons) > 0:
		return fleet.HealthDegraded, reasons
	}
	return fleet.HealthOK, reasons
}

// allTried says whether no camera is still on its first attempt.
func (s *status) allTried() bool {
	for _, c := range s.Cameras {
		if c.Phase == capture.Connecting.String() {
			return false
		}
	}
	return true
}
