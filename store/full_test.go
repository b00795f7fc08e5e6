package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mount makes a small file system.
func mount(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a file system of %s: %v", size, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk: a budget that the disk has not. Samples go on by evicting, state.db by what it reserved; when
// there is room again they take it, without a restart.
func TestFullDisk(t *testing.T) {
	dir := mount(t, "32m")
	s, err := Open(context.Background(), dir, Options{Samples: Limits{Bytes: 200 << 20}, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 1))
	at := 0
	fill := func(n int) (failed int) {
		for range n {
			at++
			_, err := s.Samples.Put(context.Background(), sample(r, "door", noon.Add(time.Duration(at)*time.Minute), 10_000+r.IntN(40_000)))
			if err != nil {
				failed++
			}
			state := errors.Join(s.State.Queue.Push(fmt.Append(nil, at)), s.State.Commands.Save(fmt.Sprint(at%50), []byte("done")))
			if _, err := s.State.AppendVerdict(json.RawMessage(`{}`)); errors.Join(state, err) != nil {
				t.Fatalf("state.db on a full disk: %v, %v", state, err)
			}
		}
		return failed
	}
	if failed := fill(1500); failed > 0 { // 45 MB
		t.Errorf("%d of 1500 puts failed", failed)
	}
	sum := s.Samples.Summary()
	t.Logf("full: %+v", sum)
	if sum.Evicted == 0 || sum.Bytes < 8<<20 {
		t.Errorf("%+v", sum)
	}

	// Another program takes the last byte.
	hog := filepath.Join(dir, "hog")
	if err := os.WriteFile(hog, make([]byte, 32<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	failed := fill(200)
	t.Logf("%d of 200 puts failed with not a byte left", failed)
	if failed > 0 {
		t.Errorf("%d of 200 puts failed with not a byte left", failed)
	}
	if _, err := s.State.Models.Add(strings.NewReader(strings.Repeat("weights", 1000)), Receipt{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("weights on a full disk: %v", err)
	}
	if _, _, err := s.Samples.Compact(); err == nil {
		t.Error("compacted without room")
	}
	if failed := fill(20); failed > 0 {
		t.Errorf("%d puts failed after it", failed)
	}

	must(t, os.Remove(hog))
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=96m"))
	before := s.Samples.Summary()
	if failed := fill(1000); failed > 0 {
		t.Errorf("%d puts failed with room again", failed)
	}
	after := s.Samples.Summary()
	if after.Bytes < before.Bytes+(20<<20) {
		t.Errorf("from %d to %d bytes where there is room", before.Bytes, after.Bytes)
	}
	s = reopen(t, s, dir)
	if len(s.Alarms) > 0 || s.Samples.Summary().Samples != after.Samples {
		t.Errorf("after a restart: alarms %q, %d samples, want %d", s.Alarms, s.Samples.Summary().Samples, after.Samples)
	}
}

// TestFullDiskFromTheStart: neither file can be begun.
func TestFullDiskFromTheStart(t *testing.T) {
	dir := mount(t, "1m")
	if _, err := Open(context.Background(), dir, Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("opened without room: %v", err)
	}
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=32m"))
	open(t, dir)
}

// TestFileStaysInBudget: puts of changing sizes, many times the budget.
func TestFileStaysInBudget(t *testing.T) {
	puts, budget := 4000, int64(48<<20)
	if os.Getenv("FOVEA_SOAK") != "" {
		puts, budget = 25_000, 80<<20
	}
	s, err := Open(context.Background(), t.TempDir(), Options{Samples: Limits{Bytes: budget}})
	must(t, err)
	defer s.Close()
	largest := int64(0)
	began := time.Now()
	const writers = 20
	errs := make(chan error)
	for w := range writers {
		go func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range puts / writers {
				p := sample(r, "door", noon.Add(time.Duration(i)*time.Minute), 5_000+r.IntN(40_000))
				if _, err := s.Samples.Put(context.Background(), p); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for done := 0; done < writers; {
		select {
		case err := <-errs:
			must(t, err)
			done++
		case <-time.After(10 * time.Millisecond):
			largest = max(largest, s.Samples.Summary().FileBytes)
		}
	}
	sum := s.Samples.Summary()
	largest = max(largest, sum.FileBytes)
	t.Logf("%d puts in %.1f s: %d samples of %.1f MB, file %.1f MB at most, budget %.1f MB", puts, time.Since(began).Seconds(), sum.Samples, float64(sum.Bytes)/1e6, float64(largest)/1e6, float64(budget)/1e6)
	if largest > budget+budget/10 || sum.Bytes < budget/2 {
		t.Errorf("%d bytes at most, budget %d", largest, budget)
	}
}
