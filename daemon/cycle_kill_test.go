package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/realparts"
	"github.com/seed-a98b2d25/fovea/store"
)

// killed is a daemon in a process of its own that is killed again and again.
type killed struct {
	t        *testing.T
	config   string
	state    string
	web      string
	mqttPort string
	command  *exec.Cmd
	log      *syncBuffer
}

// newKilled makes a daemon of the small world, with samples of two cameras, that is not running.
func newKilled(t *testing.T, more string) *killed {
	t.Helper()
	dir := t.TempDir()
	k := &killed{t: t, config: filepath.Join(dir, "fovea.yaml"), state: filepath.Join(dir, "state"), web: "127.0.0.1:" + realparts.FreePort(t), log: &syncBuffer{}}
	text := fmt.Sprintf("state_dir: %q\nmodel: {dir: %q, backend: go}\nweb: {listen: %q}\n%s", k.state, toyModel(t), k.web, more)
	if err := os.WriteFile(k.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	t.Cleanup(func() { _ = k.command.Process.Kill(); _ = k.command.Wait() })
	k.wait("the first start", func() bool { return k.status() != nil })
	digest := k.status().Model.SHA256
	_ = k.command.Process.Signal(syscall.SIGTERM)
	_ = k.command.Wait()
	s, err := store.Open(t.Context(), k.state, store.Options{Samples: store.Limits{Bytes: 64e6}})
	if err != nil {
		t.Fatal(err)
	}
	keepToySamples(t, s.Samples, digest)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *killed) start() {
	k.t.Helper()
	self, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	k.command = exec.Command(self, "run", "--config", k.config)
	k.command.Stderr = k.log
	if err := k.command.Start(); err != nil {
		k.t.Fatal(err)
	}
}

// status asks the page; nil while there is none, or no model.
func (k *killed) status() *status {
	answer, err := http.Get("http://" + k.web + "/api/status")
	if err != nil {
		return nil
	}
	defer answer.Body.Close()
	var s status
	if json.NewDecoder(answer.Body).Decode(&s) != nil || s.Model == nil {
		return nil
	}
	return &s
}

func (k *killed) wait(what string, happened func() bool) {
	k.t.Helper()
	for limit := time.Now().Add(patience); !happened(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			k.t.Fatalf("%s did not come in %v; log:\n%s", what, patience, k.log)
		}
	}
}

func (k *killed) mosquitto(program string, more ...string) []byte {
	password, err := os.ReadFile(filepath.Join(k.state, "mqtt-password"))
	if err != nil {
		k.t.Fatal(err)
	}
	args := append([]string{"-h", "127.0.0.1", "-p", k.mqttPort, "-u", fleet.BrokerUser, "-P", strings.TrimSpace(string(password))}, more...)
	out, _ := exec.Command(program, args...).CombinedOutput() // a broker that is down is asked again
	return out
}

// children are the processes whose parent is pid.
func children(pid int) []int {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var text []byte
	for _, t := range tasks {
		if one, err := os.ReadFile(t); err == nil {
			text = append(append(text, one...), ' ')
		}
	}
	var all []int
	for _, f := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(f); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// Killed at any moment of a cycle, the daemon or its child: it starts again with the old or the new model, whole, and
// the command has one answer and is never run again.
func TestCycleKilled(t *testing.T) {
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Fatalf("%v; install mosquitto-clients", err)
	}
	rounds := 10
	if os.Getenv("FOVEA_SOAK") != "" {
		rounds = 50
	}
	port := realparts.FreePort(t)
	k := newKilled(t, fmt.Sprintf("mqtt: {listen: \"127.0.0.1:%s\"}\ndevice: {id: killed}\n", port)+strings.Replace(quiet, "auto: false", "auto: false, approval: manual", 1))
	k.mqttPort = port

	r := rand.New(rand.NewPCG(9, 9))
	answers := map[string]int{}
	for round := range rounds {
		k.start()
		k.wait("the daemon", func() bool { return k.status() != nil })
		topic := fmt.Sprintf("fovea/killed/cmd/adapt/round-%d", round)
		k.wait("the broker", func() bool { return k.status().Broker.Connected })
		k.mosquitto("mosquitto_pub", "-q", "1", "-t", topic, "-m", `{"force":true}`)
		time.Sleep(time.Duration(r.Float64() * float64(6*time.Second)))
		daemon := k.command.Process.Pid
		if inside := children(daemon); round%3 == 1 && len(inside) > 0 {
			_ = syscall.Kill(inside[0], syscall.SIGKILL) // the child alone: the daemon answers
		} else {
			_ = syscall.Kill(daemon, syscall.SIGKILL)
			_ = k.command.Wait()
			k.start()
		}
		k.wait("the daemon again", func() bool { return k.status() != nil })
		// Asked again with the same id, it gives the stored answer.
		var said []byte
		k.wait("an answer", func() bool {
			k.mosquitto("mosquitto_pub", "-q", "1", "-t", topic, "-m", `{"force":true}`)
			said = k.mosquitto("mosquitto_sub", "-t", topic+"/state", "-C", "1", "-W", "3")
			return bytes.Contains(said, []byte(`"successful"`)) || bytes.Contains(said, []byte(`"failed"`))
		})
		var state fleet.CommandState
		if err := json.Unmarshal(said, &state); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		answers[string(state.State)+" "+string(state.Code)]++
		if state.Code != "" && state.Code != fleet.Crashed && state.Code != fleet.Failed {
			t.Errorf("round %d: %s", round, said)
		}
		_ = k.command.Process.Signal(syscall.SIGTERM)
		_ = k.command.Wait()

		s, err := store.Open(t.Context(), k.state, store.Options{Samples: store.Limits{Bytes: 64e6}})
		if err != nil {
			t.Fatal(err)
		}
		models := s.State.Models
		standing := models.Standing()
		for _, sha := range []string{standing.Base, standing.Active, standing.Candidate} {
			if sha == "" {
				continue
			}
			if err := models.Verify(sha); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if err := s.State.VerifyVerdicts(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if len(s.Alarms) > 0 {
			t.Errorf("round %d: %v", round, s.Alarms)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(k.state, workDir, "*")); len(left) > 0 {
			t.Errorf("round %d: left over %v", round, left)
		}
	}
	t.Logf("%d rounds: %v", rounds, answers)
	if answers["failed crashed"] == 0 {
		t.Error("no kill fell into a run: nothing was tried")
	}
}

// Killed at any moment of a promotion: it starts again with the old or the new model, whole.
func TestPromotionKilled(t *testing.T) {
	rounds := 5
	if os.Getenv("FOVEA_SOAK") != "" {
		rounds = 50
	}
	k := newKilled(t, "mqtt: {listen: \"127.0.0.1:0\"}\n"+strings.Replace(quiet, "auto: false", "auto: false, approval: manual", 1))
	k.start()
	k.wait("the daemon", func() bool { return k.status() != nil })
	if text := runVerbLine(t, 0, "models", "adapt", "--force", "-c", k.config); !strings.Contains(text, "version 1") {
		t.Fatalf("no candidate: %s", text)
	}
	_ = k.command.Process.Signal(syscall.SIGTERM)
	_ = k.command.Wait()
	before := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(before, os.DirFS(k.state)); err != nil {
		t.Fatal(err)
	}

	var took time.Duration // of the first promotion, which is left alone
	lived := map[int64]int{}
	for round := range rounds + 1 {
		if err := errors.Join(os.RemoveAll(k.state), os.CopyFS(k.state, os.DirFS(before)), os.Chmod(k.state, 0o700)); err != nil {
			t.Fatal(err)
		}
		k.start()
		k.wait("the daemon", func() bool { return k.status() != nil })
		promoted := make(chan int, 1)
		began := time.Now()
		go func() {
			promoted <- execute(t.Context(), []string{"models", "promote", "-c", k.config}, io.Discard, io.Discard)
		}()
		if round > 0 {
			time.Sleep(took * time.Duration(round) / time.Duration(rounds))
			_ = k.command.Process.Kill()
			_ = k.command.Wait()
		}
		code := <-promoted
		if round == 0 {
			took = time.Since(began)
			if code != 0 {
				t.Fatalf("the promotion failed: exit %d", code)
			}
			_ = k.command.Process.Kill()
			_ = k.command.Wait()
		}
		k.start()
		k.wait("the daemon again", func() bool { return k.status() != nil })
		version := k.status().Model.Version
		_ = k.command.Process.Signal(syscall.SIGTERM)
		_ = k.command.Wait()
		s, err := store.Open(t.Context(), k.state, store.Options{Samples: store.Limits{Bytes: 64e6}})
		if err != nil {
			t.Fatal(err)
		}
		standing := s.State.Models.Standing()
		live, err := s.State.Models.Get(standing.Active)
		if err = errors.Join(err, s.State.Models.Verify(standing.Active), s.State.Models.Verify(standing.Base), s.State.VerifyVerdicts()); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if version != live.Number || code == 0 && version != 1 || version == 0 && standing.Candidate == "" || len(s.Alarms) > 0 {
			t.Errorf("round %d: the order ended with %d, version %d was live after it, %d stands in the store; %+v, alarms %v", round, code, version, live.Number, standing, s.Alarms)
		}
		lived[version]++
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills in the %v that a promotion takes, and one after it: rounds by the version that was live then: %v", rounds, took.Round(time.Millisecond), lived)
}
