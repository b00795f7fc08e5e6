package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/store"
)

const (
	systemSocket = "/run/fovea/fovea.sock"
	socketName   = "fovea.sock" // in the state folder
)

// sockets are where the daemon's socket may be, the first that can be had. Whoever may connect may do everything.
func (c *Config) sockets() []string {
	own := filepath.Join(c.StateDir, socketName)
	switch {
	case c.Socket != "":
		return []string{c.Socket}
	case c.StateDir == systemState:
		return []string{systemSocket, own}
	}
	return []string{own}
}

// socketRoutes is what the verbs of this program ask of the daemon.
func (d *daemon) socketRoutes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, d.status.Load()) })
	if samples := d.samples(); samples != nil {
		api := &samplesAPI{samples: samples, take: d.importSample, forget: d.forgetPictures, changed: func() { d.keeper.count(samples) }, skipped: d.keeper.dropped.Load}
		api.readRoutes(mux)
		api.writeRoutes(mux)
		api.socketRoutes(mux)
	}
	if d.store != nil {
		config, _ := d.configs.get()
		api := &modelsAPI{state: d.store.State, dir: config.StateDir}
		api.readRoutes(mux)
		api.verifyRoutes(mux)
	}
	d.modelRoutes(mux, "the command line")
	mux.HandleFunc("POST /api/db/check", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, d.checkStore(r.Context())) })
	return mux
}

// serveSocket answers on the unix socket. One that cannot be had is told in the status and tried again.
func (d *daemon) serveSocket(ctx context.Context) error {
	for ctx.Err() == nil {
		config, _ := d.configs.get()
		listener, err := listenUnix(config.sockets())
		if err == nil {
			d.problems.set("socket", "")
			err = d.answer(ctx, listener)
		}
		if err != nil && ctx.Err() == nil && d.problems.set("socket", err.Error()+"; name another in socket") {
			d.log.Error("no socket for the verbs", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryListen):
		}
	}
	return nil
}

func (d *daemon) answer(ctx context.Context, listener net.Listener) error {
	d.log.Info("socket", "path", listener.Addr().String())
	server := &http.Server{
		Handler: d.socketRoutes(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listenUnix listens on the first path that can be had, for this user alone.
func listenUnix(paths []string) (net.Listener, error) {
	var all []error
	for _, path := range paths {
		l, err := listenUnixAt(path)
		if err == nil {
			return l, nil
		}
		all = append(all, err)
	}
	return nil, errors.Join(all...)
}

func listenUnixAt(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if other, err := net.DialTimeout("unix", path, time.Second); err == nil {
		other.Close()
		return nil, fmt.Errorf("%s: another daemon answers there", path)
	} else if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&os.ModeSocket != 0 { // of a process that is gone
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// client speaks to the daemon of a configuration.
type client struct {
	http.Client
	close func()
}

// dialDaemon connects to the daemon; nil where none runs.
func dialDaemon(c *Config) (*client, error) {
	for _, path := range c.sockets() {
		conn, err := net.DialTimeout("unix", path, 2*time.Second)
		if err != nil {
			if errors.Is(err, os.ErrPermission) {
				return nil, fmt.Errorf("the daemon's socket %s is another user's: try as root", path)
			}
			continue
		}
		conn.Close()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		return &client{Client: http.Client{Transport: transport}, close: transport.CloseIdleConnections}, nil
	}
	return nil, nil
}

// dial connects to the daemon. Where none runs, the verb answers itself, from the files.
func dial(ctx context.Context, c *Config) (*client, error) {
	if live, err := dialDaemon(c); live != nil || err != nil {
		return live, err
	}
	if _, err := os.Stat(c.StateDir); err != nil {
		return nil, fmt.Errorf("no daemon runs and there is no state folder: %w; name the daemon's configuration with --config", err)
	}
	s, err := store.Open(ctx, c.StateDir, store.Options{
		Samples: store.Limits{Bytes: int64(c.Samples.Megabytes) * 1e6}, Check: checkInChild, LockWait: 2 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	if s.Samples == nil {
		s.Close()
		return nil, errors.New(strings.Join(s.Alarms, "; "))
	}
	api := &samplesAPI{
		samples: s.Samples, take: func(ctx context.Context, sample store.Sample) error { return takeInUnseen(ctx, s.Samples, sample) },
		forget: func(context.Context) error { return purgePictures(c.StateDir) },
	}
	mux := http.NewServeMux()
	api.readRoutes(mux)
	api.writeRoutes(mux)
	api.socketRoutes(mux)
	models := &modelsAPI{state: s.State, dir: c.StateDir}
	models.readRoutes(mux)
	models.verifyRoutes(mux)
	listener := newPipeListener()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends with close
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return listener.dial() }}
	return &client{Client: http.Client{Transport: transport}, close: func() {
		server.Close()
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "fovea:", err)
		}
	}}, nil
}

// do sends a request and decodes the answer into out, where that is not nil.
func (c *client) do(ctx context.Context, method, path string, body io.Reader, out func(io.Reader) error) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, body)
	if err != nil {
		return err
	}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		if answer.StatusCode == http.StatusNotFound && strings.HasPrefix(string(text), "404 page") {
			return errors.New("the daemon keeps no samples: its samples.megabytes is 0, or its store could not be opened")
		}
		return &answerError{answer.StatusCode, strings.TrimSpace(string(text))}
	}
	if out == nil {
		return nil
	}
	return out(answer.Body)
}

// answerError is what the daemon says against a request.
type answerError struct {
	status int
	text   string
}

func (e *answerError) Error() string { return e.text }

// pipeListener accepts connections of the same process.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial() (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "this process" }
