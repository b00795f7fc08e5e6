package store

import (
	"math"
	"time"
)

// index is what is known of the samples without reading the file: enough to select, evict and list.
type index struct {
	entries map[uint64]*entry
	groups  map[groupKey]*group
	cameras map[string]*cameraSums
	classes map[string]int // samples by predicted class
	bytes   int64
	next    uint64 // Seq of the next sample
}

// entry is one sample.
type entry struct {
	Meta
	features int       // how many
	unit     []float32 // the features at length 1; nil: there are none, or all are zero
	sketch   sketch    // of unit

	group   *group
	at      int // in group.entries
	near    float32
	nearest *entry // of the same group, its cosine is near; nil: alone
}

// groupKey is within what features compare: pictures of one camera, seen by one network.
type groupKey struct{ camera, backbone string }

type group struct{ entries []*entry }

type cameraSums struct {
	samples int
	hours   [dayParts]int
	newest  *entry // by Seq
}

// dayParts divides the day for balance: three hours each.
const dayParts = 8

func dayPart(t time.Time) int { return t.Local().Hour() * dayParts / 24 }

func newIndex() *index {
	return &index{entries: map[uint64]*entry{}, groups: map[groupKey]*group{}, cameras: map[string]*cameraSums{}, classes: map[string]int{}, next: 1}
}

func newEntry(m Meta, features []float32) *entry {
	unit := unitOf(features)
	return &entry{Meta: m, features: len(features), unit: unit, sketch: sketchOf(unit)}
}

func (e *entry) size() int64 { return e.bytes(e.features) }

// insert adds an entry and brings all nearest neighbours up to date.
func (x *index) insert(e *entry) {
	x.entries[e.Seq] = e
	x.bytes += e.size()
	x.next = max(x.next, e.Seq+1)
	x.classes[e.Predicted]++
	c := x.cameras[e.Camera]
	if c == nil {
		c = &cameraSums{}
		x.cameras[e.Camera] = c
	}
	c.samples++
	c.hours[dayPart(e.Time)]++
	if c.newest == nil || c.newest.Seq < e.Seq {
		c.newest = e
	}

	key := groupKey{e.Camera, e.Backbone}
	g := x.groups[key]
	if g == nil {
		g = &group{}
		x.groups[key] = g
	}
	e.near, e.nearest = -1, nil
	for _, other := range g.entries {
		if e.unit == nil || len(other.unit) != len(e.unit) {
			continue
		}
		cosine := dot(e.unit, other.unit)
		if e.nearest == nil || cosine > e.near {
			e.near, e.nearest = cosine, other
		}
		if other.nearest == nil || cosine > other.near {
			other.near, other.nearest = cosine, e
		}
	}
	e.group, e.at = g, len(g.entries)
	g.entries = append(g.entries, e)
}

// remove takes an entry out and finds new neighbours for those that were nearest to it.
func (x *index) remove(e *entry) {
	delete(x.entries, e.Seq)
	x.bytes -= e.size()
	if x.classes[e.Predicted]--; x.classes[e.Predicted] == 0 {
		delete(x.classes, e.Predicted)
	}
	c := x.cameras[e.Camera]
	c.samples--
	c.hours[dayPart(e.Time)]--
	if c.newest == e {
		c.newest = nil
		for _, other := range x.entries {
			if other.Camera == e.Camera && (c.newest == nil || c.newest.Seq < other.Seq) {
				c.newest = other
			}
		}
	}
	if c.samples == 0 {
		delete(x.cameras, e.Camera)
	}

	g := e.group
	last := g.entries[len(g.entries)-1]
	g.entries[e.at], last.at = last, e.at
	g.entries = g.entries[:len(g.entries)-1]
	if len(g.entries) == 0 {
		delete(x.groups, groupKey{e.Camera, e.Backbone})
	}
	for _, other := range g.entries {
		if other.nearest == e {
			other.near, other.nearest = g.nearest(other.unit, other)
		}
	}
}

// nearest finds the entry with the largest cosine to a vector of length 1; -1 and nil where there is none.
func (g *group) nearest(unit []float32, but *entry) (float32, *entry) {
	near, nearest := float32(-1), (*entry)(nil)
	if unit == nil {
		return near, nil
	}
	for _, other := range g.entries {
		if other == but || len(other.unit) != len(unit) {
			continue
		}
		if cosine := dot(unit, other.unit); nearest == nil || cosine > near {
			near, nearest = cosine, other
		}
	}
	return near, nearest
}

// untrusted is what the lack of a mask that can be trained on adds to a sample's redundancy, as a cosine.
const untrusted = 0.2

// tier is how dear a sample is: the hold-out goes last, what a person labelled before it.
func (e *entry) tier() int {
	switch {
	case e.Protected:
		return 2
	case e.Label != "":
		return 1
	}
	return 0
}

// before tells whether a is to be evicted rather than b: by tier, then the more redundant, then the older.
func before(a, b *entry) bool {
	if x, y := a.tier(), b.tier(); x != y {
		return x < y
	}
	if x, y := a.redundancy(), b.redundancy(); x != y {
		return x > y
	}
	return a.Seq < b.Seq
}

// redundancy is the cosine to the nearest other sample of the camera, higher for one that training cannot use.
func (e *entry) redundancy() float32 {
	r := e.near
	if !e.accepted() {
		r += untrusted
	}
	return r
}

// victim is the next entry to be evicted; nil where there is none.
func (x *index) victim() *entry {
	var first *entry
	for _, e := range x.entries {
		if first == nil || before(e, first) {
			first = e
		}
	}
	return first
}

// dot is the inner product of two slices of one length; eight sums, so that additions do not wait for each
// other.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	b = b[:len(a)]
	for len(a) >= 8 {
		x, y := (*[8]float32)(a), (*[8]float32)(b)
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
		s4 += x[4] * y[4]
		s5 += x[5] * y[5]
		s6 += x[6] * y[6]
		s7 += x[7] * y[7]
		a, b = a[8:], b[8:]
	}
	s := (s0 + s1) + (s2 + s3) + ((s4 + s5) + (s6 + s7))
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

// unitOf scales a vector to length 1; nil where that cannot be.
func unitOf(v []float32) []float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 || math.IsInf(sum, 0) || math.IsNaN(sum) {
		return nil
	}
	scale := 1 / math.Sqrt(sum)
	unit := make([]float32, len(v))
	for i, x := range v {
		unit[i] = float32(float64(x) * scale)
	}
	return unit
}
