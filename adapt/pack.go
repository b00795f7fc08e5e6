package adapt

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"time"

	"github.com/google/renameio/v2"
)

// A pack is a training set as one file, drawn from a device's samples; docs/formats/pack.md is its page:
//
//	FOVEAPACK\n
//	{"version":1,"min_reader":1,...}\n                 PackInfo
//	{"camera":"yard","jpeg_bytes":31415,...}\n         a sample, then its JPEG, then its mask as PNG
//	...
//	32 bytes                                           SHA-256 of all bytes before
const (
	packMagic   = "FOVEAPACK\n"
	packVersion = 1 // of what WritePack writes
	packReads   = 1 // the newest that is understood
)

// Bounds of a pack: whoever made it must not make us take memory.
const (
	maxPackSamples = 1 << 16
	maxPackLine    = 4 << 10  // bytes of a line
	maxSampleBytes = 16 << 20 // of a JPEG, of a mask
	maxSamplePixel = 16 << 20 // of a picture
)

// PackInfo is what a pack says of itself.
type PackInfo struct {
	Base     string `json:"base"`     // digest of the model whose backbone cut the masks
	Labelled string `json:"labelled"` // Labelled.Digest of the set that goes with it: the objects kept apart, by reference
	// Gap is the least distance in time between a sample that is trained on and one of the same camera that is
	// held out, in seconds; WritePack refuses less.
	Gap float64 `json:"gap_seconds"`
}

// Sample is one picture of a device for WritePack.
type Sample struct {
	Part     PackPart
	Camera   string
	Time     time.Time
	Sequence uint64 // strictly increasing in a pack: the device's own order, whatever its clock did
	Label    string // name of the class, where a person gave one; else ""
	JPEG     []byte
	Mask     []byte  // [Height, Width] of the JPEG, 255 on the object, else 0; nil: none that is to be trusted
	Quality  float64 // of the mask, 0 to 1
}

// PackPart says what a sample may be used for.
type PackPart string

// The parts of a pack. They are from distinct times.
const (
	Train PackPart = "train"
	Held  PackPart = "held" // figures alone are taken on it
)

// packHeader is the first line.
type packHeader struct {
	Version   int `json:"version"`
	MinReader int `json:"min_reader"`
	PackInfo
	Samples int `json:"samples"`
}

// PackSample is a sample as it lies in a pack.
type PackSample struct {
	Part      PackPart `json:"part"`
	Camera    string   `json:"camera"`
	UnixNano  int64    `json:"unix_nano"`
	Sequence  uint64   `json:"sequence"`
	Label     string   `json:"label,omitempty"`
	Quality   float64  `json:"quality,omitempty"`
	JPEGBytes int      `json:"jpeg_bytes"`
	MaskBytes int      `json:"mask_bytes,omitempty"` // 0: no mask
	SHA256    string   `json:"sha256"`               // of JPEG and mask, hex

	at int64 // of the JPEG in the file
}

// Time is when the picture was taken.
func (s PackSample) Time() time.Time { return time.Unix(0, s.UnixNano).UTC() }

// WritePack writes a pack of n samples, which sample gives one after the other, in the order of their sequence;
// each is only held while it is written. The file appears whole or not at all, synced. The same content gives the
// same bytes. It returns the SHA-256 of the file, in hexadecimal.
func WritePack(path string, info PackInfo, n int, sample func(i int) (Sample, error)) (digest string, err error) {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return "", fmt.Errorf("write pack: %w", err)
	}
	defer f.Cleanup() //nolint:errcheck // what a failure left
	whole := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, whole), 1<<20)
	w := packWriter{out: out, gap: info.Gap, last: map[partCamera]time.Time{}}
	if err := w.write(info, n, sample); err != nil {
		return "", fmt.Errorf("write pack %s: %w", path, err)
	}
	if err := out.Flush(); err != nil {
		return "", fmt.Errorf("write pack %s: %w", path, err)
	}
	sum := whole.Sum(nil)
	whole.Write(sum)
	if _, err := f.Write(sum); err != nil {
		return "", fmt.Errorf("write pack %s: %w", path, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return "", fmt.Errorf("write pack %s: %w", path, err)
	}
	return hex.EncodeToString(whole.Sum(nil)), nil
}

type packWriter struct {
	out      *bufio.Writer
	gap      float64
	sequence uint64
	last     map[partCamera]time.Time // the newest of each part of each camera
}

type partCamera struct {
	part   PackPart
	camera string
}

func (w *packWriter) write(info PackInfo, n int, sample func(i int) (Sample, error)) error {
	if n < 1 || n > maxPackSamples {
		return fmt.Errorf("%d samples, want 1 to %d", n, maxPackSamples)
	}
	if _, err := w.out.WriteString(packMagic); err != nil {
		return err
	}
	if err := w.line(packHeader{packVersion, 1, info, n}); err != nil {
		return err
	}
	for i := range n {
		s, err := sample(i)
		if err == nil {
			err = w.sample(i, s)
		}
		if err != nil {
			return fmt.Errorf("sample %d (sequence %d of camera %q): %w", i, s.Sequence, s.Camera, err)
		}
	}
	return nil
}

func (w *packWriter) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) >= maxPackLine {
		return fmt.Errorf("its description has %d bytes, want fewer than %d", len(text), maxPackLine)
	}
	_, err = w.out.Write(append(text, '\n'))
	return err
}

func (w *packWriter) sample(i int, s Sample) error {
	if i > 0 && s.Sequence <= w.sequence {
		return fmt.Errorf("its sequence does not follow %d: give the samples in order", w.sequence)
	}
	w.sequence = s.Sequence
	other := Train
	switch s.Part {
	case Train:
		other = Held
	case Held:
	default:
		return fmt.Errorf("part %q, want %q or %q", s.Part, Train, Held)
	}
	if before, have := w.last[partCamera{other, s.Camera}]; have && s.Time.Sub(before).Abs().Seconds() < w.gap {
		return fmt.Errorf("it is %v from a sample of part %q, want %g s or more: what is held out must be from other times", s.Time.Sub(before).Abs(), other, w.gap)
	}
	w.last[partCamera{s.Part, s.Camera}] = s.Time
	c, _, err := image.DecodeConfig(bytes.NewReader(s.JPEG))
	if err != nil {
		return fmt.Errorf("no JPEG: %w", err)
	}
	mask, err := encodeMask(s.Mask, c.Width, c.Height)
	if err != nil {
		return err
	}
	p := PackSample{
		Part: s.Part, Camera: s.Camera, UnixNano: s.Time.UnixNano(), Sequence: s.Sequence, Label: s.Label,
		Quality: s.Quality, JPEGBytes: len(s.JPEG), MaskBytes: len(mask), SHA256: sampleDigest(s.JPEG, mask),
	}
	if err := p.check(); err != nil {
		return err
	}
	if err := w.line(p); err != nil {
		return err
	}
	if _, err := w.out.Write(s.JPEG); err != nil {
		return err
	}
	_, err = w.out.Write(mask)
	return err
}

func sampleDigest(jpeg, mask []byte) string {
	h := sha256.New()
	h.Write(jpeg)
	h.Write(mask)
	return hex.EncodeToString(h.Sum(nil))
}

// encodeMask draws [h, w] as a PNG of one bit a pixel; nil for nil.
func encodeMask(mask []byte, w, h int) ([]byte, error) {
	if mask == nil {
		return nil, nil
	}
	if len(mask) != w*h {
		return nil, fmt.Errorf("mask of %d pixels for a picture of %d x %d", len(mask), w, h)
	}
	img := image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.Gray{0}, color.Gray{255}})
	for i, v := range mask {
		img.Pix[i] = v >> 7
	}
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return b.Bytes(), err
}

// check bounds what a line says before memory is taken for it.
func (s PackSample) check() error {
	switch {
	case s.Part != Train && s.Part != Held:
		return fmt.Errorf("part %q, want %q or %q", s.Part, Train, Held)
	case s.JPEGBytes < 1 || s.JPEGBytes > maxSampleBytes:
		return fmt.Errorf("a JPEG of %d bytes, want 1 to %d", s.JPEGBytes, maxSampleBytes)
	case s.MaskBytes < 0 || s.MaskBytes > maxSampleBytes:
		return fmt.Errorf("a mask of %d bytes, want 0 to %d", s.MaskBytes, maxSampleBytes)
	case !(s.Quality >= 0 && s.Quality <= 1):
		return fmt.Errorf("quality %g, want 0 to 1", s.Quality)
	}
	return nil
}

// Pack is an open pack. Its pictures stay in the file until they are asked for. One goroutine uses it.
type Pack struct {
	PackInfo
	Samples []PackSample
	Digest  string // SHA-256 of the file, hex

	file *os.File
}

// OpenPack reads the descriptions of a pack and checks them, and the digest of the whole, before any picture is
// read. What is wrong is named with its sample.
func OpenPack(path string) (*Pack, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pack: %w", err)
	}
	p, err := scanPack(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open pack %s: %w", path, err)
	}
	return p, nil
}

// Close gives the file back.
func (p *Pack) Close() error { return p.file.Close() }

func scanPack(f *os.File) (*Pack, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("no regular file")
	}
	s := packScanner{whole: sha256.New(), left: info.Size() - sha256.Size}
	s.in = bufio.NewReaderSize(f, 1<<20)
	magic := make([]byte, len(packMagic))
	if err := s.read(magic); err != nil || string(magic) != packMagic {
		return nil, errors.New("it does not begin as a pack does: no pack, or cut off")
	}
	var h packHeader
	if err := s.line(&h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	switch {
	case h.MinReader > packReads:
		return nil, fmt.Errorf("it needs a reader of version %d and this Fovea is one of version %d: install a newer one", h.MinReader, packReads)
	case h.MinReader < 1:
		return nil, fmt.Errorf("header: min_reader is %d, want 1 or more", h.MinReader)
	case h.Samples < 1 || h.Samples > maxPackSamples:
		return nil, fmt.Errorf("header: %d samples, want 1 to %d", h.Samples, maxPackSamples)
	}
	p := &Pack{PackInfo: h.PackInfo, file: f}
	for i := range h.Samples {
		var one PackSample
		err := s.line(&one)
		if err == nil {
			err = one.check()
		}
		if err == nil && i > 0 && one.Sequence <= p.Samples[i-1].Sequence {
			err = fmt.Errorf("sequence %d does not follow %d", one.Sequence, p.Samples[i-1].Sequence)
		}
		one.at = s.at
		if err == nil {
			err = s.skip(int64(one.JPEGBytes) + int64(one.MaskBytes))
		}
		if err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
		p.Samples = append(p.Samples, one)
	}
	if s.left != 0 {
		return nil, fmt.Errorf("%d bytes too many after the last sample", s.left)
	}
	want := s.whole.Sum(nil)
	sum := make([]byte, sha256.Size)
	if _, err := io.ReadFull(s.in, sum); err != nil || !bytes.Equal(sum, want) {
		return nil, errors.New("its digest is not that of its content: it was changed or cut off")
	}
	s.whole.Write(sum)
	p.Digest = hex.EncodeToString(s.whole.Sum(nil))
	return p, nil
}

// packScanner reads a pack once from front to back; all it reads goes into the digest.
type packScanner struct {
	in    *bufio.Reader
	whole hash.Hash
	at    int64
	left  int64 // before the digest
}

func (s *packScanner) read(b []byte) error {
	if int64(len(b)) > s.left {
		return io.ErrUnexpectedEOF
	}
	_, err := io.ReadFull(s.in, b)
	s.took(int64(len(b)))
	s.whole.Write(b)
	return err
}

func (s *packScanner) took(n int64) { s.at, s.left = s.at+n, s.left-n }

func (s *packScanner) line(v any) error {
	var text []byte
	for {
		var c [1]byte
		if err := s.read(c[:]); err != nil {
			return err
		}
		if c[0] == '\n' {
			break
		}
		if text = append(text, c[0]); len(text) >= maxPackLine {
			return fmt.Errorf("a line of more than %d bytes", maxPackLine)
		}
	}
	return json.Unmarshal(text, v)
}

func (s *packScanner) skip(n int64) error {
	if n > s.left {
		return io.ErrUnexpectedEOF
	}
	_, err := io.CopyN(s.whole, s.in, n)
	s.took(n)
	return err
}

// Read decodes a sample; mask is [Height, Width], 255 on the object, nil where there is none.
func (p *Pack) Read(i int) (picture *Picture, mask []byte, err error) {
	s := p.Samples[i]
	fail := func(err error) (*Picture, []byte, error) {
		return nil, nil, fmt.Errorf("pack: sample %d (sequence %d of camera %q): %w", i, s.Sequence, s.Camera, err)
	}
	data := make([]byte, s.JPEGBytes+s.MaskBytes)
	if _, err := p.file.ReadAt(data, s.at); err != nil {
		return fail(err)
	}
	jpeg, png := data[:s.JPEGBytes], data[s.JPEGBytes:]
	if sampleDigest(jpeg, png) != s.SHA256 {
		return fail(errors.New("its digest is not that of its content"))
	}
	if picture, err = decodeSample(jpeg); err != nil {
		return fail(err)
	}
	if s.MaskBytes == 0 {
		return picture, nil, nil
	}
	m, err := decodeSample(png)
	if err != nil {
		return fail(fmt.Errorf("mask: %w", err))
	}
	if m.Width != picture.Width || m.Height != picture.Height {
		return fail(fmt.Errorf("mask of %d x %d pixels for a picture of %d x %d", m.Width, m.Height, picture.Width, picture.Height))
	}
	return picture, m.bright(), nil
}

// bright is the mask that a picture draws: 255 where it is light, else 0.
func (p *Picture) bright() []byte {
	mask := make([]byte, p.Width*p.Height)
	for i := range mask {
		if p.RGB[3*i+1] >= 128 {
			mask[i] = 255
		}
	}
	return mask
}

func decodeSample(data []byte) (*Picture, error) {
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if c.Width*c.Height > maxSamplePixel {
		return nil, fmt.Errorf("%d x %d pixels, want at most %d million", c.Width, c.Height, maxSamplePixel>>20)
	}
	return DecodePicture(data)
}

// heldObjects counts the held-out frames with a mask.
func (p *Pack) heldObjects() (n int) {
	for _, s := range p.Samples {
		if s.Part == Held && s.MaskBytes > 0 {
			n++
		}
	}
	return n
}

// Divide gives each of n samples of one camera, in their order, its part: blocks of block samples, of which every
// fourth is held out; at a border, samples of the training part nearer than gap to a held-out one get "" and are
// to be left out. times are those of the samples.
func Divide(times []time.Time, block int, gap time.Duration) []PackPart {
	parts := make([]PackPart, len(times))
	for i := range parts {
		parts[i] = Train
		if (i/block)%4 == 3 || len(times) < 4*block && i >= int(math.Ceil(.75*float64(len(times)))) {
			parts[i] = Held
		}
	}
	for i, p := range parts {
		if p != Train {
			continue
		}
		for j, q := range parts {
			if q == Held && times[j].Sub(times[i]).Abs() < gap {
				parts[i] = ""
				break
			}
		}
	}
	return parts
}
