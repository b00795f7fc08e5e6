package fleet

import "time"

// The two payloads of every availability topic.
const (
	Online  = "online"
	Offline = "offline"
)

// A Verdict is what the gate said of a candidate.
type Verdict string

// The verdicts. All four are answers of an adaptation that worked.
const (
	Promoted  Verdict = "promoted"   // better: it is live now, on probation
	Rejected  Verdict = "rejected"   // not better: the old model stays
	Waiting   Verdict = "waiting"    // better, and waits for approval: see the verb promote
	NotNeeded Verdict = "not_needed" // nothing new to learn from
)

// ModelCard is the payload of [Topics.Model]. The last four are what a Home
// Assistant update entity reads: strings, absent when not known.
type ModelCard struct {
	Version   int64   `json:"version"`                                                                                 // the live model, a counter; 0 is the base model
	SHA256    string  `json:"sha256,omitempty"`                                                                        // of its weights file
	Parent    *int64  `json:"parent,omitempty"`                                                                        // the version it was adapted from; absent: the base model
	Verdict   Verdict `json:"verdict,omitempty" jsonschema:"enum=promoted,enum=rejected,enum=waiting,enum=not_needed"` // of the newest candidate
	Probation string  `json:"probation,omitempty" jsonschema:"enum=running,enum=passed,enum=rolled_back"`              // absent: never adapted

	InstalledVersion string `json:"installed_version"`         // version in decimal
	LatestVersion    string `json:"latest_version"`            // a candidate that waits for approval, else as installed
	Title            string `json:"title,omitempty"`           // such as "ViT-S/16, 7 classes"
	ReleaseSummary   string `json:"release_summary,omitempty"` // at most 255 bytes
}

// CameraState is the payload of [Topics.CameraState]: what one camera shows.
type CameraState struct {
	TS                  time.Time `json:"ts"`                             // when the frame was taken
	Label               string    `json:"label"`                          // of the likeliest class
	Score               float64   `json:"score"`                          // its probability, 0..1
	Margin              float64   `json:"margin"`                         // between the two likeliest classes, 0..1
	ForegroundRelevance *float64  `json:"foreground_relevance,omitempty"` // share of relevance on the object, 0..1; absent: not computed for this frame
	SecondLook          bool      `json:"second_look,omitempty"`          // whether the object was looked at a second time, closer
	Model               int64     `json:"model"`                          // the version that answered
}

// AutoSource is the payload of [Topics.AutoSource].
type AutoSource struct {
	Source string    `json:"source" jsonschema:"enum=config,enum=local,enum=remote"`
	TS     time.Time `json:"ts"` // since when
}

// Words of AutoSource.Source.
const (
	SourceConfig = "config" // the configuration file
	SourceLocal  = "local"  // the page or the command line on the device
	SourceRemote = "remote" // the verb auto; kept over restarts
)

// An EventType names what happened.
type EventType string

// All event types.
const (
	AdaptStarted    EventType = "adapt_started"    // an adaptation began
	AdaptPromoted   EventType = "adapt_promoted"   // its candidate is live now, on probation
	AdaptRejected   EventType = "adapt_rejected"   // its candidate was not better; the old model stays
	AdaptWaits      EventType = "adapt_waiting"    // a candidate waits for approval
	AdaptFailed     EventType = "adapt_failed"     // it ended without a verdict
	RolledBack      EventType = "rolled_back"      // the parent is live again
	CameraWasLost   EventType = "camera_lost"      // no frames arrive any more
	CameraBack      EventType = "camera_back"      // they do again
	StoragePressure EventType = "storage_pressure" // samples are being dropped, or the disk is nearly full
)

// EventTypes are all of them, in the order of the documentation.
var EventTypes = []EventType{
	AdaptStarted, AdaptPromoted, AdaptRejected, AdaptWaits, AdaptFailed,
	RolledBack, CameraWasLost, CameraBack, StoragePressure,
}

// Event is the payload of [Topics.Event]. [Device.Emit] fills ID and, when zero, TS. It is delivered at least once: after
// a broken connection the same event may come again, with the same ID.
type Event struct {
	Type    EventType `json:"event_type" jsonschema:"enum=adapt_started,enum=adapt_promoted,enum=adapt_rejected,enum=adapt_waiting,enum=adapt_failed,enum=rolled_back,enum=camera_lost,enum=camera_back,enum=storage_pressure"`
	TS      time.Time `json:"ts"`                // when it happened
	ID      string    `json:"id"`                // tells a repeated delivery from a second event
	Camera  string    `json:"camera,omitempty"`  // camera_lost, camera_back
	Version *int64    `json:"version,omitempty"` // of the model that it is about
	Command string    `json:"command,omitempty"` // id of the command that caused it
	Reason  string    `json:"reason,omitempty"`  // a sentence
}
