package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

type runVerb struct {
	Config string `short:"c" help:"Configuration file (default: /etc/fovea/fovea.yaml if it is there; else nothing is configured, and the page says what is missing)." placeholder:"FILE"`
}

func (runVerb) Help() string {
	return `Reads the cameras, classifies their pictures with one model in turn, publishes the answers over MQTT and
shows them on a page. SIGHUP reads the configuration again; SIGINT and SIGTERM end it within 10 seconds.

  fovea run                            nothing configured: open http://127.0.0.1:8080
  fovea run --config fovea.yaml
  kill -HUP $(pidof fovea)             a configuration that is bad is refused, with its faults in the log`
}

func (v runVerb) Run(ctx context.Context) error {
	config, err := loadConfig(v.Config)
	if err != nil {
		return err
	}
	d, err := newDaemon(v.Config, config, os.Stderr)
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1) // one more is as good as many
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	return d.run(ctx, hangups)
}

// daemon is the running program. Its fields are set by newDaemon and then safe for concurrent use, unless
// they say otherwise.
type daemon struct {
	file    string // configuration, read again by reload; "" is the system's
	started time.Time
	id      string // of this device
	token   string // of the page's writes
	log     *slog.Logger
	level   *slog.LevelVar

	configs  newest[*Config]
	problems problems
	notifier notifier
	metrics  *metrics

	cameras atomic.Pointer[[]*watched] // in the order of the configuration
	wake    chan struct{}              // capacity 1: some camera has a frame, or changed its phase
	nets    chan *served               // capacity 1: the next net to serve; nil ends serving
	live    atomic.Pointer[served]     // what the inference goroutine serves; it alone may call its net
	timing  timing                     // of all answers

	progress atomic.Uint64 // turns of the inference loop
	status   atomic.Pointer[status]
	history  history
	device   atomic.Pointer[fleet.Device]
	shown    description  // as Home Assistant was told; lookAround's own
	store    *store.Store // nil where it could not be opened; set before the goroutines start
	keeper   *keeper
	gaze     gaze
	cycle    *cycle

	settled      chan struct{} // closed when the first model is served, or known not to load
	modelSettled func()

	backendsMutex sync.Mutex
	backends      map[ModelConfig]*model.Backend // opened, by their settings; Dir is empty

	webAddress newest[string] // where the page is served; "" nowhere
}

func newDaemon(file string, config *Config, logTo io.Writer) (*daemon, error) {
	d := &daemon{
		file: file, started: time.Now(),
		level:    new(slog.LevelVar),
		wake:     make(chan struct{}, 1),
		nets:     make(chan *served, 1),
		settled:  make(chan struct{}),
		keeper:   newKeeper(),
		cycle:    newCycle(),
		backends: map[ModelConfig]*model.Backend{},
	}
	options := &slog.HandlerOptions{Level: d.level}
	if config.Log.Format == "json" {
		d.log = slog.New(slog.NewJSONHandler(logTo, options))
	} else {
		d.log = slog.New(slog.NewTextHandler(logTo, options))
	}
	d.notifier.log = d.log
	d.modelSettled = sync.OnceFunc(func() { close(d.settled) })
	d.cameras.Store(&[]*watched{})

	var err error
	if err = makeStateDir(config.StateDir); err != nil {
		return nil, err
	}
	if d.id, err = deviceID(config); err != nil {
		return nil, fmt.Errorf("device id: %w", err)
	}
	if d.token, err = secretFile(filepath.Join(config.StateDir, tokenFile)); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	d.metrics = newMetrics(d)
	d.take(config)
	d.status.Store(d.look(time.Now()))
	return d, nil
}

// take makes a checked configuration the current one.
func (d *daemon) take(config *Config) {
	d.level.UnmarshalText([]byte(config.Log.Level)) // one of four words that it knows
	d.configs.set(config)
}

// stopLimit is how long the goroutines may take to end; systemd kills after TimeoutStopSec, which is longer.
const stopLimit = 9 * time.Second

// run is the daemon until ctx is done. Its goroutines:
func (d *daemon) run(ctx context.Context, hangups <-chan os.Signal) error {
	if err := d.openStore(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	part := func(f func(context.Context) error) { group.Go(func() error { return f(ctx) }) }

	part(d.watchCameras) // a child process a camera -> frames in slots of capacity 1, newest wins
	part(func(ctx context.Context) error {
		return follow(ctx, &d.configs, func(c *Config) ModelConfig { return c.Model }, d.serveModel) // -> d.nets
	})
	part(d.infer)       // frames, nets -> answers: watched.latest, d.publish, keeper.offer
	part(d.keepSamples) // offers, imports -> d.store
	part(d.adaptations) // triggers, commands, ends of probation -> d.store, d.nets
	part(d.lookAround)  // everything -> d.status, four times a second
	part(d.serveSocket) // the verbs of this program -> d.store
	part(func(ctx context.Context) error {
		return follow(ctx, &d.configs, func(c *Config) MQTTConfig { return c.MQTT }, d.talk) // status, answers -> broker
	})
	part(func(ctx context.Context) error {
		return follow(ctx, &d.configs, func(c *Config) WebConfig { return c.Web }, d.serveWeb) // status, answers -> page
	})
	part(func(ctx context.Context) error { return d.reloadAt(ctx, hangups) })
	part(d.feedWatchdog)
	part(d.sayReady)

	ended := make(chan error, 1)
	go func() {
		err := group.Wait()
		d.closeStore()
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	d.notifier.stopping()
	d.log.Info("stopping")
	select {
	case err := <-ended:
		if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, http.ErrServerClosed) {
			d.log.Info("stopped", "uptime", time.Since(d.started).Round(time.Second).String())
			return nil
		}
		return err
	case <-time.After(stopLimit):
		return fmt.Errorf("a part did not end within %v of the stop", stopLimit)
	}
}

// sayReady tells systemd once configuration, stores and net are up, or once it is known what is missing.
func (d *daemon) sayReady(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.settled:
	}
	d.notifier.started("watching")
	d.log.Info("ready", "device", d.id, "version", version())
	return nil
}

// reloadAt reads the configuration again at each signal.
func (d *daemon) reloadAt(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			_ = d.reload() // it is logged and told in the status
		}
	}
}

// reload reads the configuration again. A bad one changes nothing; the error names its faults.
func (d *daemon) reload() error {
	d.notifier.reloading()
	defer d.notifier.started("watching")
	next, err := loadConfig(d.file)
	if err != nil {
		d.problems.set("reload", "the new configuration is refused, the old one goes on: "+err.Error())
		d.log.Error("not reloaded, the old configuration goes on", "error", err)
		return err
	}
	d.problems.set("reload", "")
	old, _ := d.configs.get()
	if next.StateDir != old.StateDir || next.Device.ID != old.Device.ID || next.Log.Format != old.Log.Format {
		d.log.Warn("state_dir, device.id and log.format change at the next start")
		next.StateDir, next.Device.ID, next.Log.Format = old.StateDir, old.Device.ID, old.Log.Format
	}
	d.take(next)
	d.log.Info("reloaded", "cameras", len(next.Cameras))
	return nil
}
