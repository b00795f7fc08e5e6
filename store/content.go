package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"go.etcd.io/bbolt"
)

// Pictures and masks lie in pieces of which two fill a page of 4096 bytes. All free pages are equal then: what
// an evicted picture leaves fits any other, and the file does not grow by gaps that nothing fits.
const pieceBytes = 2000

// pieceKey sorts by sample, then by piece.
func pieceKey(seq uint64, piece int) []byte {
	return binary.BigEndian.AppendUint32(sequenceKey(seq), uint32(piece))
}

// putContent writes a sample's JPEG and the runs of its mask.
func putContent(b *bbolt.Bucket, seq uint64, jpeg, runs []byte) error {
	b.FillPercent = 1 // keys only grow
	content := seal(sequenceKey(seq), append(bytes.Clone(jpeg), runs...))
	for i := 0; len(content) > 0; i++ {
		n := min(len(content), pieceBytes)
		if err := b.Put(pieceKey(seq, i), content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// getContent copies a sample's JPEG and the runs of its mask.
func getContent(b *bbolt.Bucket, m *Meta) (jpeg, runs []byte, err error) {
	sealed := make([]byte, 0, m.PictureBytes+m.MaskBytes+4)
	prefix := sequenceKey(m.Seq)
	c := b.Cursor()
	pieces := 0
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(sealed) < cap(sealed); k, v = c.Next() {
		if !bytes.Equal(k, pieceKey(m.Seq, pieces)) {
			return nil, nil, fmt.Errorf("%w: piece %d is missing", ErrDamaged, pieces)
		}
		sealed = append(sealed, v...)
		pieces++
	}
	content, err := unseal(prefix, sealed)
	if err != nil {
		return nil, nil, err
	}
	if len(content) != m.PictureBytes+m.MaskBytes {
		return nil, nil, fmt.Errorf("%w: %d bytes, not %d", ErrDamaged, len(content), m.PictureBytes+m.MaskBytes)
	}
	return content[:m.PictureBytes:m.PictureBytes], content[m.PictureBytes:], nil
}

// pieces is how many a sample has.
func (m *Meta) pieces() int { return (m.PictureBytes + m.MaskBytes + 4 + pieceBytes - 1) / pieceBytes }

func deleteContent(b *bbolt.Bucket, m *Meta) error {
	for i := range m.pieces() {
		if err := b.Delete(pieceKey(m.Seq, i)); err != nil {
			return err
		}
	}
	return nil
}

const (
	// slack is kept free in the file at all times, on blocks that the disk gave already: what bbolt needs to
	// delete a few samples on a full disk.
	slack = 512 << 10
	// evictAtOnce is how many samples one transaction deletes that makes room, so that slack is enough.
	evictAtOnce = 8
	// perSample is what a put rewrites beside its own pages.
	perSample = 32 << 10
)

// most is how large the file may get.
func (l Limits) most() int64 { return max(l.Bytes+l.Bytes/10, l.Bytes+4<<20) }

// makeRoom sees that bytes can be written into the file as it is: it grows within its bound while the disk
// gives blocks, then samples are evicted.
func (s *Samples) makeRoom(bytes int64) error {
	for {
		room, err := s.room()
		if err != nil || room >= bytes+slack {
			return err
		}
		if err := s.extend(bytes + slack - room); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return err
		}
		if err := s.evict(evictAtOnce); err != nil {
			return err
		}
	}
}

// room is what can be written into the file without growing it.
func (s *Samples) room() (int64, error) {
	var used int64 // what has ever been
	if err := s.db.View(func(tx *bbolt.Tx) error { used = tx.Size(); return nil }); err != nil {
		return 0, err
	}
	stats := s.db.Stats()
	return fileSize(s.file) - used + int64(stats.FreePageN+stats.PendingPageN)*int64(s.db.Info().PageSize), nil
}

// extend gives the file more blocks, or fails with ENOSPC where the disk or the bound has none.
func (s *Samples) extend(bytes int64) error {
	step := int64(samplesLayout(s.limits).grow)
	size := fileSize(s.file) + (bytes+step-1)/step*step
	if size > s.limits.most() {
		return syscall.ENOSPC
	}
	f, err := os.OpenFile(s.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		err = f.Truncate(size) // a file system without it: a commit may fail then, and evicts
	}
	if err != nil {
		return err
	}
	return f.Sync()
}

// evict deletes the n samples that are to go first.
func (s *Samples) evict(n int) error {
	plan := &undo{index: s.index}
	var gone []uint64
	for range n {
		e := s.index.victim()
		if e == nil {
			break
		}
		gone = append(gone, e.Seq)
		plan.remove(e)
	}
	plan.all()
	if gone == nil {
		return fmt.Errorf("%w: there is nothing left to evict", syscall.ENOSPC)
	}
	if err := s.change(gone, nil); err != nil {
		return fmt.Errorf("evict: %w", err)
	}
	s.evicted += uint64(len(gone))
	return nil
}
