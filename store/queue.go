package store

import (
	"encoding/binary"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

const (
	queueLimit = 1000    // messages
	queueBytes = 4 << 20 // of them together
)

// droppedKey counts what the queue lost to its bounds, ever.
var droppedKey = []byte("queue.dropped")

// Queue keeps outbound messages, opaque to it, until they have arrived: at most 1,000 and 4 MiB of them. A Push
// that finds it full drops the oldest that are not leased and counts them. It is fleet's Queue; leases are
// taken by one goroutine alone.
type Queue struct {
	db *bbolt.DB

	mu      sync.Mutex
	kept    []queued // oldest first
	bytes   int
	leased  int // how many of kept, from the front
	next    uint64
	dropped uint64
}

// queued is a message of the file.
type queued struct {
	seq  uint64
	size int
}

func openQueue(db *bbolt.DB) (*Queue, error) {
	q := &Queue{db: db}
	err := db.View(func(tx *bbolt.Tx) error {
		if _, err := getJSON(tx.Bucket(settingsBucket), droppedKey, &q.dropped); err != nil {
			return err
		}
		return tx.Bucket(queueBucket).ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("queue: %w: key %x", ErrDamaged, k)
			}
			m := queued{binary.BigEndian.Uint64(k), len(v) - 4}
			q.kept, q.bytes, q.next = append(q.kept, m), q.bytes+m.size, m.seq+1
			return nil
		})
	})
	return q, err
}

// Push appends a message durably.
func (q *Queue) Push(message []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	drop := 0 // of those after the leased ones
	bytes := q.bytes + len(message)
	for n := len(q.kept) + 1; q.leased+drop < len(q.kept) && (n-drop > queueLimit || bytes > queueBytes); drop++ {
		bytes -= q.kept[q.leased+drop].size
	}
	over := len(q.kept)-drop+1 > queueLimit || bytes > queueBytes // all that is left is being sent: the new one goes
	dropped := q.dropped + uint64(drop)
	if over {
		dropped++
	}
	gone := q.kept[q.leased : q.leased+drop]
	err := q.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(queueBucket)
		for _, m := range gone {
			if err := b.Delete(sequenceKey(m.seq)); err != nil {
				return err
			}
		}
		if dropped != q.dropped {
			if err := putJSON(tx.Bucket(settingsBucket), droppedKey, dropped); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		key := sequenceKey(q.next)
		return b.Put(key, seal(key, message))
	})
	if err != nil {
		return fmt.Errorf("queue a message: %w", err)
	}
	q.kept = append(q.kept[:q.leased:q.leased], q.kept[q.leased+drop:]...)
	q.dropped, q.bytes = dropped, bytes
	if over {
		q.bytes -= len(message)
		return nil
	}
	q.kept = append(q.kept, queued{q.next, len(message)})
	q.next++
	return nil
}

// Lease returns the oldest messages, at most n, oldest first. Until Remove or Release Push does not drop them.
func (q *Queue) Lease(n int) (messages [][]byte, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.kept))
	err = q.db.View(func(tx *bbolt.Tx) error {
		for _, m := range q.kept[:n] {
			key := sequenceKey(m.seq)
			message, err := unseal(key, tx.Bucket(queueBucket).Get(key))
			if err != nil {
				return err
			}
			messages = append(messages, append([]byte{}, message...))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("queued messages: %w", err)
	}
	q.leased = n
	return messages, nil
}

// Remove forgets the first n of the leased messages and ends the lease.
func (q *Queue) Remove(n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, q.leased)
	err := q.db.Update(func(tx *bbolt.Tx) error {
		for _, m := range q.kept[:n] {
			if err := tx.Bucket(queueBucket).Delete(sequenceKey(m.seq)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove queued messages: %w", err)
	}
	for _, m := range q.kept[:n] {
		q.bytes -= m.size
	}
	q.kept, q.leased = q.kept[n:], 0
	return nil
}

// Release ends the lease: nothing of it has arrived.
func (q *Queue) Release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leased = 0
}

// Len is the number of messages kept.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.kept)
}

// Dropped is the number of messages lost to the bounds, ever.
func (q *Queue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
