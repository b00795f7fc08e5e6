package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells systemd how the start and the work go on; outside systemd it does nothing.
type notifier struct {
	log   *slog.Logger
	ready atomic.Bool
}

func (n *notifier) send(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		n.log.Warn("systemd not notified", "state", state, "error", err)
	}
}

// extendStart asks for more time before READY.
func (n *notifier) extendStart(by time.Duration) {
	if !n.ready.Load() {
		n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=compiling the model", by.Microseconds()))
	}
}

func (n *notifier) started(status string) {
	n.ready.Store(true)
	n.send(sd.SdNotifyReady + "\nSTATUS=" + status)
}

// reloading must be followed by started.
func (n *notifier) reloading() {
	n.send(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
}

func (n *notifier) stopping() { n.send(sd.SdNotifyStopping) }

// feedWatchdog tells systemd that the daemon lives, for as long as the inference loop turns: a daemon that
// hangs there is restarted though this goroutine still runs.
func (d *daemon) feedWatchdog(ctx context.Context) error {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("no watchdog", "error", err)
	}
	if err != nil || interval == 0 {
		return nil
	}
	tick := time.NewTicker(interval / 4)
	defer tick.Stop()
	for told := uint64(0); ; {
		if turns := d.progress.Load(); turns != told {
			told = turns
			d.notifier.send(sd.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
