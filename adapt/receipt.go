package adapt

import (
	"encoding/json"
	"fmt"
	"time"
)

const (
	receiptVersion = 1 // of what Receipt.Encode writes
	receiptReads   = 1 // the newest that is understood
)

// maxReceipt bounds a receipt: the log of some thousand steps is a megabyte.
const maxReceipt = 16 << 20

// Event is what a receipt is of.
type Event string

// The events.
const (
	EventVerdict   Event = "verdict"   // a run ended and the gate spoke; Report has it all
	EventFailure   Event = "failure"   // a run ended without a verdict
	EventPromotion Event = "promotion" // Model is live from now on, by a person's word
	EventPassed    Event = "passed"    // Model passed its probation
)

// Receipt is what is kept of a change of the model, or of a run that led to none. Whoever keeps receipts chains them,
// so that none can be changed or taken out unseen. docs/formats/receipt.md is the page.
type Receipt struct {
	Version   int       `json:"version"`
	MinReader int       `json:"min_reader"`
	Time      time.Time `json:"time"` // of the device's clock, which may be wrong
	Event     Event     `json:"event"`
	Model     string    `json:"model,omitempty"` // digest: of a verdict the candidate's
	Reason    string    `json:"reason"`          // what triggered the run, who promoted, which tripwire

	Report      *RunReport        `json:"report,omitempty"`      // of a verdict
	Environment map[string]string `json:"environment,omitempty"` // of a verdict: what the digest depends on beside the report: program, plugin, processor, threads
}

// Encode gives the receipt as JSON.
func (r Receipt) Encode() ([]byte, error) {
	r.Version, r.MinReader = receiptVersion, 1
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return text, nil
}

// DecodeReceipt reads a receipt.
func DecodeReceipt(text []byte) (*Receipt, error) {
	if len(text) > maxReceipt {
		return nil, fmt.Errorf("receipt: %d bytes, at most %d are read", len(text), maxReceipt)
	}
	var r Receipt
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if r.MinReader > receiptReads {
		return nil, fmt.Errorf("receipt: it needs a reader of version %d and this Fovea is one of version %d: install a newer one", r.MinReader, receiptReads)
	}
	if r.MinReader < 1 {
		return nil, fmt.Errorf("receipt: min_reader is %d, want 1 or more", r.MinReader)
	}
	return &r, nil
}
