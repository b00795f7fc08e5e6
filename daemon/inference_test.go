package main

import (
	"testing"
	"time"
)

// A camera of 8 frames a second is asked twice a second, and one that was late does not make up for it in a burst.
func TestPace(t *testing.T) {
	start := time.Now()
	asked := func(w *watched, from, to time.Duration) (times []time.Duration) {
		for at := from; at < to; at += time.Second / 8 {
			if now := start.Add(at); !now.Before(w.due) {
				w.pace(now, 2)
				times = append(times, at)
			}
		}
		return times
	}
	var w watched
	if n := len(asked(&w, 0, 10*time.Second)); n < 19 || n > 21 {
		t.Errorf("asked %d times in 10 s, want 20", n)
	}
	late := asked(&w, 60*time.Second, 62*time.Second)
	if len(late) < 4 || len(late) > 5 || late[1]-late[0] < 250*time.Millisecond {
		t.Errorf("after a pause of 50 s asked at %v", late)
	}
	w.pace(start, 0)
	if start.Before(w.due) {
		t.Error("without a limit the next frame is not due at once")
	}
}
