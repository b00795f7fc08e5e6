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

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/powercut"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// lifeOfADaemon is a daemon from its first start: it keeps samples and a candidate, promotes it, which passes its
// probation, and is taken back. It says on stdout what was acknowledged.
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
	wait := func(what string, happened func() bool) error {
		for limit := time.Now().Add(patience); !happened(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				return fmt.Errorf("%s did not come in %v", what, patience)
			}
		}
		return nil
	}
	if err := wait("a model", func() bool { return d.live.Load() != nil }); err != nil {
		return err
	}
	live := d.live.Load()
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
	if err := candidateOf(ctx, d); err != nil {
		return err
	}
	fmt.Println("candidate", d.models().Standing().Candidate)
	if _, err := d.cycle.do(ctx, order{verb: fleet.VerbPromote, why: "test"}); err != nil {
		return err
	}
	fmt.Println("live", d.models().Standing().Active)
	d.cycle.ends <- probationEnd{sha: d.models().Standing().Active}
	if err := wait("the end of the probation", func() bool { return d.models().Standing().Probation.State == store.ProbationPassed }); err != nil {
		return err
	}
	fmt.Println("passed")
	if _, err := d.cycle.do(ctx, order{verb: fleet.VerbRollback, why: "test"}); err != nil {
		return err
	}
	fmt.Println("live", d.models().Standing().Active)
	stop()
	return <-ended
}

// candidateOf has a daemon keep a candidate that waits for approval, as if a child had made it.
func candidateOf(ctx context.Context, d *daemon) error {
	config, _ := d.configs.get()
	info, err := d.mayAdapt(config)
	if err != nil {
		return err
	}
	work := filepath.Join(config.StateDir, workDir)
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	pack, out := filepath.Join(work, packFile), filepath.Join(work, outDir)
	digest, _, err := drawPack(pack, d.samples(), info)
	if err != nil {
		return err
	}
	c, err := model.Load(config.Model.Dir)
	if err != nil {
		return err
	}
	c.Params.HeadBias[0] += 1e-3
	if err := errors.Join(c.Save(out), d.keepPack(config, pack, digest)); err != nil {
		return err
	}
	verdict := adapt.Receipt{Event: adapt.EventVerdict, Model: c.Digest(), Reason: "test", Report: &adapt.RunReport{}}
	_, err = d.candidate(ctx, config, filepath.Join(out, "model.safetensors"), verdict, d.models().Standing())
	return err
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
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("model: {dir: %q, backend: go}\nmqtt: {listen: \"127.0.0.1:0\"}\nweb: {listen: \"127.0.0.1:0\"}\n", toyModel(t)) +
		strings.Replace(quiet, "auto: false", "auto: false, approval: manual", 1)
	dir := t.TempDir()
	file, state := filepath.Join(dir, "fovea.yaml"), filepath.Join(dir, "state")
	if err := errors.Join(os.WriteFile(file, []byte("state_dir: state\n"+config), 0o600), os.Mkdir(state, 0o700)); err != nil {
		t.Fatal(err)
	}
	child, log := exec.Command(self), &syncBuffer{}
	child.Env, child.Stderr = append(os.Environ(), "FOVEA_TEST_LIFE="+file), log
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the life:\n%s", log)
		}
	})
	life := powercut.Record(t, state, child)

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
	soak := os.Getenv("FOVEA_SOAK") != ""
	for _, disk := range []struct {
		name      string
		recording *powercut.Recording
		step      int
		loses     bool
	}{
		{"synced", life, map[bool]int{false: 10, true: 1}[soak], false},
		{"no fdatasync", life.Without("fdatasync"), 40, true},
		{"no fsync", life.Without("fsync"), 40, true},
	} {
		t.Run(disk.name, func(t *testing.T) {
			cuts, lost := moments(disk.recording, disk.step), 0
			for n, cut := range cuts {
				how := powercut.How(n % 3)
				t.Run(fmt.Sprintf("%d %v", cut, how), func(t *testing.T) {
					p := start(t, config, func(p *program) {
						state := filepath.Join(p.dir, "state")
						if err := disk.recording.Leave(state, cut, how, uint64(n)); err != nil {
							t.Fatal(err)
						}
						if _, err := secretFile(filepath.Join(state, tokenFile)); err != nil && disk.loses {
							lost++
							t.Skip("it does not start: ", err)
						}
					})
					p.wait("a model", func() bool { return p.live.Load() != nil })
					if err := p.holds(disk.recording.Said(cut)); err != nil {
						lost++
						if !disk.loses {
							t.Error(err)
						}
					}
				})
			}
			t.Logf("%d power cuts in %d moments: %d lost something", len(cuts), life.Cuts(), lost)
			if disk.loses && lost == 0 {
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
		case "candidate":
			if r, err := p.models().Get(rest); err != nil || standing.Candidate != rest && r.Promoted == nil {
				fault("the candidate is forgotten: %+v, %v", standing, err)
			}
		case "passed":
			if now := standing.Probation.State; now != store.ProbationPassed && now != store.ProbationRolledBack || standing.LastGood() != standing.Active {
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
