package fleet

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/goleak"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

var update = flag.Bool("update", false, "write the files that are made from the code")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

func TestPresence(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Device: "gate-1", Broker: m.URL()}
	o := observe(t, cfg, "fovea/#")
	d := newDevice(t, cfg)
	stop := run(t, d)
	topics := d.Topics()

	o.wants(topics.Availability(), Online)
	if err := d.SetHealth(Health{Health: HealthOK, Version: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := d.SetModel(ModelCard{Version: 7, ReleaseSummary: strings.Repeat("ä", 200)}); err != nil {
		t.Fatal(err)
	}
	if err := d.SetCamera("yard", true); err != nil {
		t.Fatal(err)
	}
	if err := d.SetCameraState("yard", CameraState{Label: "bird", Score: 0.5, TS: time.Unix(5, 123456789)}); err != nil {
		t.Fatal(err)
	}
	if err := d.SetAuto(true, AutoSource{Source: SourceConfig}); err != nil {
		t.Fatal(err)
	}
	if err := d.Emit(Event{Type: CameraBack, Camera: "yard"}); err != nil {
		t.Fatal(err)
	}
	if err := d.PublishImage("yard", []byte{0xff, 0xd8}); err == nil {
		t.Error("a picture went out though pictures are not allowed")
	}
	o.wants(topics.CameraAvailability("yard"), Online)
	o.wants(topics.CameraState("yard"), `{"ts":"1970-01-01T00:00:05.123Z","label":"bird","score":0.5,"margin":0,"model":0}`)
	o.wants(topics.Auto(), "ON")
	eventually(t, "event and model", func() bool {
		return len(o.all(topics.Event())) == 1 && len(o.all(topics.Model())) == 1 && len(o.all(topics.Status())) == 1
	})
	var card map[string]any
	if err := json.Unmarshal([]byte(o.last(topics.Model())), &card); err != nil {
		t.Fatal(err)
	}
	if summary := card["release_summary"].(string); card["installed_version"] != "7" || card["latest_version"] != "7" || summary != strings.Repeat("ä", 127) {
		t.Errorf("model card %v", card)
	}
	var h map[string]any
	if err := json.Unmarshal([]byte(o.last(topics.Status())), &h); err != nil {
		t.Fatal(err)
	}
	if h["schema"] != 1.0 || h["mqtt"].(map[string]any)["dropped_total"] != 0.0 || h["reasons"] == nil {
		t.Errorf("health %v", h)
	}

	late := observe(t, cfg, "fovea/#") // what is retained
	for _, topic := range []string{topics.Availability(), topics.Status(), topics.Model(), topics.CameraAvailability("yard"), topics.CameraState("yard"), topics.Auto(), topics.AutoSource()} {
		eventually(t, topic+" is retained", func() bool { return len(late.all(topic)) == 1 })
	}
	if got := late.all(topics.Event()); got != nil {
		t.Errorf("the event is retained: %q", got)
	}
	if err := d.RemoveCamera("yard"); err != nil {
		t.Fatal(err)
	}
	o.wants(topics.CameraState("yard"), "")

	stop()
	o.wants(topics.Availability(), Offline)
	if s := d.Status(); s.Connected || s.Queue != 0 {
		t.Errorf("after the stop: %+v", s)
	}
}

func TestLastWill(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Device: "gate-1", Broker: m.URL()}
	o := observe(t, cfg, "fovea/#")
	full, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", m.Addr())
	if err != nil {
		t.Fatal(err)
	}
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.ClientIdentifier = "MQTT", 4, full.ClientID
	hello.WillFlag, hello.WillRetain, hello.WillQos = true, true, 1
	hello.WillTopic, hello.WillMessage = "fovea/gate-1/availability", []byte(Offline)
	if err := hello.Write(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := packets.ReadPacket(conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	o.wants("fovea/gate-1/availability", Offline)
}

// TestBrokerAwayAndBackEmpty is the promise: with the broker away for 20 s (10
// minutes with FOVEA_SOAK) and started again empty, the newest state and all
// events are out within 10 s of its return, what the bound drops is counted
// exactly, and memory is flat.
func TestBrokerAwayAndBackEmpty(t *testing.T) {
	away := 20 * time.Second
	if os.Getenv("FOVEA_SOAK") != "" {
		away = 10 * time.Minute
	}
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Device: "gate-1", Broker: m.URL()}
	queue := NewQueue(500)
	d, err := New(cfg, queue, NewCommandLog(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	run(t, d)
	eventually(t, "connected", func() bool { return d.Status().Connected })
	d.SetModel(ModelCard{Version: -1})

	m.Stop()
	began := time.Now()
	eventually(t, "the loss is noticed", func() bool { return !d.Status().Connected })
	// Published all the while: 50 events a second and ten times as many states.
	const everySecond = 50
	var (
		emitted int
		early   uint64 // memory once the queue is full
	)
	for ; time.Since(began) < away || emitted < 700; time.Sleep(time.Second / everySecond) {
		if err := d.Emit(Event{Type: CameraBack, Reason: fmt.Sprint(emitted)}); err != nil {
			t.Fatal(err)
		}
		emitted++
		for n := range 10 {
			d.SetModel(ModelCard{Version: int64(10*emitted + n)})
			d.SetCameraState("yard", CameraState{Label: fmt.Sprint(emitted, n)})
		}
		if emitted == 600 {
			early = heapInUse()
		}
	}
	late := heapInUse()
	t.Logf("away %v: %d events, memory %.1f MB when the queue was full, %.1f MB at the end", away, emitted, float64(early)/1e6, float64(late)/1e6)
	if late > early+2e6 {
		t.Errorf("memory grew from %d to %d bytes", early, late)
	}
	problem(t, d, Unreachable)
	lost := uint64(emitted - 500)
	if s := d.Status(); s.Queue != 500 || s.Dropped != lost {
		t.Fatalf("queue %d, dropped %d; want 500, %d", s.Queue, s.Dropped, lost)
	}

	m.Start()
	back := time.Now()
	o := observe(t, cfg, "fovea/#")
	newest := int64(10*emitted + 9)
	var card ModelCard
	eventually(t, "newest state and all events are out", func() bool {
		return len(o.all(d.Topics().Event())) >= 500 && queue.Len() == 0 &&
			json.Unmarshal([]byte(o.last(d.Topics().Model())), &card) == nil && card.Version == newest
	})
	took := time.Since(back)
	t.Logf("all out %v after the broker's return, %d dropped", took.Round(time.Millisecond), lost)
	if took > 10*time.Second {
		t.Errorf("it took %v, promised are 10 s", took)
	}
	seen := o.all(d.Topics().Event())
	for i, text := range seen {
		var e Event
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.Reason != fmt.Sprint(emitted-500+i) {
			t.Fatalf("event %d of %d is %s (%v)", i, len(seen), text, err)
		}
	}
	if n := len(o.all(d.Topics().Model())); n != 1 {
		t.Errorf("%d model cards were sent, want the newest alone", n)
	}
	o.wants(d.Topics().Availability(), Online)
	if s := d.Status(); s.Dropped != lost || s.Reconnects != 1 {
		t.Errorf("after: %+v", s)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func TestRefusals(t *testing.T) {
	for code, want := range map[byte]Problem{1: RefusedProtocol, 2: RefusedClientID, 3: RefusedUnavailable, 4: RefusedCredentials, 5: RefusedAuthority, 77: NoAnswer} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, Config{Device: "gate-1", Broker: realparts.StartRefusing(t, code, false)})
			run(t, d)
			if code == 77 { // the library takes it for a connection that is lost at once
				eventually(t, "not connected, with a reason", func() bool { s := d.Status(); return !s.Connected && s.Reason != "" })
				return
			}
			s := problem(t, d, want)
			if s.Connected || !strings.Contains(s.Reason, fmt.Sprintf("CONNACK %d", code)) {
				t.Errorf("status %+v", s)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		d := newDevice(t, Config{Device: "gate-1", Broker: realparts.StartRefusing(t, 0, true)})
		run(t, d)
		problem(t, d, NoAnswer)
	})
}

// TestStalledBroker: one that greets and then says nothing more is left.
func TestStalledBroker(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var open []net.Conn
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open = append(open, conn)
			packets.ReadPacket(conn)
			conn.Write([]byte{0x20, 2, 0, 0})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, conn := range open {
			conn.Close()
		}
	})
	d := newDevice(t, Config{Device: "gate-1", Broker: "mqtt://" + l.Addr().String()})
	run(t, d)
	s := problem(t, d, ConnectionLost)
	if s.Connected || !strings.Contains(s.Reason, "no answer") {
		t.Errorf("status %+v", s)
	}
}

// TestSubscribeDenied: a broker that lets a device in but not read its commands.
func TestSubscribeDenied(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			p, err := packets.ReadPacket(conn)
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *packets.ConnectPacket:
				conn.Write([]byte{0x20, 2, 0, 0})
			case *packets.SubscribePacket:
				answer := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
				answer.MessageID = p.MessageID
				for range p.Topics {
					answer.ReturnCodes = append(answer.ReturnCodes, 0x80)
				}
				answer.Write(conn)
			case *packets.PublishPacket:
				answer := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				answer.MessageID = p.MessageID
				answer.Write(conn)
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	d := newDevice(t, Config{Device: "gate-1", Broker: "mqtt://" + l.Addr().String()})
	run(t, d)
	s := problem(t, d, SubscribeDenied)
	if !s.Connected || !strings.Contains(s.Reason, "fovea/gate-1/cmd/+/+") {
		t.Errorf("status %+v", s)
	}
	d.Emit(Event{Type: CameraBack})
	eventually(t, "it publishes all the same", func() bool { return d.Status().Queue == 0 })
}

func TestPasswords(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	passwords := file("passwords", hashedPassword(t))
	acl := file("acl", "user gate\ntopic readwrite fovea/gate-1/#\n")
	m := realparts.StartMosquitto(t, "password_file "+passwords+"\nacl_file "+acl)

	secret := file("secret", "wrong\n")
	d := newDevice(t, Config{Device: "gate-1", Broker: m.URL(), UsernameFile: file("user", "gate\n"), PasswordFile: secret})
	run(t, d)
	s := problem(t, d, RefusedAuthority) // what Mosquitto 2 says of a wrong password
	if !strings.Contains(s.Hint, secret) {
		t.Errorf("the hint does not name the file: %s", s.Hint)
	}
	file("secret", "secret-1\n") // a corrected file is taken without a restart
	eventually(t, "connected", func() bool { return d.Status().Connected })

	missing := newDevice(t, Config{Device: "gate-1", Broker: m.URL(), UsernameFile: secret, PasswordFile: filepath.Join(dir, "absent")})
	run(t, missing)
	if s := problem(t, missing, BadCredentialFiles); !strings.Contains(s.Reason, "absent") {
		t.Errorf("the reason does not name the file: %s", s.Reason)
	}
}

// hashedPassword is a line of Mosquitto's password file: user gate, password
// secret-1.
func hashedPassword(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("mosquitto_passwd"); err != nil {
		t.Skip("mosquitto_passwd is not installed: apt-get install mosquitto")
	}
	path := filepath.Join(t.TempDir(), "passwords")
	if out, err := exec.Command("mosquitto_passwd", "-c", "-b", path, "gate", "secret-1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTLS(t *testing.T) {
	ca, other := realparts.NewAuthority(t), realparts.NewAuthority(t)
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	start := func(t *testing.T, name string, until time.Time) string {
		cert, key := ca.Issue(name, until)
		m := realparts.StartMosquitto(t, fmt.Sprintf("cafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\nallow_anonymous true", ca.File, cert, key))
		return "mqtts://" + m.Addr()
	}
	cert, key := ca.Issue("gate-1", later)
	oldCert, oldKey := ca.Issue("gate-1", past)
	strangeCert, strangeKey := other.Issue("gate-1", later)
	good := start(t, "127.0.0.1", later)

	for _, c := range []struct {
		name   string
		broker string
		cfg    Config
		want   Problem
	}{
		{"good", good, Config{CAFile: ca.File, CertFile: cert, KeyFile: key}, NoProblem},
		{"wrong CA", good, Config{CAFile: other.File, CertFile: cert, KeyFile: key}, TLSUntrusted},
		{"no CA", good, Config{CertFile: cert, KeyFile: key}, TLSUntrusted},
		{"no client certificate", good, Config{CAFile: ca.File}, TLSClient},
		{"expired client certificate", good, Config{CAFile: ca.File, CertFile: oldCert, KeyFile: oldKey}, TLSClient},
		{"strange client certificate", good, Config{CAFile: ca.File, CertFile: strangeCert, KeyFile: strangeKey}, TLSClient},
		{"expired broker certificate", start(t, "127.0.0.1", past), Config{CAFile: ca.File, CertFile: cert, KeyFile: key}, TLSExpired},
		{"another name", start(t, "broker.example", later), Config{CAFile: ca.File, CertFile: cert, KeyFile: key}, TLSHostname},
		{"plain to a TLS port", strings.Replace(good, "mqtts", "mqtt", 1), Config{}, NoAnswer},
		{"CA file is none", good, Config{CAFile: key}, BadCredentialFiles},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Device, c.cfg.Broker = "gate-1", c.broker
			c.cfg.ClientID = strings.ReplaceAll(c.name, " ", "-")
			d := newDevice(t, c.cfg)
			run(t, d)
			if c.want == NoProblem {
				eventually(t, "connected", func() bool { return d.Status().Connected })
				return
			}
			s := problem(t, d, c.want)
			if c.want == TLSClient && c.cfg.CertFile == oldCert && !strings.Contains(s.Hint, "renew the client certificate") {
				t.Errorf("the hint does not see that the certificate has expired: %s", s.Hint)
			}
		})
	}
	t.Run("TLS to a plain port", func(t *testing.T) {
		m := realparts.StartMosquitto(t, "allow_anonymous true")
		d := newDevice(t, Config{Device: "gate-1", Broker: "mqtts://" + m.Addr(), CAFile: ca.File})
		run(t, d)
		problem(t, d, TLSFailed) // Mosquitto closes without a word
	})
}

// TestTakeover runs two daemons with one client id.
func TestTakeover(t *testing.T) {
	m := realparts.StartMosquitto(t, "allow_anonymous true")
	cfg := Config{Device: "gate-1", Broker: m.URL()}
	a, b := newDevice(t, cfg), newDevice(t, cfg)
	run(t, a)
	run(t, b)
	var alarmed *Device
	eventually(t, "one of them raises the alarm", func() bool {
		for _, d := range []*Device{a, b} {
			if d.Status().Problem == Takeover {
				alarmed = d
			}
		}
		return alarmed != nil
	})
	if s := alarmed.Status(); !strings.Contains(s.Reason, "fovea-gate-1") || s.Hint == "" {
		t.Errorf("status %+v", s)
	}
}

func TestBackoff(t *testing.T) {
	between := func(b backoff, least, most time.Duration) {
		t.Helper()
		for range 200 {
			if w := b.wait(); w < least || w > most {
				t.Fatalf("%+v waits %v, want %v to %v", b, w, least, most)
			}
		}
	}
	var b backoff
	between(b, time.Second, 2*time.Second)
	for range 3 {
		b.failed(false)
	}
	between(b, 8*time.Second, 16*time.Second)
	for range 100 {
		b.failed(false)
	}
	between(b, time.Minute, 2*time.Minute)
	b.failed(true) // nothing listens there: an attempt is cheap
	between(b, 2500*time.Millisecond, 5*time.Second)

	b = backoff{}
	for range 3 {
		if b.takeover() {
			t.Fatal("alarm too early")
		}
		b.ended(time.Second, true)
	}
	if !b.takeover() {
		t.Error("three takeovers raised no alarm")
	}
	between(b, 4*time.Second, 8*time.Second) // slowed
	b.ended(shortSession, true)
	if b.takeover() {
		t.Error("the alarm outlives a session that lasted")
	}
	between(b, time.Second, 2*time.Second)
	b.ended(time.Second, true)
	b.ended(time.Second, true)
	b.failed(true) // the broker was away
	b.ended(time.Second, true)
	if b.takeover() {
		t.Error("a broker that restarts was taken for a takeover")
	}
}

func TestEmbeddedBroker(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if _, err := NewBroker("0.0.0.0:0", file, quiet); err == nil {
		t.Error("it would listen beyond loopback")
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b, err := NewBroker("127.0.0.1:0", file, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Stop() })
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v %v", info.Mode(), err)
	}
	cfg := Config{Device: "gate-1", Broker: b.URL(), PasswordFile: b.PasswordFile()}
	d := newDevice(t, cfg)
	run(t, d)
	o := observe(t, cfg, "fovea/#")
	o.wants(d.Topics().Availability(), Online)

	stranger := newDevice(t, Config{Device: "gate-2", Broker: strings.Replace(b.URL(), "fovea@", "fovea:guess@", 1)})
	run(t, stranger)
	s := problem(t, stranger, RefusedAuthority) // what mochi says of a wrong password
	if strings.Contains(fmt.Sprintf("%+v", s), "guess") {
		t.Errorf("the password shows: %+v", s)
	}
	said, err := os.ReadFile(log.Name())
	if err != nil || !strings.Contains(string(said), `msg="mqtt: a client of the embedded broker"`) || strings.Contains(string(said), `msg=""`) {
		t.Errorf("the log of the broker: %v %s", err, said)
	}

	url := b.URL()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is noticed", func() bool { return !d.Status().Connected })
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	if b.URL() != url {
		t.Errorf("after a restart it is %s, was %s", b.URL(), url)
	}
	eventually(t, "connected again", func() bool { return d.Status().Connected })
	o = observe(t, cfg, "fovea/#")
	o.wants(d.Topics().Availability(), Online)

	again, err := NewBroker("127.0.0.1:0", file, quiet)
	if err != nil || again.password != b.password {
		t.Errorf("the password was not kept: %v", err)
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := New(Config{Device: "All", Root: "a/#", Broker: "http://u:hunter2@h", CertFile: "x", Allow: []Verb{"fly"}}, NewQueue(1), NewCommandLog(), quiet)
	if err == nil {
		t.Fatal("nothing was wrong")
	}
	for _, field := range []string{"device", "root", "broker", "cert_file", "allow"} {
		if !strings.Contains(err.Error(), "mqtt: "+field+":") {
			t.Errorf("%s is not named in: %v", field, err)
		}
	}
	for _, broker := range []string{"mqtt://user:hunter2@h:1:2", "mqtt://u:hunter2%zz@h", "://hunter2", "ftp://u:hunter2@h", "mqtt://u:hunter2@/x"} {
		_, err := Config{Device: "d", Broker: broker}.withDefaults()
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(Redact(broker), "u:hunter2") {
			t.Errorf("%s: %v, redacted %s", broker, err, Redact(broker))
		}
	}
	u, secure, err := parseBroker("mqtts://[::1]")
	if err != nil || u.Host != "[::1]:8883" || !secure {
		t.Errorf("%v %v %v", u, secure, err)
	}
}

func TestHugeMessagesAreCut(t *testing.T) {
	huge := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	huge.TopicName, huge.Payload, huge.Qos, huge.MessageID = "t", make([]byte, 20<<20), 1, 7
	small := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	small.TopicName, small.Payload = "t", []byte("small")
	client, broker := net.Pipe()
	go func() {
		huge.Write(broker)
		small.Write(broker)
		broker.Write([]byte{0x20, 0xff, 0xff, 0xff, 0x7f}) // a CONNACK of 256 MB
		broker.Close()
	}()
	cutting := newCutConn(client)
	got, err := packets.ReadPacket(cutting)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.(*packets.PublishPacket); p.MessageID != 7 || len(p.Payload) < commandLimit || len(p.Payload) > packetLimit {
		t.Errorf("id %d, %d bytes", p.MessageID, len(p.Payload))
	}
	if got, err = packets.ReadPacket(cutting); err != nil || string(got.(*packets.PublishPacket).Payload) != "small" {
		t.Errorf("the next packet is %v, %v", got, err)
	}
	if _, err = packets.ReadPacket(cutting); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a CONNACK of 256 MB: %v", err)
	}
	client.Close()
}

// TestHealthOfTwoAtOnce: what is to be sent is what the next Health is compared
// with; else an older one would stand until the next minute.
func TestHealthOfTwoAtOnce(t *testing.T) {
	d := newDevice(t, Config{Device: "gate-1", Broker: "mqtt://h"})
	wrong := 0
	const rounds = 3000
	for range rounds {
		var g sync.WaitGroup
		for _, word := range []string{HealthOK, HealthDegraded} {
			g.Go(func() { d.SetHealth(Health{Health: word}) })
		}
		g.Wait()
		var h Health
		if err := json.Unmarshal(d.out.slots[d.topics.Status()].payload, &h); err != nil {
			t.Fatal(err)
		}
		if changeKey(h) != d.lastKey {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("in %d of %d rounds the older one is sent and the newer one held for a change already told", wrong, rounds)
	}
}

func TestStatusOnChangeAndEveryMinute(t *testing.T) {
	quietHealth := Health{Health: HealthOK, Cameras: map[string]Camera{"a": {State: CameraOnline}}}
	moved := quietHealth
	moved.UptimeSeconds, moved.TS = 99, time.Now()
	moved.Cameras = map[string]Camera{"a": {State: CameraOnline, FPS: Known(3)}}
	lost := moved
	lost.Cameras = map[string]Camera{"a": {State: CameraLost}}
	if changeKey(quietHealth) != changeKey(moved) || changeKey(moved) == changeKey(lost) {
		t.Error("the wrong things count as changes")
	}
	if moved.Cameras["a"].FPS == nil {
		t.Error("changeKey changed its argument")
	}
}
