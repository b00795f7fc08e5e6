package fleet

import "time"

// HealthSchema is the version of [Health] that this package writes. Additions
// do not raise it.
const HealthSchema = 1

// The three words of Health.Health.
const (
	HealthOK       = "ok"       // everything configured works
	HealthDegraded = "degraded" // it works, but something is missing or worse than it should be
	HealthFailing  = "failing"  // it does not do its job: no camera, no model, no inference
)

// Health is the payload of [Topics.Status], the answer to the verb "health"
// and the source of the metrics: the same words with the prefix fovea_.
//
// [Device.SetHealth] fills Schema, MQTT and, when zero, TS. A *float64 that is
// nil is not known and is left out; see [Known]. Ratios run
// from 0 to 1, temperatures are in degrees Celsius, ages and durations in
// seconds, names that end in Total only grow while the daemon runs.
type Health struct {
	Schema        int               `json:"schema"`                                                 // of these fields: 1
	TS            time.Time         `json:"ts"`                                                     // when this was measured
	TimeSynced    bool              `json:"time_synced"`                                            // whether the clock is synchronised, so that ts can be believed
	BootID        string            `json:"boot_id,omitempty"`                                      // the kernel's boot id
	UptimeSeconds int64             `json:"uptime_seconds"`                                         // of the daemon
	Version       string            `json:"version"`                                                // of the daemon
	Health        string            `json:"health" jsonschema:"enum=ok,enum=degraded,enum=failing"` // everything configured works; something is missing or worse than it should be; it does not do its job
	Reasons       []string          `json:"reasons"`                                                // why it is not ok, one sentence each; empty when ok
	Labels        map[string]string `json:"labels"`                                                 // the operator's own words (site, model), for selecting devices
	Setup         Setup             `json:"setup"`                                                  // what a first boot still lacks
	Thermal       *Thermal          `json:"thermal,omitempty"`                                      // absent: no sensor
	Cameras       map[string]Camera `json:"cameras"`                                                // by camera id
	Inference     Inference         `json:"inference"`                                              // how fast the live model answers
	Model         Model             `json:"model"`                                                  // the live model
	Adapt         Adapt             `json:"adapt"`                                                  // how adaptation stands
	Storage       Storage           `json:"storage"`                                                // what the samples take
	MQTT          MQTT              `json:"mqtt"`                                                   // the connection
	Memory        Memory            `json:"memory"`                                                 // the daemon's own
	GPU           *GPU              `json:"gpu,omitempty"`                                          // absent: none
}

// Setup says what a first boot still lacks.
type Setup struct {
	Missing []string `json:"missing"` // one sentence each: what is missing and what to do
}

// Thermal is the device's own temperature.
type Thermal struct {
	Celsius *float64 `json:"celsius,omitempty"` // the hottest zone
}

// Words of Camera.State.
const (
	CameraStarting = "starting" // not yet a frame
	CameraOnline   = "online"   // frames arrive
	CameraLost     = "lost"     // none arrive: unplugged, unreachable or stalled, being retried
)

// Camera is one camera's health.
type Camera struct {
	State               string   `json:"state" jsonschema:"enum=starting,enum=online,enum=lost"` // lost: no frames arrive, being retried
	FPS                 *float64 `json:"fps,omitempty"`                                          // frames classified a second
	ReconnectsLastHour  int64    `json:"reconnects_last_hour"`                                   // times it was opened again
	StallsLastHour      int64    `json:"stalls_last_hour"`                                       // times it stopped delivering
	LastFrameAgeSeconds *float64 `json:"last_frame_age_seconds,omitempty"`                       // absent: no frame yet
	BadFramesTotal      int64    `json:"bad_frames_total"`                                       // truncated, empty or not decodable
	DroppedFramesTotal  int64    `json:"dropped_frames_total"`                                   // a newer one came before its turn
	SecondLooksTotal    int64    `json:"second_looks_total"`                                     // frames of which the object was looked at a second time, closer
	SecondLooksSkipped  int64    `json:"second_looks_skipped_total"`                             // second looks that the pace of the cameras left no time for
	Quality             string   `json:"quality,omitempty"`                                      // ok, or what is wrong with the picture: black, frozen, repeating, ...
}

// Inference is how fast the live model answers.
type Inference struct {
	P50Seconds *float64 `json:"p50_seconds,omitempty"` // median of the time a frame takes
	P95Seconds *float64 `json:"p95_seconds,omitempty"` // 95 of 100 frames take no longer
	RateHz     *float64 `json:"rate_hz,omitempty"`     // over all cameras
	Device     string   `json:"device,omitempty"`      // backend and processor, such as xla:cpu
}

// Words of Model.Probation. Empty: never adapted.
const (
	ProbationRunning    = "running"
	ProbationPassed     = "passed"
	ProbationRolledBack = "rolled_back"
)

// Model is the live model and how it is doing.
type Model struct {
	Version              int64      `json:"version"`                                                                    // a counter; 0 is the base model
	SHA256               string     `json:"sha256,omitempty"`                                                           // of the weights file, hexadecimal
	Parent               *int64     `json:"parent,omitempty"`                                                           // the version it was adapted from; absent: the base model
	PromotedAt           *time.Time `json:"promoted_at,omitempty"`                                                      // absent: the base model
	Probation            string     `json:"probation,omitempty" jsonschema:"enum=running,enum=passed,enum=rolled_back"` // absent: never adapted
	ForegroundRelevance  *float64   `json:"foreground_relevance,omitempty"`                                             // share of relevance on the object, 0..1
	LabelledSwapAccuracy *float64   `json:"labelled_swap_accuracy,omitempty"`                                           // right answers with the background exchanged, 0..1
	SwapConsistency      *float64   `json:"swap_consistency,omitempty"`                                                 // answers unchanged by the exchange, 0..1
	SwapPairs            int64      `json:"swap_pairs"`                                                                 // how many pairs those two rest on
	Agreement            *float64   `json:"agreement,omitempty"`                                                        // answers shared with the parent, 0..1
	Entropy              *float64   `json:"entropy,omitempty"`                                                          // mean of the answers' entropy, divided by its maximum, 0..1
	DriftScore           *float64   `json:"drift_score,omitempty"`                                                      // how far the scene has moved since the model was adapted
}

// Words of Adapt.State.
const (
	AdaptIdle    = "idle"
	AdaptRunning = "running"
	AdaptPaused  = "paused"  // would run, but is held: see PausedBy
	AdaptWaiting = "waiting" // a candidate waits for approval
)

// Adapt is how adaptation stands.
type Adapt struct {
	State               string     `json:"state" jsonschema:"enum=idle,enum=running,enum=paused,enum=waiting"` // paused: held, see paused_by; waiting: a candidate waits for approval
	LastVerdict         Verdict    `json:"last_verdict,omitempty"`                                             // promoted, rejected, waiting, not_needed
	LastReason          string     `json:"last_reason,omitempty"`                                              // of the verdict, or why there is none
	LastDurationSeconds *float64   `json:"last_duration_seconds,omitempty"`                                    // of the last adaptation
	NextDue             *time.Time `json:"next_due,omitempty"`                                                 // absent: nothing is scheduled
	SamplesReady        int64      `json:"samples_ready"`                                                      // stored samples that could be trained on
	PausedBy            string     `json:"paused_by,omitempty"`                                                // what holds it
}

// Storage is what the samples take.
type Storage struct {
	BytesUsed              int64    `json:"bytes_used"`                          // by the samples
	BytesLimit             int64    `json:"bytes_limit"`                         // the budget; the oldest samples go first
	FreeBytes              int64    `json:"free_bytes"`                          // of the file system
	Samples                int64    `json:"samples"`                             // how many are stored
	OldestSampleAgeSeconds *float64 `json:"oldest_sample_age_seconds,omitempty"` // absent: there are none
}

// MQTT is how the broker connection is doing.
type MQTT struct {
	Queue           int    `json:"queue"`            // events and results not yet acknowledged by the broker
	DroppedTotal    uint64 `json:"dropped_total"`    // the oldest ones, lost to the queue's bound
	ReconnectsTotal uint64 `json:"reconnects_total"` // connections after the first
}

// Memory is the daemon's own.
type Memory struct {
	RSSBytes   int64 `json:"rss_bytes"`             // resident
	LimitBytes int64 `json:"limit_bytes,omitempty"` // absent: none
}

// GPU is the accelerator's.
type GPU struct {
	MemoryBytes        int64    `json:"memory_bytes"`                  // in use
	TemperatureCelsius *float64 `json:"temperature_celsius,omitempty"` // of the chip
	UtilisationRatio   *float64 `json:"utilisation_ratio,omitempty"`   // 0..1
	Throttled          bool     `json:"throttled"`                     // slowed down by heat or power
}
