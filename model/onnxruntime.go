package model

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute-onnx" // registers "onnxruntime"
)

// What compute-onnx reads to find the library; set before it is opened, so that it never looks for one to download.
const onnxLibraryEnv = "ONNXRUNTIME_SHARED_LIBRARY_PATH"

// A process loads one ONNX Runtime, once.
var onnxLoaded struct {
	sync.Mutex
	path string
}

// openONNX opens ONNX Runtime (1.26 or newer, for its C interface) on the processor or through CUDA. Its CUDA provider
// lies beside it, in files that are pinned as it is.
func openONNX(name string, p Plugin) (*Backend, error) {
	libraries := []Plugin{p}
	_, provider, _ := strings.Cut(name, ":")
	if name == BackendONNXCUDA {
		for _, file := range []string{"libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"} {
			libraries = append(libraries, Plugin{Path: filepath.Join(filepath.Dir(p.Path), file)})
		}
	}
	for _, l := range libraries {
		if err := l.check(BackendONNXCPU); err != nil {
			return nil, fmt.Errorf("backend %s: %w", name, err)
		}
	}

	onnxLoaded.Lock()
	defer onnxLoaded.Unlock()
	if was := onnxLoaded.path; was != "" && was != p.Path {
		return nil, fmt.Errorf("backend %s: this process runs %s already: start it again to change to %s", name, was, p.Path)
	}
	if err := os.Setenv(onnxLibraryEnv, p.Path); err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	b, err := compute.NewWithConfig("onnxruntime:" + provider)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %s does not start (ONNX Runtime 1.26 or newer is needed): %w", name, p.Path, err)
	}
	onnxLoaded.path = p.Path
	return &Backend{Compute: b, Kind: name, Plugin: p.Path}, nil
}
