package main

import (
	"context"
	"net"
	"os"
	"strings"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// offer gives a device, before it runs, the verbs that this daemon takes from its broker; which of them it is
// configured to take is mqtt.allow.
func (d *daemon) offer(device *fleet.Device) error {
	for _, spec := range []fleet.VerbSpec{
		{Verb: fleet.VerbHealth, Repeatable: true, Handler: func(context.Context, fleet.Command, func(float64)) (any, error) {
			return d.status.Load().Health, nil
		}},
		{Verb: fleet.VerbReload, Handler: func(context.Context, fleet.Command, func(float64)) (any, error) {
			return nil, d.reload()
		}},
		{Verb: fleet.VerbAdapt, Args: fleet.AdaptArgs{}, Exclusive: true, Handler: func(ctx context.Context, c fleet.Command, progress func(float64)) (any, error) {
			return d.cycle.do(ctx, order{verb: c.Verb, command: c.ID, why: "command " + c.ID, force: c.Args.(fleet.AdaptArgs).Force, progress: progress})
		}},
		{Verb: fleet.VerbPromote, Args: fleet.PromoteArgs{}, Exclusive: true, Handler: func(ctx context.Context, c fleet.Command, _ func(float64)) (any, error) {
			version := c.Args.(fleet.PromoteArgs).Version
			return d.cycle.do(ctx, order{verb: c.Verb, command: c.ID, why: "approved by command " + c.ID, version: &version})
		}},
		{Verb: fleet.VerbRollback, Args: fleet.RollbackArgs{}, Exclusive: true, Handler: func(ctx context.Context, c fleet.Command, _ func(float64)) (any, error) {
			return d.cycle.do(ctx, order{verb: c.Verb, command: c.ID, why: "command " + c.ID, version: c.Args.(fleet.RollbackArgs).Version})
		}},
		{Verb: fleet.VerbCancel, Args: fleet.CancelArgs{}, Repeatable: true, Handler: func(_ context.Context, c fleet.Command, _ func(float64)) (any, error) {
			id := c.Args.(fleet.CancelArgs).ID
			if !device.CancelCommand(id) && (id != "" || !d.cycle.stop()) {
				return nil, &fleet.Error{Code: fleet.Failed, Reason: "no adaptation runs that could be cancelled"}
			}
			return nil, nil
		}},
		{Verb: fleet.VerbSnapshot, Args: fleet.SnapshotArgs{}, Repeatable: true, Handler: func(_ context.Context, c fleet.Command, _ func(float64)) (any, error) {
			return nil, d.snapshot(device, c.Args.(fleet.SnapshotArgs).Camera)
		}},
		{Verb: fleet.VerbAuto, Args: fleet.AutoArgs{}, Repeatable: true, Handler: func(_ context.Context, c fleet.Command, _ func(float64)) (any, error) {
			return nil, d.setAuto(*c.Args.(fleet.AutoArgs).On, fleet.SourceRemote)
		}},
	} {
		if err := device.Handle(spec); err != nil {
			return err
		}
	}
	return nil
}

// verbsOf are the verbs of mqtt.allow; nil stays nil, which is the default.
func verbsOf(names []string) []fleet.Verb {
	var all []fleet.Verb
	for _, name := range names {
		all = append(all, fleet.Verb(name))
	}
	return all
}

// description is what Home Assistant was told, and by whom.
type description struct {
	device  *fleet.Device
	cameras string
}

// describe tells Home Assistant of this device and its cameras, again when these have changed.
func (d *daemon) describe(device *fleet.Device, s *status) error {
	cameras := map[string]string{}
	var ids []string
	for _, c := range s.Cameras {
		cameras[c.ID] = ""
		ids = append(ids, c.ID)
	}
	now := description{device, strings.Join(ids, " ")}
	if now == d.shown {
		return nil
	}
	d.shown = now
	info := fleet.Info{Model: hardware(), Version: version(), Cameras: cameras}
	// Where others may call the page by a name, that name leads to it.
	config, _ := d.configs.get()
	if _, port, err := net.SplitHostPort(config.Web.Listen); err == nil && len(config.Web.Hosts) > 0 && !isLoopback(config.Web.Listen) {
		info.URL = "https://" + net.JoinHostPort(config.Web.Hosts[0], port)
	}
	return device.Describe(info)
}

// hardware is what this machine calls itself: a Jetson's device tree, or a PC's firmware.
func hardware() string {
	for _, file := range []string{"/proc/device-tree/model", "/sys/class/dmi/id/product_name"} {
		if text, err := os.ReadFile(file); err == nil {
			return strings.Trim(string(text), "\x00\n ")
		}
	}
	return ""
}
