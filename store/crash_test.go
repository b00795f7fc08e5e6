package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// This program is its own child: one that checks a file and may die of it, and one that writes until it is
// killed.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("STORE_CHECK") != "":
		fmt.Println(CheckFile(os.Getenv("STORE_CHECK")))
	case os.Getenv("STORE_WRITE") != "":
		if err := writeOn(os.Getenv("STORE_WRITE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// checkInChild is what the daemon does.
func checkInChild(_ context.Context, file string) error {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "STORE_CHECK="+file)
	out, err := child.Output()
	switch text := strings.TrimSpace(string(out)); {
	case err != nil:
		return fmt.Errorf("%w: the child ended with %v", ErrDamaged, err)
	case text == "<nil>":
		return nil
	case strings.Contains(text, ErrTooNew.Error()):
		return fmt.Errorf("%w: %s", ErrTooNew, text)
	case strings.Contains(text, ErrDamaged.Error()):
		return fmt.Errorf("%w: %s", ErrDamaged, text)
	default:
		return errors.New(text)
	}
}

// openChecked opens with the check in a child.
func openChecked(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, Options{Check: checkInChild, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// writeOn does all that a daemon writes, and says on stdout what was acknowledged: until it is killed, or as many
// things as STORE_WRITES says.
func writeOn(dir string) error {
	s, err := Open(context.Background(), dir, Options{})
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(os.Getenv("STORE_WRITES"))
	if err != nil {
		most = math.MaxInt
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	fmt.Println("open")
	for i := range most {
		switch r.IntN(12) {
		case 0:
			receipt, err := s.State.Models.Add(bytes.NewReader(picture(r, 200_000)), Receipt{})
			if err != nil {
				return err
			}
			fmt.Println("model", receipt.SHA256)
		case 1:
			at, list := s.State.Models.Standing(), s.State.Models.List()
			if len(list) == 0 {
				continue
			}
			to := list[r.IntN(len(list))].SHA256
			if at.Base == "" {
				fmt.Println("try", to)
				if err := s.State.Models.SetBase(to); err != nil {
					return err
				}
			} else {
				fmt.Println("try", to)
				if err := s.State.Models.Promote(to, json.RawMessage(`{"verdict":"promoted"}`), nil); err != nil {
					return err
				}
			}
			fmt.Println("live", to)
		case 2:
			id := fmt.Sprintf("%d-%d", seed, i)
			if err := s.State.Commands.Save(id, []byte("did "+id)); err != nil {
				return err
			}
			fmt.Println("command", "did "+id)
		case 3:
			m := fmt.Sprintf("%d-%d", seed, i)
			if err := s.State.Queue.Push([]byte(m)); err != nil {
				return err
			}
			fmt.Println("message", m)
		case 4:
			if _, _, err := s.Samples.Compact(); err != nil {
				return err
			}
		default:
			p := sample(r, "door", noon.Add(time.Duration(i)*time.Minute), 20_000)
			seq, err := s.Samples.Put(context.Background(), p)
			if err != nil {
				return err
			}
			fmt.Println("sample", seq, digestOf(p.JPEG))
		}
	}
	return s.Close()
}

// TestKill: kill -9 at a random moment, from the first creation on; nothing that was acknowledged is lost, and
// the live model is the old or the new one, whole.
func TestKill(t *testing.T) {
	rounds := 10
	if os.Getenv("FOVEA_SOAK") != "" {
		rounds = 200
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	dir := t.TempDir()
	acknowledged := 0
	var kept killed
	for round := range rounds {
		if round%10 == 0 { // begin anew
			dir = t.TempDir()
			kept = killed{samples: map[uint64]string{}}
		}
		acknowledged += kept.round(t, dir, time.Duration(r.IntN(300))*time.Millisecond, round%2 == 0)
		for _, name := range []string{"state.db", "samples.db"} {
			if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, os.ErrNotExist) {
				continue // killed before it was made
			}
			if err := checkInChild(t.Context(), filepath.Join(dir, name)); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if err := kept.verify(dir); err != nil || t.Failed() {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("%d rounds, %d acknowledged writes", rounds, acknowledged)
	if acknowledged == 0 {
		t.Error("no round came to a write")
	}
}

// killed is what the children said was done.
type killed struct {
	samples            map[uint64]string
	commands, messages []string
	models             []string
	live, tried        string
}

// round lets a child write for a time, from its start or from its first word on, and kills it.
func (k *killed) round(t *testing.T, dir string, after time.Duration, fromStart bool) int {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "STORE_WRITE="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	kill := func() { time.AfterFunc(after, func() { child.Process.Kill() }) }
	if fromStart {
		kill()
	}
	n := 0
	for lines := bufio.NewScanner(out); lines.Scan(); n++ {
		if !k.hear(lines.Text()) {
			n--
		}
		if lines.Text() == "open" && !fromStart {
			kill()
		}
	}
	err = child.Wait()
	if child.ProcessState.ExitCode() != -1 { // -1: by the signal
		t.Errorf("the child ended by itself: %v", err)
	}
	return n
}

// hear takes a line of the child; it says whether that acknowledges something.
func (k *killed) hear(line string) bool {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "sample":
		number, digest, _ := strings.Cut(rest, " ")
		seq, _ := strconv.ParseUint(number, 10, 64) // a number of its own: else the sample is missed
		k.samples[seq] = digest
	case "command":
		k.commands = append(k.commands, rest)
	case "message":
		k.messages = append(k.messages, rest)
	case "model":
		k.models = append(k.models, rest)
	case "try":
		k.tried = rest
		return false
	case "live":
		k.live, k.tried = rest, ""
	default:
		return false
	}
	return true
}

// verify opens the folder as the daemon does; an error names all that was acknowledged and is not there.
func (k *killed) verify(dir string) error {
	s, err := Open(context.Background(), dir, Options{Check: checkInChild, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Close()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(s.Alarms) > 0 {
		fault("alarms %q", s.Alarms)
	}
	for seq, digest := range k.samples {
		if s.Samples == nil {
			break
		}
		got, err := s.Samples.Get(seq)
		if err != nil || digestOf(got.JPEG) != digest {
			fault("sample %d: %v", seq, err)
		}
	}
	records, err := s.State.Commands.Load()
	if err != nil {
		fault("%w", err)
	}
	done := map[string]bool{}
	for _, r := range records {
		done[string(r)] = true
	}
	for _, want := range k.commands {
		if !done[want] {
			fault("command %q is forgotten", want)
		}
	}
	messages, err := s.State.Queue.Lease(1000)
	if err != nil {
		fault("%w", err)
	}
	s.State.Queue.Release()
	at := 0
	for _, m := range messages { // those acknowledged, in their order, perhaps with one more each round
		if at < len(k.messages) && string(m) == k.messages[at] {
			at++
		}
	}
	if at < len(k.messages) {
		fault("message %q is lost", k.messages[at])
	}
	for _, sha := range k.models {
		if _, err := s.State.Models.Get(sha); err != nil {
			fault("%w", err)
		}
		if err := s.State.Models.Verify(sha); err != nil {
			fault("%w", err)
		}
	}
	standing := s.State.Models.Standing()
	if standing.Active != k.live && standing.Active != k.tried {
		fault("live is %.8s, want %.8s or %.8s", standing.Active, k.live, k.tried)
	}
	k.live, k.tried = standing.Active, ""
	if err := s.State.VerifyVerdicts(); err != nil {
		fault("%w", err)
	}
	return errors.Join(faults...)
}
