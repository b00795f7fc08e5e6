//go:build gocv_videoio

package main

import (
	"strings"

	"gocv.io/x/gocv"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

// sink is what OpenCV reads from: the newest picture, never a queue of old
// ones. It keeps to the pipeline's clock, so that a test pattern or a file does
// not run away; who wants sync=false writes the appsink.
const sink = " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"

func openPipeline(req wire.Request, notify func(any)) (source, error) {
	if !gocv.VideoRegistry.HasBackend(gocv.VideoCaptureGstreamer) {
		return nil, faultf("this machine's OpenCV is built without GStreamer; use another kind of source, or build fovea-grab against an OpenCV that has it")
	}
	pipeline := strings.TrimSpace(strings.TrimPrefix(req.Source, "gst:"))
	if !strings.Contains(pipeline, "appsink") {
		pipeline += sink
	}
	c, err := gocv.VideoCaptureFileWithAPI(pipeline, gocv.VideoCaptureGstreamer)
	if err != nil {
		return nil, &fault{text: "the GStreamer pipeline cannot be started; try it with gst-launch-1.0", opaque: true}
	}
	return &live{capture: c, limit: req.FPS, notify: notify, backend: "GSTREAMER", gone: func() error {
		return &fault{text: "the GStreamer pipeline ended; it starts again", opaque: true}
	}}, nil
}
