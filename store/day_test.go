package store

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// TestDay: 24 hours before a fixed camera, a frame every 5 s: a view whose light changes, and twelve kinds of
// objects that come and stay for a while, the common ones often and the rare ones twice a day. What is kept is
// bounded, has nearly no near-duplicates, has all objects and all times of day. bench/masks -clip does the same with
// the frames of the demonstration.
func TestDay(t *testing.T) {
	const budget = 512 << 10
	s, err := Open(context.Background(), t.TempDir(), Options{Samples: Limits{Bytes: budget}})
	must(t, err)
	defer s.Close()
	s.Samples.db.NoSync = true
	r := rand.New(rand.NewPCG(7, 1))
	const dim = 64
	scene, light := features(r, dim), features(r, dim)
	objects := make([][]float32, 12)
	for i := range objects {
		objects[i] = features(r, dim)
	}
	names := "abcdefghijkl"
	seen, kept := map[string]int{}, map[string]int{}
	var pose []float32 // of this visit
	frames, object, until := 0, -1, 0
	for second := 0; second < 24*3600; second += 5 {
		if second >= until { // something comes, or goes
			object, until, pose = -1, second+30+r.IntN(300), features(r, dim)
			if r.IntN(2) == 0 {
				object = min(int(r.ExpFloat64()*2.5), len(objects)-1)
			}
		}
		at := noon.Add(time.Duration(second) * time.Second)
		c := Candidate{Camera: "door", Time: at, Backbone: "b", Features: make([]float32, dim), Predicted: "none", Margin: .3 + .7*r.Float64()}
		sun := float32(second%86400-43200) / 43200
		for k := range c.Features {
			c.Features[k] = scene[k] + sun*.3*light[k] + .05*float32(r.NormFloat64())
			if object >= 0 {
				c.Features[k] += 1.2*objects[object][k] + .6*pose[k] + .15*float32(r.NormFloat64())
			}
		}
		if object >= 0 {
			c.Predicted = names[object : object+1]
		}
		frames++
		seen[c.Predicted]++
		why, worth := DefaultTaste.Judge(c, s.Samples.Around(c))
		if !worth {
			continue
		}
		kept[c.Predicted]++
		p := sample(r, "door", at, 4000)
		p.Features, p.Predicted, p.Why = c.Features, c.Predicted, string(why)
		put(t, s, p)
	}

	s.Samples.mu.RLock()
	near, all := 0, len(s.Samples.index.entries)
	parts, classes := map[int]int{}, map[string]int{}
	for _, e := range s.Samples.index.entries {
		if e.near > .95 {
			near++
		}
		parts[dayPart(e.Time)]++
		classes[e.Predicted]++
	}
	s.Samples.mu.RUnlock()
	sum := s.Samples.Summary()
	t.Logf("%d frames, %d kept, %d of them near another (%.1f %%), %.1f of %.1f MB, evicted %d, classes %v, parts of the day %v", frames, all, near, 100*float64(near)/float64(all), float64(sum.Bytes)/1e6, float64(sum.Limit)/1e6, sum.Evicted, classes, parts)
	if all < 50 || near*20 > all {
		t.Errorf("%d of %d kept are near another", near, all)
	}
	for name := range seen {
		if kept[name] == 0 || classes[name] == 0 {
			t.Errorf("of %d frames of %q %d were kept, %d are left", seen[name], name, kept[name], classes[name])
		}
	}
	if len(parts) != dayParts || sum.Bytes > budget {
		t.Errorf("parts of the day %v, %d bytes", parts, sum.Bytes)
	}
	if classes["none"]*2 > all {
		t.Errorf("%d of %d show nothing", classes["none"], all)
	}
}
