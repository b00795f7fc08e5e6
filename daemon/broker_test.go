package main

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

// mosquitto is the real broker on a free loopback port.
type mosquitto struct {
	t    *testing.T
	port string
	conf string
	cmd  *exec.Cmd
}

// startMosquitto runs a broker with these lines of configuration beside its listener.
func startMosquitto(t *testing.T, lines string) *mosquitto {
	t.Helper()
	m := &mosquitto{t: t, port: freePort(t), conf: filepath.Join(t.TempDir(), "mosquitto.conf")}
	// Run by root it would change to another user, who cannot read the files.
	conf := fmt.Sprintf("user root\nlistener %s 127.0.0.1\n%s\n", m.port, lines)
	if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.stop)
	m.start()
	return m
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", m.conf)
	if err := m.cmd.Start(); err != nil {
		m.t.Skipf("%v; install mosquitto", err)
	}
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", m.addr())
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(limit) {
			m.t.Fatalf("mosquitto does not listen: %v", err)
		}
	}
}

// stop ends the broker by its own process id; it may be started again, empty.
func (m *mosquitto) stop() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		m.cmd = nil
	}
}

func (m *mosquitto) addr() string { return net.JoinHostPort("127.0.0.1", m.port) }
func (m *mosquitto) url() string  { return "mqtt://" + m.addr() }
