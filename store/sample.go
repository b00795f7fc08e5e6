package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// Sample is a picture worth learning from, with what was known of it when it came.
type Sample struct {
	Meta
	JPEG []byte
	// Mask is the object's pixels [Mask.Height][Mask.Width], 0 or 255; nil where none was found.
	MaskPixels []byte
	// Features summarise the picture for comparison, such as the class token; kept as float16. Backbone names
	// the network that they come from. They need not have unit length; empty where there are none.
	Features []float32
}

// Meta is a sample without its picture.
type Meta struct {
	Seq        uint64    `json:"seq"` // order of arrival, from 1, never used twice; Put assigns it
	Camera     string    `json:"camera"`
	Time       time.Time `json:"time"`                  // of the picture
	TimeSynced bool      `json:"time_synced,omitempty"` // the clock could be believed
	Width      int       `json:"width"`                 // of the picture, pixels
	Height     int       `json:"height"`

	Label     string  `json:"label,omitempty"`     // given by a person
	Predicted string  `json:"predicted,omitempty"` // likeliest class
	Scores    []Score `json:"scores,omitempty"`    // the likeliest classes, likeliest first
	Margin    float64 `json:"margin,omitempty"`    // between the two likeliest probabilities, 0 to 1

	Relevance    *float64 `json:"relevance,omitempty"` // share of the model's relevance inside the mask, 0 to 1; nil: not known
	Model        string   `json:"model,omitempty"`     // digest of the model that predicted
	ModelVersion int64    `json:"model_version"`

	Backbone string `json:"backbone,omitempty"` // digest of the network that made features and mask
	Mask     *Mask  `json:"mask,omitempty"`

	Why       string `json:"why"`                 // it was kept: a Reason, or another word of the caller's
	Protected bool   `json:"protected,omitempty"` // in the hold-out; Put decides

	SHA256       string `json:"sha256"` // of the JPEG, hexadecimal; Put fills it
	PictureBytes int    `json:"picture_bytes"`
	MaskBytes    int    `json:"mask_bytes,omitempty"`
}

// Score is the probability of a class.
type Score struct {
	Label string  `json:"label"`
	Score float64 `json:"score"` // 0 to 1
}

// Mask is what is known of a mask beside its pixels.
type Mask struct {
	Width    int             `json:"width"`
	Height   int             `json:"height"`
	View     [4]int          `json:"view"`     // left, top, right, bottom of the part of the picture that it covers, pixels
	Quality  float64         `json:"quality"`  // 0 to 1
	Accepted bool            `json:"accepted"` // good enough to be trained on
	Evidence json.RawMessage `json:"evidence,omitempty"`
}

// Bounds on one sample.
const (
	maxPicture  = 16 << 20 // bytes of JPEG
	maxMask     = 64 << 20 // pixels
	maxFeatures = 1 << 14
	maxMeta     = 64 << 10 // bytes of JSON
	overhead    = 2 << 10  // bytes that a sample takes beside picture, mask and features: its JSON, half-filled pages
)

// ErrInvalid says that a sample cannot be kept as it is.
var ErrInvalid = errors.New("sample refused")

// bytes is what a sample takes of the budget.
func (m *Meta) bytes(features int) int64 {
	return int64(m.PictureBytes + m.MaskBytes + 2*features + overhead)
}

func (m *Meta) accepted() bool { return m.Mask != nil && m.Mask.Accepted }

func (s *Sample) check() error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
	switch {
	case len(s.JPEG) == 0:
		return refuse("it has no picture")
	case len(s.JPEG) > maxPicture:
		return refuse("its picture has %d bytes, at most %d are kept", len(s.JPEG), maxPicture)
	case len(s.Features) > maxFeatures:
		return refuse("%d features, at most %d are kept", len(s.Features), maxFeatures)
	case (s.Mask == nil) != (s.MaskPixels == nil):
		return refuse("a mask without pixels, or pixels without a mask")
	case s.Mask != nil && (s.Mask.Width < 1 || s.Mask.Height < 1 || s.Mask.Width > maxMask/s.Mask.Height || len(s.MaskPixels) != s.Mask.Width*s.Mask.Height):
		return refuse("%d mask pixels for %d x %d", len(s.MaskPixels), s.Mask.Width, s.Mask.Height)
	}
	for _, v := range s.Features {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return refuse("a feature is not finite")
		}
	}
	return nil
}

// encodeIndex writes the record of bucket index: the length of the JSON (4 bytes), the JSON, the features.
func encodeIndex(m *Meta, features []float32) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(text) > maxMeta {
		return nil, fmt.Errorf("%w: %d bytes of facts, at most %d are kept", ErrInvalid, len(text), maxMeta)
	}
	record := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)+2*len(features)+4), uint32(len(text)))
	record = append(record, text...)
	for _, v := range features {
		record = binary.BigEndian.AppendUint16(record, toHalf(v))
	}
	return record, nil
}

// decodeIndex copies what it returns.
func decodeIndex(record []byte) (m Meta, features []float32, err error) {
	if len(record) < 4 {
		return m, nil, fmt.Errorf("%w: a record of %d bytes", ErrDamaged, len(record))
	}
	n := uint64(binary.BigEndian.Uint32(record))
	rest := record[4:]
	if n > uint64(len(rest)) || (uint64(len(rest))-n)%2 != 0 {
		return m, nil, fmt.Errorf("%w: a record of %d bytes with %d of JSON", ErrDamaged, len(record), n)
	}
	if err := json.Unmarshal(rest[:n], &m); err != nil {
		return m, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for rest = rest[n:]; len(rest) > 0; rest = rest[2:] {
		features = append(features, fromHalf(binary.BigEndian.Uint16(rest)))
	}
	return m, features, nil
}

// encodeRuns writes a mask as lengths of runs of equal pixels, row by row, beginning with zeros; each a varint.
func encodeRuns(pixels []byte) []byte {
	var out []byte
	run, value := uint64(0), false
	for _, p := range pixels {
		if (p != 0) != value {
			out = binary.AppendUvarint(out, run)
			run, value = 0, !value
		}
		run++
	}
	return binary.AppendUvarint(out, run)
}

// decodeRuns is the inverse for n pixels.
func decodeRuns(runs []byte, n int) ([]byte, error) {
	if n < 0 || n > maxMask {
		return nil, fmt.Errorf("%w: a mask of %d pixels", ErrDamaged, n)
	}
	pixels := make([]byte, n)
	at, value := 0, byte(0)
	for len(runs) > 0 {
		run, size := binary.Uvarint(runs)
		if size <= 0 || run > uint64(n-at) {
			return nil, fmt.Errorf("%w: runs of a mask", ErrDamaged)
		}
		for end := at + int(run); at < end; at++ {
			pixels[at] = value
		}
		runs, value = runs[size:], ^value
	}
	if at != n {
		return nil, fmt.Errorf("%w: %d of %d pixels of a mask", ErrDamaged, at, n)
	}
	return pixels, nil
}

// toHalf rounds to IEEE 754 binary16, to the nearest, ties to even; what is too large becomes the largest.
func toHalf(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	exponent, fraction := int(b>>23&0xff)-127+15, b&0x7fffff
	switch {
	case exponent >= 31:
		return sign | 0x7bff
	case exponent <= 0: // subnormal
		if exponent < -10 {
			return sign
		}
		fraction |= 0x800000
		shift := uint(14 - exponent)
		half := fraction >> shift
		if rest, middle := fraction&(1<<shift-1), uint32(1)<<(shift-1); rest > middle || rest == middle && half&1 == 1 {
			half++
		}
		return sign | uint16(half)
	}
	half := uint32(exponent)<<10 | fraction>>13
	if rest := fraction & 0x1fff; rest > 0x1000 || rest == 0x1000 && half&1 == 1 {
		half++
	}
	return sign | uint16(min(half, 0x7bff))
}

func fromHalf(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10&31), uint32(h&0x3ff)
	if exponent == 0 {
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
