// Interference measures what an adaptation costs the cameras, and the cameras the adaptation: the real daemon watches
// the demonstration's two clips at 2 frames a second each and is told to adapt, and to stop, in turns.
//
//	make demo && go run ./bench/interference
//
// Printed are the median and the 95th percentile of the age of a frame when its answer was there, idle and adapting,
// the frames that were dropped (a newer one came before their turn) beyond those that the pace leaves out, and the
// pictures a second that the head refit takes in, beside the cameras and alone.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/seed-a98b2d25/fovea/adapt"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("interference: ")
	var b bench
	flag.StringVar(&b.fovea, "fovea", "build/bin/fovea", "the daemon's `program`")
	flag.StringVar(&b.demo, "demo", "build/demo", "`folder` of the demonstration, with a fitted model in it")
	flag.IntVar(&b.rounds, "rounds", 4, "times idle, and times adapting")
	flag.DurationVar(&b.phase, "phase", 30*time.Second, "length of each")
	flag.IntVar(&b.samples, "samples", 24, "samples to collect first: a few minutes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	fovea, demo     string
	rounds, samples int
	phase           time.Duration

	dir    string // state and whatever else is left behind
	page   string
	socket *http.Client

	ages    [2][]float64 // seconds: idle, adapting
	dropped [2]uint64
	speeds  []float64 // pictures a second beside the cameras
}

var cameras = []string{"square", "lawn"}

const (
	idle = iota
	adapting
)

func (b *bench) run(ctx context.Context) error {
	var err error
	if b.dir, err = os.MkdirTemp("", "fovea-interference-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir) //nolint:errcheck // a temporary folder
	if b.demo, err = filepath.Abs(b.demo); err != nil {
		return err
	}
	if err := b.beside(ctx); err != nil {
		return err
	}
	alone, err := b.alone(ctx)
	if err != nil {
		return fmt.Errorf("alone: %w", err)
	}
	b.print(alone)
	return nil
}

// beside runs the daemon, idle and adapting in turns.
func (b *bench) beside(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	daemon, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		_ = daemon.Wait()
	}()
	if err := b.collect(ctx); err != nil {
		return err
	}
	for range b.rounds {
		if err := b.watch(ctx, idle); err != nil {
			return err
		}
		if err := b.adapt(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) start(ctx context.Context) (*exec.Cmd, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	listener.Close()
	b.page = "http://" + address
	socket := filepath.Join(b.dir, "fovea.sock")
	b.socket = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	config := fmt.Sprintf(`state_dir: %q
socket: %q
model: {dir: %q}
inference: {fps: 2.17, relevance_every: 3}
cameras:
  - {id: %s, source: %q, loop: true}
  - {id: %s, source: %q, loop: true}
samples: {every: 1s, apart: 0.01, novel: 0.02}
adapt: {auto: false, gate: {least_frames: 1}}
mqtt: {listen: "127.0.0.1:0"}
web: {listen: %q}
`, filepath.Join(b.dir, "state"), socket, filepath.Join(b.demo, "model"),
		cameras[0], filepath.Join(b.demo, cameras[0]+".mp4"), cameras[1], filepath.Join(b.demo, cameras[1]+".mp4"), address)
	file := filepath.Join(b.dir, "fovea.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	said, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer said.Close()
	daemon := exec.CommandContext(ctx, b.fovea, "run", "--config", file)
	daemon.Cancel = func() error { return daemon.Process.Signal(os.Interrupt) }
	daemon.Stdout, daemon.Stderr = said, said
	return daemon, daemon.Start()
}

// state is what the daemon says of its adaptation.
type state struct {
	State string         `json:"state"`
	Ready int            `json:"samples_ready"`
	Stage adapt.Progress `json:"stage"`
}

// collect waits for samples.
func (b *bench) collect(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "collecting samples")
	for until := time.Now().Add(10 * time.Minute); ; {
		var s state
		if err := b.ask(ctx, "GET", "/api/adapt", "", &s); err == nil && s.Ready >= b.samples {
			return nil
		}
		if time.Now().After(until) {
			text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			return fmt.Errorf("%d samples after 10 minutes, want %d; the daemon said:\n%s", s.Ready, b.samples, text)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// ask sends a request to the daemon's socket.
func (b *bench) ask(ctx context.Context, method, path, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://fovea"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := b.socket.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s: %s: %s", path, response.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// adapt starts an adaptation, watches while its head is refitted, and ends it.
func (b *bench) adapt(ctx context.Context) error {
	if err := b.ask(ctx, "POST", "/api/adapt", `{"force": true}`, nil); err != nil {
		return err
	}
	first, err := b.refitting(ctx)
	if err != nil {
		return err
	}
	if err := b.keepRun(); err != nil {
		return err
	}
	began := time.Now()
	if err := b.watch(ctx, adapting); err != nil {
		return err
	}
	var s state
	if err := b.ask(ctx, "GET", "/api/adapt", "", &s); err != nil {
		return err
	}
	if s.Stage.Stage != stage {
		return fmt.Errorf("the refit ended within %v: give a shorter -phase", b.phase)
	}
	b.speeds = append(b.speeds, float64(s.Stage.Done-first)/time.Since(began).Seconds())
	if err := b.ask(ctx, "POST", "/api/cancel", "", nil); err != nil {
		return err
	}
	for s.State != "idle" {
		if err := errors.Join(sleep(ctx, 200*time.Millisecond), b.ask(ctx, "GET", "/api/adapt", "", &s)); err != nil {
			return err
		}
	}
	return nil
}

// stage is the part of a run whose speed is compared: most of the time of the default recipe.
const stage = "refit"

// refitting waits until pictures go into the head and returns how many have.
func (b *bench) refitting(ctx context.Context) (int, error) {
	for {
		var s state
		if err := b.ask(ctx, "GET", "/api/adapt", "", &s); err != nil {
			return 0, err
		}
		if s.Stage.Stage == stage && s.Stage.Done > 0 {
			return s.Stage.Done, nil
		}
		if s.State == "idle" {
			return 0, errors.New("the adaptation ended before it refitted anything")
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// Of a run's work folder, kept for the run alone.
const (
	packFile     = "run.pack"
	settingsFile = "settings.json"
)

// keepRun keeps what the daemon gave its child.
func (b *bench) keepRun() error {
	for _, name := range []string{packFile, settingsFile} {
		text, err := os.ReadFile(filepath.Join(b.dir, "state", "work", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// view is what the page tells of an answer.
type view struct {
	Seq uint64  `json:"seq"`
	Age float64 `json:"age"`
}

// watch notes the age of each answer for the length of a phase, and what was dropped.
func (b *bench) watch(ctx context.Context, what int) error {
	before, err := b.drops(ctx)
	if err != nil {
		return err
	}
	until, cancel := context.WithTimeout(ctx, b.phase)
	defer cancel()
	var mu sync.Mutex
	var g sync.WaitGroup
	for _, camera := range cameras {
		g.Go(func() {
			last := uint64(0)
			for until.Err() == nil {
				var v view
				if b.look(until, camera, last, &v) != nil {
					continue
				}
				mu.Lock()
				if last != 0 {
					b.ages[what] = append(b.ages[what], v.Age)
				}
				mu.Unlock()
				last = v.Seq
			}
		})
	}
	g.Wait()
	after, err := b.drops(ctx)
	b.dropped[what] += after - before
	return err
}

func (b *bench) look(ctx context.Context, camera string, after uint64, v *view) error {
	request, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/api/cameras/%s/view?after=%d", b.page, camera, after), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return json.NewDecoder(response.Body).Decode(v)
}

// drops counts the frames that no camera's turn came for.
func (b *bench) drops(ctx context.Context) (sum uint64, err error) {
	var s struct {
		Health struct {
			Cameras map[string]struct {
				Dropped uint64 `json:"dropped_frames_total"`
			} `json:"cameras"`
		} `json:"health"`
	}
	if err := b.ask(ctx, "GET", "/api/status", "", &s); err != nil {
		return 0, err
	}
	for _, c := range s.Health.Cameras {
		sum += c.Dropped
	}
	return sum, nil
}

// alone runs the same adaptation with nothing beside it and returns its pictures a second.
func (b *bench) alone(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	child := exec.CommandContext(ctx, b.fovea, "adapt", "--pack", filepath.Join(b.dir, packFile), "--settings", filepath.Join(b.dir, settingsFile), "--base", filepath.Join(b.demo, "model"),
		"--out", filepath.Join(b.dir, "alone"), "--lines")
	in, err := child.StdinPipe()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	lines, err := child.StdoutPipe()
	if err != nil {
		return 0, err
	}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cancel()
		_ = child.Wait()
	}()
	var began time.Time
	first := 0
	for scanner := bufio.NewScanner(lines); scanner.Scan(); {
		var p adapt.Progress
		if json.Unmarshal(scanner.Bytes(), &p) != nil || p.Stage != stage || p.Done == 0 {
			continue
		}
		if first == 0 {
			began, first = time.Now(), p.Done
		} else if took := time.Since(began); took >= b.phase/2 {
			return float64(p.Done-first) / took.Seconds(), nil
		}
	}
	return 0, errors.New("it ended before it could be timed: give a shorter -phase")
}

func (b *bench) print(alone float64) {
	fmt.Printf("%d cameras at 2 frames/s, %d phases of %v each\n\n", len(cameras), b.rounds, b.phase)
	fmt.Println("             answers    median        95 %    left out")
	var tail [2]float64
	for what, name := range []string{"idle", "adapting"} {
		ages := b.ages[what]
		slices.Sort(ages)
		tail[what] = stat.Quantile(.95, stat.Empirical, ages, nil)
		fmt.Printf("  %-10s %6d  %6.0f ms   %6.0f ms   %6d frames\n", name, len(ages), 1000*stat.Quantile(.5, stat.Empirical, ages, nil), 1000*tail[what], b.dropped[what])
	}
	beside := stat.Mean(b.speeds, nil)
	fmt.Printf("\n95 %% adapting %.2f x idle; the refit takes %.2f pictures/s beside the cameras, %.2f alone: %.2f of its speed\n",
		tail[adapting]/tail[idle], beside, alone, beside/alone)
}
