package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
)

// What the doctor sees of the daemon's parts: model and backend, cameras, broker, page.

const (
	brokerPatience = 25 * time.Second // of an operator's own limits for a connection
	doctorPasses   = 10
)

// model loads the model, opens what computes it, and times it where no daemon does already.
func (d *diagnosis) model(ctx context.Context, c *Config, live *status, quick bool) {
	if c.Model.Dir == "" {
		d.warn("model", "fovea models pull, or fovea head fit, and name the folder in model.dir", "none is configured: nothing is classified")
		return
	}
	checkpoint, err := model.Load(c.Model.Dir)
	if err != nil {
		d.fault("model", "correct model.dir, or get a model: fovea models pull", "%v", err)
		return
	}
	d.ok("model", "%s: %s, sha256 %.12s", c.Model.Dir, modelTitle(checkpoint.Config), checkpoint.Digest())
	if checkpoint.Config.Classes == 0 {
		d.warn("model", "fovea head fit --base "+c.Model.Dir, "it has no head: frames get no label")
	}

	plugins := c.Model.plugins()
	for _, p := range []struct{ name, path string }{{"plugin cpu", plugins.CPU.Path}, {"plugin cuda", plugins.CUDA.Path}, {"plugin onnx", plugins.ONNX.Path}} {
		if p.path != "" {
			d.ok(p.name, "%s", p.path)
		}
	}
	backend, err := model.OpenBackend(c.Model.Backend, plugins)
	if err != nil {
		install := model.BackendXLACPU
		if strings.HasPrefix(c.Model.Backend, "onnx") {
			install = model.BackendONNXCPU
		}
		d.fault("backend", "fovea plugin install "+install+", or model.backend: auto", "%v", err)
		return
	}
	if backend.Kind == model.BackendGo && c.Model.Backend != model.BackendGo {
		d.warn("backend", "fovea plugin install xla:cpu", "go, several times slower than xla:cpu: %s", strings.Join(backend.Skipped, "; "))
	} else {
		d.ok("backend", "%s", backend.Kind)
	}

	switch {
	case live != nil && live.Health.Inference.P50Seconds != nil:
		h := live.Health.Inference
		d.ok("speed", "%.0f ms a frame (median of the last minute), %.0f ms at most for 95 of 100", 1000**h.P50Seconds, 1000**h.P95Seconds)
	case live != nil || quick:
	default:
		pass, err := timeModel(ctx, backend, checkpoint)
		if err != nil {
			d.fault("speed", "try another model.backend", "the model does not run: %v", err)
			return
		}
		d.ok("speed", "%.1f ms a frame, %.1f s to compile", pass.MedianMS, pass.CompileMS/1000)
	}
}

func timeModel(ctx context.Context, b *model.Backend, c *model.Checkpoint) (benchPass, error) {
	net, err := model.NewNet(b, c)
	if err != nil {
		return benchPass{}, err
	}
	defer net.Close()
	return timePasses(ctx, net, 0, fixedPicture(c.Config), doctorPasses, func() {})
}

// plugins are those configured, else those found.
func (c ModelConfig) plugins() model.Plugins {
	p := model.FindPlugins()
	configured := func(to *model.Plugin, from PluginConfig) {
		if from.Path != "" {
			*to = model.Plugin(from)
		}
	}
	configured(&p.CPU, c.Plugins.CPU)
	configured(&p.CUDA, c.Plugins.CUDA)
	configured(&p.ONNX, c.Plugins.ONNX)
	return p
}

// cameras asks the running daemon, or reads each camera for a moment, all at once.
func (d *diagnosis) cameras(ctx context.Context, c *Config, live *status) {
	if len(c.Cameras) == 0 {
		d.warn("camera", "add one to the configuration under cameras", "none is configured")
		return
	}
	if live != nil {
		for _, camera := range live.Cameras {
			part := "camera " + camera.ID
			switch {
			case camera.Phase == capture.Running.String():
				d.picture(part, fmt.Sprintf("%s: %d x %d, %.1f frames a second, read by %s", camera.Source, camera.Width, camera.Height, camera.SourceFPS, camera.Decoder), camera.Quality)
			default:
				d.fault(part, "", "%s is %s: %s", camera.Source, camera.Phase, camera.Problem)
			}
		}
		return
	}
	states := make([]capture.State, len(c.Cameras))
	var all sync.WaitGroup
	for i, camera := range c.Cameras {
		all.Go(func() {
			if camera.PasswordFile != "" {
				camera.Password, _ = readSecret(camera.PasswordFile) // secrets said why not
			}
			states[i] = tryCamera(ctx, camera.Config)
		})
	}
	all.Wait()
	for i, s := range states {
		part := "camera " + c.Cameras[i].ID
		switch {
		case s.Frames > 0:
			d.picture(part, fmt.Sprintf("%s: %d x %d, read by %s", s.Source, s.Width, s.Height, s.Decoder), s.Quality.String())
		default:
			d.fault(part, "", "%s: %s", s.Source, strings.TrimPrefix(s.LastError, s.Source+": "))
		}
	}
}

func (d *diagnosis) picture(part, says, quality string) {
	if quality == "" || quality == capture.OK.String() || quality == capture.Repeated.String() {
		d.ok(part, "%s", says)
	} else {
		d.warn(part, "look at the camera: cover, light, aim, power", "%s; the picture is %s", says, quality)
	}
}

// tryCamera reads a camera until its first picture or its first failure, which capture waits for no longer than it says.
func tryCamera(ctx context.Context, c capture.Config) (s capture.State) {
	wake := make(chan struct{}, 1)
	camera, err := capture.Open(c, capture.Options{Log: slog.New(slog.DiscardHandler), Wake: wake})
	if err != nil {
		return capture.State{LastError: err.Error()}
	}
	defer camera.Close()
	for {
		s = camera.State()
		if s.Frames > 0 || s.LastError != "" {
			return s
		}
		select {
		case <-wake:
		case <-ctx.Done():
			s.LastError = context.Cause(ctx).Error()
			return s
		}
	}
}

// broker connects as a reader would: the daemon's own connection is not disturbed, and nothing is published.
func (d *diagnosis) broker(ctx context.Context, c *Config, live *status) {
	const part = "broker"
	if live != nil {
		switch b := live.Broker; {
		case b.Connected && b.Problem == "":
			d.ok(part, "connected to %s; topics below %s", b.Address, b.Topic)
		default:
			d.fault(part, "", "%s: %s", b.Address, firstOf(b.Problem, "not connected"))
		}
		return
	}
	if c.MQTT.URL == "" {
		d.address(part, "name another in mqtt.listen, or give the url of a broker that runs", "embedded, on", c.MQTT.Listen)
		return
	}
	config := fleet.Config{Root: c.MQTT.Root, Broker: c.MQTT.URL, PasswordFile: c.MQTT.PasswordFile, CAFile: c.MQTT.CAFile, CertFile: c.MQTT.CertFile, KeyFile: c.MQTT.KeyFile}
	if u, err := url.Parse(c.MQTT.URL); err == nil && c.MQTT.Username != "" {
		u.User = url.User(c.MQTT.Username)
		config.Broker = u.String()
	}
	operator, err := fleet.NewOperator(config, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		d.fault(part, "correct the configuration's part mqtt", "%v", err)
		return
	}
	ctx, stop := context.WithTimeout(ctx, brokerPatience)
	ended := make(chan error, 1)
	go func() { ended <- operator.Run(ctx) }()
	connected, problem, reason, hint := false, fleet.NoProblem, "", ""
	for !connected && problem == fleet.NoProblem && ctx.Err() == nil {
		select {
		case <-operator.Changed():
		case <-ctx.Done():
		}
		connected, problem, reason, hint = operator.Connected()
	}
	stop()
	<-ended
	switch name := fleet.Redact(c.MQTT.URL); {
	case connected:
		d.ok(part, "%s takes this user", name)
	case problem == fleet.SubscribeDenied: // this user is a device, not an operator
		d.ok(part, "%s takes this user, who may not read other devices", name)
	case problem == fleet.NoProblem:
		d.fault(part, "check its address and the network", "%s: no answer within %v", name, brokerPatience)
	default:
		d.fault(part, hint, "%s: %s (%s)", name, reason, problem)
	}
}

// page looks at what the page needs: a free address, a certificate that is valid.
func (d *diagnosis) page(c *Config, live *status) {
	const part = "page"
	if c.Web.Listen == webOff {
		d.ok(part, "off")
		return
	}
	if c.Web.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.Web.TLSCert, c.Web.TLSKey)
		switch now := time.Now(); {
		case err != nil:
			d.fault(part, "correct web.tls_cert and web.tls_key", "%v", err)
		case now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore):
			d.fault(part, "renew it", "the certificate %s is valid from %s to %s", c.Web.TLSCert, pair.Leaf.NotBefore.Format(time.DateOnly), pair.Leaf.NotAfter.Format(time.DateOnly))
		}
	}
	if live != nil {
		d.ok(part, "%s", c.Web.Listen)
		return
	}
	d.address(part, "name another in web.listen", "on", c.Web.Listen)
}

// address says whether a program could listen there.
func (d *diagnosis) address(part, do, how, address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		if _, port, splitErr := net.SplitHostPort(address); splitErr == nil {
			do += "; ss -ltnp 'sport = :" + port + "' shows who has this one"
		}
		d.fault(part, do, "%v", err)
		return
	}
	l.Close()
	d.ok(part, "%s %s", how, address)
}
