//go:build gocv_videoio

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

// open finds out what the source is, tells in words what is missing, and opens it.
func open(req wire.Request, notify func(any)) (source, error) {
	switch req.Kind {
	case "path":
		return openPath(req, notify)
	case "stream":
		return openStream(req, notify)
	case "device":
		return openDevice(req, notify)
	case "pipeline":
		return openPipeline(req, notify)
	}
	return nil, faultf("source of unknown kind %q", req.Kind)
}

func openPath(req wire.Request, notify func(any)) (source, error) {
	path, err := filepath.Abs(req.Source)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, pathFault(path, err)
	}
	switch {
	case info.IsDir():
		return openFolder(path, req)
	case !info.Mode().IsRegular():
		return nil, faultf("%s is neither a file nor a folder; give a video file, a picture, a folder of pictures or a /dev/video device", path)
	case info.Size() == 0:
		return nil, faultf("%s is empty; copy or record it again", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, pathFault(path, err)
	}
	f.Close()
	if isPicture(path) {
		return openPicture(path, req)
	}
	return openFile(path, req, notify)
}

func pathFault(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return faultf("%s: no such file or folder; correct source, or put it there", path)
	case errors.Is(err, fs.ErrPermission):
		return faultf("%s cannot be read by user %d; give that user the right to read it and to enter its folders", path, os.Getuid())
	}
	return faultf("%s cannot be read: %v", path, reason(err))
}

// reason is the innermost error, without the path that the sentence names already.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// rate is the number of frames a second that will be sent of a source with its
// own rate when limit are wanted at most; 0 is not known or no limit.
func rate(own, limit float64) float64 {
	if limit > 0 && (own <= 0 || limit < own) {
		return limit
	}
	return own
}
