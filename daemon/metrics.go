package main

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
)

// metrics are what /metrics serves: the words of fleet.Health with the prefix fovea_ (what is in a group is
// named group_word, what is per camera has the label camera), the histogram of inference, and Go's own.
type metrics struct {
	registry *prometheus.Registry
	took     prometheus.Histogram // of each classified frame
	daemon   *daemon
}

func newMetrics(d *daemon) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), daemon: d}
	m.took = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "fovea_inference_seconds",
		Help:    "Seconds from a frame to its answer, preprocessing included.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 11), // to 5 s
	})
	m.registry.MustRegister(m, m.took, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Describe sends nothing: which metrics there are depends on what is known.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends the newest status.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	s := m.daemon.status.Load()
	h := s.Health
	send := func(name, help string, value float64, labels ...string) { // labels: name, value, ...
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		kind := prometheus.GaugeValue
		if strings.HasSuffix(name, "_total") {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(prometheus.NewDesc("fovea_"+name, help, names, nil), kind, value, values...)
	}
	known := func(name, help string, value *float64, labels ...string) {
		if value != nil {
			send(name, help, *value, labels...)
		}
	}
	at := func(name, help string, t *time.Time) {
		if t != nil {
			send(name, help, float64(t.UnixMilli())/1000)
		}
	}
	oneOf := func(name, help, now string, words []string, labels ...string) { // 1 for the word that holds
		for _, w := range words {
			send(name, help, truth(w == now), append(labels, "result", w)...)
		}
	}

	oneOf("health", "1 for what the daemon is: ok, degraded or failing.", h.Health, []string{fleet.HealthOK, fleet.HealthDegraded, fleet.HealthFailing})
	send("time_synced", "1 if the clock is synchronised.", truth(h.TimeSynced))
	send("uptime_seconds", "Since the daemon started.", float64(h.UptimeSeconds))
	send("setup_missing", "How many things a first set-up still lacks.", float64(len(h.Setup.Missing)))
	if h.Thermal != nil {
		known("thermal_celsius", "The hottest zone.", h.Thermal.Celsius)
	}

	for id, c := range h.Cameras {
		label := []string{"camera", id}
		oneOf("camera_state", "1 for what the camera is: starting, online or lost.", c.State, []string{fleet.CameraStarting, fleet.CameraOnline, fleet.CameraLost}, label...)
		known("camera_fps", "Frames classified a second.", c.FPS, label...)
		send("camera_reconnects_last_hour", "Restarts of the camera's process in the last hour.", float64(c.ReconnectsLastHour), label...)
		send("camera_stalls_last_hour", "Times in the last hour that frames stopped arriving.", float64(c.StallsLastHour), label...)
		known("camera_last_frame_age_seconds", "Age of the newest frame.", c.LastFrameAgeSeconds, label...)
		send("camera_bad_frames_total", "Frames that could not be decoded.", float64(c.BadFramesTotal), label...)
		send("camera_dropped_frames_total", "Frames overtaken by a newer one before their turn.", float64(c.DroppedFramesTotal), label...)
		send("camera_second_looks_total", "Frames of which the object was looked at a second time.", float64(c.SecondLooksTotal), label...)
		send("camera_second_looks_skipped_total", "Second looks that the pace left no time for.", float64(c.SecondLooksSkipped), label...)
		oneOf("camera_quality", "1 for what the newest picture is.", c.Quality, qualities, label...)
	}
	for _, c := range s.Cameras {
		send("camera_frames_total", "Frames classified.", float64(c.Classified), "camera", c.ID)
	}

	known("inference_p50_seconds", "Median seconds to an answer over the last minute.", h.Inference.P50Seconds)
	known("inference_p95_seconds", "95th percentile of seconds to an answer over the last minute.", h.Inference.P95Seconds)
	known("inference_rate_hz", "Answers a second, all cameras.", h.Inference.RateHz)

	m.collectModel(h, send, known, at)

	oneOf("adapt_state", "1 for what adaptation does.", h.Adapt.State, []string{fleet.AdaptIdle, fleet.AdaptRunning, fleet.AdaptPaused, fleet.AdaptWaiting})
	oneOf("adapt_last_verdict", "1 for the verdict on the newest candidate.", string(h.Adapt.LastVerdict), verdicts)
	known("adapt_last_duration_seconds", "How long the last adaptation took.", h.Adapt.LastDurationSeconds)
	at("adapt_next_due", "When adaptation is due next, seconds since 1970.", h.Adapt.NextDue)
	send("adapt_samples_ready", "Stored samples that could be trained on.", float64(h.Adapt.SamplesReady))

	send("storage_bytes_used", "Bytes of the samples.", float64(h.Storage.BytesUsed))
	send("storage_bytes_limit", "Most bytes that samples may take.", float64(h.Storage.BytesLimit))
	send("storage_free_bytes", "Free bytes of the file system.", float64(h.Storage.FreeBytes))
	send("storage_samples", "Stored samples.", float64(h.Storage.Samples))
	known("storage_oldest_sample_age_seconds", "Age of the oldest sample.", h.Storage.OldestSampleAgeSeconds)

	send("mqtt_connected", "1 while connected to the broker.", truth(s.Broker.Connected))
	send("mqtt_queue", "Events and results that the broker has not acknowledged.", float64(h.MQTT.Queue))
	send("mqtt_dropped_total", "Events and results lost to the bound of the queue.", float64(h.MQTT.DroppedTotal))
	send("mqtt_reconnects_total", "Connections after the first.", float64(h.MQTT.ReconnectsTotal))

	send("memory_rss_bytes", "Resident memory of the daemon.", float64(h.Memory.RSSBytes))
	send("memory_limit_bytes", "What its cgroup allows, 0 for no limit.", float64(h.Memory.LimitBytes))
	if g := h.GPU; g != nil {
		send("gpu_memory_bytes", "Memory of the accelerator in use.", float64(g.MemoryBytes))
		known("gpu_temperature_celsius", "Of the accelerator.", g.TemperatureCelsius)
		known("gpu_utilisation_ratio", "Of the accelerator, 0 to 1.", g.UtilisationRatio)
		send("gpu_throttled", "1 while the accelerator slows down to stay cool.", truth(g.Throttled))
	}
}

func (m *metrics) collectModel(h fleet.Health, send func(string, string, float64, ...string), known func(string, string, *float64, ...string), at func(string, string, *time.Time)) {
	if h.Model.SHA256 == "" {
		return
	}
	send("model_version", "The live model's version, 0 is the base; its digest is the label.", float64(h.Model.Version), "model", h.Model.SHA256)
	if h.Model.Parent != nil {
		send("model_parent", "The version that it was adapted from.", float64(*h.Model.Parent))
	}
	at("model_promoted_at", "When it went live, seconds since 1970.", h.Model.PromotedAt)
	for _, w := range []string{fleet.ProbationRunning, fleet.ProbationPassed, fleet.ProbationRolledBack} {
		send("model_probation", "1 for how its probation stands.", truth(w == h.Model.Probation), "result", w)
	}
	known("model_foreground_relevance", "Share of relevance on the object, 0 to 1.", h.Model.ForegroundRelevance)
	known("model_labelled_swap_accuracy", "Right answers with the background exchanged, 0 to 1.", h.Model.LabelledSwapAccuracy)
	known("model_swap_consistency", "Answers unchanged by exchanging the background, 0 to 1.", h.Model.SwapConsistency)
	send("model_swap_pairs", "How many pairs those two rest on.", float64(h.Model.SwapPairs))
	known("model_agreement", "Answers shared with the parent, 0 to 1.", h.Model.Agreement)
	known("model_entropy", "Mean entropy of the answers by its maximum, 0 to 1.", h.Model.Entropy)
	known("model_drift_score", "How far the scene has moved since the model was adapted.", h.Model.DriftScore)
}

var verdicts = []string{string(fleet.Promoted), string(fleet.Rejected), string(fleet.Waiting), string(fleet.NotNeeded)}

var qualities = []string{
	capture.OK.String(), capture.Black.String(), capture.Blank.String(), capture.Repeated.String(), capture.Frozen.String(),
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
