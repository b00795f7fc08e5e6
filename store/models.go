package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Errors of Models that a caller reacts to.
var (
	ErrUnknownModel = errors.New("no such model is kept")
	ErrNoEarlier    = errors.New("there is no earlier model to go back to")
)

// Models are the weights files of this device and which of them counts. Which is live is one transaction; the
// files and their receipts lie in <state>/models.
type Models struct {
	db  *bbolt.DB
	dir string

	mu       sync.Mutex // held while something changes
	standing Standing
	models   map[string]Receipt // by SHA256
}

// Standing says which model counts as what, each by the SHA256 of its file; "" is none yet.
type Standing struct {
	Base      string    `json:"base"`
	Active    string    `json:"active"`    // served; Base until a first promotion
	Candidate string    `json:"candidate"` // waits for approval
	Good      []string  `json:"good"`      // passed their probation, oldest first; the base is the first
	Probation Probation `json:"probation"` // of the newest promotion
	Numbers   int64     `json:"numbers"`   // the highest Receipt.Number given so far
}

// LastGood is the newest model that passed its probation, the base if none did.
func (s Standing) LastGood() string {
	if len(s.Good) == 0 {
		return s.Base
	}
	return s.Good[len(s.Good)-1]
}

// The words of Probation.State; "" before the first promotion.
const (
	ProbationRunning    = "running"
	ProbationPassed     = "passed"
	ProbationRolledBack = "rolled_back"
)

// Probation is how the newest promotion stands.
type Probation struct {
	State  string          `json:"state,omitempty"`
	Model  string          `json:"model,omitempty"`  // SHA256
	Parent string          `json:"parent,omitempty"` // SHA256 of the model that was live before it
	Began  time.Time       `json:"began,omitzero"`
	Data   json.RawMessage `json:"data,omitempty"` // the caller's: what is compared with what
}

// Receipt is what is known of a weights file. It lies beside the file as <sha256>.json too, so that a lost
// state.db can be rebuilt. AddModel takes Digest, Parent and Details from the caller and fills the rest.
type Receipt struct {
	Version   int             `json:"version"`
	MinReader int             `json:"min_reader"`
	Number    int64           `json:"number"` // counts the models of this device; the first base is 0
	SHA256    string          `json:"sha256"` // of the file, hexadecimal
	Bytes     int64           `json:"bytes"`
	Digest    string          `json:"digest,omitempty"` // model.Checkpoint.Digest: what a net and a sample name it by
	Parent    string          `json:"parent,omitempty"` // SHA256 of the model that it was adapted from
	Created   time.Time       `json:"created"`
	Base      bool            `json:"base,omitempty"`
	Promoted  *time.Time      `json:"promoted,omitempty"`    // newest promotion; nil: never
	Passed    *time.Time      `json:"passed,omitempty"`      // its probation
	Rejected  *time.Time      `json:"rolled_back,omitempty"` // after its promotion
	Reason    string          `json:"reason,omitempty"`      // of the roll-back
	Details   json.RawMessage `json:"details,omitempty"`     // the caller's: configuration, preprocessing, report
}

// Add keeps the weights that come from r as models/<sha256>.safetensors. The number is the next one. A file
// that is kept already is not written again: its receipt is returned as it is.
func (m *Models) Add(r io.Reader, receipt Receipt) (Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	receipt, err := m.add(r, receipt)
	if err != nil {
		return Receipt{}, fmt.Errorf("keep model: %w", err)
	}
	return receipt, nil
}

// AddFile is Add of a file, which stays where it is.
func (m *Models) AddFile(file string, receipt Receipt) (Receipt, error) {
	f, err := os.Open(file)
	if err != nil {
		return Receipt{}, fmt.Errorf("keep model: %w", err)
	}
	defer f.Close()
	return m.Add(f, receipt)
}

func (m *Models) add(r io.Reader, receipt Receipt) (Receipt, error) {
	temp, err := os.CreateTemp(m.dir, incoming+"*")
	if err != nil {
		return Receipt{}, err
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // renamed, or left over after a failure
	defer temp.Close()
	sum := sha256.New()
	if receipt.Bytes, err = io.Copy(io.MultiWriter(temp, sum), r); err != nil {
		return Receipt{}, err
	}
	receipt.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if known, kept := m.models[receipt.SHA256]; kept {
		return known, nil
	}
	if err := errors.Join(temp.Chmod(0o644), temp.Sync()); err != nil {
		return Receipt{}, err
	}
	if err := os.Rename(temp.Name(), m.File(receipt.SHA256)); err != nil {
		return Receipt{}, err
	}
	receipt.Version, receipt.MinReader = formatVersion, formatReads
	receipt.Created = time.Now().UTC()
	receipt.Base, receipt.Promoted, receipt.Passed, receipt.Rejected, receipt.Reason = false, nil, nil, nil, ""
	next := m.standing
	if len(m.models) > 0 || next.Numbers > 0 {
		next.Numbers++
	}
	receipt.Number = next.Numbers
	if err := m.writeReceipt(receipt); err != nil { // first: a commit that fails leaves a model that is adopted at the next start
		return Receipt{}, err
	}
	return receipt, m.commit(next, nil, receipt)
}

// File is where the weights of a digest lie.
func (m *Models) File(sha256 string) string { return filepath.Join(m.dir, sha256+".safetensors") }

// Standing is which model counts as what at this moment.
func (m *Models) Standing() Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.standing
	s.Good = slices.Clone(s.Good)
	return s
}

// Get returns the receipt of a model, or ErrUnknownModel.
func (m *Models) Get(sha256 string) (Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(sha256)
}

func (m *Models) get(sha256 string) (Receipt, error) {
	r, kept := m.models[sha256]
	if !kept {
		return Receipt{}, fmt.Errorf("model %.12s: %w", sha256, ErrUnknownModel)
	}
	return r, nil
}

// List returns all receipts by number.
func (m *Models) List() []Receipt {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list()
}

func (m *Models) list() []Receipt {
	var all []Receipt
	for _, r := range m.models {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Receipt) int {
		if a.Number != b.Number {
			return int(a.Number - b.Number)
		}
		return strings.Compare(a.SHA256, b.SHA256)
	})
	return all
}

// SetBase names the model that all adaptation starts from. Another one than before is a new beginning: it is
// live, and nothing older counts as good. The same one changes nothing.
func (m *Models) SetBase(sha256 string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.get(sha256)
	if err != nil {
		return fmt.Errorf("set base: %w", err)
	}
	if m.standing.Base == sha256 {
		return nil
	}
	r.Base = true
	changed := []Receipt{r}
	if old, kept := m.models[m.standing.Base]; kept {
		old.Base = false
		changed = append(changed, old)
	}
	next := Standing{Base: sha256, Active: sha256, Good: []string{sha256}, Numbers: m.standing.Numbers}
	return m.apply("set base", next, nil, changed...)
}

// SetCandidate names the model that waits for approval; "" withdraws it.
func (m *Models) SetCandidate(sha256 string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if sha256 != "" {
		if _, err := m.get(sha256); err != nil {
			return fmt.Errorf("set candidate: %w", err)
		}
	}
	next := m.standing
	next.Candidate = sha256
	return m.apply("set candidate", next, nil)
}

// Promote makes a model live and begins its probation, which holds data, and appends the verdict: one
// transaction.
func (m *Models) Promote(sha256 string, verdict, data json.RawMessage) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.get(sha256)
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	now := time.Now().UTC()
	r.Promoted, r.Passed, r.Rejected, r.Reason = &now, nil, nil, ""
	next := m.standing
	next.Probation = Probation{State: ProbationRunning, Model: sha256, Parent: next.Active, Began: now, Data: data}
	next.Active = sha256
	if next.Candidate == sha256 {
		next.Candidate = ""
	}
	return m.apply("promote", next, verdict, r)
}

// UpdateProbation keeps the caller's data of the probation that runs.
func (m *Models) UpdateProbation(data json.RawMessage) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.standing
	next.Probation.Data = data
	return m.apply("probation", next, nil)
}

// PassProbation ends it well: the live model is good from now on. verdict, which may be nil, is appended.
func (m *Models) PassProbation(verdict json.RawMessage) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.get(m.standing.Active)
	if err != nil {
		return fmt.Errorf("pass probation: %w", err)
	}
	now := time.Now().UTC()
	r.Passed = &now
	next := m.standing
	next.Probation.State = ProbationPassed
	next.Good = append(slices.DeleteFunc(slices.Clone(next.Good), func(s string) bool { return s == r.SHA256 }), r.SHA256)
	return m.apply("pass probation", next, verdict, r)
}

// Rollback goes back to the last good model; where that one is live, to the good one before it. It appends
// {"rolled_back", "to", "reason"} to the verdicts and returns the model that is live now, all in one
// transaction. Where there is none it fails with ErrNoEarlier.
func (m *Models) Rollback(reason string) (to string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.standing
	from := next.Active
	good := slices.DeleteFunc(slices.Clone(next.Good), func(s string) bool { return s == from })
	if len(good) == 0 {
		return "", fmt.Errorf("roll back: %w", ErrNoEarlier)
	}
	next.Good, next.Active = good, good[len(good)-1]
	if next.Probation.Model == from {
		next.Probation.State = ProbationRolledBack
	}
	var changed []Receipt
	if r, kept := m.models[from]; kept {
		now := time.Now().UTC()
		r.Rejected, r.Passed, r.Reason = &now, nil, reason
		changed = append(changed, r)
	}
	verdict, err := json.Marshal(map[string]string{"rolled_back": from, "to": next.Active, "reason": reason})
	if err != nil {
		return "", fmt.Errorf("roll back: %w", err)
	}
	return next.Active, m.apply("roll back", next, verdict, changed...)
}

// Prune deletes the oldest weights until all take at most limit bytes. Base, live, last good, candidate and the
// parent in a running probation stay whatever they take.
func (m *Models) Prune(limit int64) (removed []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.standing
	stays := []string{next.Base, next.Active, next.LastGood(), next.Candidate}
	if next.Probation.State == ProbationRunning {
		stays = append(stays, next.Probation.Parent)
	}
	var bytes int64
	for _, r := range m.models {
		bytes += r.Bytes
	}
	for _, r := range m.list() {
		if bytes <= limit {
			break
		}
		if slices.Contains(stays, r.SHA256) {
			continue
		}
		next.Good = slices.DeleteFunc(slices.Clone(next.Good), func(s string) bool { return s == r.SHA256 })
		removed = append(removed, r.SHA256)
		bytes -= r.Bytes
	}
	if removed == nil {
		return nil, nil
	}
	err = m.db.Update(func(tx *bbolt.Tx) error {
		for _, sha := range removed {
			if err := tx.Bucket(modelsBucket).Delete([]byte(sha)); err != nil {
				return err
			}
		}
		return putJSON(tx.Bucket(settingsBucket), standingKey, next)
	})
	if err != nil {
		return nil, fmt.Errorf("prune models: %w", err)
	}
	m.standing = next
	for _, sha := range removed { // the receipt first: weights without one are swept at the next start
		delete(m.models, sha)
		err = errors.Join(err, os.Remove(m.receiptFile(sha)), os.Remove(m.File(sha)))
	}
	if err != nil {
		return removed, fmt.Errorf("prune models: %w", err)
	}
	return removed, nil
}

// Verify reads a weights file through and compares its digest; an error wraps ErrDamaged where they differ.
func (m *Models) Verify(sha256 string) error { return verify(m.File(sha256), sha256) }

func verify(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%s: %w: its content has digest %.12s", file, ErrDamaged, got)
	}
	return nil
}

// apply commits a standing with what led to it and the receipts that it changes, then rewrites the receipts
// beside the weights. Those are a copy: the next start writes again what a crash kept from them.
func (m *Models) apply(what string, next Standing, verdict json.RawMessage, changed ...Receipt) error {
	if err := m.commit(next, verdict, changed...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, r := range changed {
		if err := m.writeReceipt(r); err != nil {
			return fmt.Errorf("%s: done, but its receipt: %w", what, err)
		}
	}
	return nil
}

func (m *Models) commit(next Standing, verdict json.RawMessage, changed ...Receipt) error {
	err := m.db.Update(func(tx *bbolt.Tx) error {
		for _, r := range changed {
			if err := putJSON(tx.Bucket(modelsBucket), []byte(r.SHA256), r); err != nil {
				return err
			}
		}
		if verdict != nil {
			if _, err := appendVerdict(tx, verdict); err != nil {
				return err
			}
		}
		return putJSON(tx.Bucket(settingsBucket), standingKey, next)
	})
	if err != nil {
		return err
	}
	m.standing = next
	for _, r := range changed {
		m.models[r.SHA256] = r
	}
	return nil
}
