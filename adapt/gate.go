package adapt

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Thresholds are what a candidate has to keep. Every one has a reason in DefaultThresholds.
type Thresholds struct {
	// The lower bound of the gain in labelled-swap accuracy must be above it; the gain itself where the follow index
	// rises beyond chance.
	Gain float64 `json:"gain" yaml:"gain"`
	// Most that the follow index may lose.
	Follow float64 `json:"follow" yaml:"follow"`
	// Most that the accuracy on labelled pictures may lose.
	Labelled float64 `json:"labelled" yaml:"labelled"`
	// Most that the confidence on empty views may rise.
	Background float64 `json:"background" yaml:"background"`
	// Most that the AUROC of relevance and mask may lose.
	AUROC float64 `json:"auroc" yaml:"auroc"`
	// Most that the object may lose against its surroundings.
	Drop float64 `json:"drop" yaml:"drop"`
	// Least effective patches, in parts of the parent's.
	Spread float64 `json:"spread" yaml:"spread"`
	// Most that the recall of a class may lose.
	Recall float64 `json:"recall" yaml:"recall"`
	// Most that a class may be said more often than it is true, beyond the parent.
	Crowding float64 `json:"crowding" yaml:"crowding"`
	// Least share of frames called as the base does: one budget for all generations.
	AgreementBase float64 `json:"agreement_base" yaml:"agreement_base"`
	// Least share of frames called as the parent does.
	AgreementParent float64 `json:"agreement_parent" yaml:"agreement_parent"`
	// Most that labelled-swap accuracy may lose on one camera.
	Camera float64 `json:"camera" yaml:"camera"`
	// Most by which the mean margin of the logits may change, as a factor.
	Margin float64 `json:"margin" yaml:"margin"`
	// Most time of a forward pass, in parts of the parent's.
	Latency float64 `json:"latency" yaml:"latency"`

	// Below these numbers nothing is judged: the verdict is Waiting.
	// Labelled objects kept apart.
	LeastObjects int `json:"least_objects" yaml:"least_objects"`
	// Held-out backgrounds.
	LeastBackgrounds int `json:"least_backgrounds" yaml:"least_backgrounds"`
	// Held-out frames with an object; at most as many as are looked at, 64.
	LeastFrames int `json:"least_frames" yaml:"least_frames"`
}

// DefaultThresholds are for a handful of classes and some twenty labelled objects kept apart. Where a bound of an
// interval is judged, the margin is about the half width that the interval has for two models that are equally good
// (bench/gate prints them): a smaller one would reject by chance, a larger one would let a loss pass. What bad
// candidates lose is several times as much.
var DefaultThresholds = Thresholds{
	// The point of it all: better beyond chance. A larger gain is not asked for, since each promotion begins anew.
	Gain: 0,
	// The widest interval of all, since few visits make the pairs; one that collapses loses all it had, .3 and more.
	Follow: .20,
	// On pictures as they were labelled, debiasing may lose a little of what the scenes gave away.
	Labelled: .10,
	// An empty view that becomes an alarm is worse than a miss; rescaled, two heads differ by less than this.
	Background: .10,
	// Of chance .5 and a good map's .8 to .9; inverted masks cost more.
	AUROC: .05,
	// Of a range of 2; a head that turns to the surroundings loses several times as much.
	Drop: .10,
	// A map on half as many patches is another map; one patch alone is a fortieth.
	Spread: .5,
	// Three of twenty pictures: a class that is given up loses more, one picture is no evidence.
	Recall: .15,
	// One class that takes a tenth more of everything; a fifth moved to the majority is twice that.
	Crowding: .10,
	// One budget for all generations: .9 a generation would be .35 after ten. A gain of 10 points on frames of which
	// the base calls half right changes a third of the guesses, hence no more than this is asked for.
	AgreementBase: .5,
	// A step may change what is wrong, not two frames in five.
	AgreementParent: .6,
	// A mean over cameras can hide one that lost; a twentieth is within the spread of one camera's pictures.
	Camera: .05,
	// Thresholds on confidence, the page's and an automation's, keep their meaning within this factor.
	Margin: 3,
	// Least times of the same shape differ by a tenth; a larger network would break the pace of the cameras.
	Latency: 1.5,

	// Fewer objects kept apart than two of each of four classes say nothing of classes.
	LeastObjects: 8,
	// One view is a camera; the worst camera is judged by itself.
	LeastBackgrounds: 1,
	// A quarter of the sixty new samples that make a run due is fifteen. Of twelve, a model that agrees on one in five is
	// called so on half of them once in fifty times.
	LeastFrames: 12,
}

// Validate names the first threshold that makes no sense.
func (t Thresholds) Validate() error {
	for _, f := range []struct {
		name     string
		v        float64
		min, max float64
	}{
		{"gain", t.Gain, 0, 1},
		{"follow", t.Follow, 0, 2},
		{"labelled", t.Labelled, 0, 1},
		{"background", t.Background, 0, 1},
		{"auroc", t.AUROC, 0, 1},
		{"drop", t.Drop, 0, 2},
		{"spread", t.Spread, 0, 1},
		{"recall", t.Recall, 0, 1},
		{"crowding", t.Crowding, 0, 1},
		{"agreement_base", t.AgreementBase, 0, 1},
		{"agreement_parent", t.AgreementParent, 0, 1},
		{"camera", t.Camera, 0, 1},
		{"margin", t.Margin, 1, 100},
		{"latency", t.Latency, 1, 100},
		{"least_objects", float64(t.LeastObjects), 1, 1e6},
		{"least_backgrounds", float64(t.LeastBackgrounds), 1, 1e6},
		{"least_frames", float64(t.LeastFrames), 1, float64(DefaultEval.Originals)}, // more would wait for ever,
	} {
		if !(f.v >= f.min && f.v <= f.max) {
			return fmt.Errorf("gate: %s is %g, want %g to %g", f.name, f.v, f.min, f.max)
		}
	}
	return nil
}

// Decision is what a gate says.
type Decision string

// The decisions.
const (
	Promote Decision = "promote"
	Reject  Decision = "reject"
	Waiting Decision = "waiting" // too few pictures to say either
)

// Check is one condition with its numbers.
type Check struct {
	Name  string   `json:"name"` // of the threshold, or "finite"
	OK    *bool    `json:"ok"`   // null: too few pictures
	Value *float64 `json:"value"`
	Bound *float64 `json:"bound"` // what Value is held against
	Text  string   `json:"text"`  // a sentence for people, with the numbers
}

// Verdict is a decision and every check that led to it.
type Verdict struct {
	Decision Decision `json:"decision"`
	Reason   string   `json:"reason"` // a sentence
	Checks   []Check  `json:"checks"`
}

// Judge says whether a candidate may take its parent's place: it has to be better at the main figure beyond
// chance, and not worse at anything else by more than the thresholds. A check that fails rejects; with none that
// fails, one without enough pictures waits. The same figures and thresholds give the same verdict.
func Judge(c *Comparison, t Thresholds) Verdict {
	j := judgement{c: c, t: t}
	if err := t.Validate(); err != nil {
		return Verdict{Decision: Reject, Reason: err.Error()}
	}
	j.finite()
	if c.Problem == "" {
		j.enough()
		j.gains()
		j.notWorse("follow", "follow index", c.Follow, t.Follow)
		j.notWorse("labelled", "accuracy on labelled pictures", c.Labelled, t.Labelled)
		j.notMore("background", "confidence on empty views", c.Background, t.Background)
		j.notWorse("auroc", "AUROC of relevance and mask", c.AUROC, t.AUROC)
		j.notWorse("drop", "weight of the object over its surroundings", c.Drop, t.Drop)
		j.spread()
		j.recalls()
		j.crowding()
		j.agreement()
		j.cameras()
		j.margin()
		j.latency()
	}
	return j.verdict()
}

type judgement struct {
	c      *Comparison
	t      Thresholds
	checks []Check
}

func (j *judgement) verdict() Verdict {
	var failed, unknown []string
	for _, c := range j.checks {
		switch {
		case c.OK == nil:
			unknown = append(unknown, c.Text)
		case !*c.OK:
			failed = append(failed, c.Text)
		}
	}
	v := Verdict{Decision: Promote, Checks: j.checks}
	switch {
	case len(failed) > 0:
		v.Decision, v.Reason = Reject, strings.Join(failed, "; ")
	case len(unknown) > 0:
		v.Decision, v.Reason = Waiting, "too few pictures: "+strings.Join(unknown, "; ")
	default:
		v.Reason = j.checks[slices.IndexFunc(j.checks, func(c Check) bool { return c.Name == "gain" })].Text
	}
	return v
}

// check appends a check; a value that is no number is not ok.
func (j *judgement) check(name string, ok bool, value, bound float64, text string) {
	c := Check{Name: name, OK: &ok, Bound: &bound, Text: text}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		ok, c.Text = false, name+" is not a number"
	} else {
		c.Value = &value
	}
	j.checks = append(j.checks, c)
}

func (j *judgement) unknown(name, text string) {
	j.checks = append(j.checks, Check{Name: name, Text: text})
}

func (j *judgement) finite() {
	ok := j.c.Problem == ""
	text := "weights and logits are finite"
	if !ok {
		text = j.c.Problem
	}
	j.checks = append(j.checks, Check{Name: "finite", OK: &ok, Text: text})
}

// enough waits for pictures.
func (j *judgement) enough() {
	for _, f := range []struct {
		name, what  string
		have, least int
	}{
		{"least_objects", "labelled objects kept apart", j.c.Objects, j.t.LeastObjects},
		{"least_backgrounds", "held-out backgrounds", j.c.Backgrounds, j.t.LeastBackgrounds},
		{"least_frames", "held-out frames with an object", j.c.AgreementBase.Pictures, j.t.LeastFrames},
	} {
		value, bound := float64(f.have), float64(f.least)
		text := fmt.Sprintf("%d %s, want %d", f.have, f.what, f.least)
		c := Check{Name: f.name, Value: &value, Bound: &bound, Text: text}
		if f.have >= f.least {
			c.OK = new(bool)
			*c.OK = true
		}
		j.checks = append(j.checks, c)
	}
}

func (f Paired) known() bool {
	return f.Parent != nil && f.Candidate != nil && f.Difference != nil && f.Low != nil && f.High != nil
}

func (f Paired) text(what string) string {
	return fmt.Sprintf("%s %.3f -> %.3f, difference %+.3f (%+.3f to %+.3f) on %d pictures of %d sources",
		what, *f.Parent, *f.Candidate, *f.Difference, *f.Low, *f.High, f.Pictures, f.Sources)
}

func (j *judgement) few(name, what string, f Paired) {
	j.unknown(name, fmt.Sprintf("%s on %d pictures of %d sources", what, f.Pictures, f.Sources))
}

// gains wants labelled-swap accuracy to rise beyond chance. Where the follow index does, which sees more objects and
// scenes than those few that are kept apart, any rise will do: there the answers follow the object more than they did.
func (j *judgement) gains() {
	const name, what = "gain", "labelled-swap accuracy"
	f, follow := j.c.LabelledSwap, j.c.Follow
	if !f.known() {
		j.few(name, what, f)
		return
	}
	if follow.known() && *follow.Low > 0 && *f.Difference > j.t.Gain && !(*f.Low > j.t.Gain) {
		j.check(name, true, *f.Difference, j.t.Gain, f.text(what)+fmt.Sprintf(": wanted above %g, since the follow index rises beyond chance", j.t.Gain))
		return
	}
	j.check(name, *f.Low > j.t.Gain, *f.Low, j.t.Gain, f.text(what)+fmt.Sprintf(": lower bound wanted above %g", j.t.Gain))
}

// notWorse wants the lower bound of the difference at no less than -margin.
func (j *judgement) notWorse(name, what string, f Paired, margin float64) {
	if !f.known() {
		j.few(name, what, f)
		return
	}
	j.check(name, *f.Low >= -margin, *f.Low, -margin, f.text(what)+fmt.Sprintf(": lower bound wanted at %g or more", -margin))
}

// notMore wants the upper bound of the difference at no more than margin.
func (j *judgement) notMore(name, what string, f Paired, margin float64) {
	if !f.known() {
		j.few(name, what, f)
		return
	}
	j.check(name, *f.High <= margin, *f.High, margin, f.text(what)+fmt.Sprintf(": upper bound wanted at %g or less", margin))
}

func (j *judgement) spread() {
	f := j.c.Effective
	if !f.known() {
		j.few("spread", "patches that relevance spreads over", f)
		return
	}
	ratio := *f.Candidate / *f.Parent
	j.check("spread", ratio >= j.t.Spread, ratio, j.t.Spread,
		fmt.Sprintf("relevance spreads over %.1f -> %.1f patches, %.2f times as many, wanted %g or more", *f.Parent, *f.Candidate, ratio, j.t.Spread))
}

func (j *judgement) recalls() {
	known := false
	worst, label := math.Inf(1), ""
	for _, r := range j.c.Recalls {
		if r.Parent == nil || r.Candidate == nil {
			continue
		}
		known = true
		if d := *r.Candidate - *r.Parent; math.IsNaN(d) || d < worst {
			worst, label = d, r.Label
		}
	}
	if !known {
		j.unknown("recall", fmt.Sprintf("recall of each class: %d labelled swaps or more", leastOfClass))
		return
	}
	j.check("recall", worst >= -j.t.Recall, worst, -j.t.Recall,
		fmt.Sprintf("recall of the class that lost most, %s, changed by %+.3f, wanted %g or more", label, worst, -j.t.Recall))
}

func (j *judgement) crowding() {
	f := j.c.Crowding
	if f.Difference == nil {
		j.few("crowding", "the class said too often", f)
		return
	}
	j.check("crowding", *f.Difference <= j.t.Crowding, *f.Difference, j.t.Crowding,
		fmt.Sprintf("the class said too often has %.3f -> %.3f more than its share, wanted at most %g more", *f.Parent, *f.Candidate, j.t.Crowding))
}

func (j *judgement) agreement() {
	if f := j.c.AgreementBase; f.Candidate == nil {
		j.few("agreement_base", "agreement with the base", f)
	} else {
		j.check("agreement_base", *f.Candidate >= j.t.AgreementBase, *f.Candidate, j.t.AgreementBase,
			fmt.Sprintf("%.3f of the frames are called as the base does, wanted %g", *f.Candidate, j.t.AgreementBase))
	}
	if a := j.c.AgreementParent; a == nil {
		j.unknown("agreement_parent", "agreement with the parent")
	} else {
		j.check("agreement_parent", *a >= j.t.AgreementParent, *a, j.t.AgreementParent,
			fmt.Sprintf("%.3f of the frames are called as the parent does, wanted %g", *a, j.t.AgreementParent))
	}
}

func (j *judgement) cameras() {
	worst, name := math.Inf(1), ""
	for _, camera := range slices.Sorted(maps.Keys(j.c.Cameras)) {
		f := j.c.Cameras[camera].LabelledSwap
		if f.Difference == nil {
			continue
		}
		if d := *f.Difference; math.IsNaN(d) || d < worst {
			worst, name = d, camera
		}
	}
	if name == "" {
		j.unknown("camera", "labelled-swap accuracy on each camera")
		return
	}
	j.check("camera", worst >= -j.t.Camera, worst, -j.t.Camera,
		fmt.Sprintf("labelled-swap accuracy on the worst camera, %s, changed by %+.3f, wanted %g or more", name, worst, -j.t.Camera))
}

func (j *judgement) margin() {
	f := j.c.Margin
	if !f.known() {
		j.few("margin", "margin of the logits", f)
		return
	}
	ratio := *f.Candidate / *f.Parent
	ok := ratio <= j.t.Margin && ratio >= 1/j.t.Margin
	j.check("margin", ok, ratio, j.t.Margin,
		fmt.Sprintf("mean margin of the logits %.2f -> %.2f, a factor of %.2f, wanted within %g: thresholds on confidence must keep their meaning", *f.Parent, *f.Candidate, ratio, j.t.Margin))
}

func (j *judgement) latency() {
	ratio := j.c.Latency.Candidate / j.c.Latency.Parent
	j.check("latency", ratio <= j.t.Latency, ratio, j.t.Latency,
		fmt.Sprintf("a forward pass takes %.1f -> %.1f ms, wanted at most %g times as long", j.c.Latency.Parent, j.c.Latency.Candidate, j.t.Latency))
}

// ErrFew is returned where a cycle cannot begin for want of pictures.
var ErrFew = errors.New("too few pictures")
