package capture

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

// playScript is a grabber that does what the name of its source says.
func playScript() {
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	var req wire.Request
	if err == nil {
		err = json.Unmarshal(line, &req)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "script:", err)
		os.Exit(1)
	}
	out := os.NewFile(3, "frames")
	w := wire.NewWriter(out)
	const side = 64
	seq := uint64(0)
	send := func(skip uint64) {
		seq += 1 + skip
		f := wire.Frame{Seq: seq, Mono: monotonic(), Width: side, Height: side, RGB: bytes.Repeat([]byte{byte(seq)}, side*side*3)}
		if err := w.Send(&f); err != nil {
			os.Exit(1)
		}
	}
	hello := func(fps float64) { _ = w.Send(wire.Hello{Backend: "script", FPS: fps}) }

	switch filepath.Base(req.Source) {
	case "crash": // after a few frames, by a signal
		hello(50)
		for range 5 {
			send(0)
			time.Sleep(20 * time.Millisecond)
		}
		fmt.Fprintln(os.Stderr, "about to crash")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hang": // deaf to stdin as well
		hello(50)
		for range 5 {
			send(0)
			time.Sleep(20 * time.Millisecond)
		}
		select {}
	case "leak":
		hello(50)
		for kept := [][]byte(nil); ; {
			kept = append(kept, bytes.Repeat([]byte{1}, 8<<20))
			send(0)
			time.Sleep(20 * time.Millisecond)
			runtime.KeepAlive(kept)
		}
	case "noise":
		hello(50)
		send(0)
		_, _ = out.Write(bytes.Repeat([]byte("not the protocol "), 1000))
		select {}
	case "future":
		hello(50)
		_ = w.Send(&wire.Frame{Seq: 1, Mono: monotonic() + int64(time.Hour), Width: 1, Height: 1, RGB: []byte{1, 2, 3}})
		select {}
	case "huge": // a frame larger than was asked for
		hello(50)
		_ = w.Send(&wire.Frame{Seq: 1, Mono: monotonic(), Width: 4096, Height: 1, RGB: make([]byte, 4096*3)})
		select {}
	case "silent exit":
		os.Exit(3)
	case "no library":
		fmt.Fprintln(os.Stderr, "fovea-grab: error while loading shared libraries: libopencv_videoio.so.406: cannot open shared object file")
		os.Exit(127)
	case "count": // as fast as it can, with gaps
		hello(0)
		for i := range 2000 {
			send(uint64(i % 3))
		}
		_ = w.Send(wire.End{})
	case "chatty": // 4 MB of log with the password in it, then a fault
		for range 40000 {
			fmt.Fprintf(os.Stderr, "cannot open rtsp://u:%s@host/ at all, %s\n", req.Password, strings.Repeat("x", 50))
		}
		_ = w.Send(wire.Fault{Text: "cannot open rtsp://u:" + req.Password + "@host/"})
	case "slow": // a burst, then long intervals: no stall
		hello(25)
		for i := range 10 {
			send(0)
			if i >= 4 {
				time.Sleep(3500 * time.Millisecond)
			}
		}
		select {}
	case "two": // one grabber crashes after 2 frames, the next goes on
		hello(10)
		send(0)
		send(3)
		os.Exit(1)
	case "children": // has a child of its own that outlives it, unless its whole group goes
		hello(10)
		if p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr}}); err == nil {
			_ = w.Send(wire.Note{Text: fmt.Sprint(p.Pid)})
		}
		for {
			send(0)
			time.Sleep(20 * time.Millisecond)
		}
	default:
		_ = w.Send(wire.Fault{Text: "no such script: " + req.Source, Explained: true})
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// scripted is a configuration whose grabber plays a script.
func scripted(t testing.TB, script string) Config {
	t.Helper()
	path, err := scriptedGrabber()
	if err != nil {
		t.Fatal(err)
	}
	source := "/script/" + script
	return Config{ID: strings.ReplaceAll(script, " ", "-"), Source: source, Grabber: path}
}

// scriptedGrabber is the test binary in another role, under a name of its own.
var scriptedGrabber = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "scripted-grab")
	return path, os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\n%s=script exec '%s'\n", roleVariable, os.Args[0]), 0o755)
})

func TestGrabberCrashes(t *testing.T) {
	t.Parallel()
	c, _ := open(t, scripted(t, "crash"))
	s := await(t, c, 30*time.Second, "restarted twice with frames", func(s State) bool { return s.Restarts >= 2 && s.Frames > 10 })
	wants(t, "error", s.LastError, "/script/crash", "ended unasked", "signal: killed", "starts again", "about to crash")
	if s.RestartsLastHour != int(s.Restarts) || s.StallsLastHour != 0 {
		t.Errorf("%+v", s)
	}
}

func TestGrabberHangs(t *testing.T) {
	t.Parallel()
	busy := watchBusyness(t)
	c, _ := open(t, scripted(t, "hang"))
	s := await(t, c, 30*time.Second, "stalled", func(s State) bool { return s.Phase == Stalled })
	if silent := s.Since.Sub(s.LastFrame); silent < leastStall-50*time.Millisecond || silent > busy.allow(noticeLimit) {
		t.Errorf("stalled %v after the last frame, want %v to %v", silent, leastStall, noticeLimit)
	}
	wants(t, "error", s.LastError, "/script/hang", "no picture for 2.5 s")
	pid := s.PID
	s = await(t, c, 30*time.Second, "running again", func(s State) bool { return running(s) && s.Restarts == 1 })
	if s.StallsLastHour != 1 || s.PID == pid {
		t.Errorf("%+v, before %d", s, pid)
	}
}

func TestGrabberThatGrowsIsStopped(t *testing.T) {
	t.Parallel()
	cfg := scripted(t, "leak")
	cfg.MemoryLimit = 300 << 20
	c, _ := open(t, cfg)
	var most int64
	s := await(t, c, time.Minute, "restarted", func(s State) bool {
		most = max(most, s.MemoryBytes)
		return s.Restarts >= 1
	})
	wants(t, "error", s.LastError, "more than 300 MiB", "raise memory_limit")
	if most < cfg.MemoryLimit/2 {
		t.Errorf("State.MemoryBytes reached only %d", most)
	}
}

func TestGrabberThatBreaksTheProtocolIsRefused(t *testing.T) {
	t.Parallel()
	for script, says := range map[string]string{
		"noise":  "header starts with",
		"future": "frame from the future",
		"huge":   "sides must be 1 to 640",
	} {
		t.Run(script, func(t *testing.T) {
			c, _ := open(t, scripted(t, script))
			s := await(t, c, 30*time.Second, "restarted", func(s State) bool { return s.Restarts >= 1 })
			wants(t, "error", s.LastError, "corrupt stream", says)
		})
	}
}

func TestGrabberThatCannotStart(t *testing.T) {
	t.Parallel()
	lost := func(s State) bool { return s.Phase == Lost }
	for script, says := range map[string][]string{
		"silent exit": {"ended unasked", "exit status 3"},
		"no library":  {"libopencv_videoio.so.406 is not installed", "install OpenCV"},
	} {
		c, _ := open(t, scripted(t, script))
		wants(t, script, await(t, c, 30*time.Second, "lost", lost).LastError, says...)
	}

	c, _ := open(t, Config{ID: "missing", Source: "/x", Grabber: "/nowhere/fovea-grab"})
	wants(t, "missing", await(t, c, 30*time.Second, "lost", lost).LastError, "/nowhere/fovea-grab", "no such file", "correct grabber")

	notProgram := filepath.Join(t.TempDir(), "fovea-grab")
	if err := os.WriteFile(notProgram, []byte("text"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, _ = open(t, Config{ID: "text", Source: "/x", Grabber: notProgram})
	wants(t, "text", await(t, c, 30*time.Second, "lost", lost).LastError, notProgram, "exec format error")
}

// TestEveryPictureIsCounted: taken + dropped + waiting is exactly what the
// grabber took from its source.
func TestEveryPictureIsCounted(t *testing.T) {
	t.Parallel()
	c, _ := open(t, scripted(t, "count"))
	var taken, last uint64
	take := func(f Frame) {
		if f.Seq <= last {
			t.Errorf("frame %d after %d", f.Seq, last)
		}
		if want := byte(f.Seq); f.RGB[0] != want || f.RGB[len(f.RGB)-1] != want {
			t.Errorf("frame %d holds the pixels of another: %d", f.Seq, f.RGB[0])
		}
		taken, last = taken+1, f.Seq
	}
	for ended := false; !ended; {
		select {
		case f := <-c.Frames():
			take(f)
			time.Sleep(time.Duration(taken%7) * 100 * time.Microsecond)
		default:
			ended = c.State().Phase == Ended
		}
	}
	select { // the newest waits, whatever happened before
	case f := <-c.Frames():
		take(f)
	default:
	}
	s := c.State()
	const sent, total = 2000, 2000 + 666*(0+1+2) + 0 + 1
	if s.Frames != total || last != total {
		t.Errorf("%d pictures, the last taken was %d, want %d", s.Frames, last, total)
	}
	if taken+s.Dropped != total {
		t.Errorf("%d taken + %d dropped, want %d", taken, s.Dropped, total)
	}
	if s.Dropped < total-sent {
		t.Errorf("%d dropped, the grabber alone dropped %d", s.Dropped, total-sent)
	}
}

func TestSequenceGoesOnOverRestarts(t *testing.T) {
	t.Parallel()
	c, _ := open(t, scripted(t, "two"))
	s := await(t, c, 30*time.Second, "restarted", func(s State) bool { return s.Restarts >= 2 && s.Frames >= 15 })
	if s.Frames%5 != 0 {
		t.Errorf("%d pictures, want 5 from each grabber", s.Frames)
	}
	if f := frame(t, c); f.Seq%5 != 0 && f.Seq%5 != 1 {
		t.Errorf("frame %d", f.Seq)
	}
}

func TestLogOfTheGrabberIsBoundedAndRedacted(t *testing.T) {
	t.Parallel()
	cfg := scripted(t, "chatty")
	cfg.Source, cfg.Username, cfg.Password = "http://host/script/chatty", "u", "s3cret/password"
	c, log := open(t, cfg)
	s := await(t, c, 30*time.Second, "lost", func(s State) bool { return s.Phase == Lost })
	wants(t, "error", s.LastError, "http://host/script/chatty", "rtsp://u:***@host/")
	if strings.Contains(s.LastError+log.String(), "s3cret") {
		t.Errorf("the password shows: %s\n%.2000s", s.LastError, log)
	}
	if n := strings.Count(log.String(), "says="); n == 0 || n > logPerMinute {
		t.Errorf("%d lines of the grabber's in the log, want 1 to %d", n, logPerMinute)
	}
}

func TestLongLinesAreCutWhereNoSecretIs(t *testing.T) {
	long := strings.Repeat("x", 1000)
	in := bufio.NewReaderSize(strings.NewReader("one \xff\n\n"+long+" rtsp://u:secretsecretsecret@h/\n"+long+long+"\nlast"), logWidth)
	for _, want := range []string{"one ?", "", long + " ...", " ...", "last"} {
		if got, err := readLine(in); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := readLine(in); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestSlowSourceIsNotTakenForAStall(t *testing.T) {
	t.Parallel()
	// A burst of five, then one every 3.5 s: three grabbers are judged by the
	// burst, the fourth is given time.
	c, _ := open(t, scripted(t, "slow"))
	s := await(t, c, time.Minute, "given three slow frames", func(s State) bool { return s.Frames >= 4*5+3 })
	if s.Restarts > mostHasty {
		t.Errorf("restarted %d times: %+v", s.Restarts, s)
	}
}

// TestReopeningKeepsNothing is not parallel, so that it can count exactly.
func TestReopeningKeepsNothing(t *testing.T) {
	reopen := func(times int) {
		for range times {
			c, err := Open(scripted(t, "two"), Options{Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			frame(t, c)
			c.Close()
		}
	}
	reopen(5) // what grows once, has grown
	before := measureUsage(t)
	times := 60
	if soaking() {
		times = 1000
	}
	reopen(times)
	after := measureUsage(t)
	t.Logf("%d reopenings: %v before, %v after", times, before, after)
	after.mustNotExceed(t, before)
}

func TestCloseEndsTheWholeGroup(t *testing.T) {
	t.Parallel()
	c, _ := open(t, scripted(t, "children"))
	await(t, c, 30*time.Second, "running", running)
	s := await(t, c, 30*time.Second, "telling its child's id", func(s State) bool { return s.LastError != "" })
	var grandchild int
	if _, err := fmt.Sscan(s.LastError, &grandchild); err != nil || syscall.Kill(grandchild, 0) != nil {
		t.Fatalf("no grandchild %q: %v", s.LastError, err)
	}
	began := time.Now()
	c.Close()
	t.Logf("closed in %v", time.Since(began))
	if s := c.State(); s.Phase != Closed || s.PID != 0 {
		t.Errorf("%+v", s)
	}
	if syscall.Kill(s.PID, 0) == nil {
		t.Error("the grabber lives")
	}
	for end := time.Now().Add(10 * time.Second); alive(grandchild); {
		if time.Now().After(end) {
			t.Fatal("the grabber's own child lives")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for range c.Frames() { // closed, so this ends
	}
	c.Close() // again is no fault
}

// alive tells a running process from one that is gone or waits to be reaped.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return rest != "" && rest[0] != 'Z'
}

func TestWakeIsSentForFramesAndPhases(t *testing.T) {
	t.Parallel()
	wake := make(chan struct{}, 1)
	c, err := Open(scripted(t, "two"), Options{Wake: wake})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for got := 0; got < 2; {
		select {
		case <-wake:
		case <-time.After(30 * time.Second):
			t.Fatalf("no wake, state %+v", c.State())
		}
		select {
		case <-c.Frames():
			got++
		default:
		}
	}
}
