package main

import (
	"testing"
	"time"

	"github.com/robfig/cron/v3"
)

// A clock that jumps under a schedule: at most one run comes at a time that the schedule does not name, and then no
// more than it names; none is put off for longer than the clock was wrong.
func TestClockJumpsUnderASchedule(t *testing.T) {
	schedule, err := cron.ParseStandard("0 3 * * *")
	if err != nil {
		t.Fatal(err)
	}
	config := defaultAdapt()
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		from    time.Time     // what the clock says at the start
		synced  bool          // whether it can be believed
		jump    time.Duration // after a day and an hour, to a clock that can be believed
		odd, at int           // most runs outside of 03:00, and those at 03:00, in five days
	}{
		"right":               {noon, true, 0, 0, 5},
		"1970 until it syncs": {time.Unix(0, 0).UTC(), false, noon.Sub(time.Unix(0, 0)) - 25*time.Hour, 1, 4},
		"a year ahead":        {noon, true, 365 * 24 * time.Hour, 1, 5},
		"a year back":         {noon, true, -365 * 24 * time.Hour, 1, 5},
		"an hour back":        {noon, true, -time.Hour, 0, 5},
	} {
		var past runs
		odd, at, gap := 0, 0, time.Duration(0)
		last := time.Duration(0)
		for up := time.Duration(0); up < 5*24*time.Hour; up += time.Minute {
			now, synced := c.from.Add(up), c.synced
			if up >= 25*time.Hour {
				now, synced = now.Add(c.jump), true
			}
			if past.rest(config, now, synced, up) || !synced || now.Before(schedule.Next(past.after(now, up))) {
				continue
			}
			past = past.with(now)
			gap, last = max(gap, up-last), up
			if now.Hour() == 3 && now.Minute() == 0 {
				at++
			} else {
				odd++
			}
		}
		if odd > c.odd || at != c.at {
			t.Errorf("%s: %d runs at 03:00 and %d at other times, want %d and at most %d", name, at, odd, c.at, c.odd)
		}
		if gap > 40*time.Hour {
			t.Errorf("%s: %v without a run", name, gap)
		}
	}
}
