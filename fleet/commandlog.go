package fleet

import (
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// memoryLimit and memoryAge bound what is remembered of commands.
	memoryLimit = 1000
	memoryAge   = 7 * 24 * time.Hour
)

// CommandLog remembers commands so that none runs twice. The device bounds
// what it holds; the log only keeps records, which are opaque to it. Methods
// are called one at a time.
type CommandLog interface {
	// Load returns all records, in any order.
	Load() (records [][]byte, err error)
	// Save keeps a record durably before it returns, in place of one with the
	// same id.
	Save(id string, record []byte) error
	// Forget removes the records with these ids; unknown ones are no error.
	Forget(ids []string) error
	// LostAt is when an earlier memory was lost and this one began empty; zero
	// if that never happened.
	LostAt() time.Time
}

// commandRecord is what is remembered of one command, written as JSON.
type commandRecord struct {
	Seq      uint64       `json:"seq"`      // order of arrival; grows, also across restarts and clock changes
	State    CommandState `json:"state"`    // the newest phase that was saved; its ID is the record's key
	Retained bool         `json:"retained"` // the state is a retained message on the broker, to be cleared one day
	Synced   bool         `json:"synced"`   // State.TS is from a clock that could be believed
}

// retryable says that the command may be tried again with the same id.
func (r *commandRecord) retryable() bool {
	return r.State.Code == Busy || r.State.Code == ClockUntrusted
}

// memoryLog keeps the records in memory.
type memoryLog struct {
	mu      sync.Mutex
	records map[string][]byte
}

// NewCommandLog returns a log in memory. It is for devices without a store;
// what it remembers does not survive the process.
func NewCommandLog() CommandLog { return &memoryLog{records: map[string][]byte{}} }

func (l *memoryLog) Load() ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.records)), nil
}

func (l *memoryLog) Save(id string, record []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[id] = record
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
