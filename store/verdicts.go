package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// verdictLimit is how many verdicts are kept; the oldest go.
const verdictLimit = 2000

// Verdict is one entry of the record of decisions, opaque to the store. Each names the digest of the one before
// it, so that none can be changed or left out unnoticed.
type Verdict struct {
	Seq      uint64          `json:"seq"` // from 1
	Time     time.Time       `json:"time"`
	Previous string          `json:"previous"` // Hash of the entry before; "" for the first
	Body     json.RawMessage `json:"body"`
	Hash     string          `json:"hash"` // SHA-256 of the entry's JSON without hash, hexadecimal
}

func (v Verdict) hash() (string, error) {
	v.Hash = ""
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// AppendVerdict adds an entry, body in JSON, durably.
func (s *State) AppendVerdict(body json.RawMessage) (v Verdict, err error) {
	err = s.db.Update(func(tx *bbolt.Tx) error {
		v, err = appendVerdict(tx, body)
		return err
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("append verdict: %w", err)
	}
	return v, nil
}

func appendVerdict(tx *bbolt.Tx, body json.RawMessage) (Verdict, error) {
	b := tx.Bucket(verdictsBucket)
	var last Verdict
	if k, _ := b.Cursor().Last(); k != nil {
		if _, err := getJSON(b, k, &last); err != nil {
			return Verdict{}, err
		}
	}
	compact, err := json.Marshal(body) // as it will be read back
	if err != nil {
		return Verdict{}, fmt.Errorf("verdict is no JSON: %w", err)
	}
	v := Verdict{Seq: last.Seq + 1, Time: time.Now().UTC(), Previous: last.Hash, Body: compact}
	if v.Hash, err = v.hash(); err != nil {
		return Verdict{}, err
	}
	if v.Seq > verdictLimit {
		if err := b.Delete(sequenceKey(v.Seq - verdictLimit)); err != nil {
			return Verdict{}, err
		}
	}
	return v, putJSON(b, sequenceKey(v.Seq), v)
}

// Verdicts returns the newest n entries, newest first; all with n < 0.
func (s *State) Verdicts(n int) (list []Verdict, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(verdictsBucket)
		c := b.Cursor()
		for k, _ := c.Last(); k != nil && (n < 0 || len(list) < n); k, _ = c.Prev() {
			var v Verdict
			if _, err := getJSON(b, k, &v); err != nil {
				return err
			}
			list = append(list, v)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("verdicts: %w", err)
	}
	return list, nil
}

// VerifyVerdicts walks the chain; an error names the entry that does not fit.
func (s *State) VerifyVerdicts() error {
	list, err := s.Verdicts(-1)
	if err != nil {
		return err
	}
	return verifyChain(list)
}

// verifyChain takes entries newest first.
func verifyChain(list []Verdict) error {
	for i, v := range list {
		hash, err := v.hash()
		if err != nil {
			return err
		}
		if hash != v.Hash {
			return fmt.Errorf("verdict %d: %w: it was changed after it was written", v.Seq, ErrDamaged)
		}
		if i+1 < len(list) && (v.Previous != list[i+1].Hash || v.Seq != list[i+1].Seq+1) {
			return fmt.Errorf("verdict %d: %w: the one before it is not the one that it was written after", v.Seq, ErrDamaged)
		}
		if i+1 == len(list) && v.Seq == 1 && v.Previous != "" {
			return errors.New("verdict 1 names one before it")
		}
	}
	return nil
}
