package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"go.etcd.io/bbolt"
)

// standingKey holds the Standing.
var standingKey = []byte("models.standing")

// incoming begins the names of weights that are being written.
const incoming = ".incoming-"

func (m *Models) receiptFile(sha256 string) string { return filepath.Join(m.dir, sha256+".json") }

func (m *Models) writeReceipt(r Receipt) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(m.receiptFile(r.SHA256), append(text, '\n'), 0o644, renameio.IgnoreUmask()); err != nil {
		return err
	}
	return syncFolder(m.dir)
}

// open reads what state.db says, brings the folder in line with it, and sees that the live model is whole. In a
// state.db that was just begun, it is rebuilt from the receipts; earlier says that there were some.
func (m *Models) open(began bool) (alarms []string, earlier bool, err error) {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, false, err
	}
	receipts, alarms, err := m.readFolder()
	if err != nil {
		return alarms, false, err
	}
	m.models = map[string]Receipt{}
	err = m.db.View(func(tx *bbolt.Tx) error {
		if _, err := getJSON(tx.Bucket(settingsBucket), standingKey, &m.standing); err != nil {
			return err
		}
		return tx.Bucket(modelsBucket).ForEach(func(k, _ []byte) error {
			var r Receipt
			if _, err := getJSON(tx.Bucket(modelsBucket), k, &r); err != nil {
				return err
			}
			m.models[r.SHA256] = r
			return nil
		})
	})
	if err != nil {
		return alarms, false, err
	}
	earlier = len(receipts) > 0
	if began && earlier {
		alarms = append(alarms, m.rebuild(receipts)...)
		return alarms, true, m.commit(m.standing, nil, m.list()...)
	}
	more, err := m.reconcile(receipts)
	return append(alarms, more...), earlier, err
}

// readFolder returns the receipts whose weights are there, and removes what an interrupted Add or Prune left.
func (m *Models) readFolder() (map[string]Receipt, []string, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return nil, nil, err
	}
	receipts := map[string]Receipt{}
	var alarms []string
	for _, e := range entries {
		sha, isReceipt := strings.CutSuffix(e.Name(), ".json")
		switch {
		case strings.HasPrefix(e.Name(), incoming):
			if err := os.Remove(filepath.Join(m.dir, e.Name())); err != nil {
				return nil, alarms, err
			}
		case isReceipt && len(sha) == 64:
			r, err := m.readReceipt(sha)
			if err != nil {
				alarms = append(alarms, fmt.Sprintf("models/%s is left aside: %v", e.Name(), err))
				continue
			}
			receipts[sha] = r
		}
	}
	return receipts, alarms, nil
}

func (m *Models) readReceipt(sha string) (Receipt, error) {
	var r Receipt
	text, err := os.ReadFile(m.receiptFile(sha))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch info, err := os.Stat(m.File(sha)); {
	case r.MinReader > formatReads:
		return r, fmt.Errorf("%w (min_reader %d, this one reads %d)", ErrTooNew, r.MinReader, formatReads)
	case r.SHA256 != sha:
		return r, fmt.Errorf("%w: it is the receipt of %.12s", ErrDamaged, r.SHA256)
	case err != nil:
		return r, err
	case info.Size() != r.Bytes:
		return r, fmt.Errorf("%w: its weights have %d bytes, not %d", ErrDamaged, info.Size(), r.Bytes)
	}
	return r, nil
}

// rebuild makes the standing anew from the receipts: live is the newest promoted model whose digest verifies,
// else the last good one, else the base.
func (m *Models) rebuild(receipts map[string]Receipt) []string {
	m.models = receipts
	s := Standing{}
	all := m.list()
	for _, r := range all {
		s.Numbers = max(s.Numbers, r.Number)
		if r.Base {
			s.Base = r.SHA256
			s.Good = slices.Insert(s.Good, 0, r.SHA256)
		} else if r.Passed != nil {
			s.Good = append(s.Good, r.SHA256)
		}
	}
	m.standing = s
	var tries []string
	for _, r := range slices.Backward(all) {
		if r.Promoted != nil && r.Rejected == nil {
			tries = append(tries, r.SHA256)
		}
	}
	active, alarms := m.firstWhole(append(tries, backwards(s.Good)...))
	m.standing.Active = active
	m.keepWholeGood()
	if r := receipts[active]; active != "" && r.Promoted != nil && r.Passed == nil {
		m.standing.Probation = Probation{State: ProbationRunning, Model: active, Parent: m.standing.LastGood(), Began: *r.Promoted}
	}
	return append(alarms, fmt.Sprintf("state.db was lost and is rebuilt from the receipts of %d models: live is number %d; remote commands from before are refused", len(all), receipts[active].Number))
}

// reconcile adopts receipts that an interrupted Add left, forgets models whose weights are gone, writes receipts
// that differ from state.db again, and goes back to a whole model where the live one is damaged.
func (m *Models) reconcile(receipts map[string]Receipt) (alarms []string, err error) {
	var adopted, gone []string
	next := m.standing
	for sha, r := range receipts {
		if _, known := m.models[sha]; !known {
			r.Base, r.Promoted, r.Passed, r.Rejected, r.Reason = false, nil, nil, nil, ""
			next.Numbers = max(next.Numbers, r.Number)
			m.models[sha] = r
			adopted = append(adopted, sha)
		}
	}
	for sha := range m.models {
		if _, there := receipts[sha]; !there {
			if _, err := os.Stat(m.File(sha)); errors.Is(err, fs.ErrNotExist) {
				gone = append(gone, sha)
				alarms = append(alarms, fmt.Sprintf("the weights of model number %d are gone from models", m.models[sha].Number))
				delete(m.models, sha)
				continue
			}
		}
		if text, kept := m.models[sha]; kept && !equalReceipts(text, receipts[sha]) {
			if err := m.writeReceipt(text); err != nil {
				return alarms, err
			}
		}
	}
	m.standing = next
	if next.Active != "" {
		active, more := m.firstWhole(append([]string{next.Active}, backwards(next.Good)...))
		alarms = append(alarms, more...)
		m.standing.Active = active
		if active != next.Active {
			m.keepWholeGood()
			if m.standing.Probation.Model == next.Active {
				m.standing.Probation.State = ProbationRolledBack
			}
			alarms = append(alarms, fmt.Sprintf("the live model's weights were damaged: number %d is live instead", m.models[active].Number))
		}
	}
	if adopted == nil && gone == nil && m.standing.Active == next.Active {
		return alarms, nil
	}
	return alarms, m.db.Update(func(tx *bbolt.Tx) error {
		for _, sha := range adopted {
			if err := putJSON(tx.Bucket(modelsBucket), []byte(sha), m.models[sha]); err != nil {
				return err
			}
		}
		for _, sha := range gone {
			if err := tx.Bucket(modelsBucket).Delete([]byte(sha)); err != nil {
				return err
			}
		}
		return putJSON(tx.Bucket(settingsBucket), standingKey, m.standing)
	})
}

// firstWhole is the first of some models whose weights are what their name says; "" where none is.
func (m *Models) firstWhole(shas []string) (string, []string) {
	var alarms []string
	tried := map[string]bool{}
	for _, sha := range shas {
		r, kept := m.models[sha]
		if !kept || tried[sha] {
			continue
		}
		tried[sha] = true
		err := m.Verify(sha)
		if err == nil {
			return sha, alarms
		}
		alarms = append(alarms, fmt.Sprintf("model number %d cannot be used: %v", r.Number, err))
	}
	return "", alarms
}

// keepWholeGood leaves no model among the good ones that is newer than the live one or no longer kept.
func (m *Models) keepWholeGood() {
	live := m.models[m.standing.Active].Number
	m.standing.Good = slices.DeleteFunc(slices.Clone(m.standing.Good), func(sha string) bool {
		r, kept := m.models[sha]
		return !kept || r.Number > live
	})
}

func backwards(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

func equalReceipts(a, b Receipt) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
