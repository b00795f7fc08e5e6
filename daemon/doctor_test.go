package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/internal/realparts"
	"github.com/seed-a98b2d25/fovea/model"
)

// examined runs fovea doctor --json --quick on a configuration; DIR in it becomes a folder of the test's own.
func examined(t *testing.T, dir, config string) (diagnosis, int) {
	t.Helper()
	file := filepath.Join(dir, "fovea.yaml")
	if !strings.Contains(config, "web:") {
		config += "\nweb: {listen: \"127.0.0.1:0\"}\n"
	}
	if !strings.Contains(config, "mqtt:") {
		config += "\nmqtt: {listen: \"127.0.0.1:0\"}\n"
	}
	config = strings.ReplaceAll("state_dir: state\n"+config, "DIR", dir)
	if strings.Contains(config, "GRAB") {
		grab, err := realGrabber()
		if err != nil {
			t.Fatal(err)
		}
		config = strings.ReplaceAll(config, "GRAB", grab)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return doctor(t, file)
}

func doctor(t *testing.T, file string) (d diagnosis, code int) {
	t.Helper()
	var out, failed bytes.Buffer
	code = execute(t.Context(), []string{"doctor", "--quick", "--json", "--config", file}, &out, &failed)
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), failed.String())
	}
	return d, code
}

// has says whether a finding of that part and state says the words, and what to do.
func (d diagnosis) has(state, part, words string) bool {
	return slices.ContainsFunc(d.Findings, func(f finding) bool {
		whole := f.Says + " -> " + f.Do
		return f.State == state && f.Part == part && strings.Contains(whole, words) &&
			(state == findingOK || f.Do != "" || strings.Contains(f.Says, ";"))
	})
}

// Each fault that the doctor knows, made on purpose: named, with what to do.
func TestDoctorNamesEachFault(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	broker, err := fleet.NewBroker("127.0.0.1:0", filepath.Join(t.TempDir(), "password"), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Stop() })
	brokerAt := broker.URL()[strings.LastIndex(broker.URL(), "@")+1:]
	brokerAt = strings.TrimPrefix(brokerAt, "mqtt://")

	write := func(name, text string, mode os.FileMode) func(dir string) {
		return func(dir string) {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	weights := tinyModel(t)
	expired, expiredKey := realparts.NewAuthority(t).Issue("127.0.0.1", time.Now().Add(-time.Hour))
	for _, c := range []struct {
		name, config string
		prepare      func(dir string)
		state, part  string
		words        string
	}{
		{"unknown key", "camera: []", nil, findingFault, "configuration", "fovea.yaml:2:1: camera: unknown key"},
		{"no camera", "", nil, findingWarning, "camera", "none is configured"},
		{"camera's file is gone", "cameras: [{id: hall, source: DIR/hall.mp4, grabber: GRAB}]", nil, findingFault, "camera hall", "no such file"},
		{"camera's file is no video", "cameras: [{id: hall, source: DIR/hall.mp4, grabber: GRAB}]", write("hall.mp4", "text, not a video", 0o600), findingFault, "camera hall", "ffprobe"},
		{"camera's host refuses", "cameras: [{id: hall, source: \"rtsp://" + nobody + "/x\", grabber: GRAB}]", nil, findingFault, "camera hall", "refuses the connection"},
		{"camera's device is not there", "cameras: [{id: usb, source: /dev/video99, grabber: GRAB}]", nil, findingFault, "camera usb", "not there"},
		{"GStreamer lacks an element", "cameras: [{id: csi, source: \"gst:nosuchelement ! appsink\", grabber: GRAB}]", nil, findingFault, "camera csi", "no element nosuchelement"},
		{"no grabber", "cameras: [{id: hall, source: DIR, grabber: DIR/none}]", nil, findingFault, "camera hall", "correct grabber"},
		{"no model configured", "", nil, findingWarning, "model", "model.dir"},
		{"model folder is gone", "model: {dir: DIR/none}", nil, findingFault, "model", "none"},
		{"model is no model", "model: {dir: DIR/m}", write("m/config.json", "{}", 0o600), findingFault, "model", "fovea models pull"},
		{"plugin is gone", "model: {dir: " + weights + ", backend: xla:cpu, plugins: {cpu: {path: DIR/none.so}}}", nil, findingFault, "backend", "none.so: no such file"},
		{"plugin is no library", "model: {dir: " + weights + ", backend: xla:cpu, plugins: {cpu: {path: DIR/p.so}}}", write("p.so", "text", 0o600), findingFault, "backend", "not a shared library"},
		{"plugin was changed", "model: {dir: " + weights + ", backend: xla:cpu, plugins: {cpu: {path: DIR/p.so, sha256: " + strings.Repeat("0", 64) + "}}}", copyOfThisProgram(t), findingFault, "backend", "the configuration pins 0000"},
		{"plugin without checksum", "model: {dir: " + weights + ", backend: xla:cpu, plugins: {cpu: {path: DIR/p.so}}}", copyOfThisProgram(t), findingFault, "backend", "has no checksum"},
		{"auto falls back", "model: {dir: " + weights + ", plugins: {cpu: {path: DIR/none.so}}}", nil, findingWarning, "backend", "fovea plugin install"},
		{"no GPU", "model: {dir: " + weights + ", backend: xla:cuda}", nil, findingFault, "GPU", "nvidia-smi"},
		{"nobody is the broker", "mqtt: {url: \"mqtt://" + nobody + "\"}", nil, findingFault, "broker", "nothing listens"},
		{"broker refuses the password", "mqtt: {url: \"mqtt://" + brokerAt + "\", username: fovea, password_file: DIR/word}", write("word", "wrong", 0o600), findingFault, "broker", "word, and that the broker"},
		{"broker's authority is no certificate", "mqtt: {url: \"mqtts://" + nobody + "\", ca_file: DIR/ca.pem}", write("ca.pem", "text", 0o644), findingFault, "broker", "ca.pem"},
		{"broker speaks no TLS", "mqtt: {url: \"mqtts://" + brokerAt + "\"}", nil, findingFault, "broker", "mqtt://"},
		{"broker's port is taken", "mqtt: {listen: \"" + busy.Addr().String() + "\"}", nil, findingFault, "broker", "mqtt.listen"},
		{"page's port is taken", "web: {listen: \"" + busy.Addr().String() + "\"}", nil, findingFault, "page", "web.listen"},
		{"certificate is gone", "web: {listen: \"127.0.0.1:0\", tls_cert: DIR/c.pem, tls_key: DIR/k.pem}", nil, findingFault, "page", "web.tls_cert"},
		{"password file is gone", "mqtt: {url: \"mqtt://" + nobody + "\", username: x, password_file: DIR/none}", nil, findingFault, "mqtt.password_file", "none: no such file"},
		{"password file is empty", "mqtt: {url: \"mqtt://" + nobody + "\", username: x, password_file: DIR/word}", write("word", "", 0o600), findingFault, "mqtt.password_file", "is empty"},
		{"everybody reads the password", "mqtt: {url: \"mqtt://" + nobody + "\", username: x, password_file: DIR/word}", write("word", "secret", 0o644), findingWarning, "mqtt.password_file", "chmod o-rwx"},
		{"state folder is a file", "", write("state", "", 0o600), findingFault, "state folder", "is no folder"},
		{"model has no head", "model: {dir: " + headless(t) + ", backend: go}", nil, findingWarning, "model", "fovea head fit"},
		{"picture is black", "cameras: [{id: hall, source: DIR/dark, fps: 5, loop: true, grabber: GRAB}]", write("dark/1.png", string(pngOf(t, image.NewRGBA(image.Rect(0, 0, 96, 64)))), 0o600), findingWarning, "camera hall", "the picture is black -> look at the camera"},
		{"camera says nothing", "cameras: [{id: hall, source: \"rtsp://" + silent(t) + "/x\", grabber: GRAB}]", nil, findingFault, "camera hall", "rtsp://"},
		{"camera sends no picture", "cameras: [{id: hall, source: \"" + pictureless(t) + "\", grabber: GRAB}]", nil, findingFault, "camera hall", "is the camera hanging?"},
		{"grabber hangs", "cameras: [{id: hall, source: DIR, grabber: DIR/grab}]", write("grab", "#!/bin/sh\nexec sleep 60\n", 0o700), findingFault, "camera hall", "no picture within 15 s"},
		{"broker says nothing", "mqtt: {url: \"mqtt://" + silent(t) + "\"}", nil, findingFault, "broker", "mqtt://"},
		{"certificate has expired", "web: {listen: \"127.0.0.1:0\", tls_cert: " + expired + ", tls_key: " + expiredKey + "}", nil, findingFault, "page", "renew it"},
		{"others enter the state folder", "", func(dir string) {
			write("state/token", "x", 0o600)(dir)
			if err := os.Chmod(filepath.Join(dir, "state"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, findingWarning, "state folder", "chmod 700"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if c.prepare != nil {
				c.prepare(dir)
			}
			d, code := examined(t, dir, c.config)
			if !d.has(c.state, c.part, c.words) {
				t.Errorf("not named: %s %s %q; the diagnosis:\n%+v", c.state, c.part, c.words, d.Findings)
			}
			if want := map[bool]int{true: exitFailure}[d.Faults > 0]; code != want || c.state == findingFault && d.Faults == 0 {
				t.Errorf("exit code %d with %d faults", code, d.Faults)
			}
		})
	}
}

// headless writes a model without a head.
func headless(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "headless")
	c := model.Config{
		ImageHeight: 32, ImageWidth: 32, Patch: 8, Dim: 32, Depth: 2, Heads: 2, Hidden: 64, Readout: model.ReadClass,
		PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: model.PositionBicubic,
	}
	if err := model.Random(c, 1).Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// silent is the address of something that takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String() // the kernel takes them
}

// pictureless is the address of a camera that sends something all the time, and no picture.
func pictureless(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		for r.Context().Err() == nil {
			fmt.Fprint(w, "\r\n")
			w.(http.Flusher).Flush()
			time.Sleep(200 * time.Millisecond)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// copyOfThisProgram is a library in everything but its name.
func copyOfThisProgram(t *testing.T) func(dir string) {
	return func(dir string) {
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(dir, "p.so")); err != nil {
			t.Fatal(err)
		}
	}
}

// What needs root to be made: a disk that cannot be written, files of another user, devices of another group.
func TestDoctorNamesFaultsOfPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	var d diagnosis
	d.stateFolder(dir)
	if !d.has(findingFault, "disk", "read-only") || !d.has(findingWarning, "disk", "tmpfs") {
		t.Errorf("a read-only tmpfs: %+v", d.Findings)
	}

	state := t.TempDir()
	foreign := filepath.Join(state, "token")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(foreign, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	d = diagnosis{}
	d.stateFolder(state)
	if !d.has(findingFault, "state folder", "chown -R") {
		t.Errorf("a file of another user: %+v", d.Findings)
	}

	device := filepath.Join(t.TempDir(), "video0")
	if err := unix.Mknod(device, unix.S_IFCHR|0o660, int(unix.Mkdev(81, 0))); err != nil {
		t.Fatal(err)
	}
	d = diagnosis{}
	asNobody(t, func() { d.device("camera usb", device, "video"); d.stateFolder(state) })
	if !d.has(findingFault, "camera usb", "may not be opened") || !d.has(findingFault, "camera usb", "usermod -aG video") {
		t.Errorf("a device of another group: %+v", d.Findings)
	}
	if !d.has(findingFault, "state folder", "") {
		t.Errorf("a state folder of another user: %+v", d.Findings)
	}
}

// A daemon whose socket is another user's, a folder that this user may not make, a disk with little on it, a user that
// the system does not know.
func TestDoctorNamesWhatThisUserMayNot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p := start(t, "")
	p.wait("the socket", func() bool { _, err := os.Stat(filepath.Join(p.stateDir(), socketName)); return err == nil })
	config, _ := p.configs.get()
	var d diagnosis
	asNobody(t, func() {
		d.examine(t.Context(), &Config{StateDir: config.StateDir, Web: WebConfig{Listen: webOff}}, true)
		d.stateFolder("/not-there/state") // in /, which is root's
	})
	if !d.has(findingWarning, "daemon", "the daemon's user") {
		t.Errorf("a socket of another user: %+v", d.Findings)
	}
	if !d.has(findingFault, "state folder", "may not make it") {
		t.Errorf("a folder that cannot be made: %+v", d.Findings)
	}

	d = diagnosis{}
	asUser(t, 4242424, func() { d.user(config) })
	if !d.has(findingWarning, "user", "no name here") {
		t.Errorf("a user without a name: %+v", d.Findings)
	}

	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(small, 0)
	d = diagnosis{}
	d.stateFolder(small)
	if !d.has(findingWarning, "disk", "8 MB are free") {
		t.Errorf("a small disk: %+v", d.Findings)
	}
}

// What a running daemon knows of its parts: a camera that is lost, a broker that is not there; and an older daemon than
// the program that asks.
func TestDoctorAsksTheDaemon(t *testing.T) {
	nobody := "127.0.0.1:" + realparts.FreePort(t)
	p := start(t, "cameras: [{id: hall, source: \"rtsp://"+nobody+"/x\", grabber: GRAB}]\nmqtt: {url: \"mqtt://"+nobody+"\"}\n")
	p.wait("what is wrong", func() bool { s := p.state(); return s.camera("hall").Problem != "" && s.Broker.Problem != "" })
	d, code := doctor(t, p.file)
	if code != exitFailure || !d.Running || !d.has(findingFault, "camera hall", "refuses the connection") || !d.has(findingFault, "broker", "nothing listens") {
		t.Errorf("exit %d: %+v", code, d.Findings)
	}

	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:errcheck // it ends with the test
		writeJSON(w, status{Health: fleet.Health{Version: "0.0.1", Health: fleet.HealthOK}})
	}))
	d = diagnosis{Version: version()}
	if d.ask(t.Context(), &Config{StateDir: dir}) == nil || !d.has(findingWarning, "daemon", "systemctl restart fovea") {
		t.Errorf("an older daemon: %+v", d.Findings)
	}

	hung := t.TempDir()
	l, err = net.Listen("unix", filepath.Join(hung, socketName)) // and nobody takes what the kernel does
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d = diagnosis{}
	if d.ask(t.Context(), &Config{StateDir: hung}) != nil || !d.has(findingFault, "daemon", "does not answer") {
		t.Errorf("a daemon that hangs: %+v", d.Findings)
	}
}

// A model whose weights overflow is named when it is timed.
func TestDoctorTriesTheModel(t *testing.T) {
	dir := tinyModel(t)
	c, err := model.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Params.NormWeight {
		c.Params.NormWeight[i] = math.MaxFloat32
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := c.Save(broken); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{dir: findingOK, broken: findingFault} {
		var d diagnosis
		d.model(t.Context(), &Config{Model: ModelConfig{Dir: dir, Backend: model.BackendGo}}, nil, false)
		if !d.has(want, "speed", "") {
			t.Errorf("%s: no %s of speed: %+v", dir, want, d.Findings)
		}
	}
}

func asNobody(t *testing.T, f func()) { t.Helper(); asUser(t, 65534, f) }

// asUser runs f in a thread of its own that is that user.
func asUser(t *testing.T, uid uintptr, f func()) {
	t.Helper()
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		_, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid)
		if e == 0 {
			f()
		}
		done <- e
	}()
	if e := <-done; e != 0 {
		t.Fatal(e)
	}
}

func TestDoctorKnowsTheClock(t *testing.T) {
	var d diagnosis
	d.clock(time.Unix(86400, 0), true)
	if !d.has(findingFault, "clock", "1970") {
		t.Errorf("1970: %+v", d.Findings)
	}
	d = diagnosis{}
	d.clock(time.Now(), false)
	if !d.has(findingWarning, "clock", "timedatectl") {
		t.Errorf("not synchronised: %+v", d.Findings)
	}
	d = diagnosis{}
	d.clock(time.Now(), true)
	if d.Warnings+d.Faults != 0 {
		t.Errorf("a clock that is right: %+v", d.Findings)
	}
}

// Where a daemon runs the doctor asks it; where none does it tries the parts itself, and times the model.
func TestDoctorOfAHealthyDevice(t *testing.T) {
	config := "model: {dir: " + tinyModel(t) + ", backend: go}\ncameras: [{id: hall, source: " + pictures(t) + ", fps: 5, loop: true, grabber: GRAB}]\n"
	d, code := examined(t, t.TempDir(), config)
	if code != 0 || d.Running || !d.has(findingOK, "camera hall", "96 x 64, read by pictures") || !d.has(findingOK, "backend", "go") {
		t.Errorf("exit %d: %+v", code, d)
	}

	p := start(t, config)
	p.wait("a frame", func() bool { return p.state().camera("hall").Classified > 0 })
	d, code = doctor(t, p.file)
	if code != 0 || !d.Running || !d.has(findingOK, "daemon", "health") || !d.has(findingOK, "camera hall", "read by pictures") {
		t.Errorf("exit %d: %+v", code, d)
	}
	if !d.has(findingOK, "speed", "ms a frame") || !d.has(findingOK, "broker", "connected") {
		t.Errorf("what the daemon knows is not told: %+v", d.Findings)
	}
	var page, failed bytes.Buffer
	if execute(t.Context(), []string{"doctor", "--config", p.file}, &page, &failed) != 0 || !strings.Contains(page.String(), fmt.Sprintf("%-8s %-14s", findingOK, "camera hall")) {
		t.Errorf("the page:\n%s%s", page.String(), failed.String())
	}
}
