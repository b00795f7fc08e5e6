package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// After ten promotions, each taken back, the daemon holds what it held after the first: weights, compiled nets and
// children are let go of. Three in the tests, ten with FOVEA_SOAK.
func TestCyclesKeepNothing(t *testing.T) {
	p := cycling(t, quiet)
	cycles := 3
	if os.Getenv("FOVEA_SOAK") != "" {
		cycles = 10
	}
	type holding struct {
		resident, heap int64
		goroutines     int
		files          int
	}
	held := func() (h holding) {
		debug.FreeOSMemory() // two collections: finalizers run between them
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return holding{residentOf(os.Getpid()), int64(m.HeapAlloc), runtime.NumGoroutine(), len(files)}
	}
	var first, last holding
	for n := range cycles {
		result, err := p.adapt(t.Context())
		if err != nil || result.Verdict != fleet.Promoted {
			t.Fatalf("cycle %d: %+v %v", n+1, result, err)
		}
		p.wait("the candidate", func() bool { return p.live.Load().version == *result.Version })
		if _, err := p.cycle.do(t.Context(), order{verb: fleet.VerbRollback, why: "test"}); err != nil {
			t.Fatal(err)
		}
		p.wait("the base", func() bool { return p.live.Load().version == 0 })
		if last = held(); n == 0 {
			first = last
		}
		t.Logf("after cycle %2d: resident %.1f MB, heap %.2f MB, %d goroutines, %d files", n+1,
			float64(last.resident)/1e6, float64(last.heap)/1e6, last.goroutines, last.files)
	}
	if float64(last.resident) > 1.05*float64(first.resident) {
		t.Errorf("resident %d bytes after %d cycles, %d after one", last.resident, cycles, first.resident)
	}
	if float64(last.heap) > 1.05*float64(first.heap) {
		t.Errorf("%d bytes on the heap after %d cycles, %d after one", last.heap, cycles, first.heap)
	}
	if last.goroutines > first.goroutines || last.files > first.files {
		t.Errorf("%d goroutines and %d files after %d cycles, %d and %d after one", last.goroutines, last.files, cycles, first.goroutines, first.files)
	}
}
