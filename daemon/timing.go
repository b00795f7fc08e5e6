package main

import (
	"slices"
	"sync"
	"time"
)

// timing remembers when the last answers were given and how long each took.
type timing struct {
	mu   sync.Mutex
	ring [1024]struct {
		at   time.Time
		took time.Duration
	}
	next int
}

func (t *timing) add(at time.Time, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &t.ring[t.next%len(t.ring)]
	e.at, e.took = at, took
	t.next++
}

// since returns the answers a second over the last window, and the median and 95th percentile of how long
// they took, in seconds; ok is false when there was none.
func (t *timing) since(now time.Time, window time.Duration) (rate, p50, p95 float64, ok bool) {
	t.mu.Lock()
	took := make([]time.Duration, 0, len(t.ring))
	oldest := now
	for i := range t.ring {
		if e := t.ring[i]; !e.at.IsZero() && now.Sub(e.at) < window {
			took = append(took, e.took)
			if e.at.Before(oldest) {
				oldest = e.at
			}
		}
	}
	full := len(took) == len(t.ring)
	t.mu.Unlock()
	if len(took) == 0 {
		return 0, 0, 0, false
	}
	span := window
	if full { // the ring is shorter than the window
		span = max(now.Sub(oldest), time.Millisecond)
	}
	slices.Sort(took)
	return float64(len(took)) / span.Seconds(), quantile(took, 0.5).Seconds(), quantile(took, 0.95).Seconds(), true
}

// quantile of sorted durations: the nearest rank.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
