package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Writer sends messages; it may be used from several goroutines.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer on w, which should be a blocking pipe.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes a Hello, Alive, Bad, Note, End, Fault or *Frame.
func (w *Writer) Send(message any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := message.(type) {
	case Hello:
		return w.text(kindHello, m)
	case Alive:
		return w.text(kindAlive, m)
	case Bad:
		return w.text(kindBad, m)
	case Note:
		return w.text(kindNote, m)
	case End:
		return w.text(kindEnd, m)
	case Fault:
		return w.text(kindFault, m)
	case *Frame:
		return w.frame(m)
	}
	return fmt.Errorf("wire: cannot send a %T", message)
}

func (w *Writer) text(k kind, m any) error {
	payload, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("wire: encode %T: %w", m, err)
	}
	w.buf = append(appendHeader(w.buf[:0], k, len(payload)), payload...)
	return w.flush()
}

func (w *Writer) frame(f *Frame) error {
	if len(f.RGB) != f.Width*f.Height*3 || len(f.Mask) != f.MaskWidth*f.MaskHeight {
		return fmt.Errorf("wire: frame of %d x %d with %d bytes, mask of %d x %d with %d bytes",
			f.Width, f.Height, len(f.RGB), f.MaskWidth, f.MaskHeight, len(f.Mask))
	}
	le := binary.LittleEndian
	b := appendHeader(w.buf[:0], kindFrame, frameFixed+len(f.RGB)+len(f.Mask))
	b = le.AppendUint64(b, f.Seq)
	b = le.AppendUint64(b, uint64(f.Mono))
	b = le.AppendUint16(b, uint16(f.Width))
	b = le.AppendUint16(b, uint16(f.Height))
	b = append(b, byte(f.Quality), 0, 0, 0)
	b = le.AppendUint16(b, uint16(f.MaskWidth))
	b = le.AppendUint16(b, uint16(f.MaskHeight))
	b = append(b, f.RGB...)
	w.buf = append(b, f.Mask...)
	return w.flush()
}

func (w *Writer) flush() error {
	if _, err := w.w.Write(w.buf); err != nil {
		return fmt.Errorf("wire: write: %w", err)
	}
	return nil
}

func appendHeader(b []byte, k kind, length int) []byte {
	b = append(b, magic...)
	b = append(b, Version, k, 0, 0)
	return binary.LittleEndian.AppendUint32(b, uint32(length))
}
