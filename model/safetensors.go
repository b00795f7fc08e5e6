package model

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
)

// The safetensors format: eight bytes with the length of the header, little endian; the header, a JSON
// object from tensor name to {"dtype", "shape", "data_offsets"}, with free text under "__metadata__"; then
// the numbers, row-major, little endian, without gap or overlap.
// https://github.com/huggingface/safetensors#format

// Bounds on a header, far above any checkpoint that Fovea can run: ViT-g/14 has 800 tensors and 100 KB.
const (
	maxHeaderBytes = 16 << 20
	maxTensors     = 1 << 16
	maxRank        = 8
)

// elementSizes gives the bytes of one number of each type that the format knows. Only the first three are
// read; the others may belong to tensors that nobody asks for, such as position_ids.
var elementSizes = map[string]int64{
	"F32": 4, "F16": 2, "BF16": 2,
	"F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
	"F8_E5M2": 1, "F8_E4M3": 1,
}

// tensor is a tensor in a file, not read yet.
type tensor struct {
	dtype string
	shape []int
	from  io.ReaderAt // its numbers begin at offset and are within the file
	at    int64
	// transposed says that the file has the matrix [in, out] where shape says [out, in] (ONNX).
	transposed bool
}

// readHeader returns the tensors of a safetensors file of size bytes by name. It takes memory in proportion
// to the header alone, and only once the header's length is known to be inside the file.
func readHeader(file io.ReaderAt, size int64) (map[string]tensor, error) {
	var length [8]byte
	if size < 8 {
		return nil, fmt.Errorf("not a safetensors file: %d bytes long, shorter than the length of a header", size)
	}
	if _, err := file.ReadAt(length[:], 0); err != nil {
		return nil, fmt.Errorf("header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > maxHeaderBytes:
		return nil, fmt.Errorf("not a safetensors file: it claims a header of %d bytes, want at most %d", n, maxHeaderBytes)
	case n > uint64(size-8):
		return nil, fmt.Errorf("the header claims %d bytes and the file has %d: it was cut short, fetch it again", n, size-8)
	}
	text := make([]byte, n)
	if _, err := file.ReadAt(text, 8); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	entries, err := parseHeader(text)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	data := 8 + int64(n)
	tensors := make(map[string]tensor, len(entries))
	end := int64(0) // of the tensor before
	slices.SortFunc(entries, func(a, b headerEntry) int {
		return cmp.Or(cmp.Compare(a.Offsets[0], b.Offsets[0]), cmp.Compare(a.Offsets[1], b.Offsets[1]))
	})
	for _, e := range entries {
		if e.Offsets[0] != end {
			return nil, fmt.Errorf("tensor %q starts at byte %d of the data, want %d: tensors overlap or leave a gap", e.name, e.Offsets[0], end)
		}
		end = e.Offsets[1]
		if end > size-data {
			return nil, fmt.Errorf("tensor %q ends at byte %d of the data and the file has %d: it was cut short, fetch it again", e.name, end, size-data)
		}
		tensors[e.name] = tensor{dtype: e.Dtype, shape: e.Shape, from: file, at: data + e.Offsets[0]}
	}
	if end != size-data {
		return nil, fmt.Errorf("%d bytes after the last tensor", size-data-end)
	}
	return tensors, nil
}

type headerEntry struct {
	name    string
	Dtype   string  `json:"dtype"`
	Shape   []int   `json:"shape"`
	Offsets []int64 `json:"data_offsets"` // two: first byte, and the one after the last
}

// parseHeader decodes the JSON of a header and checks what can be checked of each tensor by itself.
func parseHeader(text []byte) ([]headerEntry, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var entries []headerEntry
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		name := key.(string) // the decoder gives nothing else here
		if name == "__metadata__" {
			var free map[string]string
			if err := d.Decode(&free); err != nil {
				return nil, fmt.Errorf("__metadata__: %w", err)
			}
			continue
		}
		e := headerEntry{name: name}
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		if seen[name] {
			return nil, fmt.Errorf("tensor %q is there twice", name)
		}
		if seen[name] = true; len(seen) > maxTensors {
			return nil, fmt.Errorf("more than %d tensors", maxTensors)
		}
		entries = append(entries, e)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if rest := bytes.Trim(text[d.InputOffset():], " "); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the JSON object", len(rest))
	}
	return entries, nil
}

func (e headerEntry) check() error {
	size, known := elementSizes[e.Dtype]
	switch {
	case !known:
		return fmt.Errorf("dtype %q is unknown", e.Dtype)
	case len(e.Shape) > maxRank:
		return fmt.Errorf("%d axes, want at most %d", len(e.Shape), maxRank)
	case len(e.Offsets) != 2 || e.Offsets[0] < 0 || e.Offsets[1] < e.Offsets[0]:
		return fmt.Errorf("data_offsets %v, want the first byte and the one after the last", e.Offsets)
	}
	for _, n := range e.Shape {
		if n < 0 {
			return fmt.Errorf("shape %v has a negative length", e.Shape)
		}
		if n > 0 && size > math.MaxInt64/int64(n) {
			return fmt.Errorf("shape %v is too large", e.Shape)
		}
		size *= int64(n)
	}
	if have := e.Offsets[1] - e.Offsets[0]; have != size {
		return fmt.Errorf("%s of shape %v is %d bytes, data_offsets give %d", e.Dtype, e.Shape, size, have)
	}
	return nil
}

// read returns rows [first, first+rows) of the first axis as float32. A NaN or an infinity is an error.
func (t tensor) read(first, rows int) ([]float32, error) {
	row := 1 // elements
	for _, n := range t.shape[1:] {
		row *= n
	}
	out := make([]float32, rows*row)
	size := elementSizes[t.dtype]
	buffer := make([]byte, min(int64(len(out))*size, 1<<18))
	at := t.at + int64(first)*int64(row)*size
	for todo := out; len(todo) > 0; {
		raw := buffer[:min(int64(len(todo))*size, int64(len(buffer)))]
		if _, err := t.from.ReadAt(raw, at); err != nil {
			return nil, err
		}
		n := len(raw) / int(size)
		decode(todo[:n], raw, t.dtype)
		if i := slices.IndexFunc(todo[:n], notFinite); i >= 0 {
			return nil, fmt.Errorf("element %d is %v", len(out)-len(todo)+i, todo[i])
		}
		todo, at = todo[n:], at+int64(len(raw))
	}
	if t.transposed {
		out = transpose(out, t.shape[1], t.shape[0])
	}
	return out, nil
}

// notFinite reports a NaN or an infinity: an exponent of all ones.
func notFinite(x float32) bool { return math.Float32bits(x)&0x7f800000 == 0x7f800000 }

// decode converts little-endian numbers of a type that a parameter may have.
func decode(out []float32, raw []byte, dtype string) {
	switch dtype {
	case "F32":
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	case "F16":
		for i := range out {
			out[i] = float16.FromBits(binary.LittleEndian.Uint16(raw[2*i:])).Float32()
		}
	case "BF16":
		for i := range out {
			out[i] = bfloat16.FromBits(binary.LittleEndian.Uint16(raw[2*i:])).Float32()
		}
	default:
		panic("model: decode " + dtype) // collect has refused it
	}
}

// transpose turns a matrix of rows x cols into cols x rows.
func transpose(m []float32, rows, cols int) []float32 {
	out := make([]float32, len(m))
	for r := range rows {
		for c, v := range m[r*cols : (r+1)*cols] {
			out[c*rows+r] = v
		}
	}
	return out
}

// namedTensor is a tensor to be written; its parts lie one after the other.
type namedTensor struct {
	name  string
	shape []int
	parts [][]float32
}

// writeSafetensors writes float32 tensors in the order given.
func writeSafetensors(w io.Writer, tensors []namedTensor) error {
	header := bytes.NewBufferString(`{"__metadata__":{"format":"pt"}`)
	at := 0
	for _, t := range tensors {
		size := 0
		for _, part := range t.parts {
			size += 4 * len(part)
		}
		entry, err := json.Marshal(headerEntry{Dtype: "F32", Shape: t.shape, Offsets: []int64{int64(at), int64(at + size)}})
		if err != nil {
			return err
		}
		fmt.Fprintf(header, ",%q:%s", t.name, entry) // names are plain ASCII: Go's quotes are JSON's
		at += size
	}
	header.WriteByte('}')
	for header.Len()%8 != 0 { // the numbers start aligned
		header.WriteByte(' ')
	}
	if err := binary.Write(w, binary.LittleEndian, uint64(header.Len())); err != nil {
		return err
	}
	if _, err := w.Write(header.Bytes()); err != nil {
		return err
	}
	buffer := make([]byte, 0, 1<<18)
	for _, t := range tensors {
		for _, part := range t.parts {
			for chunk := range slices.Chunk(part, cap(buffer)/4) {
				if _, err := w.Write(encode(buffer, chunk)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// encode appends numbers to the emptied buffer, little endian.
func encode(buffer []byte, numbers []float32) []byte {
	buffer = buffer[:0]
	for _, v := range numbers {
		buffer = binary.LittleEndian.AppendUint32(buffer, math.Float32bits(v))
	}
	return buffer
}
