// Package realparts gives tests the real programs that a device meets: Mosquitto, a broker that refuses, certificates
// for them, Home Assistant.
package realparts

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// patience is how long these parts may take for what takes moments; it is long because the machine may be busy.
const patience = 90 * time.Second

// Mosquitto is the real broker on a loopback port of its own.
type Mosquitto struct {
	Port string

	t    *testing.T
	conf string
	cmd  *exec.Cmd // nil: stopped
}

// StartMosquitto runs a broker until the test ends, with these lines of configuration beside its listener. Where
// Mosquitto is not installed the test is skipped.
func StartMosquitto(t *testing.T, lines string) *Mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed: apt-get install mosquitto")
	}
	m := &Mosquitto{t: t, Port: FreePort(t), conf: filepath.Join(t.TempDir(), "mosquitto.conf")}
	// Run by root it would change to another user, who cannot read the files.
	conf := fmt.Sprintf("user root\nlistener %s 127.0.0.1\n%s\n", m.Port, lines)
	if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	m.Start()
	return m
}

// Start runs a stopped broker again, empty.
func (m *Mosquitto) Start() {
	m.t.Helper()
	log, err := os.OpenFile(m.conf+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command("mosquitto", "-c", m.conf)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", m.Addr())
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(limit) {
			m.t.Fatalf("mosquitto does not listen: %v", err)
		}
	}
}

// Stop kills the broker.
func (m *Mosquitto) Stop() {
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

// Addr is host:port, URL what a device's configuration takes, Process the id of the running broker.
func (m *Mosquitto) Addr() string { return net.JoinHostPort("127.0.0.1", m.Port) }
func (m *Mosquitto) URL() string  { return "mqtt://" + m.Addr() }
func (m *Mosquitto) Process() int { return m.cmd.Process.Pid }

// FreePort is a loopback port that nothing listens on.
func FreePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// StartRefusing runs a broker that answers every CONNECT with this return code, 1 to 5 in the standard, or, silent,
// by closing the connection. It returns its URL.
func StartRefusing(t *testing.T, code byte, silent bool) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024)) // CONNECT fits
			if !silent {
				_, _ = conn.Write([]byte{0x20, 2, 0, code})
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "mqtt://" + l.Addr().String()
}
