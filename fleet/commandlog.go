package fleet

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

const (
	// memoryLimit and memoryAge bound what is remembered of commands.
	memoryLimit = 1000
	memoryAge   = 7 * 24 * time.Hour
)

// CommandRecord is what is remembered of one command.
type CommandRecord struct {
	Seq      uint64       // order of arrival; grows, also across restarts and clock changes
	State    CommandState // the newest phase that was saved; its ID is the record's key
	Retained bool         // the state is a retained message on the broker, to be cleared one day
	Synced   bool         // State.TS is from a clock that could be believed
}

// retryable says that the command may be tried again with the same id.
func (r *CommandRecord) retryable() bool {
	return r.State.Code == Busy || r.State.Code == ClockUntrusted
}

// CommandLog remembers commands so that none runs twice. The device bounds
// what it holds; the log only keeps. Methods are called one at a time.
type CommandLog interface {
	// Load returns all records, in the order of Seq.
	Load() ([]CommandRecord, error)
	// Save keeps r durably before it returns, in place of one with the same
	// id.
	Save(r CommandRecord) error
	// Forget removes the records with these ids; unknown ones are no error.
	Forget(ids []string) error
	// LostAt is when an earlier memory was lost and this one began empty; zero
	// if that never happened.
	LostAt() time.Time
}

// memoryLog keeps the records in memory.
type memoryLog struct {
	mu      sync.Mutex
	records map[string]CommandRecord
}

// NewCommandLog returns a log in memory. It is for devices without a store;
// what it remembers does not survive the process.
func NewCommandLog() CommandLog { return &memoryLog{records: map[string]CommandRecord{}} }

func (l *memoryLog) Load() ([]CommandRecord, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]CommandRecord, 0, len(l.records))
	for _, r := range l.records {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b CommandRecord) int { return cmp.Compare(a.Seq, b.Seq) })
	return all, nil
}

func (l *memoryLog) Save(r CommandRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[r.State.ID] = r
	return nil
}

func (l *memoryLog) Forget(ids []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		delete(l.records, id)
	}
	return nil
}

func (l *memoryLog) LostAt() time.Time { return time.Time{} }
