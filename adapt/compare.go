package adapt

import (
	"math"
	"slices"

	"github.com/seed-a98b2d25/fovea/model"
)

// Comparison is the figures of a candidate beside its parent's, all that Judge looks at. Fields of the JSON keep
// their meaning from version to version of a receipt; a null is a figure that too few pictures speak for.
type Comparison struct {
	Base      string `json:"base"`      // digests
	Parent    string `json:"parent"`    //
	Candidate string `json:"candidate"` //
	Problem   string `json:"problem"`   // why the candidate could not be looked at; "" where it could

	// LabelledSwap is the main figure: accuracy over labelled objects that no generation was fitted on, laid on
	// held-out backgrounds of the cameras; the mean over classes.
	LabelledSwap Paired `json:"labelled_swap_accuracy"`
	// Follow is the follow index: of compositions whose object is of class y and whose background is from a
	// picture of class z, the share called y minus the share called z. A model that ignores its input has 0, one
	// that reads backgrounds less. It is what payloads call swap_consistency.
	Follow Paired `json:"follow_index"`
	// Labelled is the accuracy on labelled pictures kept apart, as they are; the mean over classes.
	Labelled Paired `json:"labelled_accuracy"`
	// Background is the confidence on views without an object. The candidate's logits are rescaled to the
	// parent's mean margin on the labelled pictures first, as in Drop.
	Background Paired `json:"background_confidence"`
	// AUROC tells whether the relevance of the reference class ranks patches of the object above the others;
	// Effective over how many patches it spreads: the one alone can be had by looking at one patch.
	AUROC     Paired `json:"relevance_auroc"`
	Effective Paired `json:"effective_patches"`
	// Drop is the probability of the reference class with the surroundings hidden minus the same with the object
	// hidden: how much more the object carries than its surroundings.
	Drop Paired `json:"object_over_surroundings"`

	// AgreementBase is the share of held-out frames with an object that are called as the base does, AgreementParent
	// the same of candidate and parent. What a view without an object is called says nothing: of those a head is to be
	// undecided.
	AgreementBase   Paired   `json:"agreement_base"`
	AgreementParent *float64 `json:"agreement_parent"`
	Entropy         Paired   `json:"entropy"`  // of the probabilities on held-out frames, nats
	Margin          Paired   `json:"margin"`   // first logit minus second, on labelled pictures
	Crowding        Paired   `json:"crowding"` // the most by which a class is said more often of the labelled swaps than it is true

	Recalls []Recall                 `json:"recalls"` // of each class, on the labelled swaps
	Cameras map[string]CameraFigures `json:"cameras"`
	Latency struct {
		Parent    float64 `json:"parent_ms"` // least time of a forward pass
		Candidate float64 `json:"candidate_ms"`
	} `json:"latency"`

	Objects     int     `json:"objects"`     // labelled objects kept apart that were laid
	Backgrounds int     `json:"backgrounds"` // held-out ones
	Visits      int     `json:"visits"`      // that held-out frames with an object show
	Drift       float64 `json:"drift"`       // EvalSet.Drift
}

// Recall is the share of a class's labelled swaps that are called right; null with too few.
type Recall struct {
	Label     string   `json:"label"`
	Pictures  int      `json:"pictures"`
	Parent    *float64 `json:"parent"`
	Candidate *float64 `json:"candidate"`
}

// CameraFigures are the figures on backgrounds of one camera.
type CameraFigures struct {
	LabelledSwap Paired `json:"labelled_swap_accuracy"`
	Follow       Paired `json:"follow_index"`
	Background   Paired `json:"background_confidence"`
	Agreement    Paired `json:"agreement_base"`
}

// leastOfClass is the number of labelled swaps below which a recall is null.
const leastOfClass = 8

// Compare figures the candidate beside its parent from what base, parent and candidate said of the same set. base
// and parent may be the same.
func (s *EvalSet) Compare(base, parent, candidate *Outcomes) *Comparison {
	c := &Comparison{
		Base: base.Model, Parent: parent.Model, Candidate: candidate.Model, Problem: candidate.Problem,
		Objects: s.Objects, Backgrounds: s.Backgrounds, Visits: s.Visits, Drift: s.Drift,
		Cameras: map[string]CameraFigures{},
	}
	if c.Problem != "" {
		return c
	}
	c.Latency.Parent, c.Latency.Candidate = parent.Milliseconds, candidate.Milliseconds
	scale := s.meanMargin(parent) / s.meanMargin(candidate)
	if !(scale > 0) || math.IsInf(scale, 0) {
		scale = 1
	}
	v := views{s, base, parent, candidate, scale}
	c.LabelledSwap = v.figure(v.swap, nil)
	c.Follow = v.figure(v.follow, nil)
	c.Labelled = v.figure(v.labelled, nil)
	c.Background = v.figure(v.background, nil)
	c.AUROC = v.figure(v.auroc, nil)
	c.Effective = v.figure(v.effective, nil)
	c.Drop = v.figure(v.drop, nil)
	c.AgreementBase = v.figure(v.agreement, nil)
	c.Entropy = v.figure(v.entropy, nil)
	c.Margin = v.figure(v.margin, nil)
	c.AgreementParent = v.agreementParent()
	c.Crowding = v.crowding()
	c.Recalls = v.recalls()
	for _, camera := range s.cameras() {
		at := func(it *item) bool { return it.camera == camera }
		c.Cameras[camera] = CameraFigures{
			LabelledSwap: v.figure(v.swap, at), Follow: v.figure(v.follow, at),
			Background: v.figure(v.background, at), Agreement: v.figure(v.agreement, at),
		}
	}
	return c
}

func (s *EvalSet) cameras() []string {
	var names []string
	for _, it := range s.items {
		if it.camera != "" && !slices.Contains(names, it.camera) {
			names = append(names, it.camera)
		}
	}
	slices.Sort(names)
	return names
}

// meanMargin is the mean distance of the first logit from the second on the labelled pictures kept apart.
func (s *EvalSet) meanMargin(o *Outcomes) float64 {
	sum, n := 0., 0.
	for i, it := range s.items {
		if it.kind == labelledAsIs {
			sum += marginOf(o.items[i].logits)
			n++
		}
	}
	return sum / n
}

func marginOf(logits []float32) float64 {
	if len(logits) < 2 {
		return 0
	}
	first, second := math.Inf(-1), math.Inf(-1)
	for _, v := range logits {
		switch x := float64(v); {
		case x > first:
			first, second = x, first
		case x > second:
			second = x
		}
	}
	return first - second
}

// views computes figures item by item.
type views struct {
	*EvalSet
	base, parent, candidate *Outcomes
	scale                   float64 // of the candidate's logits, where confidences are compared
}

// value is a model's part of a figure: of item i, with logits scaled; ok is false where the item does not count.
type value func(o *Outcomes, i int, it *item, scale float64) (v float64, ok bool)

// figure takes one figure over the items that where admits; nil admits all.
func (v views) figure(of value, where func(*item) bool) Paired {
	var list []observation
	for i := range v.items {
		it := &v.items[i]
		if where != nil && !where(it) {
			continue
		}
		p, ok := of(v.parent, i, it, 1)
		if !ok {
			continue
		}
		q, _ := of(v.candidate, i, it, v.scale)
		o := observation{parent: p, candidate: q, donor: it.donor, background: it.background}
		if it.kind == labelledSwap || it.kind == labelledAsIs {
			o.stratum = it.class
		}
		list = append(list, o)
	}
	b := bootstrap{sources: &v.sources, seed: v.settings.Seed, resamples: v.settings.Resamples, least: v.settings.Least}
	return b.figure(list)
}

func share(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (views) swap(o *Outcomes, i int, it *item, _ float64) (float64, bool) {
	return share(int(top(o.items[i].logits)) == it.class), it.kind == labelledSwap
}

func (views) labelled(o *Outcomes, i int, it *item, _ float64) (float64, bool) {
	return share(int(top(o.items[i].logits)) == it.class), it.kind == labelledAsIs
}

func (views) follow(o *Outcomes, i int, it *item, _ float64) (float64, bool) {
	said := int(top(o.items[i].logits))
	return share(said == it.class) - share(said == it.other), it.kind == followPair
}

func (views) background(o *Outcomes, i int, it *item, scale float64) (float64, bool) {
	p := scaled(o.items[i].logits, scale)
	return slices.Max(p), it.kind == emptyView || it.kind == noObject
}

func (views) auroc(o *Outcomes, i int, it *item, _ float64) (float64, bool) {
	return o.items[i].auroc, it.cover != nil
}

func (views) effective(o *Outcomes, i int, it *item, _ float64) (float64, bool) {
	return o.items[i].effective, it.cover != nil
}

func (views) drop(o *Outcomes, i int, it *item, scale float64) (float64, bool) {
	if it.kind != noSurround {
		return 0, false
	}
	return scaled(o.items[i].logits, scale)[it.class] - scaled(o.items[it.twin].logits, scale)[it.class], true
}

func (v views) agreement(o *Outcomes, i int, it *item, _ float64) (float64, bool) {
	return share(top(o.items[i].logits) == top(v.base.items[i].logits)), it.kind == original && it.object
}

func (views) entropy(o *Outcomes, i int, it *item, scale float64) (float64, bool) {
	return entropy(model.Probabilities(o.items[i].logits)), it.kind == original
}

func (views) margin(o *Outcomes, i int, it *item, _ float64) (float64, bool) {
	return marginOf(o.items[i].logits), it.kind == labelledAsIs
}

// scaled are the probabilities of logits times a factor.
func scaled(logits []float32, by float64) []float64 {
	p := make([]float64, len(logits))
	most := float64(slices.Max(logits)) * by
	sum := 0.
	for i, l := range logits {
		p[i] = math.Exp(float64(l)*by - most)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

func (v views) agreementParent() *float64 {
	same, n := 0., 0
	for i := range v.items {
		if it := &v.items[i]; it.kind == original && it.object {
			same += share(top(v.candidate.items[i].logits) == top(v.parent.items[i].logits))
			n++
		}
	}
	if n < v.settings.Least {
		return nil
	}
	same /= float64(n)
	return &same
}

// crowding has no interval: Low and High stay null.
func (v views) crowding() Paired {
	classes := len(v.config.Labels)
	truth, n := make([]float64, classes), 0
	said := [2][]float64{make([]float64, classes), make([]float64, classes)}
	for i := range v.items {
		if it := &v.items[i]; it.kind == labelledSwap {
			truth[it.class]++
			said[0][top(v.parent.items[i].logits)]++
			said[1][top(v.candidate.items[i].logits)]++
			n++
		}
	}
	f := Paired{Pictures: n}
	if n < v.settings.Least {
		return f
	}
	var most [2]float64
	for k := range most {
		for class := range truth {
			most[k] = max(most[k], (said[k][class]-truth[class])/float64(n))
		}
	}
	f.Parent, f.Candidate, f.Difference = &most[0], &most[1], new(float64)
	*f.Difference = most[1] - most[0]
	return f
}

func (v views) recalls() []Recall {
	list := make([]Recall, len(v.config.Labels))
	right := make([][2]float64, len(list))
	for i := range v.items {
		if it := &v.items[i]; it.kind == labelledSwap {
			list[it.class].Pictures++
			right[it.class][0] += share(int(top(v.parent.items[i].logits)) == it.class)
			right[it.class][1] += share(int(top(v.candidate.items[i].logits)) == it.class)
		}
	}
	for class := range list {
		r := &list[class]
		r.Label = v.config.Labels[class]
		if r.Pictures >= leastOfClass {
			p, c := right[class][0]/float64(r.Pictures), right[class][1]/float64(r.Pictures)
			r.Parent, r.Candidate = &p, &c
		}
	}
	return list
}
