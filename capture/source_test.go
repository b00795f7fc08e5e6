package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func ended(s State) bool { return s.Phase == Ended }
func lost(s State) bool  { return s.Phase == Lost }

func TestFilesArePacedAndEnd(t *testing.T) {
	t.Parallel()
	avi := clip(t, "moving.avi", "-i", moving(t), "-c:v", "mjpeg", "-q:v", "3")
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(avi))))
	t.Cleanup(server.Close)
	for name, source := range map[string]string{"mp4": moving(t), "avi": avi, "mp4 over http": server.URL + "/moving.mp4"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := open(t, Config{Source: source})
			first := frame(t, c)
			last := first
			for last.Seq < 39 {
				last = frame(t, c)
			}
			if first.Width != 320 || first.Height != 240 || len(first.RGB) != 320*240*3 {
				t.Errorf("frame of %d x %d in %d bytes", first.Width, first.Height, len(first.RGB))
			}
			mustRun(t, first, last, 10)
			s := await(t, c, 30*time.Second, "ended", ended)
			if s.Frames != 40 || s.LastError != "" || s.Restarts != 0 || s.StallsLastHour != 0 {
				t.Errorf("%+v, want 40 frames and no fault", s)
			}
			if last.Motion.Width != 40 || last.Motion.Height != 30 || last.Motion.Share() == 0 {
				t.Errorf("motion %d x %d, share %.3f", last.Motion.Width, last.Motion.Height, last.Motion.Share())
			}
		})
	}
}

func TestLoopAndLimit(t *testing.T) {
	t.Parallel()
	c, _ := open(t, Config{Source: moving(t), Loop: true, FPS: 4})
	first := frame(t, c)
	last := first
	for last.Seq < 25 { // 16 a round of 4 s
		last = frame(t, c)
	}
	mustRun(t, first, last, 4)
	if s := c.State(); s.Phase != Running || s.Restarts != 0 || s.LastError != "" || s.Quality != OK {
		t.Errorf("%+v", s)
	}
}

func TestLimitOnAStream(t *testing.T) {
	t.Parallel()
	camera := newMJPEGCamera(t)
	c, _ := open(t, Config{Source: camera.url(), FPS: 5})
	first := frame(t, c)
	for first.Seq < 5 { // past FFmpeg's first burst
		first = frame(t, c)
	}
	last := first
	for last.Seq < first.Seq+20 {
		last = frame(t, c)
	}
	mustRun(t, first, last, 5)
}

// mjpegCamera serves multipart JPEGs over HTTP, 20 a second, each showing its number.
type mjpegCamera struct {
	server  *httptest.Server
	frozen  atomic.Bool
	shown   atomic.Int64 // number of the newest picture sent
	readers atomic.Int64
}

func newMJPEGCamera(t testing.TB) *mjpegCamera {
	m := &mjpegCamera{}
	m.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); r.URL.Path == "/locked" && !(ok && user == rtspUser && password == rtspPassword) {
			w.Header().Set("WWW-Authenticate", `Basic realm="camera"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		m.readers.Add(1)
		defer m.readers.Add(-1)
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
			if m.frozen.Load() {
				continue
			}
			data := numbered(int(m.shown.Add(1)))
			if _, err := fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(data), data); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}))
	t.Cleanup(m.server.Close)
	return m
}

func (m *mjpegCamera) url() string { return m.server.URL + "/video.mjpg" }

// numbered is a JPEG that shows the 16 bits of n as black and white squares.
func numbered(n int) []byte {
	img := image.NewGray(image.Rect(0, 0, 256, 64))
	for bit := range 16 {
		for i := range 16 * 64 {
			img.SetGray(bit*16+i%16, i/16, color.Gray{Y: uint8(n>>bit&1) * 255})
		}
	}
	var b bytes.Buffer
	_ = jpeg.Encode(&b, img, nil) // to memory, of a size that JPEG takes
	return b.Bytes()
}

// number reads it back.
func number(f Frame) int {
	n := 0
	for bit := range 16 {
		if f.RGB[3*(32*f.Width+bit*16+8)] > 127 {
			n |= 1 << bit
		}
	}
	return n
}

func TestSlowReaderOfALiveSourceGetsTheNewestFrame(t *testing.T) {
	t.Parallel()
	camera := newMJPEGCamera(t)
	c, _ := open(t, Config{Source: camera.url()})
	frame(t, c)
	busy := watchBusyness(t)
	time.Sleep(2 * time.Second) // past FFmpeg's first burst
	behind := 1 << 16
	for range 5 {
		time.Sleep(500 * time.Millisecond) // ten pictures
		frame(t, c)                        // lies in the slot for up to 50 ms
		behind = min(behind, int(camera.shown.Load())-number(frame(t, c)))
	}
	// Five rounds, the best counts: a queue would be behind in each.
	if most := int(busy.allowWork(200*time.Millisecond) / (50 * time.Millisecond)); behind > most {
		t.Errorf("the newest frame is %d pictures old, want at most %d", behind, most)
	}
	if s := c.State(); s.Dropped < 30 {
		t.Errorf("%d pictures dropped by a reader that left out nine of ten", s.Dropped)
	}
}

func TestMJPEGCameraFreezesAndComesBack(t *testing.T) {
	t.Parallel()
	// A frozen camera is noticed as soon where few of its pictures are wanted.
	for _, fps := range []float64{0, 0.3} {
		t.Run(fmt.Sprint(fps), func(t *testing.T) {
			t.Parallel()
			camera := newMJPEGCamera(t)
			c, _ := open(t, Config{Source: camera.url(), FPS: fps})
			await(t, c, 30*time.Second, "running", running)
			for first := camera.shown.Load(); camera.shown.Load() < first+100; { // five seconds
				time.Sleep(10 * time.Millisecond)
			}
			if s := c.State(); s.Restarts != 0 || s.Phase != Running {
				t.Errorf("%+v", s)
			}
			busy := watchBusyness(t)
			began := time.Now()
			camera.frozen.Store(true)
			s := await(t, c, 30*time.Second, "stalled", func(s State) bool { return s.Phase == Stalled })
			if noticed := s.Since.Sub(began); noticed > busy.allow(noticeLimit) {
				t.Errorf("noticed after %v", noticed)
			}
			busy.reset()
			began = time.Now()
			camera.frozen.Store(false)
			if returned := await(t, c, 30*time.Second, "running", running).Since.Sub(began); returned > busy.allowWork(returnLimit) {
				t.Errorf("back after %v", returned)
			}
			if n := camera.readers.Load(); n > 3 {
				t.Errorf("%d connections are open to the camera", n)
			}
		})
	}
}

func TestHTTPPassword(t *testing.T) {
	t.Parallel()
	camera := newMJPEGCamera(t)
	right, _ := open(t, Config{ID: "right", Source: camera.server.URL + "/locked", Username: rtspUser, Password: rtspPassword})
	wrong, log := open(t, Config{ID: "wrong", Source: camera.server.URL + "/locked", Username: rtspUser, Password: rtspPassword + "x"})
	await(t, right, 30*time.Second, "running", running)
	s := await(t, wrong, 30*time.Second, "lost", lost)
	wants(t, "error", s.LastError, camera.server.URL+"/locked", "password is refused")
	mustNotLeak(t, "log", log.String()+s.LastError)
}

func TestPipeline(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"sink added": "videotestsrc pattern=ball ! video/x-raw,width=320,height=240,framerate=20/1",
		"own sink":   "gst:videotestsrc pattern=ball is-live=true ! video/x-raw,width=320,height=240,framerate=20/1 ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1",
		"grey":       "videotestsrc pattern=ball is-live=true ! video/x-raw,format=GRAY8,width=320,height=240,framerate=20/1 ! appsink drop=true max-buffers=1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := open(t, Config{Source: source})
			s := await(t, c, 60*time.Second, "running or lost", func(s State) bool { return s.Phase != Connecting })
			if strings.Contains(s.LastError, "no element") {
				t.Fatalf("install gstreamer1.0-plugins-base: %s", s.LastError)
			}
			first := frame(t, c)
			last := first
			for last.Seq < first.Seq+40 {
				last = frame(t, c)
			}
			mustRun(t, first, last, 20)
			if last.Width != 320 || last.Height != 240 {
				t.Errorf("%d x %d", last.Width, last.Height)
			}
		})
	}
}

func TestFolderShowsPicturesInOrderAndSkipsWhatIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	whole := noise(t, 1200, 600)
	put("1.jpg", numbered(1))
	put("2-text.jpg", []byte("this is no picture"))
	put("3-empty.png", nil)
	put("4.JPG", numbered(4))
	put("5-truncated.png", whole[:len(whole)/3])
	put("6-bomb.png", bomb(60000, 60000))
	put("7.png", whole)
	put("notes.txt", []byte("not looked at"))
	if err := os.Mkdir(filepath.Join(dir, "folder.jpg"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "8-endless.jpg")); err != nil {
		t.Fatal(err)
	}

	t.Run("once", func(t *testing.T) {
		c, _ := open(t, Config{Source: dir, FPS: 5})
		var shown []string
		for len(shown) < 3 {
			f := frame(t, c)
			if f.Width == 256 {
				shown = append(shown, fmt.Sprint(number(f)))
			} else {
				shown = append(shown, fmt.Sprintf("%d x %d", f.Width, f.Height))
			}
			if f.Quality != OK || f.Motion.Mask != nil {
				t.Errorf("%v, motion %d x %d", f.Quality, f.Motion.Width, f.Motion.Height)
			}
		}
		if got := strings.Join(shown, ", "); got != "1, 4, 640 x 320" {
			t.Errorf("shown: %s", got)
		}
		s := await(t, c, 30*time.Second, "ended", ended)
		if s.BadFrames != 5 || s.Frames != 3 || s.Restarts != 0 {
			t.Errorf("%d bad, %d good, %d restarts: %s", s.BadFrames, s.Frames, s.Restarts, s.LastError)
		}
		wants(t, "error", s.LastError, filepath.Join(dir, "8-endless.jpg"), "skipped")
	})
	t.Run("loop", func(t *testing.T) {
		c, _ := open(t, Config{Source: dir, FPS: 50, Loop: true})
		await(t, c, 30*time.Second, "round again", func(s State) bool { return s.Frames > 6 })
		put("0.jpg", numbered(77)) // seen in the next round
		for number(frame(t, c)) != 77 {
		}
	})
	t.Run("one picture", func(t *testing.T) {
		c, _ := open(t, Config{Source: filepath.Join(dir, "4.JPG"), FPS: 50, Loop: true})
		for range 5 {
			if n := number(frame(t, c)); n != 4 {
				t.Errorf("shows %d", n)
			}
		}
	})
}

// noise is a PNG that does not compress.
func noise(t testing.TB, w, h int) []byte {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	v := uint32(1)
	for i := range img.Pix {
		v = v*1664525 + 1013904223
		img.Pix[i] = byte(v>>24) | 0x80
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is a PNG of a few bytes that claims to be huge.
func bomb(w, h uint32) []byte {
	chunk := func(name string, data []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		b = append(append(b, name...), data...)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	b := append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(header, 8, 2, 0, 0, 0))...)
	return append(append(b, chunk("IDAT", []byte{0x78, 0x9c, 3, 0, 0, 0, 0, 1})...), chunk("IEND", nil)...)
}

func TestPrivacyAreasAreBlankedBeforeAnythingLooks(t *testing.T) {
	t.Parallel()
	// A red square moves inside the area, a blue one outside, on grey. Scaling
	// halves the picture.
	source := clip(t, "privacy.avi",
		"-f", "lavfi", "-i", "color=0x808080:size=1280x720:rate=10", "-f", "lavfi", "-i", "color=red:size=80x80:rate=10", "-f", "lavfi", "-i", "color=blue:size=80x80:rate=10",
		"-filter_complex", "[0][1]overlay=x='300+100*sin(3*t)':y=300[a];[a][2]overlay=x='900+100*sin(3*t)':y=300,format=yuvj444p", "-t", "5", "-c:v", "mjpeg", "-q:v", "2")
	// The square is within x 200..480, y 300..380. Two areas overlap there.
	areas := []Polygon{
		{{0.1, 0.3}, {0.4, 0.3}, {0.4, 0.6}, {0.1, 0.6}},
		{{0.2, 0.2}, {0.3, 0.9}, {0.1, 0.9}},
	}
	c, _ := open(t, Config{Source: source, Privacy: areas})
	inside := func(x, y float64) bool { // of the rectangle, by a pixel at least
		return x > 0.1*640+1 && x < 0.4*640-1 && y > 0.3*360+1 && y < 0.6*360-1
	}
	moved := 0
	for last := uint64(0); last < 48; {
		f := frame(t, c)
		last = f.Seq
		if f.Width != 640 || f.Height != 360 {
			t.Fatalf("%d x %d", f.Width, f.Height)
		}
		var red, blue, leaked, hidden int
		for i := range f.Width * f.Height {
			r, g, b := int(f.RGB[3*i]), int(f.RGB[3*i+1]), int(f.RGB[3*i+2])
			if r > g+20 && r > b+20 {
				red++
			}
			if b > r+100 {
				blue++
			}
			if inside(float64(i%640), float64(i/640)) {
				if r+g+b > 0 {
					leaked++
				}
				hidden++
			}
		}
		if red > 0 || leaked > 0 || blue < 1000 || hidden < 15000 {
			t.Fatalf("frame %d: %d reddish pixels, %d of %d hidden ones shine through, %d blue", f.Seq, red, leaked, hidden, blue)
		}
		if f.Motion.Mask == nil {
			continue
		}
		if s := f.Motion.Share(); s > 0 {
			moved++
		}
		for i, m := range f.Motion.Mask {
			if m != 0 && inside(float64(i%f.Motion.Width*Cell+4), float64(i/f.Motion.Width*Cell+4)) {
				t.Fatalf("frame %d: motion in a privacy area", f.Seq)
			}
		}
		if f.Quality != OK && f.Quality != Repeated {
			t.Errorf("frame %d is %v", f.Seq, f.Quality)
		}
	}
	if moved == 0 {
		t.Error("the blue square was never seen moving")
	}
	// Without areas the red square is there: the test looks at the right place.
	c, _ = open(t, Config{ID: "bare", Source: source})
	f := frame(t, c)
	red := 0
	for i := range f.Width * f.Height {
		if f.RGB[3*i] > 200 && f.RGB[3*i+1] < 60 && f.RGB[3*i+2] < 60 {
			red++
		}
	}
	if red < 1000 {
		t.Errorf("%d red pixels without privacy areas", red)
	}
}

func TestFrozenAndBlackPicturesAreNamed(t *testing.T) {
	t.Parallel()
	source := clip(t, "faults.avi",
		"-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10:duration=1", "-f", "lavfi", "-i", "color=black:size=320x240:rate=10:duration=1", "-f", "lavfi", "-i", "color=0x909090:size=320x240:rate=10:duration=1",
		"-filter_complex", "[0]tpad=stop_mode=clone:stop_duration=4[a];[a][1][2]concat=n=3,format=yuvj420p", "-c:v", "mjpeg", "-q:v", "3")
	c, _ := open(t, Config{Source: source})
	seen := map[Quality][2]uint64{} // first and last frame
	for last := uint64(0); last < 69; {
		f := frame(t, c)
		last = f.Seq
		r, ok := seen[f.Quality]
		if !ok {
			r[0] = f.Seq
		}
		r[1] = f.Seq
		seen[f.Quality] = r
	}
	// 10 moving, 40 still, 10 black, 10 grey; frozen after 2.5 s of the same.
	for q, want := range map[Quality][2]uint64{OK: {1, 10}, Repeated: {11, 35}, Frozen: {36, 50}, Black: {51, 60}, Blank: {61, 70}} {
		got := seen[q]
		if near(got[0], want[0]) && near(got[1], want[1]) {
			continue
		}
		t.Errorf("%v: frames %v, want %v", q, got, want)
	}
	if s := await(t, c, 30*time.Second, "ended", ended); s.Quality != Blank {
		t.Errorf("%+v", s)
	}
}

// near allows for pictures that a busy machine dropped at the seam.
func near(a, b uint64) bool { return a+4 >= b && b+4 >= a }

func TestSourcesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole, err := os.ReadFile(moving(t))
	if err != nil {
		t.Fatal(err)
	}
	motionJPEG, err := os.ReadFile(clip(t, "moving.avi", "-i", moving(t), "-c:v", "mjpeg", "-q:v", "3"))
	if err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "pipe.mp4")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	badPictures := filepath.Join(dir, "bad")
	if err := os.Mkdir(badPictures, 0o755); err != nil {
		t.Fatal(err)
	}
	write("bad/a.jpg", []byte("no picture"))
	closed := closedPort(t)
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })

	for name, test := range map[string]struct {
		source string
		says   []string
	}{
		"missing file":    {filepath.Join(dir, "none.mp4"), []string{"no such file or folder", "correct source"}},
		"empty file":      {write("empty.mp4", nil), []string{"is empty", "record it again"}},
		"truncated mp4":   {write("cut.mp4", whole[:len(whole)/2]), []string{"no index (moov atom)", "record it again"}},
		"no video":        {write("text.mp4", bytes.Repeat([]byte("Lorem ipsum. "), 1000)), []string{"text.mp4", "ffprobe"}},
		"no picture":      {write("text.jpg", []byte("text")), []string{"text.jpg", "can be decoded", "replace"}},
		"no codec":        {write("codec.avi", bytes.ReplaceAll(motionJPEG, []byte("MJPG"), []byte("ZZZZ"))), []string{"codec.avi", "no decoder", "ffmpeg -i"}},
		"pipe":            {fifo, []string{"neither a file nor a folder"}},
		"folder of none":  {empty, []string{"holds no picture", ".jpg", "put some there"}},
		"folder of bad":   {badPictures, []string{"none of its pictures can be decoded"}},
		"missing device":  {"/dev/video97", []string{"/dev/video97", "no such device", "plug the camera in"}},
		"no device":       {"/dev/null", []string{"/dev/null is no camera device"}},
		"nobody there":    {"rtsp://" + closed + "/stream", []string{closed, "refuses the connection", "port"}},
		"unknown host":    {"rtsp://camera.invalid/stream", []string{"camera.invalid", "not known"}},
		"mute server":     {"rtsp://" + mute.Addr().String() + "/stream", []string{"taken but no stream sent", "hanging"}},
		"no element":      {"gst:nosuchelement ! videoconvert", []string{"no element nosuchelement", "install the plugin package"}},
		"broken pipeline": {"gst:videotestsrc ! ! fakesink", []string{"pipeline is wrong", "gst-launch-1.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := open(t, Config{Source: test.source})
			s := await(t, c, 60*time.Second, "lost", lost)
			wants(t, "error", s.LastError, append(test.says, strings.TrimPrefix(test.source, "gst:"))...)
			if strings.HasPrefix(test.source, dir) && strings.Count(s.LastError, test.source) != 1 {
				t.Errorf("%q names its source more than once", s.LastError)
			}
			if s.Frames != 0 {
				t.Errorf("%d frames", s.Frames)
			}
		})
	}
}

func closedPort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTruncatedVideoIsShownAsFarAsItGoes(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(clip(t, "moving.avi", "-i", moving(t), "-c:v", "mjpeg", "-q:v", "3"))
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.avi")
	if err := os.WriteFile(cut, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	c, _ := open(t, Config{Source: cut})
	s := await(t, c, 30*time.Second, "ended", ended)
	if s.Frames < 10 || s.Frames > 25 {
		t.Errorf("%d frames of half a clip of 40", s.Frames)
	}
	wants(t, "error", s.LastError, cut, fmt.Sprintf("ends after %d of 40 pictures", s.Frames), "copy or record it again")
}

func TestAFileThatAppearsLaterIsFound(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(moving(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "later.mp4")
	c, _ := open(t, Config{Source: path, Loop: true})
	await(t, c, 30*time.Second, "lost", lost)
	if err := os.WriteFile(path+".part", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
	await(t, c, 30*time.Second, "running", running)
}

func TestGrabberEndsWithTheDaemon(t *testing.T) {
	t.Parallel()
	c, _ := open(t, Config{Source: moving(t), Loop: true})
	s := await(t, c, 30*time.Second, "running", running)
	c.mu.Lock()
	c.current.stdin.Close() // as the kernel does when this process dies
	c.mu.Unlock()
	for end := time.Now().Add(10 * time.Second); alive(s.PID); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the grabber lives on without its stdin")
		}
	}
}
