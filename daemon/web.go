package main

import (
	"context"
	"crypto/tls"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// The page is plain HTML, CSS and JavaScript, without a build step. uplot.js is uPlot 1.6.32 from npm (MIT,
// uplot.LICENSE).
//
//go:embed web
var webFiles embed.FS

// retryListen is how long a page that could not be served is left before it is tried again.
const retryListen = 5 * time.Second

// serveWeb serves the page, its API, /metrics and /healthz. A page that cannot be served keeps nothing else
// from running.
func (d *daemon) serveWeb(ctx context.Context, c WebConfig) error {
	if c.Listen == webOff {
		d.problems.set("web", "")
		return nil
	}
	for ctx.Err() == nil {
		err := d.serveWebOnce(ctx, c)
		if err == nil || ctx.Err() != nil {
			break
		}
		if d.problems.set("web", err.Error()) {
			d.log.Error("no page", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryListen):
		}
	}
	return nil
}

func (d *daemon) serveWebOnce(ctx context.Context, c WebConfig) error {
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("%w; is another program there? web.listen takes another port", err)
	}
	defer listener.Close()
	scheme := "http"
	if c.TLSCert != "" {
		load := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { // at each handshake: certificates are renewed
			pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
			return &pair, err
		}
		if _, err := load(nil); err != nil {
			return fmt.Errorf("certificate of the page: %w; correct web.tls_cert and web.tls_key", err)
		}
		listener = tls.NewListener(listener, &tls.Config{GetCertificate: load, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
		scheme = "https"
	}
	d.problems.set("web", "")
	d.webAddress.set(scheme + "://" + listener.Addr().String())
	d.log.Info("page", "url", scheme+"://"+listener.Addr().String())
	defer d.webAddress.set("")

	server := &http.Server{
		Handler:           d.guard(c, d.routes()),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // streams end with the daemon
	}
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(limit) != nil {
			server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (d *daemon) routes() *http.ServeMux {
	files, err := fs.Sub(webFiles, "web")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /healthz", d.healthz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, d.status.Load()) })
	mux.HandleFunc("GET /api/history", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, d.history.since(0)) })
	mux.HandleFunc("GET /api/events", d.events)
	mux.HandleFunc("GET /api/cameras/{id}/view", d.view)
	mux.HandleFunc("GET /api/cameras/{id}/picture.jpg", d.picture)
	mux.HandleFunc("POST /api/reload", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.reload(); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /api/session", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]bool{"may_write": d.hasToken(r)})
	})
	if samples := d.samples(); samples != nil {
		api := &samplesAPI{samples: samples, changed: func() { d.keeper.count(samples) }, skipped: d.keeper.dropped.Load}
		api.readRoutes(mux)
		api.writeRoutes(mux)
	}
	if d.store != nil {
		config, _ := d.configs.get()
		(&modelsAPI{state: d.store.State, dir: config.StateDir}).readRoutes(mux)
	}
	d.modelRoutes(mux, "the page")
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "login.html") })
	mux.HandleFunc("POST /login", d.login)
	return mux
}

// healthz answers 200 while the daemon does its job, perhaps with something missing, and 503 when it does not.
func (d *daemon) healthz(w http.ResponseWriter, _ *http.Request) {
	word := d.status.Load().Health.Health
	if word == fleet.HealthFailing {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	writeJSON(w, map[string]string{"health": word})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // fails only where the reader is gone
}
