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
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/renameio/v2"
)

// pluginDir is where the backends look for plugins last, and where the packages' are put.
const pluginDir = "/usr/lib/fovea"

// A wheel is a Python package that carries a PJRT plugin.
type wheel struct {
	name, version string
	sha256        string // of the wheel
	member        string // the plugin in it
}

// cpuWheels are the pinned plugins of xla:cpu, by GOARCH; the Makefile names the same.
var cpuWheels = map[string]wheel{
	"amd64": {"lammps-jax-pjrt-cpu", "0.11.2", "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1", "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"},
	"arm64": {"xla-cpu-pjrt", "0.0.1", "8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9", "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"},
}

type pluginVerb struct {
	Install pluginInstallVerb `cmd:"" help:"Fetch the plugin of a backend, check it and put it in its place."`
	Remove  pluginRemoveVerb  `cmd:"" help:"Delete an installed plugin."`
}

type pluginInstallVerb struct {
	Backend string `arg:"" enum:"xla:cpu" help:"Backend: xla:cpu."`
	From    string `placeholder:"WHEEL" help:"Take it from this file, fetched elsewhere, instead of with pip."`
	Dir     string `default:"${plugins}" placeholder:"DIR" help:"Folder to put it in (default: ${default}, where the daemon looks)."`
}

func (pluginInstallVerb) Help() string {
	cpu := cpuWheels[runtime.GOARCH]
	return fmt.Sprintf(`The plugin is a shared library that runs inside the daemon, in the Python package %s %s. Only the
file with this checksum is taken:

  sha256 %s

  sudo fovea plugin install xla:cpu && systemctl restart fovea
  pip download --no-deps %s==%s        on a machine with a network
  sudo fovea plugin install xla:cpu --from %s-*.whl`,
		cpu.name, cpu.version, cpu.sha256, cpu.name, cpu.version, strings.ReplaceAll(cpu.name, "-", "_"))
}

func (v pluginInstallVerb) Run(ctx context.Context, out io.Writer) error {
	w, ok := cpuWheels[runtime.GOARCH]
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
	to := filepath.Join(v.Dir, "pjrt_cpu.so")
	if err := w.unpack(file, to); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is installed; a running daemon takes it at its next start: systemctl restart fovea\n", to)
	return nil
}

// fetch downloads the wheel into a folder with the package client of Python.
func (w wheel) fetch(ctx context.Context, dir string) (string, error) {
	pip := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", dir, w.name+"=="+w.version)
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
	Backend string `arg:"" enum:"xla:cpu" help:"Backend: xla:cpu."`
	Dir     string `default:"${plugins}" placeholder:"DIR" help:"Folder that it was put in (default: ${default})."`
}

func (v pluginRemoveVerb) Run(out io.Writer) error {
	file := filepath.Join(v.Dir, "pjrt_cpu.so")
	err := errors.Join(os.Remove(file), os.Remove(file+".sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no plugin is installed: %w", err)
	}
	if err == nil {
		fmt.Fprintf(out, "%s is deleted; the daemon takes another backend at its next start\n", file)
	}
	return err
}
