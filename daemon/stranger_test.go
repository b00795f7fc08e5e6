package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
)

// TestChildDaemon is "fovea run" in a process of its own, for the tests that look at it from outside.
func TestChildDaemon(t *testing.T) {
	file := os.Getenv("FOVEA_TEST_RUN")
	if file == "" {
		t.Skip("only as a child of other tests")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, []string{"run", "--config", file}, os.Stdout, os.Stderr))
}

// startChildDaemon runs a configuration in a process of its own and waits until it is ready.
func startChildDaemon(t *testing.T, config string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "fovea.yaml")
	if strings.Contains(config, "GRAB") {
		grab, err := realGrabber()
		if err != nil {
			t.Fatal(err)
		}
		config = strings.ReplaceAll(config, "GRAB", grab)
	}
	if err := os.WriteFile(file, []byte("state_dir: state\n"+config), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run", "^TestChildDaemon$")
	child.Env = append(os.Environ(), "FOVEA_TEST_RUN="+file)
	log, err := child.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Signal(syscall.SIGTERM); child.Wait() })
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(log); s.Scan(); {
			lines <- s.Text()
		}
	}()
	limit := time.After(patience)
	for missing := []string{"msg=ready", "msg=page", "embedded broker started"}; len(missing) > 0; {
		select {
		case line, open := <-lines:
			if !open {
				t.Fatal("the daemon ended")
			}
			missing = slices.DeleteFunc(missing, func(m string) bool { return strings.Contains(line, m) })
		case <-limit:
			t.Fatalf("the daemon did not say %v", missing)
		}
	}
	go func() {
		for range lines { // the rest of its log
		}
	}()
	return child
}

// listening are the addresses at which a process and its children can be reached: TCP that listens, and UDP.
func listening(t *testing.T, pid int) (all []netip.AddrPort) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	inodes := map[string]bool{}
	fds, err := filepath.Glob(proc + "fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:[") {
			inodes[strings.Trim(strings.TrimPrefix(target, "socket:"), "[]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(proc + "net/" + table)
		if err != nil {
			continue // no IPv6 here
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			const listens = "0A"
			if len(f) < 10 || !inodes[f[9]] || strings.HasPrefix(table, "tcp") && f[3] != listens {
				continue
			}
			all = append(all, kernelAddress(t, f[1]))
		}
	}
	children, _ := filepath.Glob(proc + "task/*/children")
	for _, file := range children {
		text, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(child); err == nil {
				all = append(all, listening(t, pid)...)
			}
		}
	}
	return all
}

// kernelAddress reads an address as /proc/net/tcp writes it: words of 4 bytes in the machine's order, in hex.
func kernelAddress(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	words, port, _ := strings.Cut(text, ":")
	bytes, err := hex.DecodeString(words)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(bytes); i += 4 {
		binary.BigEndian.PutUint32(bytes[i:], binary.NativeEndian.Uint32(bytes[i:]))
	}
	address, ok := netip.AddrFromSlice(bytes)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		t.Fatalf("address %s: %v", text, err)
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(number))
}

// Nothing of the daemon, cameras included, can be reached from another machine unless its configuration says so.
func TestNothingListensBeyondLoopback(t *testing.T) {
	d := defaultConfig()
	if !isLoopback(d.Web.Listen) || !isLoopback(d.MQTT.Listen) {
		t.Errorf("by default it listens on %s and %s", d.Web.Listen, d.MQTT.Listen)
	}
	// The test can see a socket that is open to all.
	open, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if port := uint16(open.Addr().(*net.TCPAddr).Port); !slices.ContainsFunc(listening(t, os.Getpid()), func(a netip.AddrPort) bool { return a.Port() == port && a.Addr().IsUnspecified() }) {
		t.Fatal("an open socket of this process is not seen")
	}

	common := fmt.Sprintf("mqtt: {listen: \"127.0.0.1:0\"}\ncameras: [{id: door, source: %q, fps: 2, loop: true, grabber: GRAB}]\n", pictures(t))
	closed := startChildDaemon(t, common+"web: {listen: \"127.0.0.1:0\"}\n")
	addresses := listening(t, closed.Process.Pid)
	for _, a := range addresses {
		if !a.Addr().IsLoopback() {
			t.Errorf("%v can be reached from other machines", a)
		}
	}
	if len(addresses) != 2 { // page and broker
		t.Errorf("it listens on %v", addresses)
	}

	cert, key := realparts.NewAuthority(t).Issue("127.0.0.1", time.Now().Add(time.Hour))
	served := startChildDaemon(t, common+fmt.Sprintf("web: {listen: \"0.0.0.0:0\", tls_cert: %q, tls_key: %q}\n", cert, key))
	var beyond int
	for _, a := range listening(t, served.Process.Pid) {
		if !a.Addr().IsLoopback() {
			beyond++
		}
	}
	if beyond != 1 {
		t.Errorf("with the page configured for all, %d sockets are open to all", beyond)
	}
}

// Every request that could change something, of all that any file of this program serves, needs the token.
func TestWritesNeedTheToken(t *testing.T) {
	p := start(t, "device: {id: d}\n")
	route := regexp.MustCompile(`"(POST|PUT|PATCH|DELETE) (/[^"]*)"`)
	routes := map[string]string{"/api/anything": "POST"}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range route.FindAllStringSubmatch(read(t, file), -1) {
			routes[strings.NewReplacer("{", "", "}", "").Replace(m[2])] = m[1]
		}
	}
	if routes["/api/reload"] == "" || routes["/login"] == "" {
		t.Fatalf("routes %v", routes)
	}
	delete(routes, "/login") // which takes the token itself
	ask := func(method, path, token string) int {
		t.Helper()
		r, err := http.NewRequest(method, p.page()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	for path, method := range routes {
		for _, token := range []string{"", "wrong"} {
			if got := ask(method, path, token); got != http.StatusUnauthorized {
				t.Errorf("%s %s with the token %q: %d", method, path, token, got)
			}
		}
	}
	if got := ask("POST", "/api/reload", p.token); got != http.StatusNoContent {
		t.Errorf("with the token: %d", got)
	}
	t.Logf("%d routes that change something", len(routes)-1)
}
