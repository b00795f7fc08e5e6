package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-a98b2d25/fovea/internal/powercut"
)

// TestPowerCut: the power goes at a moment of a life of the store, and of what was not synced all, nothing or any part
// is on the disk. What was acknowledged is there, the live model is the old or the new one, nothing has to be set
// aside. With syncing off, of the databases or of the other files, the same look finds what is lost. With FOVEA_SOAK
// the power goes at every moment, in each way; else at one in ten.
func TestPowerCut(t *testing.T) {
	folder := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "STORE_WRITE="+folder, "STORE_WRITES=40")
	child.Stderr = os.Stderr
	life := powercut.Record(t, folder, child)
	soak := os.Getenv("FOVEA_SOAK") != ""
	for _, disk := range []struct {
		name      string
		recording *powercut.Recording
		step      int // of three ways at each moment; no multiple of 3
		loses     bool
	}{
		{"synced", life, map[bool]int{false: 10, true: 1}[soak], false},
		{"no fdatasync", life.Without("fdatasync"), 31, true},
		{"no fsync", life.Without("fsync"), 31, true},
	} {
		t.Run(disk.name, func(t *testing.T) {
			cuts, lost := 0, 0
			for n := 0; n < 3*disk.recording.Cuts(); n += disk.step {
				cut, how := n/3, powercut.How(n%3)
				left := filepath.Join(t.TempDir(), "left")
				must(t, disk.recording.Leave(left, cut, how, uint64(n)))
				k := killed{samples: map[uint64]string{}}
				said, _ := disk.recording.Said(cut)
				for _, line := range said {
					k.hear(line)
				}
				cuts++
				if err := k.verify(left); err != nil {
					lost++
					if !disk.loses {
						t.Errorf("cut %d of %d, %v: %v", cut, life.Cuts(), how, err)
					}
				}
				must(t, os.RemoveAll(left))
			}
			t.Logf("%d power cuts in %d moments: %d lost something", cuts, life.Cuts(), lost)
			if disk.loses && lost == 0 {
				t.Error("what was never synced was not missed: the test sees nothing")
			}
		})
	}
}
