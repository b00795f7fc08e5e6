package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Limits bounds the samples.
type Limits struct {
	// Bytes of all samples together; 0 is 256 MiB. The file stays within a tenth, or 4 MiB, above it.
	Bytes int64
	// MaxAge of a sample; 0 is no bound.
	MaxAge time.Duration
}

// DefaultBytes bounds the samples where nobody said.
const DefaultBytes = 256 << 20

const (
	putQueue = 32 // samples that wait to be committed; a Put waits for its place
	putBatch = 20 // of them in one transaction
)

// Errors that a caller reacts to.
var (
	ErrNoSample = errors.New("no such sample")
	ErrClosed   = errors.New("the store is closed")
)

// Samples is samples.db: pictures worth learning from, bounded. What is needed to select and evict is in memory.
type Samples struct {
	dir    string
	file   string
	limits Limits

	puts    chan *pending // capacity putQueue
	closing chan struct{} // closed by close
	stopped chan struct{} // closed when the committer is gone

	mu      sync.RWMutex // held for writing over a commit, for reading over a read
	db      *bbolt.DB
	index   *index
	evicted uint64
}

// pending is a sample on its way in.
type pending struct {
	sample *Sample
	done   chan error // capacity 1
}

var (
	indexBucket   = []byte("index")
	contentBucket = []byte("content")
	sumsBucket    = []byte("sums")
	sumsKey       = []byte("sums")
)

// sums is what the records must add up to, written in the transaction that changes them.
type sums struct {
	Samples int    `json:"samples"`
	Bytes   int64  `json:"bytes"`
	Next    uint64 `json:"next"` // Seq of the next sample: none is used twice
}

const samplesName = "samples.db"

func samplesLayout(l Limits) layout {
	return layout{
		name:    samplesName,
		buckets: []string{"index", "content", "sums"},
		grow:    int(min(max(l.Bytes/64, 64<<10), 1<<20)),
		// The map is larger than the file ever gets: growing it would wait for every reader.
		options: bbolt.Options{InitialMmapSize: int(l.most() + 32<<20), FreelistType: bbolt.FreelistMapType},
	}
}

func openSamples(ctx context.Context, dir string, o Options) (*Samples, []string, error) {
	limits := o.Samples
	if limits.Bytes <= 0 {
		limits.Bytes = DefaultBytes
	}
	db, _, alarm, err := samplesLayout(limits).open(ctx, dir, o)
	var alarms []string
	if alarm != "" {
		alarms = append(alarms, alarm)
	}
	if err != nil {
		return nil, alarms, err
	}
	s := &Samples{
		dir: dir, file: filepath.Join(dir, samplesName), limits: limits, db: db,
		puts: make(chan *pending, putQueue), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	if s.index, err = readIndex(db); err != nil {
		db.Close()
		return nil, alarms, fmt.Errorf("samples.db: %w", err)
	}
	go s.commitPuts()
	return s, alarms, nil
}

func readIndex(db *bbolt.DB) (*index, error) {
	x := newIndex()
	err := db.View(func(tx *bbolt.Tx) error {
		var total sums
		if _, err := getJSON(tx.Bucket(sumsBucket), sumsKey, &total); err != nil {
			return err
		}
		x.next = max(x.next, total.Next)
		return tx.Bucket(indexBucket).ForEach(func(k, v []byte) error {
			record, err := unseal(k, v)
			if err != nil {
				return err
			}
			meta, features, err := decodeIndex(record)
			if err != nil {
				return err
			}
			x.insert(newEntry(meta, features))
			return nil
		})
	})
	return x, err
}

func (s *Samples) close() error {
	close(s.closing)
	<-s.stopped
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.Close()
}

// Put keeps a sample, evicting the most redundant ones to make room, and returns its Seq once it is committed.
// It fails with ErrInvalid, and where the disk neither takes it nor gives room by evicting; the store works on.
// ctx ends the waiting, not a commit that has begun.
func (s *Samples) Put(ctx context.Context, sample Sample) (uint64, error) {
	if err := sample.check(); err != nil {
		return 0, fmt.Errorf("put sample: %w", err)
	}
	p := &pending{sample: &sample, done: make(chan error, 1)}
	select {
	case s.puts <- p:
	case <-s.closing:
		return 0, fmt.Errorf("put sample: %w", ErrClosed)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case err := <-p.done:
		if err != nil {
			return 0, fmt.Errorf("put sample: %w", err)
		}
		return p.sample.Seq, nil
	case <-s.stopped:
		select {
		case err := <-p.done:
			return p.sample.Seq, err
		default:
			return 0, fmt.Errorf("put sample: %w", ErrClosed)
		}
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// List returns the samples that match, newest first; nil matches all. match must not block.
func (s *Samples) List(match func(*Meta) bool) []Meta {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Meta, 0, len(s.index.entries))
	for _, e := range s.index.entries {
		if match == nil || match(&e.Meta) {
			list = append(list, e.Meta)
		}
	}
	slices.SortFunc(list, func(a, b Meta) int {
		if a.Seq > b.Seq {
			return -1
		}
		return 1
	})
	return list
}

// Get returns a sample, which is the caller's, or ErrNoSample.
func (s *Samples) Get(seq uint64) (*Sample, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.index.entries[seq]
	if e == nil {
		return nil, fmt.Errorf("sample %d: %w", seq, ErrNoSample)
	}
	sample := &Sample{Meta: e.Meta}
	key := sequenceKey(seq)
	err := s.db.View(func(tx *bbolt.Tx) error {
		record, err := unseal(key, tx.Bucket(indexBucket).Get(key))
		if err != nil {
			return err
		}
		if _, sample.Features, err = decodeIndex(record); err != nil {
			return err
		}
		var runs []byte
		sample.JPEG, runs, err = getContent(tx.Bucket(contentBucket), &sample.Meta)
		if err != nil || e.Mask == nil {
			return err
		}
		sample.MaskPixels, err = decodeRuns(runs, e.Mask.Width*e.Mask.Height)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sample %d: %w", seq, err)
	}
	return sample, nil
}

// Label gives a sample the class that a person says it is; "" takes it back.
func (s *Samples) Label(seq uint64, label string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.index.entries[seq]
	if e == nil {
		return fmt.Errorf("label sample %d: %w", seq, ErrNoSample)
	}
	changed := *e
	changed.Label = label
	if err := s.db.Update(func(tx *bbolt.Tx) error { return rewrite(tx, &changed.Meta) }); err != nil {
		return fmt.Errorf("label sample %d: %w", seq, err)
	}
	e.Label = label
	return nil
}

// rewrite replaces the facts of a sample.
func rewrite(tx *bbolt.Tx, m *Meta) error {
	key := sequenceKey(m.Seq)
	record, err := unseal(key, tx.Bucket(indexBucket).Get(key))
	if err != nil {
		return err
	}
	_, features, err := decodeIndex(record)
	if err != nil {
		return err
	}
	if record, err = encodeIndex(m, features); err != nil {
		return err
	}
	return tx.Bucket(indexBucket).Put(key, seal(key, record))
}

// Drop deletes samples, the hold-out's too; unknown ones are no error. Their pixels lie in free pages of the
// file until those are used again: Compact and Purge leave none.
func (s *Samples) Drop(seqs ...uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.change(seqs, nil); err != nil {
		return fmt.Errorf("drop samples: %w", err)
	}
	return nil
}

// Purge deletes all samples and every set-aside samples.db, in a way that leaves no pixel in a file.
func (s *Samples) Purge() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.replace(func(temp string) error { return nil })
	aside, globErr := filepath.Glob(s.file + ".*")
	err = errors.Join(err, globErr)
	for _, file := range aside {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		return fmt.Errorf("purge samples: %w", err)
	}
	return nil
}

// Compact writes the file anew, without the pages that are free. Where the disk has no room for both, nothing
// changes.
func (s *Samples) Compact() (before, after int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = fileSize(s.file)
	err = s.replace(func(temp string) error {
		to, err := bbolt.Open(temp, 0o600, &bbolt.Options{Timeout: time.Second})
		if err != nil {
			return err
		}
		return errors.Join(bbolt.Compact(to, s.db, 4<<20), to.Close())
	})
	if err != nil {
		return before, before, fmt.Errorf("compact samples: %w", err)
	}
	return before, fileSize(s.file), nil
}

// replace puts another file in the place of samples.db: what fill writes, or an empty one where it writes none.
func (s *Samples) replace(fill func(temp string) error) error {
	l := samplesLayout(s.limits)
	temp := s.file + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := fill(temp); err != nil {
		os.Remove(temp)
		return err
	}
	next := s.index.next
	err := s.db.Close()
	if _, made := os.Stat(temp); made == nil {
		err = errors.Join(err, os.Rename(temp, s.file), syncFolder(s.dir))
	} else {
		err = errors.Join(err, os.Remove(s.file), l.begin(s.file))
	}
	if err != nil {
		return err
	}
	options := l.options
	options.Timeout = time.Second
	if s.db, err = bbolt.Open(s.file, 0o600, &options); err != nil {
		return err
	}
	s.db.AllocSize = l.grow
	if s.index, err = readIndex(s.db); err != nil {
		return err
	}
	s.index.next = max(s.index.next, next)
	return s.db.Update(func(tx *bbolt.Tx) error { return s.index.writeSums(tx) })
}

// Summary is how full the store is.
type Summary struct {
	Samples   int
	Protected int // of them in the hold-out
	Labelled  int
	Masks     int // that can be trained on
	Bytes     int64
	Limit     int64
	FileBytes int64
	Evicted   uint64    // since the start
	Oldest    time.Time // of the pictures; zero: there are none
}

// Summary tells how full the store is.
func (s *Samples) Summary() Summary {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sum := Summary{Samples: len(s.index.entries), Bytes: s.index.bytes, Limit: s.limits.Bytes, FileBytes: fileSize(s.file), Evicted: s.evicted}
	for _, e := range s.index.entries {
		if e.Protected {
			sum.Protected++
		}
		if e.Label != "" {
			sum.Labelled++
		}
		if e.accepted() {
			sum.Masks++
		}
		if sum.Oldest.IsZero() || e.Time.Before(sum.Oldest) {
			sum.Oldest = e.Time
		}
	}
	return sum
}

func fileSize(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
