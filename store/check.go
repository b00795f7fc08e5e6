package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// CheckFile reads a database file through: bbolt's pages, the checksum and form of every record, and the sums
// that the records must give. The error wraps ErrDamaged or ErrTooNew, or is another where it could not be told.
// Damage can end the process that reads it: run it in one that may die.
func CheckFile(file string) error {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return fmt.Errorf("check %s: %w", file, ErrLocked)
	case err != nil:
		return fmt.Errorf("check %s: %w: %w", file, ErrDamaged, err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		var faults []error
		for err := range tx.Check() { // to its end: the goroutine behind it waits for its reader
			if len(faults) < 10 {
				faults = append(faults, err)
			}
		}
		if faults != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, errors.Join(faults...))
		}
		if strings.HasPrefix(filepath.Base(file), stateLayout.name) {
			return checkState(tx)
		}
		return checkSamples(tx)
	})
	if err != nil {
		return fmt.Errorf("check %s: %w", file, err)
	}
	return nil
}

func checkFormat(tx *bbolt.Tx) error {
	b := tx.Bucket(formatBucket)
	if b == nil {
		return fmt.Errorf("%w: no format record", ErrDamaged)
	}
	var f format
	if found, err := getJSON(b, formatKey, &f); err != nil || !found {
		return errors.Join(fmt.Errorf("%w: no format record", ErrDamaged), err)
	}
	if f.MinReader > formatReads {
		return fmt.Errorf("%w: version %d needs a reader of version %d, this one is %d", ErrTooNew, f.Version, f.MinReader, formatReads)
	}
	return nil
}

// checkState checks every record of state.db.
func checkState(tx *bbolt.Tx) error {
	for _, name := range stateLayout.buckets {
		b := tx.Bucket([]byte(name))
		if b == nil {
			return fmt.Errorf("%w: bucket %s is missing", ErrDamaged, name)
		}
		err := b.ForEach(func(k, v []byte) error {
			value, err := unseal(k, v)
			if err == nil && (name == "models" || name == "verdicts" || name == "settings") && !json.Valid(value) {
				err = fmt.Errorf("record %q: %w: no JSON", k, ErrDamaged)
			}
			if err == nil && (name == "verdicts" || name == "queue") && len(k) != 8 {
				err = fmt.Errorf("%w: key %x", ErrDamaged, k)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return nil
}

// checkSamples checks every record of samples.db, and that they add up.
func checkSamples(tx *bbolt.Tx) error {
	index, content, total := tx.Bucket(indexBucket), tx.Bucket(contentBucket), tx.Bucket(sumsBucket)
	if index == nil || content == nil || total == nil {
		return fmt.Errorf("%w: a bucket is missing", ErrDamaged)
	}
	var found, want sums
	wantPieces, pieces := 0, 0
	err := index.ForEach(func(k, v []byte) error {
		record, err := unseal(k, v)
		if err != nil {
			return err
		}
		m, features, err := decodeIndex(record)
		if err != nil {
			return err
		}
		if string(sequenceKey(m.Seq)) != string(k) {
			return fmt.Errorf("sample %d: %w: it lies under key %x", m.Seq, ErrDamaged, k)
		}
		_, runs, err := getContent(content, &m)
		if err == nil && m.Mask != nil {
			_, err = decodeRuns(runs, m.Mask.Width*m.Mask.Height)
		}
		if err != nil {
			return fmt.Errorf("sample %d: %w", m.Seq, err)
		}
		found.Samples++
		found.Bytes += m.bytes(len(features))
		wantPieces += m.pieces()
		return nil
	})
	if err != nil {
		return err
	}
	if err := content.ForEach(func(_, _ []byte) error { pieces++; return nil }); err != nil {
		return err
	}
	if _, err := getJSON(total, sumsKey, &want); err != nil {
		return err
	}
	found.Next = want.Next
	if found != want || pieces != wantPieces {
		return fmt.Errorf("%w: %d samples of %d bytes in %d pieces, where %d of %d bytes in %d pieces are counted",
			ErrDamaged, found.Samples, found.Bytes, pieces, want.Samples, want.Bytes, wantPieces)
	}
	return nil
}
