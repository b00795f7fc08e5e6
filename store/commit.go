package store

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// commitPuts commits what Put brings, as many at once as wait.
func (s *Samples) commitPuts() {
	defer close(s.stopped)
	for {
		var batch []*pending
		select {
		case p := <-s.puts:
			batch = append(batch, p)
		case <-s.closing:
			return
		}
		for len(batch) < putBatch && len(s.puts) > 0 {
			batch = append(batch, <-s.puts)
		}
		s.commit(batch)
	}
}

// commitTries is how often a batch is tried on a disk that does not take it, with fewer samples each time.
const commitTries = 4

// commit keeps a batch, in room that was made before. Where the disk does not take it all the same, more samples
// are evicted and it is tried again.
func (s *Samples) commit(batch []*pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var good []*pending
	var bytes int64
	for _, p := range batch {
		if err := s.prepare(p.sample); err != nil {
			p.done <- err
			continue
		}
		good = append(good, p)
		bytes += p.sample.bytes(len(p.sample.Features)) + perSample
	}
	if good == nil {
		return
	}
	err := s.makeRoom(bytes)
	for try := 0; err == nil; try++ {
		if err = s.change(nil, good); err == nil || try == commitTries {
			break
		}
		if evictErr := s.evict(evictAtOnce); evictErr != nil {
			err = errors.Join(err, evictErr)
			break
		}
		err = nil
	}
	for _, p := range good {
		p.done <- err
	}
}

// prepare fills what Put fills.
func (s *Samples) prepare(sample *Sample) error {
	sample.SHA256 = digestOf(sample.JPEG)
	sample.PictureBytes, sample.MaskBytes, sample.Protected = len(sample.JPEG), 0, false
	if sample.MaskPixels != nil {
		sample.MaskBytes = len(encodeRuns(sample.MaskPixels))
	}
	if size := sample.bytes(len(sample.Features)); size > s.limits.Bytes {
		return fmt.Errorf("%w: it takes %d bytes of a budget of %d", ErrInvalid, size, s.limits.Bytes)
	}
	_, err := encodeIndex(&sample.Meta, nil)
	return err
}

// change drops samples and adds others in one transaction, evicting what the budget wants; all of it or nothing.
func (s *Samples) change(drop []uint64, add []*pending) error {
	done := &undo{index: s.index}
	evicted := uint64(0)
	for _, seq := range drop {
		if e := s.index.entries[seq]; e != nil {
			done.remove(e)
		}
	}
	for _, p := range add {
		e := newEntry(p.sample.Meta, roundTrip(p.sample.Features))
		for s.index.bytes+e.size() > s.limits.Bytes {
			done.remove(s.index.victim()) // there is one: a sample alone fits
			evicted++
		}
		e.Seq = s.index.next
		p.sample.Seq = e.Seq
		joins, leaves := s.index.protect(e)
		if leaves != nil {
			done.protect(leaves, false)
		}
		e.Protected = joins
		done.insert(e)
	}
	err := s.db.Update(func(tx *bbolt.Tx) error { return s.write(tx, done, add) })
	if err != nil {
		done.all()
		return err
	}
	s.evicted += evicted
	return nil
}

// write brings the file in line with the index.
func (s *Samples) write(tx *bbolt.Tx, done *undo, add []*pending) error {
	for _, e := range done.removed {
		if e.addedHere {
			continue
		}
		if err := tx.Bucket(indexBucket).Delete(sequenceKey(e.entry.Seq)); err != nil {
			return err
		}
		if err := deleteContent(tx.Bucket(contentBucket), &e.entry.Meta); err != nil {
			return err
		}
	}
	for _, e := range done.protected {
		if s.index.entries[e.Seq] == e && !done.isAdded(e) {
			if err := rewrite(tx, &e.Meta); err != nil {
				return err
			}
		}
	}
	for _, p := range add {
		e := s.index.entries[p.sample.Seq]
		if e == nil {
			continue // evicted again by one that came after it in the batch
		}
		p.sample.Meta = e.Meta
		key := sequenceKey(e.Seq)
		record, err := encodeIndex(&e.Meta, p.sample.Features)
		if err != nil {
			return err
		}
		if err := tx.Bucket(indexBucket).Put(key, seal(key, record)); err != nil {
			return err
		}
		var runs []byte
		if p.sample.MaskPixels != nil {
			runs = encodeRuns(p.sample.MaskPixels)
		}
		if err := putContent(tx.Bucket(contentBucket), e.Seq, p.sample.JPEG, runs); err != nil {
			return err
		}
	}
	return s.index.writeSums(tx)
}

func (x *index) writeSums(tx *bbolt.Tx) error {
	return putJSON(tx.Bucket(sumsBucket), sumsKey, sums{Samples: len(x.entries), Bytes: x.bytes, Next: x.next})
}

// roundTrip is what the features are once they were kept.
func roundTrip(features []float32) []float32 {
	kept := make([]float32, len(features))
	for i, v := range features {
		kept[i] = fromHalf(toHalf(v))
	}
	return kept
}

// undo is what was done to an index, so that it can be taken back where the file did not follow.
type undo struct {
	index     *index
	steps     []func()
	removed   []removal
	added     []*entry
	protected []*entry
}

type removal struct {
	entry     *entry
	addedHere bool // and so not in the file
}

func (u *undo) insert(e *entry) {
	next := u.index.next
	u.index.insert(e)
	u.added = append(u.added, e)
	u.steps = append(u.steps, func() {
		if u.index.entries[e.Seq] == e {
			u.index.remove(e)
		}
		u.index.next = next
	})
}

func (u *undo) remove(e *entry) {
	u.index.remove(e)
	u.removed = append(u.removed, removal{e, u.isAdded(e)})
	u.steps = append(u.steps, func() { u.index.insert(e) })
}

func (u *undo) protect(e *entry, held bool) {
	was := e.Protected
	e.Protected = held
	u.protected = append(u.protected, e)
	u.steps = append(u.steps, func() { e.Protected = was })
}

func (u *undo) isAdded(e *entry) bool {
	for _, a := range u.added {
		if a == e {
			return true
		}
	}
	return false
}

// all takes everything back, the last first.
func (u *undo) all() {
	for i := len(u.steps) - 1; i >= 0; i-- {
		u.steps[i]()
	}
}

// ageShare: at most one sample in so many goes at a time for its age. A clock that jumps must not empty the store.
const ageShare = 100

// Age drops samples beyond MaxAge, by order of arrival: all before the newest whose time, from a clock that
// could be believed, is too long ago; but at most one in a hundred a call. It is for calling every few minutes while
// the clock can be believed.
func (s *Samples) Age(now time.Time) error {
	if s.limits.MaxAge <= 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := uint64(0)
	for _, e := range s.index.entries {
		if e.TimeSynced && now.Sub(e.Time) > s.limits.MaxAge {
			last = max(last, e.Seq)
		}
	}
	var gone []uint64
	for seq := range s.index.entries {
		if seq <= last {
			gone = append(gone, seq)
		}
	}
	if gone == nil {
		return nil
	}
	gone = oldest(gone, max(1, len(s.index.entries)/ageShare))
	if err := s.change(gone, nil); err != nil {
		return fmt.Errorf("drop old samples: %w", err)
	}
	return nil
}

// oldest returns the n smallest.
func oldest(seqs []uint64, n int) []uint64 {
	slices.Sort(seqs)
	return seqs[:min(n, len(seqs))]
}
