package adapt

import (
	"crypto/sha256"
	"encoding/hex"
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
	EventPromotion Event = "promotion" // Model is live from now on
	EventRollback  Event = "rollback"  // Model is live again
)

// Receipt is what is kept of a change of the model, or of a run that led to none. Receipts are a chain: each names
// the digest of the one before, so that none can be changed or taken out unseen. docs/formats/receipt.md is the page.
type Receipt struct {
	Version   int       `json:"version"`
	MinReader int       `json:"min_reader"`
	Number    uint64    `json:"number"`   // from 1
	Previous  string    `json:"previous"` // SHA-256 of the file of receipt Number-1, hex; "" of the first
	Time      time.Time `json:"time"`     // of the device's clock, which may be wrong; Number gives the order
	Event     Event     `json:"event"`
	Model     string    `json:"model"`  // digest: of a verdict the candidate's
	Reason    string    `json:"reason"` // what triggered the run, who promoted, which tripwire

	Report      *RunReport        `json:"report,omitempty"`      // of a verdict
	Environment map[string]string `json:"environment,omitempty"` // of a verdict: what the digest depends on beside the report: program, plugin, processor, threads
}

// Encode gives the bytes of the file and their digest, which the next receipt names.
func (r Receipt) Encode() (text []byte, digest string, err error) {
	r.Version, r.MinReader = receiptVersion, 1
	if text, err = json.MarshalIndent(r, "", " "); err != nil {
		return nil, "", fmt.Errorf("receipt %d: %w", r.Number, err)
	}
	text = append(text, '\n')
	return text, ReceiptDigest(text), nil
}

// ReceiptDigest is the SHA-256 of a receipt's file, hex.
func ReceiptDigest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
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
		return nil, fmt.Errorf("receipt %d: it needs a reader of version %d and this Fovea is one of version %d: install a newer one", r.Number, r.MinReader, receiptReads)
	}
	if r.MinReader < 1 {
		return nil, fmt.Errorf("receipt: min_reader is %d, want 1 or more", r.MinReader)
	}
	return &r, nil
}

// VerifyChain says where a chain of receipts, the files' bytes in their order, is broken; nil where it is whole.
func VerifyChain(files [][]byte) error {
	previous := ""
	for i, text := range files {
		r, err := DecodeReceipt(text)
		if err != nil {
			return fmt.Errorf("chain: file %d: %w", i+1, err)
		}
		switch {
		case r.Number != uint64(i)+1:
			return fmt.Errorf("chain: file %d is receipt %d: one is missing or in the wrong place", i+1, r.Number)
		case r.Previous != previous:
			return fmt.Errorf("chain: receipt %d follows one of digest %.12s, the one before it has %.12s: one of them was changed", r.Number, r.Previous, previous)
		}
		previous = ReceiptDigest(text)
	}
	return nil
}
