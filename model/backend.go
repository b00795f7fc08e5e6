package model

import (
	"bufio"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend" // registers "go"
	"github.com/gomlx/go-xla/compute/xla"  // registers "xla"
)

// Nothing is downloaded while Fovea runs: without this the XLA package would fetch a plugin by itself.
func init() { xla.EnableAutoInstall(false) }

// Names of the backends a configuration may ask for.
const (
	BackendAuto     = "auto"      // the first of xla:cuda, xla:cpu, go that opens
	BackendXLACPU   = "xla:cpu"   // XLA through a PJRT plugin for the processor
	BackendXLACUDA  = "xla:cuda"  // XLA through a PJRT plugin for an NVIDIA GPU; untested on hardware
	BackendONNXCPU  = "onnx:cpu"  // ONNX Runtime on the processor
	BackendONNXCUDA = "onnx:cuda" // ONNX Runtime on an NVIDIA GPU; untested on hardware
	BackendGo       = "go"        // GoMLX's own, needs nothing installed, several times slower
)

// BackendNames are all of them, as a configuration lists them.
var BackendNames = []string{BackendAuto, BackendXLACPU, BackendXLACUDA, BackendONNXCPU, BackendONNXCUDA, BackendGo}

// Plugin is a PJRT plugin or ONNX Runtime: a shared library that runs inside this process, so its content is pinned.
type Plugin struct {
	Path   string // absolute
	SHA256 string // hex; empty: read from the file Path + ".sha256", as sha256sum writes it
}

// Backend computes graphs. It is safe for concurrent use.
type Backend struct {
	Compute compute.Backend
	Kind    string   // one of the names above, never auto
	Plugin  string   // its shared library; "" for go
	Skipped []string // after auto: why each better backend was not taken, a sentence each
}

// Plugins are the shared libraries of the backends. An empty path means there is none.
type Plugins struct {
	CPU  Plugin // PJRT, of xla:cpu
	CUDA Plugin // PJRT, of xla:cuda
	ONNX Plugin // ONNX Runtime, of onnx:cpu; of onnx:cuda too if built for it, its providers beside it
}

// FindPlugins looks where Fovea's own builds and packages put the plugins: FOVEA_XLA_CPU, FOVEA_XLA_CUDA and
// FOVEA_ONNXRUNTIME in the environment, else lib/fovea beside the program's folder, else /usr/lib/fovea.
func FindPlugins() Plugins {
	find := func(env, file string) Plugin {
		if p := os.Getenv(env); p != "" {
			return Plugin{Path: p, SHA256: os.Getenv(env + sumSuffix)}
		}
		dirs := []string{"/usr/lib/fovea"}
		if exe, err := os.Executable(); err == nil {
			dirs = append([]string{filepath.Join(filepath.Dir(filepath.Dir(exe)), "lib", "fovea")}, dirs...)
		}
		for _, d := range dirs {
			if p := filepath.Join(d, file); fileExists(p) {
				return Plugin{Path: p}
			}
		}
		return Plugin{}
	}
	return Plugins{
		CPU:  find(envXLACPU, "pjrt_cpu.so"),
		CUDA: find(envXLACUDA, "pjrt_cuda.so"),
		ONNX: find(envONNX, "libonnxruntime.so"),
	}
}

// Environment makes FindPlugins of a child process return the same.
func (p Plugins) Environment() (env []string) {
	add := func(name string, p Plugin) {
		if p.Path != "" {
			env = append(env, name+"="+p.Path, name+sumSuffix+"="+p.SHA256)
		}
	}
	add(envXLACPU, p.CPU)
	add(envXLACUDA, p.CUDA)
	add(envONNX, p.ONNX)
	return env
}

const (
	envXLACPU  = "FOVEA_XLA_CPU"
	envXLACUDA = "FOVEA_XLA_CUDA"
	envONNX    = "FOVEA_ONNXRUNTIME"
	sumSuffix  = "_SHA256" // added to one of them: its checksum, where it is pinned
)

// OpenBackend opens the backend of that name. A plugin is opened only when its file is there, is built for
// this machine and has the checksum that was pinned.
func OpenBackend(name string, p Plugins) (*Backend, error) {
	switch name {
	case BackendGo:
		// One operation after the other, each on every core. Side by side they can wait for each other's workers
		// for ever: a matrix product asks for workers that operations like it hold (gomlx/compute v0.1.3,
		// workerspool.Saturate).
		b, err := compute.NewWithConfig("go:ops_sequential")
		if err != nil {
			return nil, fmt.Errorf("backend go: %w", err)
		}
		return &Backend{Compute: b, Kind: name}, nil
	case BackendXLACPU:
		return openXLA(name, p.CPU, "")
	case BackendXLACUDA:
		// Preallocation off: a Jetson's memory is shared with the cameras. TF32 off: the relevance of a model
		// must not depend on the card.
		return openXLA(name, p.CUDA, ",preallocate=false,tf32=false")
	case BackendONNXCPU, BackendONNXCUDA:
		return openONNX(name, p.ONNX)
	case BackendAuto, "":
		return openFirst(p)
	default:
		return nil, fmt.Errorf("backend %q: want one of %s", name, strings.Join(BackendNames, ", "))
	}
}

func openFirst(p Plugins) (*Backend, error) {
	var skipped []string
	for _, name := range []string{BackendXLACUDA, BackendXLACPU, BackendGo} {
		if name == BackendXLACUDA && p.CUDA.Path == "" {
			continue // nobody expects a GPU
		}
		b, err := OpenBackend(name, p)
		if err == nil {
			b.Skipped = skipped
			return b, nil
		}
		skipped = append(skipped, err.Error())
	}
	return nil, errors.New("no backend opens: " + strings.Join(skipped, "; "))
}

func openXLA(name string, p Plugin, options string) (*Backend, error) {
	if err := p.check(BackendXLACPU); err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	BoundHeap(PassBuffer)
	b, err := compute.NewWithConfig("xla:" + p.Path + options)
	if err != nil {
		return nil, fmt.Errorf("backend %s: plugin %s does not start: %w", name, p.Path, err)
	}
	return &Backend{Compute: b, Kind: name, Plugin: p.Path}, nil
}

// check refuses a plugin that is absent, built for another machine, or not the pinned file. backend is the one whose
// plugin can be fetched in its place.
func (p Plugin) check(backend string) error {
	fetch := fmt.Sprintf("\"fovea plugin install %s\" fetches one for the processor, the backend %s needs none", backend, BackendGo)
	if p.Path == "" {
		return fmt.Errorf("no plugin is configured; %s", fetch)
	}
	if !filepath.IsAbs(p.Path) {
		return fmt.Errorf("plugin path %q is not absolute", p.Path)
	}
	f, err := os.Open(p.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("plugin: %w; %s", err, fetch)
	} else if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	defer f.Close()

	lib, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("plugin %s is not a shared library: %w", p.Path, err)
	}
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if lib.Machine != want {
		return fmt.Errorf("plugin %s is built for %v, this machine is %v: install the plugin of this machine", p.Path, lib.Machine, want)
	}

	sum := strings.ToLower(p.SHA256)
	if sum == "" {
		if sum, err = readSum(p.Path + ".sha256"); err != nil {
			return fmt.Errorf("plugin %s has no checksum: give its sha256 in the configuration, or beside it: %w", p.Path, err)
		}
	}
	h := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("plugin %s has sha256 %s, the configuration pins %s: it was changed or is another version", p.Path, got, sum)
	}
	return nil
}

// readSum returns the first word of a file written by sha256sum.
func readSum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Split(bufio.ScanWords)
	if !s.Scan() {
		return "", fmt.Errorf("%s is empty", file)
	}
	return strings.ToLower(s.Text()), nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
