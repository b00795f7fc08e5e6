package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// ProbationConfig is how a new model is watched beside its parent, which looks at some of the frames too. A tripwire
// makes the parent live again at once.
type ProbationConfig struct {
	// Every how many frames the parent looks too.
	Every int `yaml:"every,omitempty" jsonschema:"minimum=1,maximum=1000"`

	// After so many frames that both looked at the probation is passed.
	Frames int `yaml:"frames,omitempty" jsonschema:"minimum=20,maximum=1000000"`

	// Most of the last 40 such frames that the two may call differently, 0 to 1.
	Disagreement float64 `yaml:"disagreement,omitempty" jsonschema:"minimum=0,maximum=1"`

	// Least mean confidence, in parts of the parent's.
	Confidence float64 `yaml:"confidence,omitempty" jsonschema:"minimum=0,maximum=1"`

	// Most median time of a frame, in parts of the parent's.
	Latency float64 `yaml:"latency,omitempty" jsonschema:"minimum=1,maximum=100"`
}

func defaultProbation() ProbationConfig {
	return ProbationConfig{Every: 4, Frames: 300, Disagreement: .6, Confidence: .5, Latency: 2}
}

const (
	pairsWatched = 40 // of the newest, for the tripwires
	pairsEnough  = 15 // fewer say nothing
	runsFailed   = 3  // passes that fail one after the other
	oneClass     = .95
	oneClassOver = .25 // more of one class than the parent says, for a collapse
)

// probation watches a new model. The inference goroutine alone uses it.
type probation struct {
	config ProbationConfig
	parent *served
	turns  int
	seen   int // frames that both looked at
	failed int // passes in a row
	pairs  []pair
}

// pair is what both models said of one frame.
type pair struct {
	live, parent         int // classes
	liveTop, parentTop   float64
	liveTook, parentTook time.Duration
}

// due says whether the parent looks at this frame.
func (p *probation) due() bool {
	p.turns++
	return p.turns%p.config.Every == 0
}

// failure notes a pass of the new model that failed, and returns why it has to go, or "".
func (p *probation) failure(err error) string {
	if p.failed++; p.failed >= runsFailed {
		return fmt.Sprintf("%d passes failed one after the other: %v", p.failed, err)
	}
	return ""
}

// observe notes what both said of a frame. It returns why the new model has to go, or "", and whether it passed.
func (p *probation) observe(one pair) (tripped string, passed bool) {
	p.failed = 0
	p.seen++
	p.pairs = append(p.pairs, one)
	if over := len(p.pairs) - pairsWatched; over > 0 {
		p.pairs = slices.Delete(p.pairs, 0, over)
	}
	if len(p.pairs) < pairsEnough {
		return "", false
	}
	for _, wire := range []func() string{p.collapse, p.disagreement, p.confidence, p.latency} {
		if why := wire(); why != "" {
			return why, false
		}
	}
	return "", p.seen >= p.config.Frames
}

func (p *probation) collapse() string {
	live, parent := map[int]int{}, map[int]int{}
	for _, one := range p.pairs {
		live[one.live]++
		parent[one.parent]++
	}
	for class, n := range live {
		share, before := float64(n)/float64(len(p.pairs)), float64(parent[class])/float64(len(p.pairs))
		if share >= oneClass && share-before >= oneClassOver {
			return fmt.Sprintf("it calls %.0f %% of the last %d frames alike, its parent %.0f %%", 100*share, len(p.pairs), 100*before)
		}
	}
	return ""
}

func (p *probation) disagreement() string {
	n := 0
	for _, one := range p.pairs {
		if one.live != one.parent {
			n++
		}
	}
	if share := float64(n) / float64(len(p.pairs)); share > p.config.Disagreement {
		return fmt.Sprintf("it and its parent call %.0f %% of the last %d frames differently, at most %.0f %% is allowed", 100*share, len(p.pairs), 100*p.config.Disagreement)
	}
	return ""
}

func (p *probation) confidence() string {
	var live, parent float64
	for _, one := range p.pairs {
		live += one.liveTop / float64(len(p.pairs))
		parent += one.parentTop / float64(len(p.pairs))
	}
	if math.IsNaN(live) || live < p.config.Confidence*parent {
		return fmt.Sprintf("its mean confidence is %.2f, its parent's %.2f", live, parent)
	}
	return ""
}

func (p *probation) latency() string {
	live, parent := make([]time.Duration, len(p.pairs)), make([]time.Duration, len(p.pairs))
	for i, one := range p.pairs {
		live[i], parent[i] = one.liveTook, one.parentTook
	}
	slices.Sort(live)
	slices.Sort(parent)
	a, b := live[len(live)/2], parent[len(parent)/2]
	if float64(a) > p.config.Latency*float64(b) {
		return fmt.Sprintf("a frame takes it %v, its parent %v", a.Round(time.Millisecond), b.Round(time.Millisecond))
	}
	return ""
}
