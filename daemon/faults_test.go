package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// A loop of 300 pictures is longer than what a camera that repeats itself is noticed by: all of them may be kept.

// A disk that fills under the whole daemon: it classifies, publishes, and answers commands; an adaptation says why it
// cannot be; and with room again all of it goes on, without a restart.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	var state string
	p := start(t, fmt.Sprintf(`
model: {dir: %q, backend: go}
inference: {relevance_every: 1}
samples: {every: 1ms, apart: 0, novel: 0, megabytes: 500}
cameras: [{id: door, source: %q, loop: true, fps: 10, grabber: GRAB}]
`, toyModel(t), blobs(t, 300))+quiet, func(p *program) {
		state = filepath.Join(p.dir, "state")
		if err := errors.Join(os.Mkdir(state, 0o700), syscall.Mount("tmpfs", state, "tmpfs", 0, "size=40m,mode=0700")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(state, syscall.MNT_DETACH) })
	})
	p.wait("samples", func() bool { return p.state().Health.Storage.Samples > 3 })
	keepToySamples(t, p.samples(), p.live.Load().net.Digest)

	hog := filepath.Join(state, "hog")
	if err := os.WriteFile(hog, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	told := p.subscribe()
	seen := p.state().camera("door").Classified
	p.wait("answers on a full disk", func() bool { return p.state().camera("door").Classified > seen+20 })
	topic := "fovea/" + p.id + "/cmd/adapt/on-a-full-disk"
	p.publish(topic, `{"force":true}`)
	p.wait("an answer to the command", func() bool { return strings.Contains(told.all(topic+"/state"), `"failed"`) })
	if said := told.all(topic + "/state"); !strings.Contains(said, "no space left") {
		t.Errorf("the command does not say why: %s", said)
	}
	if s := p.models().Standing(); s.Active != s.Base {
		t.Errorf("standing %+v", s)
	}
	evicted := p.samples().Summary()
	if p.problems.of("store") != "" || evicted.Samples == 0 {
		t.Errorf("%q, %+v", p.problems.of("store"), evicted)
	}

	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	result, err := p.adapt(t.Context())
	if err != nil || result.Verdict == "" {
		t.Errorf("with room again: %+v, %v", result, err)
	}
	p.wait("no problem left", func() bool { return len(p.problems.all()) == 0 })
}

// A disk whose writes fail: the daemon classifies, says that nothing is kept, refuses what it could not remember; when
// writes succeed again it keeps and obeys, without a restart. strace makes the errors.
func TestWritesFail(t *testing.T) {
	k := newKilled(t, fmt.Sprintf(`
inference: {relevance_every: 1}
samples: {every: 1ms, apart: 0, novel: 0}
cameras: [{id: door, source: %q, loop: true, fps: 10, grabber: %q}]
mqtt: {listen: "127.0.0.1:0"}
`, blobs(t, 300), mustGrab(t))+quiet)
	k.start()
	k.wait("samples", func() bool { s := k.status(); return s != nil && s.camera("door").Classified > 3 })

	strace := exec.Command("strace", "-f", "-p", fmt.Sprint(k.command.Process.Pid), "-o", os.DevNull, "-e", "trace=pwrite64,fdatasync",
		"-P", filepath.Join(k.state, "samples.db"), "-P", filepath.Join(k.state, "state.db"), "-e", "inject=pwrite64,fdatasync:error=EIO")
	said := &syncBuffer{}
	strace.Stderr = said
	if err := strace.Start(); err != nil {
		t.Fatalf("%v; install strace", err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = strace.Process.Signal(syscall.SIGINT)
			_ = strace.Wait()
		}
	}
	t.Cleanup(end)
	k.wait("strace", func() bool { return strings.Contains(said.String(), "attached") })
	k.wait("the problem in the status", func() bool {
		return strings.Contains(strings.Join(k.status().Health.Reasons, "\n"), "input/output error")
	})
	seen := k.status().camera("door").Classified
	k.wait("answers", func() bool { return k.status().camera("door").Classified > seen+20 })
	runVerbLine(t, exitFailure, "models", "auto", "on", "-c", k.config) // it could not be remembered
	end()

	k.wait("samples again", func() bool { s := k.status(); return len(s.Health.Reasons) == 0 && s.Health.Health == fleet.HealthOK })
	runVerbLine(t, 0, "models", "auto", "off", "-c", k.config)
	if k.command.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("the daemon is gone")
	}
	_ = k.command.Process.Signal(syscall.SIGTERM)
	_ = k.command.Wait()
	if text := runVerbLine(t, 0, "db", "check", "-c", k.config); strings.Count(text, ": sound") != 2 {
		t.Error(text)
	}
}

func mustGrab(t *testing.T) string {
	t.Helper()
	grab, err := realGrabber()
	if err != nil {
		t.Fatal(err)
	}
	return grab
}
