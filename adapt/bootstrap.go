package adapt

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Paired is a figure of two models on the same pictures. What too few pictures say is null, never a number.
//
// Low and High bound Difference by a paired bootstrap over pictures: in each resampling the pictures that the
// compositions are made of (the donor of the object, the background; all renderings of one labelled object, and
// the frames of one visit to a camera, are one) are drawn with replacement, objects within their class and
// backgrounds within their camera, a composition counts as often as both of its sources were drawn (Owen 2007,
// the pigeonhole bootstrap), and both models are figured on the same draw. Low is the 5th percentile of the
// differences and High the 95th, so that each is a one-sided bound of 95 %. An interval that took compositions
// for independent would be too narrow, since they share pictures.
type Paired struct {
	Parent     *float64 `json:"parent"`
	Candidate  *float64 `json:"candidate"`
	Difference *float64 `json:"difference"` // candidate minus parent
	Low        *float64 `json:"low"`
	High       *float64 `json:"high"`
	Pictures   int      `json:"pictures"` // compositions or frames
	Sources    int      `json:"sources"`  // different objects or visits that they show
}

// observation is one picture's part of a figure.
type observation struct {
	parent, candidate float64
	stratum           int // strata weigh alike: the class for a macro average
	donor, background int // sources; -1: none
}

// sources are what compositions are made of; each is drawn within its stratum.
type sources struct {
	index  map[string]int
	strata map[string][]int // stratum -> sources
}

// of is the number of a source.
func (s *sources) of(stratum, name string) int {
	if s.index == nil {
		s.index, s.strata = map[string]int{}, map[string][]int{}
	}
	key := stratum + "\x00" + name
	i, have := s.index[key]
	if !have {
		i = len(s.index)
		s.index[key] = i
		s.strata[stratum] = append(s.strata[stratum], i)
	}
	return i
}

// bootstrap figures observations. Fewer pictures than least, or fewer than leastSources different donors, are too
// few.
type bootstrap struct {
	sources   *sources
	seed      uint64
	resamples int
	least     int
}

const leastSources = 4

func (b bootstrap) figure(list []observation) Paired {
	f := Paired{Pictures: len(list), Sources: distinctDonors(list)}
	if f.Pictures < b.least || f.Sources < leastSources {
		return f
	}
	ones := make([]float64, len(b.sources.index))
	for i := range ones {
		ones[i] = 1
	}
	p, c := weighedMean(list, ones)
	f.Parent, f.Candidate, f.Difference = &p, &c, new(float64)
	*f.Difference = c - p

	strata := make([]string, 0, len(b.sources.strata))
	for s := range b.sources.strata {
		strata = append(strata, s)
	}
	slices.Sort(strata)
	random := rand.New(rand.NewPCG(b.seed, 7))
	drawn := make([]float64, len(ones))
	differences := make([]float64, 0, b.resamples)
	for range b.resamples {
		clear(drawn)
		for _, s := range strata {
			members := b.sources.strata[s]
			for range members {
				drawn[members[random.IntN(len(members))]]++
			}
		}
		if p, c := weighedMean(list, drawn); !math.IsNaN(p) {
			differences = append(differences, c-p)
		}
	}
	if len(differences) < b.resamples/2 {
		return f
	}
	slices.Sort(differences)
	low, high := differences[len(differences)*5/100], differences[(len(differences)*95-1)/100]
	f.Low, f.High = &low, &high
	return f
}

func distinctDonors(list []observation) int {
	seen := map[int]bool{}
	for _, o := range list {
		seen[o.donor] = true
	}
	return len(seen)
}

// weighedMean is the mean over strata of the means of their observations, each counted as often as its sources
// were drawn; a stratum of which nothing was drawn is left out.
func weighedMean(list []observation, drawn []float64) (parent, candidate float64) {
	var weight, p, c [maxStrata]float64
	for _, o := range list {
		w := 1.
		if o.donor >= 0 {
			w = drawn[o.donor]
		}
		if o.background >= 0 && o.background != o.donor {
			w *= drawn[o.background]
		}
		weight[o.stratum] += w
		p[o.stratum] += w * o.parent
		c[o.stratum] += w * o.candidate
	}
	n := 0.
	for i, w := range weight {
		if w > 0 {
			parent += p[i] / w
			candidate += c[i] / w
			n++
		}
	}
	return parent / n, candidate / n
}

// maxStrata bounds the classes of a model that is adapted.
const maxStrata = 256
