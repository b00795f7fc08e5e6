package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// withHeader is a safetensors file of that header and n bytes of zeros.
func withHeader(header string, n int) []byte {
	text := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(text, header...), make([]byte, n)...)
}

func TestReadHeaderRefuses(t *testing.T) {
	good := `{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}`
	if _, err := readHeader(bytes.NewReader(withHeader(good, 24)), int64(len(good)+8+24)); err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat(`{"a":`, 20000) + strings.Repeat("}", 20000)
	for name, v := range map[string]struct {
		file []byte
		want string
	}{
		"empty":                {nil, "0 bytes long"},
		"a few bytes":          {[]byte{1, 2, 3}, "3 bytes long"},
		"header of 1 TB":       {binary.LittleEndian.AppendUint64(nil, 1<<40), "claims a header of 1099511627776 bytes"},
		"header of 2^64-1":     {binary.LittleEndian.AppendUint64(nil, math.MaxUint64), "claims a header of 18446744073709551615 bytes"},
		"header cut short":     {withHeader(good, 0)[:30], "cut short"},
		"no JSON":              {withHeader("hello", 0), "not a JSON object"},
		"an array":             {withHeader("[1]", 0), "not a JSON object"},
		"JSON cut short":       {withHeader(good[:len(good)-1], 24), "EOF"},
		"more JSON":            {withHeader(good+good, 24), "after the JSON object"},
		"deep JSON":            {withHeader(deep, 0), "tensor \"a\""},
		"metadata of numbers":  {withHeader(`{"__metadata__":{"a":1}}`, 0), "__metadata__"},
		"unknown dtype":        {withHeader(`{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`, 4), `tensor "a": dtype "F31"`},
		"no shape":             {withHeader(`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 8), `tensor "a": F32 of shape [] is 4 bytes`},
		"negative length":      {withHeader(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4), "negative length"},
		"overflowing shape":    {withHeader(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "too large"},
		"overflow to the size": {withHeader(`{"a":{"dtype":"F32","shape":[9223372036854775807,2],"data_offsets":[0,8]}}`, 8), "too large"},
		"nine axes":            {withHeader(`{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`, 4), "9 axes"},
		"fraction":             {withHeader(`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}`, 4), "cannot unmarshal"},
		"one offset":           {withHeader(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, 4), "data_offsets [0]"},
		"three offsets":        {withHeader(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, 4), "data_offsets [0 4 4]"},
		"negative offset":      {withHeader(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4), "data_offsets [-4 0]"},
		"offsets backwards":    {withHeader(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[4,0]}}`, 4), "data_offsets [4 0]"},
		"size of another":      {withHeader(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4), "8 bytes, data_offsets give 4"},
		"data cut short":       {withHeader(good, 23), "cut short"},
		"data too long":        {withHeader(good, 25), "1 bytes after the last tensor"},
		"gap":                  {withHeader(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "overlap or leave a gap"},
		"overlap": {
			withHeader(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3),
			`tensor "b" starts at byte 1`,
		},
		"twice": {
			withHeader(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
			`tensor "a" is there twice`,
		},
	} {
		_, err := readHeader(bytes.NewReader(v.file), int64(len(v.file)))
		if err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, v.want)
		}
	}
}

// endless is a file whose every byte is there and whose header is the one given.
type endless struct{ head []byte }

func (e endless) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(e.head)) {
		copy(b, e.head[at:])
	}
	return len(b), nil
}

// TestHostileSizesTakeNoMemory: neither a header nor a tensor of a terabyte is believed before all else fits.
func TestHostileSizesTakeNoMemory(t *testing.T) {
	const terabyte = 1 << 40
	tensor := withHeader(fmt.Sprintf(`{"cls_token":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}`, terabyte/4, int64(terabyte)), 0)
	for name, head := range map[string][]byte{
		"header": binary.LittleEndian.AppendUint64(nil, terabyte),
		"tensor": tensor,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		size := int64(len(head)) + terabyte
		tensors, err := readHeader(endless{head}, size)
		if err == nil {
			l := layout{config: testConfig(), find: func(param string) part { return part{tensor: param} }}
			_, err = collect(l, tensors)
		}
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 1<<20 {
			t.Errorf("%s: %d bytes were taken (%v)", name, taken, err)
		}
	}
}

// TestHeaderNeedsItsBytes: a claim inside the limit is not believed either when the file is shorter.
func TestHeaderNeedsItsBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, binary.LittleEndian.AppendUint64(nil, maxHeaderBytes), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := testing.AllocsPerRun(1, func() { _, err = readHeader(f, 8) }); err == nil || n > 20 {
		t.Errorf("%v allocations, error %v", n, err)
	}
}

func TestWriteThenRead(t *testing.T) {
	want := []namedTensor{
		{"a", []int{2, 2}, [][]float32{{1, 2}, {3, 4}}},
		{"b.weight", []int{1, 3}, [][]float32{{-1, 0, 1e-30}}},
	}
	var file bytes.Buffer
	if err := writeSafetensors(&file, want); err != nil {
		t.Fatal(err)
	}
	tensors, err := readHeader(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		got, err := tensors[w.name].read(0, w.shape[0])
		if flat := slices.Concat(w.parts...); err != nil || !slices.Equal(got, flat) {
			t.Errorf("%s: %v %v, want %v", w.name, got, err, flat)
		}
	}
	if rows, err := tensors["a"].read(1, 1); err != nil || !slices.Equal(rows, []float32{3, 4}) {
		t.Errorf("second row: %v %v", rows, err)
	}
}

// TestHalfPrecision decodes the numbers that are easily got wrong.
func TestHalfPrecision(t *testing.T) {
	for _, v := range []struct {
		dtype string
		bits  uint16
		want  float64
	}{
		{"F16", 0x3c00, 1},
		{"F16", 0xc000, -2},
		{"F16", 0x0001, 0x1p-24}, // the smallest, subnormal
		{"F16", 0x83ff, -1023 * 0x1p-24},
		{"F16", 0x7bff, 65504},
		{"F16", 0x8000, math.Copysign(0, -1)},
		{"BF16", 0x3f80, 1},
		{"BF16", 0x0001, 0x1p-133}, // subnormal
		{"BF16", 0xff7f, -3.3895313892515355e38},
	} {
		got := make([]float32, 1)
		decode(got, binary.LittleEndian.AppendUint16(nil, v.bits), v.dtype)
		if math.Float32bits(got[0]) != math.Float32bits(float32(v.want)) {
			t.Errorf("%s %#04x is %g, want %g", v.dtype, v.bits, got[0], v.want)
		}
	}
}

// TestReadRefusesNotFinite: every NaN and infinity of each type, wherever it stands.
func TestReadRefusesNotFinite(t *testing.T) {
	for dtype, bad := range map[string][]uint64{
		"F32":  {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001},
		"F16":  {0x7c00, 0xfc00, 0x7e00, 0x7c01},
		"BF16": {0x7f80, 0xff80, 0x7fc0, 0x7f81},
	} {
		size := int(elementSizes[dtype])
		for _, bits := range bad {
			raw := make([]byte, 100_000*size) // several buffers
			var number [8]byte
			binary.LittleEndian.PutUint64(number[:], bits)
			copy(raw[77_777*size:], number[:size])
			_, err := tensor{dtype: dtype, shape: []int{100_000}, from: bytes.NewReader(raw)}.read(0, 100_000)
			if err == nil || !strings.Contains(err.Error(), "element 77777") {
				t.Errorf("%s %#x: error %v", dtype, bits, err)
			}
		}
	}
}

// FuzzReadHeader: any file is read or refused; what is accepted lies inside the file.
func FuzzReadHeader(f *testing.F) {
	for _, path := range []string{"testdata/parity/hf-vit/model.safetensors", "testdata/parity/timm-dinov2-reg4/model.safetensors"} {
		file, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		n := binary.LittleEndian.Uint64(file)
		f.Add(file[:8+n])
	}
	f.Add(withHeader(`{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"__metadata__":{"format":"pt"}}`, 12))
	var file bytes.Buffer
	if err := writeSafetensors(&file, []namedTensor{{"a", []int{2, 1}, [][]float32{{1, 2}}}, {"b", []int{1}, [][]float32{{3}}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add(withHeader(`{}`, 0))
	f.Add(binary.LittleEndian.AppendUint64(nil, 1<<40))
	f.Fuzz(func(t *testing.T, file []byte) {
		tensors, err := readHeader(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		total := int64(0)
		for name, x := range tensors {
			size := elementSizes[x.dtype]
			for _, n := range x.shape {
				size *= int64(n)
			}
			total += size
			if size < 0 || x.at < 8 || x.at+size > int64(len(file)) {
				t.Fatalf("tensor %q of %d bytes at %d of a file of %d", name, size, x.at, len(file))
			}
			if size == 0 || len(x.shape) == 0 || !slices.Contains([]string{"F32", "F16", "BF16"}, x.dtype) {
				continue
			}
			if _, err := x.read(0, x.shape[0]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("tensor %q: %v", name, err)
			}
		}
		if total > int64(len(file)) {
			t.Fatalf("tensors of %d bytes in a file of %d", total, len(file))
		}
	})
}

// testConfig is a small network with everything plain.
func testConfig() Config {
	return Config{
		ImageHeight: 16, ImageWidth: 16, Patch: 8, Dim: 8, Depth: 1, Heads: 2, Hidden: 16,
		Readout: ReadClass, PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: PositionBicubic,
	}
}
