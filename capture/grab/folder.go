//go:build gocv_videoio

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocv.io/x/gocv"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

const maxPictureBytes = 64 << 20

// pictures are the extensions taken from a folder; what else lies there is not looked at.
var pictures = []string{".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

func isPicture(path string) bool {
	return slices.Contains(pictures, strings.ToLower(filepath.Ext(path)))
}

// folder shows pictures in the order of their names, one a period. A looping
// folder is listed anew each time round.
type folder struct {
	list   func() ([]string, error)
	name   string
	loop   bool
	period time.Duration
	due    time.Time
	paths  []string // still to come in this round
	good   int      // pictures decoded in this round
}

func openFolder(dir string, req wire.Request) (source, error) {
	return newFolder(dir, req, func() ([]string, error) {
		entries, err := os.ReadDir(dir) // sorted by name
		if err != nil {
			return nil, pathFault(dir, err)
		}
		var paths []string
		for _, e := range entries {
			if isPicture(e.Name()) && !e.IsDir() {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
		if len(paths) == 0 {
			return nil, faultf("%s holds no picture (%s); put some there", dir, strings.Join(pictures, " "))
		}
		return paths, nil
	})
}

func openPicture(path string, req wire.Request) (source, error) {
	return newFolder(path, req, func() ([]string, error) { return []string{path}, nil })
}

func newFolder(name string, req wire.Request, list func() ([]string, error)) (source, error) {
	fps := req.FPS
	if fps == 0 {
		fps = 1
	}
	f := &folder{name: name, loop: req.Loop, list: list, period: time.Duration(float64(time.Second) / fps)}
	var err error
	f.paths, err = list()
	return f, err
}

func (f *folder) hello() wire.Hello {
	return wire.Hello{Backend: "pictures", FPS: float64(time.Second) / float64(f.period)}
}

func (f *folder) sequence() bool { return false }

func (f *folder) next(img *gocv.Mat) error {
	if len(f.paths) == 0 {
		return f.turn()
	}
	path := f.paths[0]
	f.paths = f.paths[1:]
	f.due = waitUntil(f.due).Add(f.period)
	if err := decodePicture(path, img); err != nil {
		return badPicture{err.Error()}
	}
	f.good++
	return nil
}

// turn ends the folder or begins it again.
func (f *folder) turn() error {
	switch {
	case f.good == 0:
		return faultf("%s: none of its pictures can be decoded; replace them", f.name)
	case !f.loop:
		return io.EOF
	}
	f.good = 0
	var err error
	if f.paths, err = f.list(); err != nil {
		return err
	}
	return errRestarted
}

func decodePicture(path string, img *gocv.Mat) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return pathFault(path, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file; skipped", path)
	case info.Size() == 0:
		return fmt.Errorf("%s is empty; skipped", path)
	case info.Size() > maxPictureBytes:
		return fmt.Errorf("%s has %d MiB, at most %d are read; skipped", path, info.Size()>>20, maxPictureBytes>>20)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return pathFault(path, err)
	}
	if err := gocv.IMDecodeIntoMat(data, gocv.IMReadColor, img); err != nil || img.Empty() {
		return fmt.Errorf("%s is no picture that can be decoded, or it has more than %d megapixels; skipped", path, wire.MaxPixels/1_000_000)
	}
	return nil
}

// waitUntil sleeps until due and returns it, or the time it is where due has passed.
func waitUntil(due time.Time) time.Time {
	now := time.Now()
	if due.Before(now) {
		return now
	}
	time.Sleep(due.Sub(now))
	return due
}
