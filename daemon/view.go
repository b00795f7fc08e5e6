package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
)

// viewWait is how long a request for the next picture waits for it.
const viewWait = 10 * time.Second

// maxStreams bounds the requests that wait or stream at once; each holds a connection and a goroutine.
const maxStreams = 64

var streams = make(chan struct{}, maxStreams)

// viewed is a frame with what the model said of it, for the page to draw: all of one moment.
type viewed struct {
	Seq     uint64    `json:"seq"`
	TS      time.Time `json:"ts"`
	Width   int       `json:"width"`
	Height  int       `json:"height"`
	JPEG    []byte    `json:"jpeg"` // base64
	Guesses []guess   `json:"guesses"`
	Margin  float64   `json:"margin"`
	Seconds float64   `json:"seconds"` // that the answer took
	Age     float64   `json:"age"`     // of the frame when the answer was there: seconds since it arrived
	Quality string    `json:"quality"`
	Second  *[4]int   `json:"second,omitempty"` // left, top, right, bottom of the second look, in pixels
	Overlay *drawn    `json:"overlay,omitempty"`
}

// drawn is an overlay in bytes: base64 of 0 (least of this picture) to 255 (most), row by row.
type drawn struct {
	Rows      int    `json:"rows"`
	Cols      int    `json:"cols"`
	View      [4]int `json:"view"` // left, top, right, bottom of the part that it covers, in pixels
	Relevance []byte `json:"relevance,omitempty"`
	Attention []byte `json:"attention,omitempty"`
}

// view answers with the newest frame and what the model said of it; with ?after=SEQ once there is another
// than that one (204 if none comes), with ?overlay=1 of the frames that have one.
func (d *daemon) view(w http.ResponseWriter, r *http.Request) {
	camera := d.cameraOf(w, r)
	if camera == nil {
		return
	}
	select {
	case streams <- struct{}{}:
		defer func() { <-streams }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	newest := &camera.latest
	if r.FormValue("overlay") == "1" {
		newest = &camera.explained
	}
	after, err := strconv.ParseUint(r.FormValue("after"), 10, 64)
	wanted := func(a *answer) bool { return a != nil && (err != nil || a.frame.Seq != after) }
	wait := time.NewTimer(viewWait)
	defer wait.Stop()
	a, changed := newest.get()
	for !wanted(a) {
		select {
		case <-r.Context().Done():
			return
		case <-wait.C:
			w.WriteHeader(http.StatusNoContent)
			return
		case <-changed:
			a, changed = newest.get()
		}
	}
	picture, encodeErr := a.encoded()
	if encodeErr != nil {
		http.Error(w, encodeErr.Error(), http.StatusInternalServerError)
		return
	}
	v := viewed{
		Seq: a.frame.Seq, TS: a.frame.Time, Width: a.frame.Width, Height: a.frame.Height, JPEG: picture,
		Guesses: a.guesses, Margin: a.margin, Seconds: a.took.Seconds(), Age: a.at.Sub(a.frame.Time).Seconds(), Quality: a.frame.Quality.String(),
	}
	if box := a.second; !box.Empty() {
		v.Second = &[4]int{box.Min.X, box.Min.Y, box.Max.X, box.Max.Y}
	}
	if o := a.overlay; o != nil {
		v.Overlay = &drawn{
			Rows: o.rows, Cols: o.cols, View: [4]int{o.view.Min.X, o.view.Min.Y, o.view.Max.X, o.view.Max.Y},
			Relevance: levels(o.relevance), Attention: levels(o.attention),
		}
	}
	writeJSON(w, v)
}

// picture answers with the newest classified frame of a camera as a JPEG, for dashboards and scripts.
func (d *daemon) picture(w http.ResponseWriter, r *http.Request) {
	camera := d.cameraOf(w, r)
	if camera == nil {
		return
	}
	a, _ := camera.latest.get()
	if a == nil {
		http.Error(w, "this camera has not shown anything yet", http.StatusServiceUnavailable)
		return
	}
	picture, err := a.encoded()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "image/jpeg")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Last-Modified", a.frame.Time.UTC().Format(http.TimeFormat))
	_, _ = w.Write(picture)
}

func (d *daemon) cameraOf(w http.ResponseWriter, r *http.Request) *watched {
	for _, c := range *d.cameras.Load() {
		if c.config.ID == r.PathValue("id") {
			return c
		}
	}
	http.Error(w, "no camera of this id is configured", http.StatusNotFound)
	return nil
}

// levels maps values to 0..255 by their own minimum and maximum; a constant map gives zeros.
func levels(values []float32) []byte {
	if len(values) == 0 {
		return nil
	}
	low, high := values[0], values[0]
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	out := make([]byte, len(values))
	if high > low {
		for i, v := range values {
			out[i] = byte((v-low)/(high-low)*255 + 0.5)
		}
	}
	return out
}

// lazyJPEG encodes a frame once, when the first page asks for it.
type lazyJPEG struct {
	once    sync.Once
	picture []byte
	err     error
}

const jpegQuality = 80

// encoded is the frame as a JPEG; the caller must not write to it.
func (a *answer) encoded() ([]byte, error) {
	a.jpeg.once.Do(func() {
		var out bytes.Buffer
		a.jpeg.err = jpeg.Encode(&out, rgba(a.picture()), &jpeg.Options{Quality: jpegQuality})
		a.jpeg.picture = out.Bytes()
	})
	return a.jpeg.picture, a.jpeg.err
}

func (a *answer) picture() *adapt.Picture {
	return &adapt.Picture{Width: a.frame.Width, Height: a.frame.Height, RGB: a.frame.RGB}
}

// events streams the status once a second, with the points of the charts that have come since (server-sent
// events). A reader that does not keep up is let go.
func (d *daemon) events(w http.ResponseWriter, r *http.Request) {
	select {
	case streams <- struct{}{}:
		defer func() { <-streams }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx
	control := http.NewResponseController(w)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := time.Now().Unix(); ; {
		points := d.history.since(last)
		if len(points) > 0 {
			last = points[len(points)-1].TS
		}
		event, err := json.Marshal(struct {
			*status
			Points []point `json:"points"`
		}{d.status.Load(), points})
		if err != nil {
			d.log.Error("status not encoded", "error", err)
			return
		}
		_ = control.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := fmt.Fprintf(w, "data: %s\n\n", event); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
