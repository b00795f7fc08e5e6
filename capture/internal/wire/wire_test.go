package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-a98b2d25/fovea/capture/internal/scene"
)

func picture(seq uint64, w, h int, mask bool) *Frame {
	f := &Frame{Seq: seq, Mono: int64(seq) * 1e9, Width: w, Height: h, Quality: scene.Quality(seq % 5), RGB: make([]byte, w*h*3)}
	for i := range f.RGB {
		f.RGB[i] = byte(i + int(seq))
	}
	if mask {
		f.MaskWidth, f.MaskHeight = maskSize(w), maskSize(h)
		f.Mask = make([]byte, f.MaskWidth*f.MaskHeight)
		f.Mask[len(f.Mask)-1] = 255
	}
	return f
}

func encode(t testing.TB, messages ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, m := range messages {
		if err := w.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestEveryMessageSurvivesTheWire(t *testing.T) {
	sent := []any{
		Hello{Backend: "FFMPEG", Width: 1920, Height: 1080, FPS: 25},
		picture(1, 17, 9, false),
		picture(2, 17, 9, true),
		Alive{},
		Bad{Text: "b.jpg is no picture"},
		picture(7, 1, 1, true),
		Note{Text: "ended early"},
		End{},
		Fault{Text: "gone", Explained: true},
	}
	r := NewReader(bytes.NewReader(encode(t, sent...)), 17)
	for _, want := range sent {
		got, err := r.Next()
		if err != nil {
			t.Fatalf("%T: %v", want, err)
		}
		if f, ok := want.(*Frame); ok {
			want = *f
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%T (-sent +received):\n%s", want, diff)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last message: %v, want io.EOF", err)
	}
}

func TestRecycledMemoryIsUsedAndNoOther(t *testing.T) {
	r := NewReader(bytes.NewReader(encode(t, Hello{}, picture(1, 16, 16, false), picture(2, 8, 8, false), picture(3, 8, 8, false))), 16)
	next := func() Frame {
		t.Helper()
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		return m.(Frame)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	one := next()
	r.Recycle(one.RGB)
	two := next()
	if &one.RGB[0] != &two.RGB[0] {
		t.Error("the recycled memory was not used")
	}
	three := next()
	if &two.RGB[0] == &three.RGB[0] {
		t.Error("memory that was not recycled was written again")
	}
}

func TestBrokenStreamsAreRefused(t *testing.T) {
	hello := encode(t, Hello{})
	frame := encode(t, picture(5, 16, 8, true))
	damage := func(at int, b ...byte) []byte {
		broken := bytes.Clone(frame)
		copy(broken[at:], b)
		return append(bytes.Clone(hello), broken...)
	}
	u32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
	for name, c := range map[string]struct {
		stream []byte
		says   string
	}{
		"noise":              {bytes.Repeat([]byte("ffmpeg says hello"), 10), "header starts with"},
		"other version":      {damage(4, 9), "version 9"},
		"reserved":           {damage(6, 1), "reserved"},
		"unknown type":       {damage(5, 77), "unknown type 77"},
		"frame before hello": {frame, "before the hello"},
		"second hello":       {append(bytes.Clone(hello), hello...), "second hello"},
		"length too long":    {damage(8, u32(1<<32-1)...), "in 4294967295 bytes"},
		"length too short":   {damage(8, u32(3)...), "frame of 3 bytes"},
		"too wide":           {damage(headerSize+16, 17, 0), "17 x 8"},
		"no height":          {damage(headerSize+18, 0, 0), "16 x 0"},
		"unknown quality":    {damage(headerSize+20, 5), "quality"},
		"mask size":          {damage(headerSize+24, 9), "mask of 9 x 1"},
		"mask value":         {damage(len(frame)-1, 3), "mask byte 1 is 3"},
		"sequence goes back": {append(damage(0), frame...), "frame 5 after frame 5"},
		"json":               {append(appendHeader(nil, kindHello, 2), "{x"...), "wire.Hello"},
		"huge text":          {append(bytes.Clone(hello), appendHeader(nil, kindBad, maxText+1)...), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			err := drain(NewReader(bytes.NewReader(c.stream), 16))
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrCorrupt with %q", err, c.says)
			}
		})
	}
}

func TestTruncationIsNoCleanEnd(t *testing.T) {
	whole := encode(t, Hello{}, picture(1, 16, 8, true))
	for n := range whole {
		err := drain(NewReader(bytes.NewReader(whole[:n]), 16))
		clean := n == 0 || n == len(encode(t, Hello{}))
		if clean && err != io.EOF || !clean && err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
}

func drain(r *Reader) error {
	for {
		if _, err := r.Next(); err != nil {
			return err
		}
	}
}

// FuzzReader: whatever a child sends, the parent neither panics nor takes more
// memory than one frame of the agreed size and one text.
func FuzzReader(f *testing.F) {
	f.Add(encode(f, Hello{Backend: "FFMPEG", FPS: 25}, picture(1, 16, 8, true), picture(2, 5, 3, false), Bad{Text: "x"}, End{}))
	f.Add(encode(f, Fault{Text: "no such file"}))
	f.Add(append(encode(f, Hello{}), appendHeader(nil, kindFrame, 1<<31)...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		const side = 32
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := NewReader(bytes.NewReader(stream), side)
		var last uint64
		messages := 0
		for {
			m, err := r.Next()
			if err != nil {
				break
			}
			messages++
			if fr, ok := m.(Frame); ok {
				if fr.Width > side || fr.Height > side || len(fr.RGB) != fr.Width*fr.Height*3 || fr.Seq <= last {
					t.Fatalf("frame of %d x %d, %d bytes, seq %d after %d", fr.Width, fr.Height, len(fr.RGB), fr.Seq, last)
				}
				last = fr.Seq
			}
		}
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(messages+1)*2*(maxText+side*side*3)+1<<20; got > most {
			t.Fatalf("%d bytes taken for a stream of %d with %d messages", got, len(stream), messages)
		}
	})
}
