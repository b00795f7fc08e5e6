package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what should take moments; it is long
// because the machine may be busy.
const patience = 40 * time.Second

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("in %v it did not happen: %s", patience, what)
}

// mosquitto is the real broker on a free loopback port.
type mosquitto struct {
	t    *testing.T
	port int
	conf string
	cmd  *exec.Cmd
}

// newMosquitto prepares a broker with these lines of configuration beside its
// listener; it is started by start.
func newMosquitto(t *testing.T, lines string) *mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed: apt-get install mosquitto")
	}
	dir := t.TempDir()
	m := &mosquitto{t: t, port: freePort(t), conf: filepath.Join(dir, "mosquitto.conf")}
	// Run by root it would change to another user, who cannot read the files.
	conf := fmt.Sprintf("user root\nlistener %d 127.0.0.1\n%s\n", m.port, lines)
	if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.stop)
	return m
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", m.conf)
	log, err := os.OpenFile(m.conf+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", m.addr())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// stop ends the broker by its own process id; it may be started again, empty.
func (m *mosquitto) stop() {
	if m.cmd == nil {
		return
	}
	m.cmd.Process.Kill()
	m.cmd.Wait()
	m.cmd = nil
	if m.t.Failed() {
		log, _ := os.ReadFile(m.conf + ".log")
		m.t.Logf("mosquitto: %s", log)
	}
}

func (m *mosquitto) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.port)) }
func (m *mosquitto) url() string  { return "mqtt://" + m.addr() }

// certificates makes a CA and certificates that it signed.
type certificates struct {
	dir  string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // of the CA
}

func newCertificates(t *testing.T) *certificates {
	t.Helper()
	c := &certificates{dir: t.TempDir()}
	c.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	c.file = c.write(t, "ca.pem", "CERTIFICATE", der)
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c *certificates) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue returns the files of a certificate for name, valid until notAfter.
func (c *certificates) issue(t *testing.T, name string, notAfter time.Time) (cert, key string) {
	t.Helper()
	k := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.ca, &k.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprint(template.SerialNumber)
	return c.write(t, base+".pem", "CERTIFICATE", der), c.write(t, base+".key", "EC PRIVATE KEY", secret)
}

// observer is another client that records what it sees.
type observer struct {
	t       *testing.T
	session *session

	mu  sync.Mutex
	got []arrival
}

func observe(t *testing.T, cfg Config, filters ...string) *observer {
	t.Helper()
	o := &observer{t: t}
	cfg.Device = "observer"
	cfg.ClientID = fmt.Sprintf("observer-%d", time.Now().UnixNano())
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	o.session, err = connect(t.Context(), cfg, nil, func(a arrival) {
		a.payload = append([]byte(nil), a.payload...)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.got = append(o.got, a)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.session.close)
	if len(filters) > 0 {
		if err := o.session.subscribe(t.Context(), 1, filters...); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// all returns the payloads seen on topic, oldest first.
func (o *observer) all(topic string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var p []string
	for _, a := range o.got {
		if a.topic == topic {
			p = append(p, string(a.payload))
		}
	}
	return p
}

// last returns the newest payload seen on topic.
func (o *observer) last(topic string) string {
	all := o.all(topic)
	if len(all) == 0 {
		return "(nothing)"
	}
	return all[len(all)-1]
}

// wants waits until the newest payload on topic is want.
func (o *observer) wants(topic, want string) {
	o.t.Helper()
	eventually(o.t, topic+" is "+want, func() bool { return o.last(topic) == want })
}

func (o *observer) publish(topic, payload string, retained bool) {
	o.t.Helper()
	if err := o.session.send(outgoing{topic: topic, qos: 1, retained: retained, payload: []byte(payload)})(patience); err != nil {
		o.t.Fatal(err)
	}
}

// run runs d until the test ends, or until the returned func is called, which
// waits for a clean stop.
func run(t *testing.T, d *Device) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func newDevice(t *testing.T, cfg Config) *Device {
	t.Helper()
	d, err := New(cfg, NewQueue(QueueLimit), NewCommandLog(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// problem waits for a problem and returns the status.
func problem(t *testing.T, d *Device, want Problem) Status {
	t.Helper()
	eventually(t, "the problem "+string(want), func() bool { return d.Status().Problem == want })
	s := d.Status()
	if s.Reason == "" || s.Hint == "" {
		t.Errorf("%s has no reason or hint: %+v", want, s)
	}
	return s
}
