package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// Copy writes the file of that name ("state.db", "samples.db") as it is between two transactions to another
// place. Commits wait meanwhile.
func (s *Store) Copy(name, to string) error {
	var db *bbolt.DB
	switch {
	case name == stateLayout.name:
		db = s.State.db
	case name == samplesName && s.Samples != nil:
		s.Samples.mu.RLock() // a purge or a compaction would put another file there
		defer s.Samples.mu.RUnlock()
		db = s.Samples.db
	default:
		return fmt.Errorf("copy %s: there is no such database", name)
	}
	tx, err := db.Begin(true) // keeps commits away
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	from, err := os.Open(db.Path())
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy %s: %w", name, err), os.Remove(to))
	}
	return nil
}
