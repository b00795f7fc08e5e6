package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-a98b2d25/fovea/fleet"
)

type fleetSimulate struct {
	Number    int               `short:"n" default:"10" help:"How many devices (default: 10)."`
	Prefix    string            `default:"sim" help:"They are called PREFIX-001 and so on."`
	OwnBroker bool              `help:"Also run a broker, on loopback, port 1883."`
	Failing   int               `placeholder:"N" help:"So many, the last ones, do not adapt well."`
	Ending    fleet.Ending      `enum:"rejected,rolled_back,failed,waiting" default:"rolled_back" help:"What those come to: rejected, rolled_back, failed, waiting (for approval)."`
	Label     map[string]string `placeholder:"KEY=VALUE" help:"Labels of all; site is site-1 to site-4 in turn unless given."`
	Adapt     time.Duration     `default:"10s" help:"How long an adaptation takes."`
	Probation time.Duration     `default:"10s" help:"How long its probation takes."`
	Every     time.Duration     `default:"5s" help:"Between two messages of a camera."`
	Cameras   int               `default:"1" help:"Cameras of each device."`
}

func (fleetSimulate) Help() string {
	return `They connect, speak, take commands and adapt as devices do; their figures are invented. Ctrl-C ends them; "fovea
fleet forget" clears what they left on a broker.

  fovea fleet simulate --own-broker -n 20 --failing 2     prints how to reach them
  fovea fleet simulate -n 300 --broker mqtt://broker.example`
}

func (v fleetSimulate) Run(ctx context.Context, out io.Writer, f *fleetVerb) error {
	if v.Number < 1 || v.Number > 10000 || v.Cameras < 0 {
		return &exitError{exitUsage, fmt.Errorf("-n %d --cameras %d: 1 to 10000 devices, with 0 cameras or more", v.Number, v.Cameras)}
	}
	if v.OwnBroker {
		dir, err := os.UserCacheDir()
		if err != nil {
			dir = os.TempDir()
		}
		if err := os.MkdirAll(filepath.Join(dir, "fovea"), 0o700); err != nil {
			return err
		}
		broker, err := fleet.NewBroker("127.0.0.1:1883", filepath.Join(dir, "fovea", "simulated-broker-password"), slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		if err := broker.Start(); err != nil {
			return fmt.Errorf("%w; or leave out --own-broker and name the one that runs there", err)
		}
		defer func() { _ = broker.Stop() }() // the process ends
		f.Broker, f.User, f.PasswordFile = broker.URL(), fleet.BrokerUser, broker.PasswordFile()
		fmt.Fprintf(out, "broker %s; in another terminal:\n\n  export FOVEA_BROKER=%s FOVEA_BROKER_PASSWORD_FILE=%s\n  fovea fleet watch\n\n", broker.URL(), broker.URL(), broker.PasswordFile())
	}
	config, err := f.connection()
	if err != nil {
		return err
	}

	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	group, ctx := errgroup.WithContext(ctx)
	for i := range v.Number {
		c := config
		c.Device = fmt.Sprintf("%s-%03d", v.Prefix, i+1)
		device, err := fleet.NewSimulated(c, v.simulation(i), log.With("device", c.Device))
		if err != nil {
			return &exitError{exitUsage, errors.Join(fmt.Errorf("device %s", c.Device), err)}
		}
		group.Go(func() error { return device.Run(ctx) })
	}
	fmt.Fprintf(out, "%d simulated devices, %d of which do not adapt well; Ctrl-C ends them\n", v.Number, min(v.Failing, v.Number))
	return group.Wait()
}

// simulation is the behaviour of device i, from 0.
func (v fleetSimulate) simulation(i int) fleet.Simulation {
	s := fleet.Simulation{
		Labels: map[string]string{"site": fmt.Sprintf("site-%d", i%4+1), "model": "simulated"},
		Every:  v.Every, Adapt: v.Adapt, Probation: v.Probation, Cameras: []string{},
	}
	maps.Copy(s.Labels, v.Label)
	for camera := range v.Cameras {
		s.Cameras = append(s.Cameras, fmt.Sprintf("cam-%d", camera+1))
	}
	if i >= v.Number-v.Failing {
		s.Ending = v.Ending
	}
	return s
}
