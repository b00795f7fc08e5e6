package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/powercut"
	"github.com/seed-a98b2d25/fovea/store"
)

// lifeOfADaemon is a daemon from its first start: it keeps samples, adapts, promotes, is taken back, promotes again,
// and passes its probation. It says on stdout what was acknowledged.
func lifeOfADaemon(file string) error {
	config, err := loadConfig(file)
	if err != nil {
		return err
	}
	d, err := newDaemon(file, config, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Println("token", d.token)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx, nil) }()
	live := func() *served {
		for d.live.Load() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		return d.live.Load()
	}()
	fmt.Println("live", live.sha)
	all, err := toySamples(live.net.Digest)
	if err != nil {
		return err
	}
	for _, s := range all {
		seq, err := d.samples().Put(ctx, s)
		if err != nil {
			return err
		}
		fmt.Println("sample", seq, digestOf(s.JPEG))
	}
	for round := range 2 {
		result, err := d.cycle.do(ctx, order{verb: fleet.VerbAdapt, why: "test", force: true})
		if err != nil || result.Verdict != fleet.Promoted {
			return fmt.Errorf("round %d: %+v, %w", round, result, err)
		}
		fmt.Println("live", d.models().Standing().Active)
		if round == 0 {
			if _, err := d.cycle.do(ctx, order{verb: fleet.VerbRollback, why: "test"}); err != nil {
				return err
			}
			fmt.Println("live", d.models().Standing().Active)
		}
	}
	d.cycle.ends <- probationEnd{sha: d.models().Standing().Active}
	for d.models().Standing().Probation.State != store.ProbationPassed {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("passed")
	stop()
	return <-ended
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// The power goes at a moment of a daemon's life, promotions among them, and of what was not synced all, nothing or any
// part is on the disk. It starts again, with the old or the new model, whole, and with all that it had acknowledged.
// With syncing off, of the databases or of the other files, the same look finds what is lost. Some fifty cuts, and ten
// times as many with FOVEA_SOAK.
func TestPowerCut(t *testing.T) {
	base := toyModel(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("model: {dir: %q, backend: go}\nmqtt: {listen: \"127.0.0.1:0\"}\nweb: {listen: \"127.0.0.1:0\"}\n", base) + quiet
	record := func(t *testing.T, flags ...string) *powercut.Recording {
		dir := t.TempDir()
		file, state := filepath.Join(dir, "fovea.yaml"), filepath.Join(dir, "state")
		if err := errors.Join(os.WriteFile(file, []byte("state_dir: state\n"+text), 0o600), os.Mkdir(state, 0o700)); err != nil {
			t.Fatal(err)
		}
		child := exec.Command(self)
		log := &syncBuffer{}
		child.Env, child.Stderr = append(os.Environ(), "FOVEA_TEST_LIFE="+file), log
		defer func() {
			if t.Failed() {
				t.Logf("log of the daemon:\n%s", log)
			}
		}()
		return powercut.Record(t, state, child, flags...)
	}
	// The last moments before each word of what is live, and others all over the life.
	moments := func(r *powercut.Recording, step int) (cuts []int) {
		for _, said := range r.Saying(func(line string) bool { return !strings.HasPrefix(line, "sample") }) {
			for n := 0; n < 80; n += step {
				cuts = append(cuts, max(0, said-n))
			}
		}
		for n := 0; n < 100; n += step {
			cuts = append(cuts, n*r.Cuts()/100)
		}
		return cuts
	}
	for _, life := range []struct {
		name  string
		flags []string // of strace
		loses bool
	}{
		{name: "synced"},
		{"no fdatasync", []string{"-e", "inject=fdatasync:retval=0"}, true},
		{"no fsync", []string{"-e", "inject=fsync:retval=0"}, true},
	} {
		t.Run(life.name, func(t *testing.T) {
			recording, step := record(t, life.flags...), 10
			switch soak := os.Getenv("FOVEA_SOAK") != ""; {
			case soak && !life.loses:
				step = 1
			case !soak && life.loses:
				step = 40
			}
			cuts, lost := moments(recording, step), 0
			for n, cut := range cuts {
				how := powercut.How(n % 3)
				t.Run(fmt.Sprintf("%d %v", cut, how), func(t *testing.T) {
					p := start(t, text, func(p *program) {
						if err := recording.Leave(filepath.Join(p.dir, "state"), cut, how, uint64(n)); err != nil {
							t.Fatal(err)
						}
					})
					p.wait("a model", func() bool { return p.live.Load() != nil })
					if err := p.holds(recording.Said(cut)); err != nil {
						lost++
						if !life.loses {
							t.Error(err)
						}
					}
				})
			}
			t.Logf("%d power cuts in %d moments: %d lost something", len(cuts), recording.Cuts(), lost)
			if life.loses && lost == 0 {
				t.Error("what was never synced was not missed: the test sees nothing")
			}
		})
	}
}

// holds says what of the acknowledged is missing.
func (p *program) holds(before, after []string) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, part := range []string{"store", "lineage", "model", "record"} {
		if told := p.problems.of(part); told != "" {
			fault("%s: %s", part, told)
		}
	}
	if p.store == nil {
		return errors.Join(faults...)
	}
	standing := p.models().Standing()
	var may []string // be live: what was last said to be, or what was about to be
	for _, line := range before {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "token":
			if p.token != rest {
				fault("another token")
			}
		case "live":
			may = []string{rest}
		case "sample":
			number, digest, _ := strings.Cut(rest, " ")
			seq, _ := strconv.ParseUint(number, 10, 64)
			if s, err := p.samples().Get(seq); err != nil || digestOf(s.JPEG) != digest {
				fault("sample %d: %v", seq, err)
			}
		case "passed":
			if standing.Probation.State != store.ProbationPassed || standing.LastGood() != standing.Active {
				fault("the passed probation is forgotten: %+v", standing)
			}
		}
	}
	for _, line := range after {
		if sha, is := strings.CutPrefix(line, "live "); is {
			may = append(may, sha)
			break
		}
	}
	if live := p.live.Load(); live.sha != standing.Active || !slices.Contains(may, live.sha) {
		fault("%.8s is live and %.8s stands in the store, want one of %.8s", live.sha, standing.Active, may)
	}
	if err := p.models().Verify(standing.Active); err != nil {
		fault("%w", err)
	}
	if err := p.store.State.VerifyVerdicts(); err != nil {
		fault("%w", err)
	}
	if left, _ := filepath.Glob(filepath.Join(p.stateDir(), workDir, "*")); len(left) > 0 {
		fault("left over: %v", left)
	}
	return errors.Join(faults...)
}
