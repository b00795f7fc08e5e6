package main

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"strings"

	xdraw "golang.org/x/image/draw"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
)

// snapshotSide is the most pixels of a published picture's longer side: noise of this size is still less than
// fleet.ImageLimit.
const snapshotSide = 640

// snapshot publishes a picture of one camera, or of all. Where a camera shows nothing the others are published
// all the same, and the error names it.
func (d *daemon) snapshot(device *fleet.Device, camera string) error {
	config, _ := d.configs.get()
	var blind []string
	known := false
	for _, w := range *d.cameras.Load() {
		id := w.config.ID
		if camera != "" && camera != id {
			continue
		}
		known = true
		a := w.shown(config.Inference.RelevanceEvery > 0)
		if a == nil {
			blind = append(blind, id)
			continue
		}
		picture, err := a.snapshot()
		if err == nil {
			err = device.PublishImage(id, picture)
		}
		if err != nil {
			return fmt.Errorf("camera %s: %w", id, err)
		}
	}
	switch {
	case !known && camera != "":
		return &fleet.Error{Code: fleet.Invalid, Field: "camera", Reason: "no camera of this id is configured"}
	case !known:
		return &fleet.Error{Code: fleet.Failed, Reason: "no camera is configured"}
	case blind != nil:
		return &fleet.Error{Code: fleet.Failed, Reason: "nothing to see now on " + strings.Join(blind, ", ") + ": look at the camera's state"}
	}
	return nil
}

// shown is the newest answer, with relevance where maps are made and there is one; nil while no frames arrive.
func (w *watched) shown(explained bool) *answer {
	if w.camera.State().Phase != capture.Running {
		return nil
	}
	if a, _ := w.explained.get(); explained && a != nil && a.overlay.relevance != nil {
		return a
	}
	a, _ := w.latest.get()
	return a
}

// snapshot is the answer's frame as a JPEG, under its relevance if it has some, at most snapshotSide wide and high.
func (a *answer) snapshot() ([]byte, error) {
	p := a.picture()
	picture := rgba(p)
	if max(p.Width, p.Height) > snapshotSide {
		w, h := fitted(p.Width, p.Height, snapshotSide)
		small := image.NewRGBA(image.Rect(0, 0, w, h))
		xdraw.ApproxBiLinear.Scale(small, small.Rect, picture, picture.Rect, xdraw.Src, nil)
		picture = small
	}
	if o := a.overlay; o != nil && o.relevance != nil {
		view := scaled(o.view, picture.Rect.Dx(), picture.Rect.Dy(), p)
		picture = overlaid(picture, view, o.relevance, o.rows, o.cols, inferno)
	}
	picture = framed(picture, scaled(a.second, picture.Rect.Dx(), picture.Rect.Dy(), p))
	var out bytes.Buffer
	err := jpeg.Encode(&out, picture, &jpeg.Options{Quality: jpegQuality})
	return out.Bytes(), err
}
