package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
)

// The tests of this file start the real program on free ports: real grabbers, a real (tiny) model on the
// backend go, the embedded broker, mosquitto_sub as its reader.

// patience is how long a test waits for what must come; a busy machine may take most of it.
const patience = 90 * time.Second

// realGrabber is fovea-grab: what FOVEA_GRAB names, or built now.
var realGrabber = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("FOVEA_GRAB"); path != "" {
		return filepath.Abs(path)
	}
	shim, err := filepath.Abs("../capture/grab/opencv")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "fovea-daemon-")
	if err != nil {
		return "", err
	}
	grabberDir = dir
	path := filepath.Join(dir, "fovea-grab")
	build := exec.Command("go", "build", "-tags", "gocv_specific_modules gocv_videoio", "-o", path, "../capture/grab")
	build.Env = append(os.Environ(), "PKG_CONFIG_PATH="+shim)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fovea-grab: %w\n%s\nor name one in FOVEA_GRAB", err, out)
	}
	return path, nil
})

var grabberDir string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "db" { // the daemon checks its databases in a child: this program
		os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	if how := os.Getenv("FOVEA_TEST_CHILD"); how != "" {
		misbehave(how)
	}
	if file := os.Getenv("FOVEA_TEST_LIFE"); file != "" && len(os.Args) == 1 {
		if err := lifeOfADaemon(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && (os.Args[1] == "adapt" || os.Args[1] == "run") { // so is an adaptation, and a daemon that is killed
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if file := os.Getenv("FOVEA_TEST_HOLDS"); file != "" && os.Args[1] == "run" {
			go tellHoldings(ctx, file)
		}
		os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	code := m.Run()
	if grabberDir != "" {
		os.RemoveAll(grabberDir)
	}
	os.Exit(code)
}

// tinyModel writes a model of three classes with random weights.
func tinyModel(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	c := model.Config{
		ImageHeight: 32, ImageWidth: 32, Patch: 8, Dim: 32, Depth: 2, Heads: 2, Hidden: 64, Classes: 3,
		Labels: []string{"cup", "key", "leaf"}, Readout: model.ReadClass, PrefixPosition: true, QKVBias: true,
		Epsilon: 1e-6, PositionResize: model.PositionBicubic,
	}
	if err := model.Random(c, 1).Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pictures makes a folder of pictures that differ.
func pictures(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for n := range 4 {
		picture := image.NewRGBA(image.Rect(0, 0, 96, 64))
		for y := range 64 {
			for x := range 96 {
				picture.Set(x, y, color.RGBA{uint8(x * 2), uint8(y * 3), uint8(n * 60), 255})
			}
		}
		var data bytes.Buffer
		if err := png.Encode(&data, picture); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.png", n)), data.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// program is a running daemon.
type program struct {
	*daemon
	t       *testing.T
	dir     string
	file    string
	hangups chan os.Signal
	log     *syncBuffer
	end     func() error // stops it, once
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// start runs the daemon with a configuration on free ports; GRAB in it becomes the path of fovea-grab. before
// is called when its folder is there.
func start(t *testing.T, config string, before ...func(*program)) *program {
	t.Helper()
	p := &program{t: t, dir: t.TempDir(), hangups: make(chan os.Signal, 1), log: &syncBuffer{}}
	p.file = filepath.Join(p.dir, "fovea.yaml")
	p.write(config)
	for _, f := range before {
		f(p)
	}
	c, err := loadConfig(p.file)
	if err != nil {
		t.Fatal(err)
	}
	if p.daemon, err = newDaemon(p.file, c, p.log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx, p.hangups) }()
	p.end = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Errorf("the daemon ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", p.log)
		}
	})
	p.wait("the page", func() bool { return p.page() != "" })
	return p
}

func (p *program) page() string { address, _ := p.webAddress.get(); return address }

// write replaces the configuration file.
func (p *program) write(config string) {
	p.t.Helper()
	if strings.Contains(config, "GRAB") {
		grab, err := realGrabber()
		if err != nil {
			p.t.Fatal(err)
		}
		config = strings.ReplaceAll(config, "GRAB", grab)
	}
	config = "state_dir: state\n" + config
	if !strings.Contains(config, "web:") {
		config += "\nweb: {listen: \"127.0.0.1:0\"}\n"
	}
	if !strings.Contains(config, "mqtt:") {
		config += "\nmqtt: {listen: \"127.0.0.1:0\"}\n"
	}
	if err := os.WriteFile(p.file, []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) wait(what string, happened func() bool) {
	p.t.Helper()
	for limit := time.Now().Add(patience); !happened(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			p.t.Fatalf("%s did not come in %v; log of the daemon:\n%s", what, patience, p.log)
		}
	}
}

// get asks the page and returns status code and body.
func (p *program) get(path string) (int, string) {
	p.t.Helper()
	answer, err := http.Get(p.page() + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func (p *program) state() status {
	p.t.Helper()
	_, body := p.get("/api/status")
	var s status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		p.t.Fatalf("status: %v\n%s", err, body)
	}
	return s
}

func (s status) camera(id string) cameraStatus {
	for _, c := range s.Cameras {
		if c.ID == id {
			return c
		}
	}
	return cameraStatus{}
}

// subscription keeps the messages of each topic, as mosquitto_sub prints them.
type subscription struct {
	mu     sync.Mutex
	newest map[string]string
	every  map[string]string // all of a topic, a line each
}

func (s *subscription) all(topic string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.every[topic]
}

func (s *subscription) of(topic string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest[topic]
}

// subscribe reads all topics of the program's broker from outside.
func (p *program) subscribe() *subscription {
	p.t.Helper()
	return listen(p.t, p.brokerFlags()...)
}

// brokerFlags name the program's broker to Mosquitto's clients.
func (p *program) brokerFlags() []string {
	p.t.Helper()
	p.wait("the broker", func() bool { return p.state().Broker.Connected })
	address, err := url.Parse(p.state().Broker.Address)
	if err != nil {
		p.t.Fatal(err)
	}
	password, err := readSecret(filepath.Join(p.dir, "state", "mqtt-password"))
	if err != nil {
		p.t.Fatal(err)
	}
	return []string{"-h", address.Hostname(), "-p", address.Port(), "-u", fleet.BrokerUser, "-P", password}
}

// listen reads all topics of a broker, by mosquitto_sub with these flags.
func listen(t *testing.T, broker ...string) *subscription {
	t.Helper()
	command := exec.Command("mosquitto_sub", append(broker, "-t", "#", "-F", "%t %x")...) // pictures are no lines
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("%v; install mosquitto-clients", err)
	}
	t.Cleanup(func() { command.Process.Kill(); command.Wait() })
	s := &subscription{newest: map[string]string{}, every: map[string]string{}}
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 2<<20)
		for lines.Scan() {
			topic, digits, _ := strings.Cut(lines.Text(), " ")
			payload, err := hex.DecodeString(digits)
			if err != nil {
				continue // the test has ended within this line
			}
			s.mu.Lock()
			s.newest[topic] = string(payload)
			s.every[topic] += string(payload) + "\n"
			s.mu.Unlock()
		}
	}()
	return s
}

// From a folder of pictures to the broker, the page and the metrics, and an orderly end.
func TestFromCameraToBroker(t *testing.T) {
	p := start(t, fmt.Sprintf(`
device: {id: bench-1, labels: {site: hall-2}}
model: {dir: %q, backend: go}
inference: {relevance_every: 3}
cameras:
  - {id: door, source: %q, fps: 8, loop: true, grabber: GRAB}
`, tinyModel(t), pictures(t)))
	sub := p.subscribe()
	topics := fleet.Topics{Root: "fovea", Device: "bench-1"}

	p.wait("online", func() bool { return sub.of(topics.Availability()) == fleet.Online })
	p.wait("the camera's availability", func() bool { return sub.of(topics.CameraAvailability("door")) == fleet.Online })
	var shown fleet.CameraState
	p.wait("a camera state", func() bool { return json.Unmarshal([]byte(sub.of(topics.CameraState("door"))), &shown) == nil })
	if shown.Label != "cup" && shown.Label != "key" && shown.Label != "leaf" || shown.Score < 1.0/3 || shown.Score > 1 || shown.Margin < 0 {
		t.Errorf("camera state %+v", shown)
	}
	var card fleet.ModelCard
	p.wait("the model card", func() bool { return json.Unmarshal([]byte(sub.of(topics.Model())), &card) == nil })
	if card.SHA256 != p.live.Load().net.Digest || card.Title != "ViT-32/8, 3 classes" || card.InstalledVersion != "0" {
		t.Errorf("model card %+v", card)
	}
	p.wait("health ok", func() bool {
		var h fleet.Health
		return json.Unmarshal([]byte(sub.of(topics.Status())), &h) == nil && h.Health == fleet.HealthOK && h.Labels["site"] == "hall-2" &&
			h.Cameras["door"].State == fleet.CameraOnline && h.Inference.Device == "go"
	})

	if code, body := p.get("/healthz"); code != http.StatusOK || strings.TrimSpace(body) != `{"health":"ok"}` {
		t.Errorf("healthz: %d %s", code, body)
	}
	_, metrics := p.get("/metrics")
	for _, want := range []string{
		`fovea_health{result="ok"} 1`, `fovea_camera_state{camera="door",result="online"} 1`, `fovea_camera_frames_total{camera="door"}`,
		`fovea_camera_quality{camera="door",result="ok"} 1`, `fovea_inference_p95_seconds`, `fovea_inference_seconds_count`, `fovea_mqtt_connected 1`, `fovea_model_version{model="` + card.SHA256,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	p.view("door")

	began := time.Now()
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
	p.wait("offline", func() bool { return sub.of(topics.Availability()) == fleet.Offline })
}

// view checks what the page draws of a camera.
func (p *program) view(id string) {
	t := p.t
	t.Helper()
	code, body := p.get("/api/cameras/" + id + "/view?overlay=1")
	var v viewed
	if err := json.Unmarshal([]byte(body), &v); err != nil || code != http.StatusOK {
		t.Fatalf("view: %d %v\n%.300s", code, err, body)
	}
	if picture, err := jpeg.Decode(bytes.NewReader(v.JPEG)); err != nil || picture.Bounds() != image.Rect(0, 0, 96, 64) {
		t.Errorf("picture: %v", err)
	}
	if len(v.Guesses) != 3 || v.Guesses[0].Score < v.Guesses[1].Score || v.Guesses[1].Score < v.Guesses[2].Score {
		t.Errorf("guesses %v", v.Guesses)
	}
	if o := v.Overlay; o == nil || o.Rows != 4 || o.Cols != 4 || len(o.Relevance) != 16 || len(o.Attention) != 16 || o.View != [4]int{0, 0, 96, 64} {
		t.Errorf("overlay %+v", v.Overlay)
	}
	code, body = p.get(fmt.Sprintf("/api/cameras/%s/view?overlay=1&after=%d", id, v.Seq))
	var later viewed
	if err := json.Unmarshal([]byte(body), &later); err != nil || code != http.StatusOK || later.Seq <= v.Seq {
		t.Errorf("next view: %d %v, seq %d after %d", code, err, later.Seq, v.Seq)
	}
	code, body = p.get("/api/cameras/" + id + "/picture.jpg")
	if _, err := jpeg.Decode(strings.NewReader(body)); err != nil || code != http.StatusOK {
		t.Errorf("picture.jpg: %d %v", code, err)
	}
	if code, _ := p.get("/api/cameras/nobody/view"); code != http.StatusNotFound {
		t.Errorf("view of a camera that is not there: %d", code)
	}

	stream, err := http.Get(p.page() + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	line, err := bufio.NewReader(stream.Body).ReadString('\n')
	data, found := strings.CutPrefix(line, "data: ")
	var event status
	if err != nil || !found || json.Unmarshal([]byte(data), &event) != nil || event.camera(id).Classified == 0 {
		t.Errorf("event: %v %.200s", err, line)
	}
}

// With nothing configured it runs, and says what is missing.
func TestFirstBoot(t *testing.T) {
	p := start(t, "")
	p.wait("ready", func() bool { return p.notifier.ready.Load() })
	s := p.state()
	if s.Health.Health != fleet.HealthDegraded || len(s.Health.Setup.Missing) != 2 ||
		!strings.Contains(s.Health.Setup.Missing[0], "No camera") || !strings.Contains(s.Health.Setup.Missing[1], "No model") {
		t.Errorf("health %s, missing %q", s.Health.Health, s.Health.Setup.Missing)
	}
	if !idPattern.MatchString(s.Device) || !strings.HasPrefix(s.Device, "fovea-") {
		t.Errorf("device %q", s.Device)
	}
	if code, body := p.get("/"); code != http.StatusOK || !strings.Contains(body, "<title>Fovea</title>") {
		t.Errorf("page: %d", code)
	}
	if code, _ := p.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	turns := p.progress.Load()
	p.wait("the next turn of the inference loop", func() bool { return p.progress.Load() > turns })
	if info, err := os.Stat(filepath.Join(p.dir, "state", tokenFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token: %v %v", info, err)
	}
}

// A reload opens and closes cameras and leaves the others alone; a bad configuration changes nothing.
func TestReload(t *testing.T) {
	weights, folder := tinyModel(t), pictures(t)
	config := func(cameras ...string) string {
		text := fmt.Sprintf("model: {dir: %q, backend: go}\ncameras:\n", weights)
		for _, id := range cameras {
			text += fmt.Sprintf("  - {id: %s, source: %q, fps: 5, loop: true, grabber: GRAB}\n", id, folder)
		}
		return text
	}
	p := start(t, config("a", "b"))
	p.wait("answers", func() bool { s := p.state(); return s.camera("a").Classified > 0 && s.camera("b").Classified > 0 })
	kept := (*p.cameras.Load())[1]

	p.write(config("b", "c"))
	p.hangups <- os.Interrupt // any signal will do: the test is its sender
	p.wait("the new camera", func() bool { return p.state().camera("c").Classified > 0 })
	now := *p.cameras.Load()
	if len(now) != 2 || now[0] != kept {
		t.Errorf("camera b was opened again")
	}

	p.write(config("b", "c") + "\nsoruce: x\n")
	p.hangups <- os.Interrupt
	p.wait("the refusal", func() bool { return p.problems.of("reload") != "" })
	if told := p.problems.of("reload"); !strings.Contains(told, "unknown key") || !strings.Contains(told, "fovea.yaml:") {
		t.Errorf("refusal: %s", told)
	}
	if got := *p.cameras.Load(); len(got) != 2 || got[0] != kept {
		t.Errorf("the bad configuration changed the cameras")
	}
	p.wait("the refusal in the status", func() bool {
		s := p.state()
		return s.Health.Health == fleet.HealthDegraded && strings.Contains(strings.Join(s.Health.Reasons, "\n"), "unknown key")
	})

	p.write(config("b"))
	request, err := http.NewRequest(http.MethodPost, p.page()+"/api/reload", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+p.token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode != http.StatusNoContent {
		t.Fatalf("reload with the token: %v %v", answer, err)
	}
	answer.Body.Close()
	p.wait("the good one again", func() bool { s := p.state(); return len(s.Cameras) == 1 && p.problems.of("reload") == "" })
}

// Each part that cannot work says why and what to do, and stops nothing else.
func TestBadInput(t *testing.T) {
	other := start(t, "") // its broker, with another password
	other.wait("its broker", func() bool { return other.state().Broker.Connected })
	broker, err := url.Parse(other.state().Broker.Address)
	if err != nil {
		t.Fatal(err)
	}
	plugin := filepath.Join(t.TempDir(), "plugin.so")
	header := append([]byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\xf3\x00\x01\x00\x00\x00"), make([]byte, 40)...) // a library for RISC-V
	header[52] = 64
	if err := os.WriteFile(plugin, header, 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
model: {dir: %q, backend: xla:cpu, plugins: {cpu: {path: %q, sha256: %q}}}
cameras:
  - {id: gone, source: "/nowhere/clip.mp4", grabber: GRAB}
  - {id: works, source: %q, fps: 5, loop: true, grabber: GRAB}
mqtt: {url: "mqtt://%s", username: fovea, password_file: wrong}
`, tinyModel(t), plugin, strings.Repeat("0", 64), pictures(t), broker.Host)
	p := start(t, config)
	if err := os.WriteFile(filepath.Join(p.dir, "wrong"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.wait("the refused password", func() bool {
		told := p.state().Broker.Problem
		return strings.Contains(told, "CONNACK") && strings.Contains(told, filepath.Join(p.dir, "wrong"))
	})
	p.wait("the plugin of another machine", func() bool { return strings.Contains(p.problems.of("model"), "is built for EM_RISCV") })
	p.wait("the missing clip", func() bool {
		c := p.state().camera("gone")
		return c.Phase == "lost" && strings.Contains(c.Problem, "/nowhere/clip.mp4")
	})
	p.wait("the other camera", func() bool { return p.state().camera("works").Phase == "running" })
	if s := p.state(); s.Health.Health != fleet.HealthFailing {
		t.Errorf("without a model it is %s", s.Health.Health)
	}
	if code, _ := p.get("/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("healthz: %d", code)
	}

	p.write(strings.Replace(config, "xla:cpu", "go", 1)) // a model that works, without a restart
	p.hangups <- os.Interrupt
	p.wait("answers", func() bool { return p.state().camera("works").Classified > 0 })
	if s := p.state(); s.Health.Health != fleet.HealthDegraded || p.problems.of("model") != "" {
		t.Errorf("with a model it is %s: %s", s.Health.Health, p.problems.of("model"))
	}
}

// On an address that others reach the page is served over TLS, and asks for the token.
func TestPageForTheNetwork(t *testing.T) {
	authority := httptest.NewTLSServer(nil)
	defer authority.Close()
	pair := authority.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"page.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "page.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, fmt.Sprintf("web: {listen: \"0.0.0.0:0\", tls_cert: %s/page.pem, tls_key: %s/page.key}", dir, dir))
	address, err := url.Parse(p.page())
	if err != nil || address.Scheme != "https" {
		t.Fatalf("page on %s", p.page())
	}
	client := authority.Client() // it trusts the certificate, which is for 127.0.0.1
	status := func(token string) int {
		r, err := http.NewRequest(http.MethodGet, "https://127.0.0.1:"+address.Port()+"/api/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	if got := status(""); got != http.StatusUnauthorized {
		t.Errorf("without the token: %d", got)
	}
	if got := status(p.token); got != http.StatusOK {
		t.Errorf("with the token: %d", got)
	}
	plain, err := http.Get("http://127.0.0.1:" + address.Port() + "/api/status")
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode == http.StatusOK {
			t.Error("answers without TLS")
		}
	}
}

// What keeps the page from being served is told with the key to change.
func TestPageCannotBeServed(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	err = d.serveWebOnce(t.Context(), WebConfig{Listen: other.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "web.listen takes another port") {
		t.Errorf("listening on a taken port: %v", err)
	}
	err = d.serveWebOnce(t.Context(), WebConfig{Listen: "127.0.0.1:0", TLSCert: "/nowhere.pem", TLSKey: "/nowhere.key"})
	if err == nil || !strings.Contains(err.Error(), "correct web.tls_cert") {
		t.Errorf("a certificate that is not there: %v", err)
	}
}
