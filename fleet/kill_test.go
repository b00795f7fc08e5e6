package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// diskLog is a CommandLog of files, each written whole or not at all.
type diskLog struct{ dir string }

func (l diskLog) Load() (records [][]byte, err error) {
	files, err := filepath.Glob(filepath.Join(l.dir, "*.json"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		records = append(records, text)
	}
	return records, err
}

func (l diskLog) Save(id string, record []byte) error {
	temp, err := os.CreateTemp(l.dir, "new-*")
	if err != nil {
		return err
	}
	defer temp.Close()
	if _, err := temp.Write(record); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), filepath.Join(l.dir, id+".json"))
}

func (l diskLog) Forget(ids []string) error {
	for _, id := range ids {
		if err := os.Remove(filepath.Join(l.dir, id+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (diskLog) LostAt() time.Time { return time.Time{} }

// TestKillWhileACommandRuns kills -9 a real process between a command's accept
// and its result, a dozen times at different moments: the command has failed
// with crashed or ended, is answered from memory from then on, and never ran
// twice.
func TestKillWhileACommandRuns(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	dir := t.TempDir()
	cfg := Config{Device: "gate-8", Broker: m.URL()}
	o := observe(t, cfg, "fovea/gate-8/#")
	operator := startOperator(t, Config{Broker: m.URL()})
	topics := Topics{Root: "fovea", Device: "gate-8"}
	start := func() *exec.Cmd {
		t.Helper()
		child := exec.Command(os.Args[0], "-test.run", "^TestKillWhileACommandRunsDevice$")
		child.Env = append(os.Environ(), "FOVEA_TEST_KILL="+dir, "FOVEA_TEST_BROKER="+m.URL())
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		return child
	}
	child := start()
	defer func() { child.Process.Kill(); child.Wait() }()

	codes := map[Code]int{}
	for round := range 12 {
		id := fmt.Sprint("adapt-", round)
		eventually(t, "the device runs the command", func() bool {
			o.publish(topics.Command("adapt", id), "", false)
			time.Sleep(50 * time.Millisecond)
			return o.last(topics.CommandState("adapt", id)) != "(nothing)"
		})
		time.Sleep(time.Duration(round) * 20 * time.Millisecond) // it runs for 120 ms
		child.Process.Kill()
		child.Wait()
		child = start()

		ctx, cancel := context.WithTimeout(t.Context(), patience)
		state, err := operator.Do(ctx, Request{Device: "gate-8", Verb: VerbAdapt, ID: id}) // sent again, as its sender does
		cancel()
		if err != nil || !state.Final() || state.State == PhaseFailed && state.Code != Crashed {
			t.Fatalf("round %d: %+v, %v", round, state, err)
		}
		codes[state.Code]++
	}
	if codes[Crashed] == 0 || codes[""] == 0 {
		t.Errorf("the kills all fell on the same side of the result: %v", codes)
	}
	text, err := os.ReadFile(filepath.Join(dir, "ran"))
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for _, id := range strings.Fields(string(text)) {
		if ran[id]++; ran[id] > 1 {
			t.Errorf("%s ran twice", id)
		}
	}
	t.Logf("12 kills: %d commands crashed, %d had ended, %d ran, none twice", codes[Crashed], codes[""], len(ran))
}

// TestKillWhileACommandRunsDevice is the child that is killed.
func TestKillWhileACommandRunsDevice(t *testing.T) {
	dir := os.Getenv("FOVEA_TEST_KILL")
	if dir == "" {
		t.Skip("only for TestKillWhileACommandRuns")
	}
	d, err := New(Config{Device: "gate-8", Broker: os.Getenv("FOVEA_TEST_BROKER")}, NewQueue(100), diskLog{dir}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ran, err := os.OpenFile(filepath.Join(dir, "ran"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Handle(VerbSpec{Verb: VerbAdapt, Exclusive: true, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
		fmt.Fprintln(ran, cmd.ID)
		time.Sleep(120 * time.Millisecond)
		return json.RawMessage(`{"verdict":"rejected"}`), nil
	}}); err != nil {
		t.Fatal(err)
	}
	d.Run(context.Background())
}
