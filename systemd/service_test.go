package systemd

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/internal/toyworld"
	"github.com/seed-a98b2d25/fovea/model"
)

// TestService boots a real systemd that installs the packages, runs the unit in its sandbox and takes it
// through its life; testdata/inside.sh has the steps. Nothing outside changes. It needs root.
func TestService(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: systemd is started as PID 1 in namespaces of its own")
	}
	if os.Getenv("FOVEA_SOAK") == "" {
		t.Skip("builds packages and boots a system, minutes on a busy machine; set FOVEA_SOAK=1")
	}
	plugin := os.Getenv("FOVEA_XLA_CPU")
	if plugin == "" {
		t.Fatal("FOVEA_XLA_CPU names no plugin; \"make test\" sets it")
	}
	folder := t.TempDir()
	in := filepath.Join(folder, "in")
	for _, dir := range []string{in, filepath.Join(folder, "out"), filepath.Join(in, "old"), filepath.Join(in, "new"), filepath.Join(in, "pictures")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	buildPackages(t, filepath.Join(in, "old"), filepath.Join(in, "new"))
	copyFile(t, plugin, filepath.Join(in, "pjrt_cpu.so"))
	copyFile(t, plugin+".sha256", filepath.Join(in, "pjrt_cpu.so.sha256"))
	copyFile(t, "testdata/inside.sh", filepath.Join(in, "inside.sh"))
	writePictures(t, filepath.Join(in, "pictures"))
	backend, err := model.OpenBackend(model.BackendGo, model.Plugins{})
	if err != nil {
		t.Fatal(err)
	}
	if err := toyworld.WriteModel(t.Context(), backend, filepath.Join(in, "model")); err != nil {
		t.Fatal(err)
	}
	if err := toyworld.WriteWatched(filepath.Join(in, "samples"), rand.New(rand.NewPCG(5, 5))); err != nil {
		t.Fatal(err)
	}
	readable(t, in)

	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // a minute where nobody else wants the processors
	defer cancel()
	boot := exec.CommandContext(ctx, "testdata/boot.sh", folder)
	boot.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	boot.Cancel = func() error { return syscall.Kill(-boot.Process.Pid, syscall.SIGKILL) } // with unshare goes all that is inside
	boot.WaitDelay = 10 * time.Second
	console, err := boot.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, console)
	}
	log, err := os.ReadFile(filepath.Join(folder, "out/log"))
	if err != nil {
		t.Fatalf("systemd did not get as far as the test: %v\n%s", err, console)
	}
	t.Logf("%s", log)
	rc, err := os.ReadFile(filepath.Join(folder, "out/rc"))
	if err != nil || strings.TrimSpace(string(rc)) != "0" {
		t.Errorf("exit status %q, %v; the console of systemd:\n%s", rc, err, last(console, 40))
	}
}

// buildPackages makes fovea and fovea-grab of this machine as they are, into next, and as an older version.
func buildPackages(t *testing.T, older, next string) {
	t.Helper()
	arch := runtime.GOARCH
	run := func(name string, args ...string) string {
		t.Helper()
		command := exec.Command(name, args...)
		command.Dir = ".."
		var stderr bytes.Buffer
		command.Stderr = &stderr
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s%s", name, err, out, stderr.String())
		}
		return string(out)
	}
	for file := range strings.Lines(run("tools/deb.sh", arch, "fovea", "fovea-grab")) {
		file = strings.TrimSpace(file)
		copyFile(t, filepath.Join("..", file), filepath.Join(next, filepath.Base(file)))
	}
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	run("go", "-C", "tools/package", "run", ".", "-root", top, "-arch", arch, "-version", "0~0",
		"-build", "build/package/"+arch, "-out", older, "fovea", "fovea-grab")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func writePictures(t *testing.T, dir string) {
	t.Helper()
	for n := range 4 {
		picture := image.NewRGBA(image.Rect(0, 0, 96, 64))
		for y := range 64 {
			for x := range 96 {
				picture.Set(x, y, color.RGBA{uint8(x * 2), uint8(y * 3), uint8(n * 60), 255})
			}
		}
		var data bytes.Buffer
		if err := png.Encode(&data, picture); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.png", n)), data.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readable lets the service's user read everything below a folder.
func readable(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("chmod", "-R", "a+rX", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func last(text []byte, lines int) string {
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
