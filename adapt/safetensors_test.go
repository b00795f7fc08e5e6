package adapt

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// golden is one file of the golden folder: the arrays by name.
type golden struct {
	name    string
	data    []byte
	entries map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
}

// eachGolden runs a test over every tokencut_*.safetensors of the folder named
// by FOVEA_GOLDEN, else of testdata/golden.
func eachGolden(t *testing.T, test func(*testing.T, golden)) {
	t.Helper()
	folder := os.Getenv("FOVEA_GOLDEN")
	if folder == "" {
		folder = filepath.Join("testdata", "golden")
	}
	paths, err := filepath.Glob(filepath.Join(folder, "tokencut_*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no tokencut_*.safetensors in %s", folder)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) { test(t, readGolden(t, path)) })
	}
}

func readGolden(tb testing.TB, path string) golden {
	tb.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	header := 8 + int(binary.LittleEndian.Uint64(file))
	g := golden{name: path, data: file[header:]}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(file[8:header], &raw); err != nil {
		tb.Fatal(err)
	}
	delete(raw, "__metadata__")
	rest, err := json.Marshal(raw)
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(rest, &g.entries); err != nil {
		tb.Fatal(err)
	}
	return g
}

func (g golden) shape(tb testing.TB, name string) []int {
	tb.Helper()
	e, ok := g.entries[name]
	if !ok {
		tb.Fatalf("%s has no %s", g.name, name)
	}
	return e.Shape
}

// values returns an array as float64, which holds every type used here exactly.
func (g golden) values(tb testing.TB, name string) []float64 {
	tb.Helper()
	g.shape(tb, name)
	e := g.entries[name]
	b := g.data[e.Offsets[0]:e.Offsets[1]]
	var out []float64
	switch e.DType {
	case "U8":
		for _, v := range b {
			out = append(out, float64(v))
		}
	case "I8":
		for _, v := range b {
			out = append(out, float64(int8(v)))
		}
	case "I32":
		for i := 0; i < len(b); i += 4 {
			out = append(out, float64(int32(binary.LittleEndian.Uint32(b[i:]))))
		}
	case "I64":
		for i := 0; i < len(b); i += 8 {
			out = append(out, float64(int64(binary.LittleEndian.Uint64(b[i:]))))
		}
	case "F32":
		for i := 0; i < len(b); i += 4 {
			out = append(out, float64(math.Float32frombits(binary.LittleEndian.Uint32(b[i:]))))
		}
	case "F64":
		for i := 0; i < len(b); i += 8 {
			out = append(out, math.Float64frombits(binary.LittleEndian.Uint64(b[i:])))
		}
	default:
		tb.Fatalf("%s: %s has type %s", g.name, name, e.DType)
	}
	return out
}

func (g golden) bytes(tb testing.TB, name string) []uint8 {
	tb.Helper()
	v := g.values(tb, name)
	out := make([]uint8, len(v))
	for i, x := range v {
		out[i] = uint8(x)
	}
	return out
}

// features returns the patch features, [patches][dim].
func (g golden) features(tb testing.TB) (features []float32, gridH, gridW int) {
	tb.Helper()
	v, shape, grid := g.values(tb, "feats"), g.shape(tb, "feats"), g.shape(tb, "component")
	dim, n := shape[0], shape[1]
	features = make([]float32, n*dim)
	for k := range dim {
		for i := range n {
			features[i*dim+k] = float32(v[k*n+i])
		}
	}
	return features, grid[0], grid[1]
}
