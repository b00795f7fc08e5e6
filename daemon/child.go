package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// trainer is a child process that adapts: this program again, on time that nobody else wants. It can crash, hang or
// take too much memory without the cameras noticing.
type trainer struct {
	arguments   []string
	program     string   // "" is this one
	environment []string // beside this process's
	memory      int64    // most resident bytes; 0: no limit
	limit       time.Duration
	silence     time.Duration // longest time without a sign of progress; its pauses, and computing or waiting for a processor, do not count
	busy        float64       // share of the time that it may run, 0..1; the rest it is stopped
	hold        func() string // why it has to pause now; "" it may run
	progress    func(adapt.Progress)
	paused      func(why string) // told when it changes
	log         *slog.Logger
}

// Errors of a child, for people; each ends the run.
var (
	errTrainerMemory = errors.New("the adaptation took more memory than adapt.memory_megabytes allows")
	errTrainerTime   = errors.New("the adaptation took longer than adapt.limit allows")
	errTrainerHangs  = errors.New("the adaptation made no progress and was ended")
)

const (
	watchTrainer = 100 * time.Millisecond
	dutyPeriod   = time.Second
)

// run starts the child and waits for its end.
func (t *trainer) run(ctx context.Context) error {
	program := t.program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	child := exec.Command(program, t.arguments...)
	child.Env = append(append(os.Environ(), model.LargePages), t.environment...)
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := child.StdinPipe() // its end tells the child that this process is gone
	if err != nil {
		return err
	}
	defer in.Close()
	lines, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	said := &lastBytes{limit: 4096}
	child.Stderr = said
	if err := startIdle(child); err != nil {
		return fmt.Errorf("start the adaptation: %w", err)
	}
	pid := child.Process.Pid
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0o644); err != nil {
		t.log.Debug("the adaptation keeps its oom score", "error", err)
	}

	steps := make(chan adapt.Progress, 16) // a pipe waits, so may this
	go func() {
		defer close(steps)
		scanner := bufio.NewScanner(lines)
		for scanner.Scan() {
			var p adapt.Progress
			if json.Unmarshal(scanner.Bytes(), &p) == nil {
				steps <- p
			}
		}
		_, _ = io.Copy(io.Discard, lines)
	}()
	why := t.watch(ctx, pid, steps)
	if why != nil {
		kill(pid)
	}
	for range steps {
	}
	ended := child.Wait()
	switch {
	case why != nil:
		return why
	case ended == nil:
		return nil
	}
	var exit *exec.ExitError
	if errors.As(ended, &exit) && exit.ExitCode() == exitFailure { // it said why
		return errors.New(strings.TrimPrefix(said.lastLine(), "fovea: adapt: "))
	}
	return fmt.Errorf("the adaptation crashed (%w): %s", ended, said.lastLine())
}

// watch returns nil when the child ends by itself, else why it has to end.
func (t *trainer) watch(ctx context.Context, pid int, steps <-chan adapt.Progress) error {
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	tick := time.NewTicker(watchTrainer)
	defer tick.Stop()
	var (
		began   = time.Now()
		ran     time.Duration // since the last sign of progress
		holding string
		stopped bool
	)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p, open := <-steps:
			if !open {
				return nil
			}
			ran = 0
			t.progress(p)
		case now := <-tick.C:
			if resident := residentOf(pid); t.memory > 0 && resident > t.memory {
				return fmt.Errorf("%w: it had %d MB", errTrainerMemory, resident>>20)
			}
			if t.limit > 0 && now.Sub(began) > t.limit {
				return errTrainerTime
			}
			why := t.hold()
			if why != holding {
				holding = why
				t.paused(why)
			}
			phase := float64(now.Sub(began)%dutyPeriod) / float64(dutyPeriod)
			if stop := why != "" || t.busy < 1 && phase >= t.busy; stop != stopped {
				stopped = stop
				signal := syscall.SIGCONT
				if stop {
					signal = syscall.SIGSTOP
				}
				_ = syscall.Kill(pid, signal)
			}
			if !stopped && !waitsForProcessor(pid) {
				if ran += watchTrainer; t.silence > 0 && ran > t.silence {
					return fmt.Errorf("%w after %v", errTrainerHangs, t.silence)
				}
			}
		}
	}
}

// startIdle starts the child with the scheduling class that runs only where nobody else wants to. A process gets
// the class of the thread that starts it; that thread is thrown away.
func startIdle(child *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		started <- child.Start()
	}()
	return <-started
}

// waitsForProcessor says whether a thread of the process computes or would: on a busy machine that may take long, and
// is no hang.
func waitsForProcessor(pid int) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		if _, rest, found := strings.Cut(string(text), ") "); found && strings.HasPrefix(rest, "R") {
			return true
		}
	}
	return false
}

func kill(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// residentOf is the resident memory of a process in bytes; 0 where it is gone.
func residentOf(pid int) int64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	limit int
	text  []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.text = append(l.text, p...)
	if over := len(l.text) - l.limit; over > 0 {
		l.text = l.text[over:]
	}
	return len(p), nil
}

func (l *lastBytes) lastLine() string {
	text := bytes.TrimSpace(l.text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
