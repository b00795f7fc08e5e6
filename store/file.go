package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// Version of both files, and the oldest reader that understands what this package writes. Additions raise
// neither min_reader nor what older readers need to know.
const (
	formatVersion = 1
	formatReads   = 1
)

// Words of a damaged and of a newer file.
var (
	ErrDamaged = errors.New("damaged")
	ErrTooNew  = errors.New("written by a newer version")
)

// format is the value of bucket format, key format.
type format struct {
	Version   int `json:"version"`
	MinReader int `json:"min_reader"`
}

var (
	formatBucket = []byte("format")
	formatKey    = []byte("format")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// layout is one of the two files.
type layout struct {
	name    string
	buckets []string // beside formatBucket
	reserve int64    // bytes taken from the file system at once, so that a full disk stops no commit
	grow    int      // bytes by which a file grows that outgrew what it has
	options bbolt.Options
}

// open opens a file of this layout, after it was checked; one that is damaged or too new is set aside and a new
// one begun. alarm says so, and began that there is nothing in it yet.
func (l layout) open(ctx context.Context, dir string, o Options) (db *bbolt.DB, began bool, alarm string, err error) {
	file := filepath.Join(dir, l.name)
	if f, err := os.Open(file); err == nil {
		f.Close()
		alarm, err = l.examine(ctx, file, o)
		if err != nil {
			return nil, false, alarm, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, false, "", err
	}
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		began = true
		if err := l.begin(file); err != nil {
			return nil, true, alarm, fmt.Errorf("begin %s: %w", l.name, err)
		}
	}
	options := l.options
	options.Timeout = time.Second // the folder's lock is held: only a stranger can have it
	db, err = bbolt.Open(file, 0o600, &options)
	if err != nil {
		return nil, began, alarm, fmt.Errorf("%s: %w", l.name, err)
	}
	db.AllocSize = l.grow
	return db, began, alarm, nil
}

// examine checks an existing file and sets it aside if need be.
func (l layout) examine(ctx context.Context, file string, o Options) (alarm string, err error) {
	err = o.Check(ctx, file)
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, ErrDamaged):
		aside, moved := setAside(file, "corrupt")
		return fmt.Sprintf("%s was damaged and is set aside as %s (%v); what was in it is lost to the daemon, the file can be deleted", l.name, filepath.Base(aside), err), moved
	case errors.Is(err, ErrTooNew):
		aside, moved := setAside(file, "newer")
		return fmt.Sprintf("%s is set aside as %s (%v); install that version again and rename the file back, or delete it", l.name, filepath.Base(aside), err), moved
	case ctx.Err() != nil:
		return "", ctx.Err()
	}
	o.Log.Warn("a store could not be checked and is opened as it is", "file", file, "error", err)
	return "", nil
}

// setAside renames a file so that a new one can take its place. Of one kind only the newest is kept: they may
// be as large as the budget.
func setAside(file, why string) (string, error) {
	aside := fmt.Sprintf("%s.%s-%s", file, why, time.Now().UTC().Format("20060102T150405Z"))
	older, err := filepath.Glob(file + "." + why + "-*")
	if err != nil {
		return "", err
	}
	if err := os.Rename(file, aside); err != nil {
		return "", err
	}
	for _, o := range older {
		if o != aside {
			os.Remove(o) // one that stays is told by the folder's listing
		}
	}
	return aside, syncFolder(filepath.Dir(file))
}

// begin makes an empty file. A power cut leaves the whole of it or none.
func (l layout) begin(file string) error {
	temp := file + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(temp, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range append([]string{string(formatBucket)}, l.buckets...) {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return putJSON(tx.Bucket(formatBucket), formatKey, format{formatVersion, formatReads})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := reserve(temp, l.reserve); err != nil {
		return err
	}
	if err := os.Rename(temp, file); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(file))
}

// reserve makes a file at least size bytes long, on blocks of its own.
func reserve(file string, size int64) error {
	if size == 0 {
		return nil
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return nil // a file system without it: a full disk may stop commits, which is said then
	}
	if err != nil {
		return fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	return f.Sync()
}

// seal appends the checksum of key and value (CRC-32C, big endian): bbolt has none.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(slices.Clip(value), checksum(key, value))
}

// unseal returns the value, which is only valid in the transaction that it was read in.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != checksum(key, sealed[:n]) {
		return nil, fmt.Errorf("record %q: %w: wrong checksum", key, ErrDamaged)
	}
	return sealed[:n:n], nil
}

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func putJSON(b *bbolt.Bucket, key []byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, seal(key, text))
}

// getJSON reads into v and says whether the key is there.
func getJSON(b *bbolt.Bucket, key []byte, v any) (bool, error) {
	sealed := b.Get(key)
	if sealed == nil {
		return false, nil
	}
	text, err := unseal(key, sealed)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("record %q: %w: %w", key, ErrDamaged, err)
	}
	return true, nil
}

// sequenceKey makes keys that sort by number.
func sequenceKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
