//go:build gocv_videoio

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gocv.io/x/gocv"
	"golang.org/x/sys/unix"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

func openDevice(req wire.Request, notify func(any)) (source, error) {
	if err := probeDevice(req.Source); err != nil {
		return nil, err
	}
	path, err := filepath.EvalSymlinks(req.Source) // OpenCV knows /dev/videoN alone
	if err != nil {
		return nil, deviceFault(req.Source, err)
	}
	// OpenCV's V4L2 reader takes these with or without success; the hello tells what became of them.
	c, err := gocv.VideoCaptureFileWithAPI(path, gocv.VideoCaptureV4L2)
	if err != nil {
		return nil, &fault{text: path + " does not open as a camera; is it a capture device (v4l2-ctl --list-devices), and not in use by another program?", opaque: true}
	}
	c.Set(gocv.VideoCaptureBufferSize, 1)
	if req.FourCC != "" {
		c.Set(gocv.VideoCaptureFOURCC, c.ToCodec(req.FourCC))
	}
	if req.Width != 0 {
		c.Set(gocv.VideoCaptureFrameWidth, float64(req.Width))
		c.Set(gocv.VideoCaptureFrameHeight, float64(req.Height))
	}
	return &live{capture: c, limit: req.FPS, notify: notify, backend: "V4L2", gone: func() error {
		return faultf("%s delivers no more pictures; was it unplugged?", req.Source)
	}}, nil
}

// videoMajor is the device number of Video4Linux.
const videoMajor = 81

// probeDevice opens and closes the device once, to tell in words what is wrong.
func probeDevice(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return deviceFault(path, err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != videoMajor {
		return faultf("%s is no camera device; %s", path, otherDevices())
	}
	return nil
}

func deviceFault(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return faultf("%s: no such device; plug the camera in, or correct source: %s", path, otherDevices())
	case errors.Is(err, fs.ErrPermission):
		return faultf("%s may not be opened by user %d; add the user to the group video", path, os.Getuid())
	case errors.Is(err, unix.EBUSY):
		return faultf("%s is in use by another program; close that (fuser %s shows it)", path, path)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return faultf("%s has no camera behind it any more; plug it in again", path)
	}
	return faultf("%s cannot be opened: %v", path, reason(err))
}

func otherDevices() string {
	found, _ := filepath.Glob("/dev/video*") // the pattern is well formed
	if len(found) == 0 {
		return "this machine has no /dev/video device at present"
	}
	return "this machine has " + strings.Join(found, ", ")
}
