package fleet

import (
	"sync"
)

// QueueLimit is how many messages a queue should hold before the oldest goes.
const QueueLimit = 1000

// Message is what a [Queue] keeps: something to publish with QoS 1.
type Message struct {
	Topic    string
	Retained bool
	Payload  []byte
}

// Queued is a message with its place in the queue.
type Queued struct {
	Seq uint64 // grows by one with every Push, never repeats
	Message
}

// Queue keeps messages until the broker has acknowledged them. It is bounded:
// a Push that finds it full drops the oldest message that is not leased and
// counts it. Methods may be called from several goroutines.
type Queue interface {
	// Push appends m durably.
	Push(m Message) error
	// Lease returns the oldest messages, at most n, oldest first. Until
	// Remove or Release they are being sent, so Push does not drop them.
	Lease(n int) ([]Queued, error)
	// Remove forgets all messages up to and including seq: they have arrived.
	// What was leased beyond seq is leased no more.
	Remove(seq uint64) error
	// Release ends the lease: the connection broke, nothing was acknowledged.
	Release()
	// Len is the number of messages kept.
	Len() int
	// Dropped is the number of messages lost to the bound, ever.
	Dropped() uint64
}

// memoryQueue keeps the messages in memory.
type memoryQueue struct {
	mu      sync.Mutex
	limit   int
	seq     uint64   // of the newest message
	kept    []Queued // oldest first
	leased  int      // how many of kept, from the front
	dropped uint64
}

// NewQueue returns a queue in memory of at most limit messages, at least one.
// It is for devices without a store; what it keeps does not survive the
// process.
func NewQueue(limit int) Queue { return &memoryQueue{limit: max(limit, 1)} }

func (q *memoryQueue) Push(m Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seq++
	if len(q.kept) >= q.limit {
		q.dropped++
		if q.leased == len(q.kept) {
			return nil // everything older is being sent: the new one is the oldest that can go
		}
		q.kept = append(q.kept[:q.leased], q.kept[q.leased+1:]...)
	}
	q.kept = append(q.kept, Queued{Seq: q.seq, Message: m})
	return nil
}

func (q *memoryQueue) Lease(n int) ([]Queued, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leased = min(n, len(q.kept))
	return append([]Queued(nil), q.kept[:q.leased]...), nil
}

func (q *memoryQueue) Remove(seq uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.kept) && q.kept[n].Seq <= seq {
		n++
	}
	q.kept = append([]Queued(nil), q.kept[n:]...)
	q.leased = 0
	return nil
}

func (q *memoryQueue) Release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leased = 0
}

func (q *memoryQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.kept)
}

func (q *memoryQueue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
