package adapt

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// draws are n observations of k sources each seen n/k times: the source decides the outcome.
func draws(s *sources, n, k int, better float64, r *rand.Rand) []observation {
	gain := make([]float64, k)
	for i := range gain {
		if r.Float64() < better {
			gain[i] = 1
		}
	}
	var list []observation
	for i := range n {
		list = append(list, observation{candidate: gain[i%k], donor: s.of("class", fmt.Sprint(i%k)), background: -1})
	}
	return list
}

// TestBootstrapCoversTheTruth: of 200 experiments the lower bound is below the true mean in about 95 %, though every
// source is seen ten times; an interval that took pictures for independent would be far off.
func TestBootstrapCoversTheTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	const better, experiments = .3, 200
	below := 0
	for i := range experiments {
		s := &sources{}
		f := bootstrap{sources: s, seed: uint64(i), resamples: 400, least: 20}.figure(draws(s, 300, 30, better, r))
		if *f.Low <= better {
			below++
		}
	}
	if share := float64(below) / experiments; share < .89 {
		t.Errorf("the lower bound is below the truth in %.3f of the experiments, want about .95", share)
	}
}

func TestBootstrapOfTheSameModelIsZero(t *testing.T) {
	s := &sources{}
	var list []observation
	for i := range 60 {
		v := float64(i % 2)
		list = append(list, observation{parent: v, candidate: v, stratum: i % 3, donor: s.of("class", fmt.Sprint(i%12)), background: s.of("camera", fmt.Sprint(i%5))})
	}
	f := bootstrap{sources: s, seed: 1, resamples: 200, least: 20}.figure(list)
	if *f.Difference != 0 || *f.Low != 0 || *f.High != 0 || *f.Parent != *f.Candidate {
		t.Errorf("%+v", f)
	}
}

// TestBootstrapIsNullWithTooFew: never 1, never 0.
func TestBootstrapIsNullWithTooFew(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, few := range []struct{ pictures, sources int }{{0, 1}, {19, 19}, {300, 3}} {
		s := &sources{}
		f := bootstrap{sources: s, seed: 1, resamples: 100, least: 20}.figure(draws(s, few.pictures, few.sources, .5, r))
		if f.Parent != nil || f.Candidate != nil || f.Difference != nil || f.Low != nil || f.High != nil {
			t.Errorf("%d pictures of %d sources: %+v", few.pictures, few.sources, f)
		}
	}
}

// TestWeighedMeanIsMacro: a class with many pictures weighs like one with few.
func TestWeighedMeanIsMacro(t *testing.T) {
	s := &sources{}
	d := s.of("class", "a")
	list := []observation{{candidate: 1, stratum: 0, donor: d, background: -1}}
	for range 9 {
		list = append(list, observation{candidate: 0, stratum: 1, donor: d, background: -1})
	}
	if _, c := weighedMean(list, []float64{1}); c != .5 {
		t.Errorf("mean %g, want .5", c)
	}
	if p, _ := weighedMean(list, []float64{0}); !math.IsNaN(p) {
		t.Errorf("mean of nothing drawn is %g", p)
	}
}
