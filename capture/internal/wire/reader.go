package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/seed-a98b2d25/fovea/capture/internal/scene"
)

// ErrCorrupt marks a stream that breaks the contract. Nothing after it can be
// trusted: the child is to be killed.
var ErrCorrupt = errors.New("corrupt stream from the grabber")

// Reader reads a child's messages and believes none of them: every length is
// checked before memory is taken for it.
type Reader struct {
	r       io.Reader
	maxSide int
	greeted bool
	lastSeq uint64
	head    [headerSize + frameFixed]byte
	spare   []byte // memory for the next frame's pixels
}

// NewReader returns a Reader on r for frames whose longer side is at most maxSide pixels.
func NewReader(r io.Reader, maxSide int) *Reader { return &Reader{r: r, maxSide: maxSide} }

// Recycle gives back the pixels of a frame that nobody holds any more.
func (r *Reader) Recycle(rgb []byte) { r.spare = rgb }

// Next returns the next message: a Hello, Frame, Alive, Bad, Note, End or Fault. A clean
// end between two messages is io.EOF; an end within one io.ErrUnexpectedEOF;
// anything that breaks the contract wraps ErrCorrupt.
func (r *Reader) Next() (any, error) {
	head := r.head[:headerSize]
	if _, err := io.ReadFull(r.r, head); err != nil {
		return nil, err
	}
	if string(head[:4]) != magic {
		return nil, fmt.Errorf("%w: header starts with %x", ErrCorrupt, head[:4])
	}
	if head[4] != Version {
		return nil, fmt.Errorf("%w: version %d of the protocol, this program speaks %d; install fovea and fovea-grab from the same build", ErrCorrupt, head[4], Version)
	}
	if head[6] != 0 || head[7] != 0 {
		return nil, fmt.Errorf("%w: reserved bytes are %x", ErrCorrupt, head[6:8])
	}
	k, length := head[5], int64(binary.LittleEndian.Uint32(head[8:]))
	if !r.greeted && k != kindHello && k != kindFault {
		return nil, fmt.Errorf("%w: message %d before the hello", ErrCorrupt, k)
	}
	switch k {
	case kindHello:
		if r.greeted {
			return nil, fmt.Errorf("%w: a second hello", ErrCorrupt)
		}
		r.greeted = true
		return text[Hello](r, length)
	case kindFrame:
		return r.frame(length)
	case kindAlive:
		return text[Alive](r, length)
	case kindBad:
		return text[Bad](r, length)
	case kindNote:
		return text[Note](r, length)
	case kindEnd:
		return text[End](r, length)
	case kindFault:
		return text[Fault](r, length)
	}
	return nil, fmt.Errorf("%w: message of unknown type %d", ErrCorrupt, k)
}

func text[T any](r *Reader, length int64) (any, error) {
	var m T
	if length > maxText {
		return nil, fmt.Errorf("%w: %T of %d bytes, at most %d", ErrCorrupt, m, length, maxText)
	}
	payload := make([]byte, length)
	if err := r.full(payload); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return nil, fmt.Errorf("%w: %T: %w", ErrCorrupt, m, err)
	}
	return m, nil
}

func (r *Reader) frame(length int64) (any, error) {
	if length < frameFixed {
		return nil, fmt.Errorf("%w: frame of %d bytes", ErrCorrupt, length)
	}
	b, le := r.head[headerSize:], binary.LittleEndian
	if err := r.full(b); err != nil {
		return nil, err
	}
	f := Frame{
		Seq:        le.Uint64(b),
		Mono:       int64(le.Uint64(b[8:])),
		Width:      int(le.Uint16(b[16:])),
		Height:     int(le.Uint16(b[18:])),
		Quality:    scene.Quality(b[20]),
		MaskWidth:  int(le.Uint16(b[24:])),
		MaskHeight: int(le.Uint16(b[26:])),
	}
	pixels, cells := f.Width*f.Height*3, f.MaskWidth*f.MaskHeight
	noMask := f.MaskWidth == 0 && f.MaskHeight == 0
	switch {
	case f.Width < 1 || f.Height < 1 || f.Width > r.maxSide || f.Height > r.maxSide:
		return nil, fmt.Errorf("%w: frame of %d x %d, sides must be 1 to %d", ErrCorrupt, f.Width, f.Height, r.maxSide)
	case !noMask && (f.MaskWidth != maskSize(f.Width) || f.MaskHeight != maskSize(f.Height)):
		return nil, fmt.Errorf("%w: mask of %d x %d for a frame of %d x %d", ErrCorrupt, f.MaskWidth, f.MaskHeight, f.Width, f.Height)
	case length != int64(frameFixed+pixels+cells):
		return nil, fmt.Errorf("%w: frame of %d x %d in %d bytes", ErrCorrupt, f.Width, f.Height, length)
	case f.Quality > scene.Frozen || b[21] != 0 || b[22] != 0 || b[23] != 0:
		return nil, fmt.Errorf("%w: quality bytes %x", ErrCorrupt, b[20:24])
	case f.Seq <= r.lastSeq:
		return nil, fmt.Errorf("%w: frame %d after frame %d", ErrCorrupt, f.Seq, r.lastSeq)
	}
	r.lastSeq = f.Seq

	if cap(r.spare) < pixels {
		r.spare = make([]byte, pixels)
	}
	f.RGB, r.spare = r.spare[:pixels], nil
	if err := r.full(f.RGB); err != nil {
		return nil, err
	}
	if noMask {
		return f, nil
	}
	f.Mask = make([]byte, cells)
	if err := r.full(f.Mask); err != nil {
		return nil, err
	}
	for i, v := range f.Mask {
		if v != 0 && v != 255 {
			return nil, fmt.Errorf("%w: mask byte %d is %d", ErrCorrupt, i, v)
		}
	}
	return f, nil
}

// full fills b from within a message, where no end is a clean one.
func (r *Reader) full(b []byte) error {
	_, err := io.ReadFull(r.r, b)
	if err == io.EOF && len(b) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}
