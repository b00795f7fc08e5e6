package fleet

import "sync"

// QueueLimit is how many messages a queue should hold before the oldest goes.
const QueueLimit = 1000

// Queue keeps messages, opaque to it, until the broker has acknowledged them.
// It is bounded: a Push that finds it full drops the oldest message that is not
// leased and counts it. Methods may be called from several goroutines; leases
// are taken by one alone.
type Queue interface {
	// Push appends a message durably.
	Push(message []byte) error
	// Lease returns the oldest messages, at most n, oldest first. Until Remove
	// or Release they are being sent, so Push does not drop them.
	Lease(n int) ([][]byte, error)
	// Remove forgets the first n of the leased messages, which have arrived, and
	// ends the lease.
	Remove(n int) error
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
	kept    [][]byte // oldest first
	leased  int      // how many of kept, from the front
	dropped uint64
}

// NewQueue returns a queue in memory of at most limit messages, at least one.
// It is for devices without a store; what it keeps does not survive the
// process.
func NewQueue(limit int) Queue { return &memoryQueue{limit: max(limit, 1)} }

func (q *memoryQueue) Push(message []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.kept) >= q.limit {
		q.dropped++
		if q.leased == len(q.kept) {
			return nil // everything older is being sent: the new one is the oldest that can go
		}
		q.kept = append(q.kept[:q.leased], q.kept[q.leased+1:]...)
	}
	q.kept = append(q.kept, message)
	return nil
}

func (q *memoryQueue) Lease(n int) ([][]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leased = min(n, len(q.kept))
	return append([][]byte(nil), q.kept[:q.leased]...), nil
}

func (q *memoryQueue) Remove(n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.kept = append([][]byte(nil), q.kept[min(n, q.leased):]...)
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
