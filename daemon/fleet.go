package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// fleetVerb is what an operator does with many devices, from a machine of his own, over their broker alone.
type fleetVerb struct {
	Config       string `short:"c" placeholder:"FILE" help:"Where the broker is, in YAML (default: fovea/fleet.yaml in the user's configuration folder, if it is there)."`
	Broker       string `env:"FOVEA_BROKER" placeholder:"URL" help:"mqtt://host:1883 or mqtts://host:8883."`
	User         string `env:"FOVEA_BROKER_USER" help:"User name on the broker."`
	PasswordFile string `env:"FOVEA_BROKER_PASSWORD_FILE" placeholder:"FILE" help:"File with the password."`
	CA           string `name:"ca" placeholder:"FILE" help:"Certificates, in PEM, of those who may have signed the broker's (default: the system's)."`
	Cert         string `placeholder:"FILE" help:"Your certificate in PEM, where the broker wants one."`
	Key          string `placeholder:"FILE" help:"Its key."`
	Root         string `placeholder:"LEVEL" help:"First level of all topics (default: fovea)."`
	JSON         bool   `name:"json" help:"Write JSON for programs."`

	Ls       fleetLs       `cmd:"" help:"List the devices."`
	Watch    fleetWatch    `cmd:"" help:"List them, live."`
	Status   fleetStatus   `cmd:"" help:"All that a device says of itself."`
	Adapt    fleetAdapt    `cmd:"" help:"Adapt devices: a few first, the rest if those did well."`
	Cancel   fleetCancel   `cmd:"" help:"Stop adaptations that run."`
	Promote  fleetPromote  `cmd:"" help:"Approve the candidates that wait."`
	Rollback fleetRollback `cmd:"" help:"Go back to the model before."`
	Forget   fleetForget   `cmd:"" help:"Clear what devices that are gone left on the broker."`
	Simulate fleetSimulate `cmd:"" help:"Run devices that are not there, to try all this."`
}

func (fleetVerb) Help() string {
	return `Needs the broker alone: devices are asked and told over MQTT (docs/mqtt.md). Where it is say the flags, else the
file, whose keys are those of the daemon's section mqtt:

  # ~/.config/fovea/fleet.yaml
  url: mqtts://broker.example:8883
  username: operator
  password_file: password        # relative to this file
  ca_file: ca.pem

Devices are chosen by name, by the labels of their configuration (device.labels), or all:

  fovea fleet ls --select site=hall-2 --select 'model=vit-*'
  fovea fleet rollback line-3 line-4
  fovea fleet adapt --all --canary 10% --max-failures 2 --wait

Exit codes: 0 all went well; 2 it did not on some device, or a rollout was stopped; 69 no connection to the broker;
64 and 78 the command line or the file is wrong; 1 anything else.

Nothing to try it on? "fovea fleet simulate --own-broker -n 20" brings both.`
}

// Exit codes of the fleet's verbs, beside those of all.
const (
	exitDevices  = 2  // some device did not do what was asked
	exitNoBroker = 69 // EX_UNAVAILABLE
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// operatorConfig is the operator's file; its keys are those of MQTTConfig.
type operatorConfig struct {
	URL          string `yaml:"url,omitempty"`
	Username     string `yaml:"username,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	CAFile       string `yaml:"ca_file,omitempty"`
	CertFile     string `yaml:"cert_file,omitempty"`
	KeyFile      string `yaml:"key_file,omitempty"`
	Root         string `yaml:"root,omitempty"`
}

// loadOperator reads the operator's file; "" is the user's own where that exists, else nothing.
func loadOperator(file string) (c operatorConfig, err error) {
	given := file != ""
	if !given {
		dir, err := os.UserConfigDir()
		if err != nil { // no home: flags alone
			return c, nil
		}
		file = filepath.Join(dir, "fovea", "fleet.yaml")
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return c, nil
	}
	if err != nil {
		return c, &configError{file, []fault{{problem: fmt.Sprintf("cannot be read: %v", err)}}}
	}
	if d := decode(data, &c); len(d.faults) > 0 {
		return c, &configError{file, d.faults}
	}
	for _, path := range []*string{&c.PasswordFile, &c.CAFile, &c.CertFile, &c.KeyFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(filepath.Dir(file), *path)
		}
	}
	return c, nil
}

// connection is the broker as flags and file say.
func (f *fleetVerb) connection() (fleet.Config, error) {
	file, err := loadOperator(f.Config)
	if err != nil {
		return fleet.Config{}, err
	}
	c := fleet.Config{
		Broker: firstOf(f.Broker, file.URL), Root: firstOf(f.Root, file.Root),
		PasswordFile: firstOf(f.PasswordFile, file.PasswordFile), CAFile: firstOf(f.CA, file.CAFile),
		CertFile: firstOf(f.Cert, file.CertFile), KeyFile: firstOf(f.Key, file.KeyFile),
	}
	if c.Broker == "" {
		return c, &exitError{exitUsage, errors.New("which broker? give --broker mqtt://host:1883, or write it into ~/.config/fovea/fleet.yaml (\"fovea fleet --help\" shows how)")}
	}
	if user := firstOf(f.User, file.Username); user != "" {
		if u, err := url.Parse(c.Broker); err == nil {
			password, given := u.User.Password()
			u.User = url.User(user)
			if given {
				u.User = url.UserPassword(user, password)
			}
			c.Broker = u.String()
		}
	}
	return c, nil
}

// operator starts the operator's client. end stops it.
func (f *fleetVerb) operator(ctx context.Context) (o *fleet.Operator, end func(), err error) {
	config, err := f.connection()
	if err != nil {
		return nil, nil, err
	}
	// Its reasons are told by connected and by watch.
	if o, err = fleet.NewOperator(config, slog.New(slog.DiscardHandler)); err != nil {
		return nil, nil, &exitError{exitUsage, err}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.Run(ctx) // it ends with ctx alone
	}()
	return o, func() { cancel(); <-done }, nil
}

const (
	// settleFor is how long no device may be new before the table counts as whole: what is retained comes in
	// one go.
	settleFor = 500 * time.Millisecond
	// settleLimit is the longest that verbs wait for that.
	settleLimit = 10 * time.Second
)

// connected is operator, connected and with all that is retained on the broker seen. It gives up at the first
// attempt that fails.
func (f *fleetVerb) connected(ctx context.Context) (o *fleet.Operator, end func(), err error) {
	o, end, err = f.operator(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := waitConnected(ctx, o); err != nil {
		end()
		return nil, nil, err
	}
	seen, since := 0, time.Now()
	for begin := time.Now(); ctx.Err() == nil && time.Since(begin) < settleLimit && time.Since(since) < settleFor; {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		if n := heardFrom(o.Devices()); n != seen {
			seen, since = n, time.Now()
		}
	}
	return o, end, nil
}

// heardFrom counts what the devices have said, each kind of message once.
func heardFrom(devices []fleet.Seen) (n int) {
	for _, d := range devices {
		n++
		for _, said := range []bool{d.Online, d.Health != nil, d.Model != nil} {
			if said {
				n++
			}
		}
	}
	return n
}

func waitConnected(ctx context.Context, o *fleet.Operator) error {
	for {
		ok, problem, reason, hint := o.Connected()
		switch {
		case ok:
			return nil
		case problem != fleet.NoProblem:
			return &exitError{exitNoBroker, fmt.Errorf("%s (%s)\n  %s", reason, problem, hint)}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.Changed():
		}
	}
}
