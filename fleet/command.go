package fleet

import (
	"context"
	"encoding/json"
	"time"
)

// A Verb is what a device can be told to do.
type Verb string

// The verbs.
const (
	VerbAdapt    Verb = "adapt"    // adapt now, if there are samples
	VerbCancel   Verb = "cancel"   // stop a running adaptation
	VerbPromote  Verb = "promote"  // approve the candidate that waits
	VerbRollback Verb = "rollback" // go back to the parent
	VerbAuto     Verb = "auto"     // automatic adaptation on or off
	VerbSnapshot Verb = "snapshot" // publish the newest picture
	VerbHealth   Verb = "health"   // answer with Health
	VerbReload   Verb = "reload"   // read the configuration again
)

// Verbs are all of them, in the order of the documentation.
var Verbs = []Verb{VerbAdapt, VerbCancel, VerbPromote, VerbRollback, VerbAuto, VerbSnapshot, VerbHealth, VerbReload}

// RemoteByDefault are the verbs that a device takes from a broker unless it is
// configured otherwise.
var RemoteByDefault = []Verb{VerbHealth, VerbAdapt, VerbCancel, VerbRollback}

// fleetWideVerbs are those that may be sent to all devices at once.
var fleetWideVerbs = []Verb{VerbHealth, VerbCancel}

// Arguments of the verbs: the payload of [Topics.Command], beside the fields
// of [Envelope]. An empty payload is the zero value.
type (
	// AdaptArgs are adapt's.
	AdaptArgs struct {
		Force bool `json:"force,omitempty" jsonschema:"description=adapt even if drift and schedule do not ask for it"`
	}
	// CancelArgs are cancel's.
	CancelArgs struct {
		ID string `json:"id,omitempty" jsonschema:"pattern=^[A-Za-z0-9_-]*$,maxLength=64,description=the command to stop; absent: whatever adaptation is running"`
	}
	// PromoteArgs are promote's.
	PromoteArgs struct {
		Version int64 `json:"version,omitempty" jsonschema:"minimum=0,description=the candidate to approve; absent: the one that waits"`
	}
	// RollbackArgs are rollback's.
	RollbackArgs struct {
		Version *int64 `json:"version,omitempty" jsonschema:"minimum=0,description=the version to go back to; absent: the parent of the live one"`
	}
	// AutoArgs are auto's. The dashboard's ON and OFF become these.
	AutoArgs struct {
		On *bool `json:"on" jsonschema:"description=whether the device adapts by itself"`
	}
	// SnapshotArgs are snapshot's.
	SnapshotArgs struct {
		Camera string `json:"camera,omitempty" jsonschema:"pattern=^[a-z0-9-]*$,maxLength=63,description=which camera; absent: all"`
	}
	// NoArgs are those of health and reload.
	NoArgs struct{}
)

// Envelope are the fields that every command may carry beside its arguments.
type Envelope struct {
	ExpiresAt *time.Time `json:"expires_at,omitempty" jsonschema:"description=not to be run after this time"`
	IssuedAt  *time.Time `json:"issued_at,omitempty" jsonschema:"description=when the sender made this id; needed only after the device lost its memory of commands"`
}

// Command is what a handler is told.
type Command struct {
	Verb      Verb
	ID        string // the caller's, or minted by the device for a dashboard's press
	Minted    bool   // the device made the id: it came on a set topic
	FleetWide bool   // it was sent to every device
	ExpiresAt time.Time
	Args      any // what VerbSpec.Args is, by value: AdaptArgs for adapt
}

// A Handler runs one command. It returns what State.Result shall hold, which
// must encode to JSON of at most 16 KiB, or an error; an [*Error] chooses the
// code, any other error has the code [Failed]. It returns soon after ctx is
// done. Progress takes a share of 0..1 and may be called as often as one likes
// from one goroutine; it never waits.
type Handler func(ctx context.Context, cmd Command, progress func(float64)) (result any, err error)

// A Phase is where a command stands.
type Phase string

// The phases. The last two are final.
const (
	PhaseAccepted   Phase = "accepted"
	PhaseExecuting  Phase = "executing"
	PhaseSuccessful Phase = "successful"
	PhaseFailed     Phase = "failed"
)

// CommandState is the payload of [Topics.CommandState].
type CommandState struct {
	State    Phase           `json:"state" jsonschema:"enum=accepted,enum=executing,enum=successful,enum=failed"` // the last two are final
	ID       string          `json:"id"`                                                                          // of the command
	Verb     Verb            `json:"verb"`
	TS       time.Time       `json:"ts"`                 // when it came to this
	Progress *float64        `json:"progress,omitempty"` // executing: 0..1
	Result   json.RawMessage `json:"result,omitempty"`   // successful: AdaptResult for adapt, Health for health
	Code     Code            `json:"code,omitempty"`     // failed: see below
	Reason   string          `json:"reason,omitempty"`   // failed: a sentence that says what a person can do
	Field    string          `json:"field,omitempty"`    // failed with invalid: which
}

// Final says whether the command is over.
func (s CommandState) Final() bool { return s.State == PhaseSuccessful || s.State == PhaseFailed }

// AdaptResult is the result of adapt, promote and rollback: they were
// successful if there was a verdict, a rejected candidate included.
type AdaptResult struct {
	Verdict Verdict `json:"verdict,omitempty"` // absent: rollback
	Version *int64  `json:"version,omitempty"` // the candidate, or the version now live
	Reason  string  `json:"reason,omitempty"`  // of the verdict
}

// A Code says why a command failed, in one word for programs.
type Code string

// The codes.
const (
	RetainedCommand Code = "retained_command" // published with the retain flag: it would come again at every connect
	Busy            Code = "busy"             // another command runs; try again with the same id
	Unsupported     Code = "unsupported"      // no such verb here
	NotAllowed      Code = "not_allowed"      // the device's configuration does not take this verb from remote
	Invalid         Code = "invalid"          // the payload; field says where
	TooLarge        Code = "too_large"        // more than 64 KiB
	Expired         Code = "expired"          // expires_at has passed
	ClockUntrusted  Code = "clock_untrusted"  // expires_at cannot be judged; try again with the same id
	RateLimited     Code = "rate_limited"     // more than 10 a minute; try again with the same id
	Crashed         Code = "crashed"          // the daemon went down while it ran; it is not run again
	StateLost       Code = "state_lost"       // the device lost its memory and cannot tell whether this id ran before
	Canceled        Code = "canceled"         // stopped by cancel or by a stop of the daemon
	Failed          Code = "failed"           // the verb's own failure: no verdict
)

// Error is a failure with a code. Handlers return it where [Failed] is too
// little.
type Error struct {
	Code   Code
	Reason string // what happened and what a person can do
	Field  string // with Invalid
}

func (e *Error) Error() string {
	if e.Field != "" {
		return string(e.Code) + ": " + e.Field + ": " + e.Reason
	}
	return string(e.Code) + ": " + e.Reason
}

// VerbSpec is how the daemon offers a verb.
type VerbSpec struct {
	Verb Verb
	// Args is the zero value of the arguments, a struct with JSON names; nil is
	// NoArgs. If *Args has a method Validate() error, it is called after
	// decoding; it returns an *Error with Field set.
	Args any
	// Exclusive verbs run one at a time: a second one is busy. The others run
	// beside anything.
	Exclusive bool
	// Repeatable verbs do no harm when they run twice, so that they are still
	// taken after the memory of commands was lost.
	Repeatable bool
	Handler    Handler
}

// VerbCard is the payload of [Topics.Verb].
type VerbCard struct {
	Version int             `json:"version"` // of this verb's arguments
	Schema  json.RawMessage `json:"schema"`  // JSON Schema of the payload
}
