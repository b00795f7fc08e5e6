package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What systemd is told, read from a socket as it has one.
func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "2000000")

	var mu sync.Mutex
	var told []string
	go func() {
		message := make([]byte, 4096)
		for {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			mu.Lock()
			told = append(told, string(message[:n]))
			mu.Unlock()
		}
	}()
	count := func(what string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range told {
			if strings.Contains(m, what) {
				n++
			}
		}
		return n
	}

	p := start(t, "")
	p.wait("READY", func() bool { return count("READY=1") == 1 })
	p.wait("the watchdog fed thrice", func() bool { return count("WATCHDOG=1") >= 3 })
	p.hangups <- os.Interrupt
	p.wait("RELOADING, then READY", func() bool { return count("RELOADING=1\nMONOTONIC_USEC=") == 1 && count("READY=1") == 2 })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	p.wait("STOPPING", func() bool { return count("STOPPING=1") == 1 })
}
