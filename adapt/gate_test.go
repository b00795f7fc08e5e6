package adapt

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func pointer(v float64) *float64 { return &v }

// figure is a known figure whose bounds lie .02 around the difference.
func figure(parent, candidate float64) Paired {
	d := candidate - parent
	return Paired{
		Parent: &parent, Candidate: &candidate, Difference: &d, Low: pointer(d - .02), High: pointer(d + .02), Pictures: 100, Sources: 20,
	}
}

// passing are figures that the default thresholds promote.
func passing() *Comparison {
	c := &Comparison{
		LabelledSwap: figure(.5, .6), Follow: figure(.3, .3), Labelled: figure(.8, .8), Background: figure(.5, .5),
		AUROC: figure(.7, .7), Effective: figure(40, 40), Drop: figure(.2, .2), AgreementBase: figure(1, .8),
		AgreementParent: pointer(.8), Entropy: figure(1, 1), Margin: figure(2, 2), Crowding: figure(.1, .1),
		Recalls: []Recall{{"cup", 20, pointer(.5), pointer(.5)}, {"key", 20, pointer(.5), pointer(.7)}},
		Cameras: map[string]CameraFigures{"yard": {LabelledSwap: figure(.5, .6)}, "gate": {LabelledSwap: figure(.5, .5)}},
		Objects: 20, Backgrounds: 4, Visits: 10,
	}
	c.Latency.Parent, c.Latency.Candidate = 60, 60
	return c
}

func TestGatePromotesWhatIsBetterAndNotWorse(t *testing.T) {
	v := Judge(passing(), DefaultThresholds)
	if v.Decision != Promote {
		t.Fatalf("%s: %s", v.Decision, v.Reason)
	}
	for _, c := range v.Checks {
		if c.OK == nil || !*c.OK || c.Text == "" {
			t.Errorf("check %+v", c)
		}
	}
}

// TestEachThreshold holds every default threshold from both sides: a figure just inside promotes, one just outside
// does not. A threshold that is changed by a hundredth fails here.
func TestEachThreshold(t *testing.T) {
	const e = .005
	shift := func(f *Paired, low, high float64) { *f.Low, *f.High = low, high }
	rises := func(c *Comparison, by float64) { // where the follow index rises beyond chance
		shift(&c.LabelledSwap, -.1, .2)
		shift(&c.Follow, e, .2)
		*c.LabelledSwap.Difference = by
	}
	tests := []struct {
		name            string
		inside, outside func(c *Comparison)
		waits           bool
	}{
		{"gain", func(c *Comparison) { shift(&c.LabelledSwap, e, .2) }, func(c *Comparison) { shift(&c.LabelledSwap, -e, .2) }, false},
		{"gain", func(c *Comparison) { shift(&c.LabelledSwap, -e, .2); shift(&c.Follow, e, .2) }, func(c *Comparison) { shift(&c.LabelledSwap, -e, .2); shift(&c.Follow, -e, .2) }, false},
		{"gain", func(c *Comparison) { rises(c, e) }, func(c *Comparison) { rises(c, -e) }, false},
		{"follow", func(c *Comparison) { shift(&c.Follow, -.2+e, .2) }, func(c *Comparison) { shift(&c.Follow, -.2-e, .2) }, false},
		{"labelled", func(c *Comparison) { shift(&c.Labelled, -.1+e, .1) }, func(c *Comparison) { shift(&c.Labelled, -.1-e, .1) }, false},
		{"background", func(c *Comparison) { shift(&c.Background, 0, .1-e) }, func(c *Comparison) { shift(&c.Background, 0, .1+e) }, false},
		{"auroc", func(c *Comparison) { shift(&c.AUROC, -.05+e, .1) }, func(c *Comparison) { shift(&c.AUROC, -.05-e, .1) }, false},
		{"drop", func(c *Comparison) { shift(&c.Drop, -.1+e, .1) }, func(c *Comparison) { shift(&c.Drop, -.1-e, .1) }, false},
		{"spread", func(c *Comparison) { *c.Effective.Candidate = 40 * (.5 + e) }, func(c *Comparison) { *c.Effective.Candidate = 40 * (.5 - e) }, false},
		{"recall", func(c *Comparison) { *c.Recalls[0].Candidate = .35 + e }, func(c *Comparison) { *c.Recalls[0].Candidate = .35 - e }, false},
		{"crowding", func(c *Comparison) { *c.Crowding.Difference = .1 - e }, func(c *Comparison) { *c.Crowding.Difference = .1 + e }, false},
		{"agreement_base", func(c *Comparison) { *c.AgreementBase.Candidate = .5 + e }, func(c *Comparison) { *c.AgreementBase.Candidate = .5 - e }, false},
		{"agreement_parent", func(c *Comparison) { *c.AgreementParent = .6 + e }, func(c *Comparison) { *c.AgreementParent = .6 - e }, false},
		{"camera", func(c *Comparison) { *c.Cameras["gate"].LabelledSwap.Difference = -.05 + e }, func(c *Comparison) { *c.Cameras["gate"].LabelledSwap.Difference = -.05 - e }, false},
		{"margin", func(c *Comparison) { *c.Margin.Candidate = 6 - e }, func(c *Comparison) { *c.Margin.Candidate = 6 + e }, false},
		{"margin", func(c *Comparison) { *c.Margin.Candidate = 2./3 + e }, func(c *Comparison) { *c.Margin.Candidate = 2./3 - e }, false},
		{"latency", func(c *Comparison) { c.Latency.Candidate = 90 - e }, func(c *Comparison) { c.Latency.Candidate = 90 + e }, false},
		{"least_objects", func(c *Comparison) { c.Objects = 8 }, func(c *Comparison) { c.Objects = 7 }, true},
		{"least_backgrounds", func(c *Comparison) { c.Backgrounds = 1 }, func(c *Comparison) { c.Backgrounds = 0 }, true},
		{"least_frames", func(c *Comparison) { c.AgreementBase.Pictures = 12 }, func(c *Comparison) { c.AgreementBase.Pictures = 11 }, true},
	}
	held := map[string]bool{}
	for _, test := range tests {
		held[test.name] = true
		in, out := passing(), passing()
		test.inside(in)
		test.outside(out)
		if v := Judge(in, DefaultThresholds); v.Decision != Promote {
			t.Errorf("%s just inside: %s: %s", test.name, v.Decision, v.Reason)
		}
		want := Reject
		if test.waits {
			want = Waiting
		}
		v := Judge(out, DefaultThresholds)
		failed := slices.IndexFunc(v.Checks, func(c Check) bool { return c.OK == nil || !*c.OK })
		if v.Decision != want || failed < 0 || v.Checks[failed].Name != test.name {
			t.Errorf("%s just outside: %s: %s", test.name, v.Decision, v.Reason)
		}
	}
	for i := range reflect.TypeFor[Thresholds]().NumField() {
		if name := reflect.TypeFor[Thresholds]().Field(i).Tag.Get("json"); !held[name] {
			t.Errorf("threshold %s is not held by this test", name)
		}
	}
}

func TestGateWaitsWhereAFigureIsUnknown(t *testing.T) {
	type at = struct {
		name string
		of   func(c *Comparison) *Paired
	}
	for _, f := range []at{
		{"gain", func(c *Comparison) *Paired { return &c.LabelledSwap }},
		{"follow", func(c *Comparison) *Paired { return &c.Follow }},
		{"labelled", func(c *Comparison) *Paired { return &c.Labelled }},
		{"background", func(c *Comparison) *Paired { return &c.Background }},
		{"auroc", func(c *Comparison) *Paired { return &c.AUROC }},
		{"spread", func(c *Comparison) *Paired { return &c.Effective }},
		{"drop", func(c *Comparison) *Paired { return &c.Drop }},
		{"agreement_base", func(c *Comparison) *Paired { return &c.AgreementBase }},
		{"margin", func(c *Comparison) *Paired { return &c.Margin }},
		{"crowding", func(c *Comparison) *Paired { return &c.Crowding }},
	} {
		c := passing()
		*f.of(c) = Paired{Pictures: 20, Sources: 2}
		if v := Judge(c, DefaultThresholds); v.Decision != Waiting {
			t.Errorf("%s unknown: %s: %s", f.name, v.Decision, v.Reason)
		}
		*c.Cameras["gate"].LabelledSwap.Difference = -1
		if v := Judge(c, DefaultThresholds); v.Decision != Reject {
			t.Errorf("%s unknown and a camera lost: %s: %s", f.name, v.Decision, v.Reason)
		}
	}
	for _, without := range []func(c *Comparison){
		func(c *Comparison) { c.AgreementParent = nil },
		func(c *Comparison) { c.Recalls = nil },
		func(c *Comparison) { c.Cameras = nil },
	} {
		c := passing()
		without(c)
		if v := Judge(c, DefaultThresholds); v.Decision != Waiting {
			t.Errorf("%s: %s", v.Decision, v.Reason)
		}
	}
}

// TestGateRejectsWhatIsNoNumber: no comparison with NaN may come out true.
func TestGateRejectsWhatIsNoNumber(t *testing.T) {
	nan := math.NaN()
	for i, spoil := range []func(c *Comparison){
		func(c *Comparison) { c.LabelledSwap.Low = &nan },
		func(c *Comparison) { c.Follow.Low = &nan },
		func(c *Comparison) { c.Background.High = &nan },
		func(c *Comparison) { c.Effective.Candidate = &nan },
		func(c *Comparison) { c.Recalls[0].Candidate = &nan },
		func(c *Comparison) { c.Crowding.Difference = &nan },
		func(c *Comparison) { c.AgreementBase.Candidate = &nan },
		func(c *Comparison) { c.AgreementParent = &nan },
		func(c *Comparison) { *c.Cameras["gate"].LabelledSwap.Difference = nan },
		func(c *Comparison) { c.Margin.Candidate = &nan },
		func(c *Comparison) { c.Latency.Candidate = nan },
		func(c *Comparison) { c.Latency.Parent = 0 },
		func(c *Comparison) { c.Problem = "a weight is not finite" },
	} {
		c := passing()
		spoil(c)
		v := Judge(c, DefaultThresholds)
		if v.Decision != Reject {
			t.Errorf("case %d: %s: %s", i, v.Decision, v.Reason)
		}
		if _, err := json.Marshal(v); err != nil {
			t.Errorf("case %d: %v", i, err)
		}
	}
}

func TestThresholdsNameWhatMakesNoSense(t *testing.T) {
	if err := DefaultThresholds.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func(t *Thresholds){
		func(t *Thresholds) { t.Gain = -1 }, func(t *Thresholds) { t.Margin = .5 },
		func(t *Thresholds) { t.Camera = math.NaN() }, func(t *Thresholds) { t.LeastFrames = 0 },
		func(t *Thresholds) { t.LeastFrames = DefaultEval.Originals + 1 },
	} {
		bad := DefaultThresholds
		spoil(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%+v: %v", bad, err)
		}
		if v := Judge(passing(), bad); v.Decision != Reject {
			t.Errorf("judged by %+v: %s", bad, v.Decision)
		}
	}
}
