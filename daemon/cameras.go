package main

import (
	"context"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-a98b2d25/fovea/capture"
)

// watched is one configured camera and what the model said of it last.
type watched struct {
	config CameraConfig
	camera *capture.Camera
	timing timing // of its answers

	latest    newest[*answer] // nil before the first
	explained newest[*answer] // the newest with an overlay; nil before the first
	answers   atomic.Uint64   // frames classified

	looks        atomic.Uint64 // frames that were looked at a second time
	looksSkipped atomic.Uint64 // those that were to be, had the pace of the cameras left the time

	foreground newest[*float64] // share of relevance on the object in the newest frame that has a mask; nil before

	// The inference goroutine's own.
	due      time.Time // when a frame may be classified again
	turns    int       // frames since the last explained one
	featured time.Time // the last plain frame with features
}

// watchCameras opens and closes cameras as the configuration says. Those whose section a reload leaves alone
// go on undisturbed.
func (d *daemon) watchCameras(ctx context.Context) error {
	var open []*watched
	defer func() {
		d.cameras.Store(&[]*watched{})
		closeAll(open)
	}()
	for {
		config, changed := d.configs.get()
		wanted := make([]CameraConfig, len(config.Cameras))
		for i, c := range config.Cameras {
			wanted[i] = d.withPassword(c)
		}

		next := make([]*watched, len(wanted))
		var gone []*watched
		for _, w := range open {
			i := slices.IndexFunc(wanted, func(c CameraConfig) bool { return reflect.DeepEqual(c, w.config) })
			if i < 0 {
				gone = append(gone, w)
			} else {
				next[i] = w
			}
		}
		closeAll(gone) // first: a device file admits one reader
		for i, c := range wanted {
			if next[i] != nil {
				continue
			}
			camera, err := capture.Open(c.Config, capture.Options{Log: d.log, Wake: d.wake})
			if err != nil { // the configuration was checked by the same rules
				return err
			}
			next[i] = &watched{config: c, camera: camera}
		}
		open = next
		d.cameras.Store(&next)

		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// withPassword reads the password file. Where it cannot, the camera is tried without, its server says what
// it thinks of that, and setup.missing names the file.
func (d *daemon) withPassword(c CameraConfig) CameraConfig {
	if c.PasswordFile == "" {
		return c
	}
	password, err := readSecret(c.PasswordFile)
	if err != nil {
		d.log.Warn("camera goes without its password", "camera", c.ID, "error", err)
	}
	c.Password = password
	return c
}

// closeAll closes cameras side by side: each may wait for its grabber to end.
func closeAll(cameras []*watched) {
	done := make(chan struct{})
	for _, w := range cameras {
		go func() { w.camera.Close(); done <- struct{}{} }()
	}
	for range cameras {
		<-done
	}
}
