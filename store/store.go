package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrLocked says that another process has the folder open.
var ErrLocked = errors.New("another process has the state folder open")

// lockWait is how long a locked folder is tried: a daemon that stops needs seconds.
const lockWait = 30 * time.Second

// Options are how a folder is opened. The zero value works.
type Options struct {
	// Samples bounds samples.db.
	Samples Limits
	// Check examines a database file, best in a process of its own, since damage can kill the one that reads
	// it: nil for a sound file, ErrDamaged, ErrTooNew, or another error where it could not be told. nil is
	// CheckFile.
	Check func(ctx context.Context, file string) error
	// LockWait is how long a locked folder is tried; 0 is 30 s.
	LockWait time.Duration
	// Log hears of what was set aside. nil is slog.Default().
	Log *slog.Logger
}

// Store is an open folder.
type Store struct {
	State *State
	// Samples is nil where samples.db can neither be opened nor begun; Alarms says why.
	Samples *Samples
	// Alarms are what was wrong at opening, a sentence each with what a person can do.
	Alarms []string

	lock   *os.File
	closed atomic.Bool
}

// Open opens the folder, which must exist, and begins the files that are not there. It fails where state.db can
// be neither opened nor begun, and with ErrLocked.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if o.Check == nil {
		o.Check = func(_ context.Context, file string) error { return CheckFile(file) }
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.LockWait == 0 {
		o.LockWait = lockWait
	}
	lock, err := lockFolder(ctx, dir, o.LockWait)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{lock: lock}
	if err := s.open(ctx, dir, o); err != nil {
		s.Close()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	for _, alarm := range s.Alarms {
		o.Log.Error("store", "alarm", alarm)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, dir string, o Options) error {
	state, alarms, err := openState(ctx, dir, o)
	s.Alarms = alarms
	if err != nil {
		return err
	}
	s.State = state
	samples, alarms, err := openSamples(ctx, dir, o)
	s.Alarms = append(s.Alarms, alarms...)
	if err != nil {
		s.Alarms = append(s.Alarms, fmt.Sprintf("no samples are kept: %v; see that the disk has room and the folder is this user's, then restart", err))
		return nil
	}
	s.Samples = samples
	return nil
}

// Close ends what is under way and gives the folder back. A second call does nothing.
func (s *Store) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	var all []error
	if s.Samples != nil {
		all = append(all, s.Samples.close())
	}
	if s.State != nil {
		all = append(all, s.State.close())
	}
	return errors.Join(append(all, s.lock.Close())...)
}

// lockFolder holds store.lock until the file is closed or the process dies, in whatever way.
func lockFolder(ctx context.Context, dir string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "store.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(wait); ; {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock: %w", err)
		case time.Now().After(until):
			f.Close()
			return nil, fmt.Errorf("%w: stop the daemon that runs, or speak to it over its socket", ErrLocked)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// syncFolder makes the renames of a folder survive a power cut.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
