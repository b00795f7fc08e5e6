package store

import (
	"slices"
	"time"
)

// The hold-out is a part of the samples that eviction spares, for judging models on: one in holdOutOf, with
// masks that can be trained on, each of another time than the others of its camera.
const (
	holdOutOf  = 8
	holdOutGap = 10 * time.Minute
)

// protect decides whether a new entry joins the hold-out, and which one leaves it for that (nil: none). While
// there is room, one joins that is holdOutGap from all others of its camera. Later it takes the place of the
// one that is closest to another in time, if its own distance is larger: so the hold-out spreads over all the
// time that the samples come from.
func (x *index) protect(e *entry) (joins bool, leaves *entry) {
	if !e.accepted() {
		return false, nil
	}
	held := 0
	var times []*entry // of the camera's hold-out, by time
	for _, other := range x.entries {
		if other.Protected {
			held++
			if other.Camera == e.Camera {
				times = append(times, other)
			}
		}
	}
	gap := time.Duration(1<<63 - 1)
	for _, other := range times {
		gap = min(gap, e.Time.Sub(other.Time).Abs())
	}
	if gap < holdOutGap {
		return false, nil
	}
	if held*holdOutOf <= len(x.entries) {
		return true, nil
	}
	slices.SortFunc(times, func(a, b *entry) int {
		if c := a.Time.Compare(b.Time); c != 0 {
			return c
		}
		return int(a.Seq) - int(b.Seq)
	})
	least := gap
	for i := 1; i < len(times); i++ {
		if d := times[i].Time.Sub(times[i-1].Time); d < least {
			least, leaves = d, closer(times, i-1, i)
		}
	}
	return leaves != nil, leaves
}

// closer is the one of two neighbours in time that is nearer to its other neighbour; the first and the last,
// which have none, stay.
func closer(times []*entry, i, j int) *entry {
	switch {
	case i == 0 && j == len(times)-1:
		return nil
	case i == 0:
		return times[j]
	case j == len(times)-1 || times[i].Time.Sub(times[i-1].Time) <= times[j+1].Time.Sub(times[j].Time):
		return times[i]
	}
	return times[j]
}
