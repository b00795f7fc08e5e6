package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

const (
	pipeSize     = 1 << 20 // asked of the kernel: a whole frame at 640 pixels
	memoryPeriod = 500 * time.Millisecond
	logLines     = 40   // kept for the explanation of a failure
	logWidth     = 1024 // bytes of a line
	logPerMinute = 60   // lines handed to the log
)

// grabber is one running fovea-grab.
type grabber struct {
	cmd       *exec.Cmd
	stdin     *os.File // the grabber lives while this is open
	frames    *os.File // its messages
	logs      *os.File // what it and its libraries print
	clean     redactor
	around    sync.WaitGroup // the goroutines that read its log and watch its memory
	stopWatch chan struct{}

	mu     sync.Mutex
	killed bool
	rss    int64    // resident bytes
	excess bool     // was killed for its memory
	tail   []string // newest lines as they came, secrets and all
}

// startGrabber starts the child and tells it what to read.
func startGrabber(c Config, clean redactor, log *slog.Logger) (*grabber, error) {
	path, err := findGrabber(c.Grabber)
	if err != nil {
		return nil, err
	}
	request, err := json.Marshal(wire.Request{
		Version: wire.Version, Source: c.Source, Kind: kindNames[KindOf(c.Source)], Username: c.Username, Password: c.Password,
		Transport: c.Transport, Loop: c.Loop, FPS: c.FPS, Privacy: polygons(c.Privacy), MaxSide: c.MaxSide,
		Width: c.Width, Height: c.Height, FourCC: c.FourCC,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}

	// os.Pipe gives nil files with an error, and closing those is harmless.
	stdin, ourStdin, err1 := os.Pipe()
	ourFrames, frames, err2 := os.Pipe()
	ourLog, logs, err3 := os.Pipe()
	defer closeAll(stdin, frames, logs) // the child has them, or nobody
	g := &grabber{stdin: ourStdin, frames: ourFrames, logs: ourLog, clean: clean, stopWatch: make(chan struct{})}
	if err := errors.Join(err1, err2, err3); err != nil {
		closeAll(g.stdin, g.frames, g.logs)
		return nil, fmt.Errorf("make the pipes to the grabber: %w", err)
	}
	// Fewer wake-ups a frame; where the system refuses it works all the same.
	_, _ = unix.FcntlInt(frames.Fd(), unix.F_SETPIPE_SZ, pipeSize)

	g.cmd = exec.Command(path)
	g.cmd.Stdin, g.cmd.Stdout, g.cmd.Stderr = stdin, logs, logs
	g.cmd.ExtraFiles = []*os.File{frames} // descriptor 3
	g.cmd.Env = environment(os.Environ())
	// Its own process group: a Ctrl-C in a terminal is for the daemon, and what
	// the grabber starts (GStreamer's plugin scanner) goes with it.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		closeAll(g.stdin, g.frames, g.logs)
		return nil, fmt.Errorf("start %s: %w; is it the fovea-grab of this machine, and executable?", path, err)
	}
	g.around.Go(func() { g.readLog(log) })
	g.around.Go(func() { g.watchMemory(c.MemoryLimit) })
	// One line fits into an empty pipe; a child that died already is noticed when it is read.
	_ = g.stdin.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = g.stdin.Write(append(request, '\n'))
	return g, nil
}

// environment adds to the daemon's what OpenCV and GStreamer read when they are loaded.
func environment(env []string) []string {
	env = append(env, fmt.Sprintf("OPENCV_IO_MAX_IMAGE_PIXELS=%d", wire.MaxPixels))
	if os.Getenv("OPENCV_FFMPEG_LOGLEVEL") == "" {
		env = append(env, "OPENCV_FFMPEG_LOGLEVEL=24") // warnings: a refused password over HTTP is one
	}
	if os.Getenv("GOTRACEBACK") == "" {
		env = append(env, "GOTRACEBACK=none") // a crash in C says its signal, without a page of Go's stacks
	}
	if os.Getenv("GST_DEBUG") == "" {
		env = append(env, "GST_DEBUG=1", "GST_DEBUG_NO_COLOR=1") // errors: what a pipeline lacks
	}
	return env
}

// stop kills the child, waits for it and for the goroutines around it, and
// returns how it ended: nil, or why it was not a clean exit.
func (g *grabber) stop() error {
	close(g.stopWatch)
	g.kill()
	err := g.cmd.Wait()
	// Everything is written by now; whoever else holds the pipe is not waited for.
	_ = g.logs.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	g.around.Wait()
	closeAll(g.stdin, g.frames, g.logs)
	return err
}

// exited waits a moment for a child that closed its pipe to be gone by itself,
// so that its own end is seen and not the kill of stop.
func (g *grabber) exited() {
	for range 50 {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, g.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil || info.Signo != 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// kill ends the child's process group at once; from any goroutine. Only the
// first call does, while the child is surely not reaped and its number its own.
func (g *grabber) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.killed {
		g.killed = true
		_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) // gone already is as good
	}
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// watchMemory kills the child when its resident memory passes limit bytes.
func (g *grabber) watchMemory(limit int64) {
	tick := time.NewTicker(memoryPeriod)
	defer tick.Stop()
	for {
		rss := residentBytes(g.cmd.Process.Pid)
		g.mu.Lock()
		g.rss = rss
		g.excess = g.excess || rss > limit
		excess := g.excess
		g.mu.Unlock()
		if excess {
			g.kill()
			return
		}
		select {
		case <-tick.C:
		case <-g.stopWatch:
			return
		}
	}
}

// residentBytes reads /proc; 0 for a process that is gone.
func residentBytes(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(data), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}

func (g *grabber) memory() (rss int64, excess bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rss, g.excess
}

// readLog keeps the newest lines that the child and its libraries wrote and
// hands a bounded number of them to the log. A decoder can complain thousands
// of times a second, so little is done for a line.
func (g *grabber) readLog(log *slog.Logger) {
	in := bufio.NewReaderSize(g.logs, logWidth)
	minute, passed, lines := time.Now(), 0, 0
	for {
		text, err := readLine(in)
		if err != nil {
			return
		}
		if text == "" {
			continue
		}
		g.mu.Lock()
		if g.tail = append(g.tail, text); len(g.tail) > logLines {
			g.tail = g.tail[1:]
		}
		g.mu.Unlock()
		if lines++; lines <= logLines { // what is hopeless shows at the start
			if _, react, _ := explain([]string{text}); react == hopeless {
				g.kill()
			}
		}
		if time.Since(minute) > time.Minute {
			minute, passed = time.Now(), 0
		}
		if passed++; passed <= logPerMinute {
			log.Debug("grabber", "says", g.clean.clean(text))
		}
	}
}

// readLine reads a line and drops what is beyond the reader's buffer, back to
// the last space: half a password would not be known as one.
func readLine(in *bufio.Reader) (string, error) {
	line, more, err := in.ReadLine()
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(line), "?"))
	if more {
		text = text[:max(0, strings.LastIndexByte(text, ' '))] + " ..."
	}
	for more && err == nil {
		_, more, err = in.ReadLine()
	}
	return text, nil
}

// log is the newest lines without secrets; complete after stop.
func (g *grabber) log() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	lines := make([]string, len(g.tail))
	for i, line := range g.tail {
		lines[i] = g.clean.clean(line)
	}
	return lines
}

const grabberName = "fovea-grab"

// findGrabber returns the path of the grabber: the configured one, or the one
// beside the running program, or the one in PATH.
func findGrabber(configured string) (string, error) {
	if configured != "" {
		if _, err := os.Stat(configured); err != nil {
			return "", fmt.Errorf("grabber %s cannot be used: %w; correct grabber, or leave it out to use the one beside this program", configured, errors.Unwrap(err))
		}
		return configured, nil
	}
	program, err := os.Executable()
	if err == nil {
		if program, err = filepath.EvalSymlinks(program); err == nil {
			beside := filepath.Join(filepath.Dir(program), grabberName)
			if _, err := os.Stat(beside); err == nil {
				return beside, nil
			}
		}
	}
	path, err := exec.LookPath(grabberName)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside %s nor in PATH; install it, or name it in grabber", grabberName, program)
	}
	return path, nil
}

var kindNames = map[Kind]string{KindPath: "path", KindStream: "stream", KindDevice: "device", KindPipeline: "pipeline"}

func polygons(p []Polygon) [][][2]float64 {
	all := make([][][2]float64, len(p))
	for i := range p {
		all[i] = p[i]
	}
	return all
}
