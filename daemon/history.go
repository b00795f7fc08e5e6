package main

import (
	"sync"
	"time"
)

// historyLength is how many seconds the page's charts show.
const historyLength = 300

// history keeps a point a second for the page's charts.
type history struct {
	mu     sync.Mutex
	points []point // oldest first
}

// point is one second.
type point struct {
	TS  int64              `json:"ts"`            // seconds since 1970
	FPS map[string]float64 `json:"fps"`           // frames classified a second, by camera
	P50 *float64           `json:"p50,omitempty"` // seconds that an answer took, over the last 5 s
	P95 *float64           `json:"p95,omitempty"`
}

// add keeps the point unless there is one of this second.
func (h *history) add(p point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.points); n > 0 && h.points[n-1].TS == p.TS {
		return
	}
	h.points = append(h.points, p)
	if len(h.points) > historyLength {
		h.points = append(h.points[:0], h.points[len(h.points)-historyLength:]...)
	}
}

// since returns the points after a second, oldest first.
func (h *history) since(ts int64) []point {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(h.points)
	for i > 0 && h.points[i-1].TS > ts {
		i--
	}
	return append([]point{}, h.points[i:]...)
}

// pointOf is the second of a status.
func (d *daemon) pointOf(now time.Time, s *status) point {
	p := point{TS: now.Unix(), FPS: map[string]float64{}}
	for _, c := range s.Cameras {
		p.FPS[c.ID] = c.FPS
	}
	if _, p50, p95, ok := d.timing.since(now, rateWindow); ok {
		p.P50, p.P95 = &p50, &p95
	}
	return p
}
