package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays several parts: the tests themselves, an RTSP server
// that can be frozen and killed (rtsp_server_test.go), and a grabber that
// misbehaves on request (script_test.go).
const roleVariable = "FOVEA_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "rtsp":
		serveRTSP()
		return
	case "script":
		playScript()
		return
	}
	dir, err := os.MkdirTemp("", "fovea-capture-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	// goleak exits, so the folder is removed by what it calls last.
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

var scratch string // for what is made once: the grabber, clips

// grabber returns the path of a real fovea-grab: the one that FOVEA_GRAB names,
// or one built now.
func realGrabber(t testing.TB) string {
	t.Helper()
	path, err := builtGrabber()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builtGrabber = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("FOVEA_GRAB"); path != "" {
		return filepath.Abs(path)
	}
	shim, err := filepath.Abs("grab/opencv")
	if err != nil {
		return "", err
	}
	path := filepath.Join(scratch, "fovea-grab")
	cmd := exec.Command("go", "build", "-tags", "gocv_specific_modules gocv_videoio", "-o", path, "./grab")
	cmd.Env = append(os.Environ(), "PKG_CONFIG_PATH="+shim)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fovea-grab: %w\n%s\ninstall: g++ pkg-config libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libopencv-videoio-dev", err, out)
	}
	return path, nil
})

// ffmpeg runs ffmpeg with the arguments, the last being a name in scratch, and
// returns that file's path. A clip is made once.
func clip(t testing.TB, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(scratch, name)
	clips.Lock()
	defer clips.Unlock()
	if _, err := os.Stat(path); err == nil {
		return path
	}
	out, err := exec.Command(tool(t, "ffmpeg"), append(append([]string{"-hide_banner", "-loglevel", "error", "-y"}, args...), path)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	return path
}

var clips sync.Mutex

func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed for this test: apt-get install %s", name, name)
	}
	return path
}

// moving is a colourful clip of 4 s in which something always moves: 10 frames
// a second, a key frame each second, as H.264 in mp4.
func moving(t testing.TB) string {
	return clip(t, "moving.mp4", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10", "-t", "4",
		"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10")
}

// open starts a camera on the real grabber (unless cfg names another) that
// logs to the returned buffer and is closed with the test.
func open(t testing.TB, cfg Config) (*Camera, *logBuffer) {
	t.Helper()
	if cfg.Grabber == "" {
		cfg.Grabber = realGrabber(t)
	}
	if cfg.ID == "" {
		cfg.ID = "cam"
	}
	log := &logBuffer{}
	c, err := Open(cfg, Options{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("log of %s:\n%s", cfg.ID, log)
		}
	})
	return c, log
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await polls until the camera's state satisfies ok; patience is generous, as
// it only bounds a test that fails.
func await(t testing.TB, c *Camera, patience time.Duration, what string, ok func(State) bool) State {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		s := c.State()
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("not %s within %v: %+v", what, patience, s)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func running(s State) bool { return s.Phase == Running }

// frame takes the next frame, or fails.
func frame(t testing.TB, c *Camera) Frame {
	t.Helper()
	select {
	case f, ok := <-c.Frames():
		if !ok {
			t.Fatal("the camera is closed")
		}
		return f
	case <-time.After(30 * time.Second):
		t.Fatalf("no frame within 30 s: %+v", c.State())
	}
	return Frame{}
}

// busyness measures what this machine is busy with besides the test, so that a
// limit of time can be tested all the same: how late a sleeper is woken, and
// how many processes share a core.
type busyness struct {
	mu      sync.Mutex
	late    time.Duration // at worst
	running float64       // sum over the samples
	samples float64
}

func watchBusyness(t testing.TB) *busyness {
	b := &busyness{}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		const nap = 50 * time.Millisecond
		for {
			began := time.Now()
			select {
			case <-stop:
				return
			case <-time.After(nap):
			}
			late, running := time.Since(began)-nap, processesRunning()
			b.mu.Lock()
			b.late = max(b.late, late)
			b.running += running
			b.samples++
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return b
}

func (b *busyness) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.late, b.running, b.samples = 0, 0, 0
}

// allow is a limit for something that mostly waits: a few wakes lie on its way.
func (b *busyness) allow(limit time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return limit + 4*b.late
}

// allowWork is a limit for something that computes: it has its share of a core.
func (b *busyness) allowWork(limit time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	crowd := 1.0
	if b.samples > 0 {
		crowd = max(1, b.running/b.samples/float64(runtime.NumCPU()))
	}
	return time.Duration(crowd*float64(limit)) + 4*b.late
}

// processesRunning is how many processes on this machine want a core now; 0
// where the kernel does not tell.
func processesRunning() float64 {
	data, _ := os.ReadFile("/proc/stat")
	_, rest, _ := strings.Cut(string(data), "procs_running ")
	var n float64
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// mustRun fails where frames first to last come faster than wanted, or far
// slower, which a busy machine does not excuse.
func mustRun(t testing.TB, first, last Frame, wanted float64) {
	t.Helper()
	rate := float64(last.Seq-first.Seq) / last.Time.Sub(first.Time).Seconds()
	if rate > 1.1*wanted || rate < wanted/3 {
		t.Errorf("%.2f frames a second, want %v", rate, wanted)
	}
}

// process runs the test binary in another role until the test ends or it is killed.
func process(t testing.TB, role string, env ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a frozen one does not see its stdin close
	if _, err := cmd.StdinPipe(); err != nil {                         // closes when this process dies
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// wants fails unless text holds every part.
func wants(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s %q lacks %q", what, text, p)
		}
	}
}

// By hand it says that it is started by fovea, whatever descriptor 3 is.
func TestGrabberByHand(t *testing.T) {
	words, err := exec.Command(realGrabber(t)).CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 2 || !strings.Contains(string(words), "is started by fovea") {
		t.Errorf("it says %q, %v", words, err)
	}
}
