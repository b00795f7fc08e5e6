package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is promised: a source that is gone is noticed within 3 s, and its frames
// are there again within 10 s of its return.
const (
	noticeLimit = 3 * time.Second
	returnLimit = 10 * time.Second
)

func TestRTSPCameraFreezesDiesAndComesBack(t *testing.T) {
	t.Parallel()
	rounds := 10
	if soaking() {
		rounds = 200
	}
	server := newRTSPCamera(t)
	c, _ := open(t, Config{Source: server.url("/stream")})
	await(t, c, 30*time.Second, "running", running)
	frame(t, c)
	busy := watchBusyness(t)

	var before usage
	var notice, back worst
	for round := range rounds {
		if round == 2 { // what grows once, has grown
			before = measureUsage(t)
		}
		busy.reset()
		began := time.Now()
		freeze := round%3 != 2 // twice in a row, as the second must be noticed as soon
		if freeze {
			server.freeze()
		} else {
			server.kill()
		}
		s := await(t, c, time.Minute, "noticed", func(s State) bool { return s.Phase != Running })
		noticed := s.Since.Sub(began)
		if limit := busy.allow(noticeLimit); noticed > limit {
			t.Errorf("round %d (freeze %v): noticed after %v, limit %v", round, freeze, noticed, limit)
		}
		if freeze && s.Phase != Stalled {
			t.Errorf("round %d: a frozen server is %v (%s), want stalled", round, s.Phase, s.LastError)
		}
		// Now and then it stays away for longer, so that back-off is at work.
		time.Sleep(time.Duration(round%5) * 700 * time.Millisecond)

		busy.reset()
		if freeze {
			server.thaw()
		} else {
			server.start()
		}
		began = time.Now()
		s = await(t, c, time.Minute, "back", running)
		returned := s.Since.Sub(began)
		limit := busy.allowWork(returnLimit)
		if returned > limit {
			t.Errorf("round %d (freeze %v): back after %v, limit %v", round, freeze, returned, limit)
		}
		if returned > returnLimit {
			t.Logf("round %d (freeze %v): back after %v, limit on this busy machine %v; %s", round, freeze, returned, limit, s.LastError)
		}
		notice.add(noticed)
		back.add(returned)
		for range 3 {
			frame(t, c)
		}
	}
	after := measureUsage(t)
	t.Logf("%d rounds: noticed after at most %v, back after at most %v; %v before, %v after; %+v", rounds, notice, back, before, after, c.State())
	if soaking() { // else other tests run beside this one
		after.mustNotExceed(t, before)
	}
}

type worst struct{ time.Duration }

func (w *worst) add(d time.Duration) { w.Duration = max(w.Duration, d) }

// soaking asks for long runs: FOVEA_SOAK=1 go test -run 'Reopening|RTSPCamera' -timeout 60m
func soaking() bool { return os.Getenv("FOVEA_SOAK") == "1" }

// usage is what this process holds.
type usage struct {
	descriptors, children, threads, goroutines int
	resident                                   int64
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d children, %d threads, %d goroutines, %d MiB", u.descriptors, u.children, u.threads, u.goroutines, u.resident>>20)
}

func measureUsage(t testing.TB) usage {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return usage{
		descriptors: len(descriptors), children: len(children(t, os.Getpid())), threads: len(threads),
		goroutines: runtime.NumGoroutine(), resident: residentBytes(os.Getpid()),
	}
}

// mustNotExceed leaves room for a moment's coming and going, such as a grabber
// between two attempts, not for something kept each round.
func (u usage) mustNotExceed(t testing.TB, before usage) {
	t.Helper()
	if u.descriptors > before.descriptors+4 || u.children > before.children+1 || u.goroutines > before.goroutines+4 ||
		u.threads > before.threads+5 || u.resident > before.resident+32<<20 {
		t.Errorf("grown from %v to %v", before, u)
	}
}

// children are the process ids of a process's children, zombies included.
func children(t testing.TB, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, name := range tasks {
		data, _ := os.ReadFile(name) // a thread may be gone by now
		for field := range strings.FieldsSeq(string(data)) {
			if n, err := strconv.Atoi(field); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

func TestRTSPPasswords(t *testing.T) {
	t.Parallel()
	server := newRTSPCamera(t)

	t.Run("right", func(t *testing.T) {
		c, log := open(t, Config{Source: server.url("/locked/stream"), Username: rtspUser, Password: rtspPassword})
		s := await(t, c, 30*time.Second, "running", running)
		for _, file := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.PID, file))
			if err != nil {
				t.Fatal(err)
			}
			if len(data) == 0 {
				t.Errorf("/proc/PID/%s is empty: nothing was looked at", file)
			}
			mustNotLeak(t, file, string(data))
		}
		mustNotLeak(t, "log", log.String())
	})
	t.Run("wrong", func(t *testing.T) {
		c, log := open(t, Config{Source: server.url("/locked/stream"), Username: rtspUser, Password: rtspPassword + "x"})
		s := await(t, c, 30*time.Second, "lost", func(s State) bool { return s.Phase == Lost })
		wants(t, "error", s.LastError, server.address, "password is refused", "correct username and password")
		mustNotLeak(t, "error", s.LastError)
		mustNotLeak(t, "log", log.String())
		time.Sleep(2 * time.Second)
		if s := c.State(); s.Restarts > 0 {
			t.Errorf("%d more attempts within 2 s of a refused password: cameras lock out who does that", s.Restarts)
		}
	})
	t.Run("wrong in the URL", func(t *testing.T) {
		c, log := open(t, Config{Source: "rtsp://viewer:" + "se%3Acr%40t%2Fwrong" + "@" + server.address + "/locked/stream"})
		s := await(t, c, 30*time.Second, "lost", func(s State) bool { return s.Phase == Lost })
		wants(t, "error", s.LastError, "rtsp://viewer:***@"+server.address, "password is refused")
		mustNotLeak(t, "error", s.LastError+s.Source)
		mustNotLeak(t, "log", log.String())
	})
	t.Run("no such stream", func(t *testing.T) {
		c, _ := open(t, Config{Source: server.url("/other")})
		s := await(t, c, 30*time.Second, "lost", func(s State) bool { return s.Phase == Lost })
		wants(t, "error", s.LastError, server.url("/other"), "no such stream", "correct the path")
	})
}

func mustNotLeak(t testing.TB, where, text string) {
	t.Helper()
	for _, secret := range []string{"cr@t", "cr%40t"} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is in the %s: %s", where, text)
		}
	}
}

// TestOneCameraDiesTheOtherDoesNotNotice keeps one camera's server freezing and
// its grabber crashing, and compares the other's frame rate with what it was.
func TestOneCameraDiesTheOtherDoesNotNotice(t *testing.T) {
	t.Parallel()
	good, bad := newRTSPCamera(t), newRTSPCamera(t)
	a, _ := open(t, Config{ID: "good", Source: good.url("/stream")})
	b, _ := open(t, Config{ID: "bad", Source: bad.url("/stream")})
	await(t, a, 30*time.Second, "running", running)
	await(t, b, 30*time.Second, "running", running)

	measure := func(during time.Duration) float64 {
		first := frame(t, a)
		last := first
		for last.Time.Sub(first.Time) < during {
			last = frame(t, a)
		}
		return float64(last.Seq-first.Seq) / last.Time.Sub(first.Time).Seconds()
	}
	measure(2 * time.Second) // past the burst with which a stream begins

	// A busy machine may disturb one measurement; one that the dying camera
	// disturbs is disturbed each time.
	const tries = 3
	for try := 1; ; try++ {
		before := measure(6 * time.Second)
		stop := make(chan struct{})
		died := make(chan int)
		go func() { died <- killAgainAndAgain(b, bad, stop) }()
		during := measure(8 * time.Second)
		close(stop)
		deaths := <-died
		bad.thaw()
		t.Logf("good camera: %.2f frames a second, %.2f while the other died %d times", before, during, deaths)
		if deaths == 0 {
			t.Error("the bad camera never died")
		}
		if ratio := during / before; ratio > 0.95 && ratio < 1.05 {
			break
		} else if try == tries {
			t.Errorf("%.2f frames a second while the other died, %.2f before: %.1f %%", during, before, 100*ratio)
			break
		}
	}
	if s := a.State(); s.Restarts != 0 || s.StallsLastHour != 0 {
		t.Errorf("the good camera was restarted: %+v", s)
	}
}

// killAgainAndAgain crashes a camera's grabber twice a second, and freezes its
// server after the second time. It returns how often the grabber died.
func killAgainAndAgain(c *Camera, server *rtspCamera, stop <-chan struct{}) (deaths int) {
	for {
		if s := c.State(); s.Phase == Running && s.PID != 0 && syscall.Kill(s.PID, syscall.SIGKILL) == nil {
			deaths++
		}
		if deaths == 2 {
			server.freeze()
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-stop:
			return deaths
		}
	}
}
