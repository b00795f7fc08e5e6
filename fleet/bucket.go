package fleet

import "time"

// bucket lets ratePerMinute commands through at once and then one each time a
// token has grown back.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.tokens = min(ratePerMinute, b.tokens+now.Sub(b.last).Minutes()*ratePerMinute)
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
