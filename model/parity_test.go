package model

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// Logits are the authors' to this much, absolute or relative to the largest.
const parityTolerance = 2e-4

// TestParity runs checkpoints as transformers and timm save them (testdata/make_parity.py) and compares with
// what their own code computed. FOVEA_PARITY names a folder of more cases, one a folder.
func TestParity(t *testing.T) {
	cases := parityCases(t)
	for name, backend := range testBackends(t) {
		t.Run(name, func(t *testing.T) {
			for _, dir := range cases {
				t.Run(filepath.Base(dir), func(t *testing.T) { testParity(t, backend, dir) })
			}
		})
	}
}

func parityCases(t *testing.T) []string {
	t.Helper()
	cases, err := filepath.Glob("testdata/parity/*")
	if err != nil || len(cases) < 8 {
		t.Fatalf("parity cases: %v %v", cases, err)
	}
	if more := os.Getenv("FOVEA_PARITY"); more != "" {
		entries, err := filepath.Glob(filepath.Join(more, "*", "io.safetensors"))
		if err != nil || len(entries) == 0 {
			t.Fatalf("FOVEA_PARITY=%s has no folder with an io.safetensors: %v", more, err)
		}
		for _, e := range entries {
			cases = append(cases, filepath.Dir(e))
		}
	}
	return cases
}

// testBackends opens the Go backend, and XLA and ONNX Runtime where their libraries are.
func testBackends(t *testing.T) map[string]*Backend {
	t.Helper()
	backend, err := OpenBackend(BackendGo, Plugins{})
	if err != nil {
		t.Fatal(err)
	}
	backends := map[string]*Backend{BackendGo: backend}
	plugins := FindPlugins()
	for name, p := range map[string]Plugin{BackendXLACPU: plugins.CPU, BackendONNXCPU: plugins.ONNX} {
		if p.Path == "" {
			t.Logf("%s is not tested: no plugin (FOVEA_XLA_CPU, FOVEA_ONNXRUNTIME)", name)
			continue
		}
		if backends[name], err = OpenBackend(name, plugins); err != nil {
			t.Fatal(err)
		}
	}
	return backends
}

func testParity(t *testing.T, backend *Backend, dir string) {
	io := readTensors(t, filepath.Join(dir, "io.safetensors"))
	pixels, have := io["pixel_values"]
	if !have || len(pixels.shape) != 4 || pixels.shape[1] != 3 {
		t.Fatalf("io.safetensors: pixel_values has shape %v, want [B,3,H,W]", pixels.shape)
	}
	c, err := LoadAt(dir, pixels.shape[2], pixels.shape[3])
	if err != nil {
		t.Fatal(err)
	}
	net, err := NewNet(backend, c)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()

	compared := 0
	compare := func(what string, got []float32) {
		want, have := io[what]
		if !have {
			return
		}
		compared++
		if diff, at := largestDifference(got, want.values); !(diff <= parityTolerance) {
			t.Errorf("%s differ from the authors' by %g, relative to the largest, at %d of %v", what, diff, at, want.shape)
		}
	}
	wants := []Want{WantFeatures}
	if _, have := io["features"]; !have || backend.Kind == BackendGo { // XLA takes seconds to compile: once a case
		wants = append(wants, 0)
	}
	for _, want := range wants {
		out, err := net.Run(want, pixels.values, nil)
		if err != nil {
			t.Fatal(err)
		}
		compare("logits", out.Logits)
		if want == WantFeatures {
			compare("features", out.Features)
		}
	}
	if compared == 0 {
		t.Fatal("io.safetensors has neither logits nor features")
	}
}

// largestDifference is the largest |got - want| over max(1, largest |want|), and where.
func largestDifference(got, want []float32) (float64, int) {
	if len(got) != len(want) {
		return math.Inf(1), -1
	}
	scale, worst, at := 1.0, 0.0, 0
	for _, v := range want {
		scale = max(scale, math.Abs(float64(v)))
	}
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if !(d <= worst) { // NaN too
			worst, at = d, i
		}
	}
	return worst / scale, at
}

type valued struct {
	shape  []int
	values []float32
}

// readTensors reads all tensors of a file, bytes as numbers 0..255.
func readTensors(t *testing.T, path string) map[string]valued {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	header, err := readHeader(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]valued{}
	for name, h := range header {
		v := valued{shape: h.shape}
		if h.dtype == "U8" {
			n := 1
			for _, d := range h.shape {
				n *= d
			}
			raw := make([]byte, n)
			if _, err := h.from.ReadAt(raw, h.at); err != nil {
				t.Fatal(err)
			}
			for _, b := range raw {
				v.values = append(v.values, float32(b))
			}
		} else if v.values, err = h.read(0, h.shape[0]); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", name, err))
		}
		out[name] = v
	}
	return out
}
