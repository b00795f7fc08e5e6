package adapt_test

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/gate/bad"
	"github.com/seed-a98b2d25/fovea/model"
)

// TestGateLetsNoLossPass makes bad candidates, and holds each verdict against the truth: none that truly loses is
// promoted. FOVEA_SOAK makes a hundred of them.
func TestGateLetsNoLossPass(t *testing.T) {
	w := openWorld(t)
	seeds := uint64(1)
	if os.Getenv("FOVEA_SOAK") != "" {
		seeds = 7
	}
	parent := w.accuracy(t, w.in.Base)
	judged := 0
	try := func(name string, from, c *model.Checkpoint, before float64) {
		t.Helper()
		verdict, f := w.judge(t, from, c)
		after := w.accuracy(t, c)
		judged++
		t.Logf("%-34s %-8s true gain %+.3f, seen %s; fails %s", name, verdict.Decision, after-before, number(f.LabelledSwap.Difference), failing(verdict))
		if verdict.Decision == adapt.Promote && after < before {
			t.Errorf("%s was promoted and truly loses %.3f: %s", name, before-after, verdict.Reason)
		}
	}
	both := func(name string, from, c *model.Checkpoint, before float64) {
		t.Helper()
		try(name, from, c, before)
		try("half of "+name, from, adapt.Between(from, c, .5), before) // what Run tries next
	}
	for seed := range seeds {
		for _, m := range bad.Makers {
			c, err := m.Make(bad.Given{
				Context: t.Context(), Backend: w.backend, Parent: w.in.Base, Set: w.tune, Settings: badSettings(), Seed: seed + 1,
			})
			if err != nil {
				t.Fatalf("%s: %v", m.Name, err)
			}
			both(fmt.Sprint(m.Name, ", seed ", seed+1), w.in.Base, c, parent)
		}
	}
	from, before := w.in.Base, parent
	for i, c := range bad.Chain(w.in.Base, 5) {
		try(fmt.Sprint("drift chain, generation ", i+1), from, c, before)
		from, before = c, w.accuracy(t, c)
	}
	if least := 20; judged < least {
		t.Errorf("%d candidates, want %d", judged, least)
	}
}

// badSettings train fast and far.
func badSettings() adapt.Settings {
	s := worldRun().Tune
	s.Rate *= 10
	return s
}

// TestGateLetsAGainPass: the default recipe of a device truly gains in this world, and is promoted.
func TestGateLetsAGainPass(t *testing.T) {
	w := openWorld(t)
	before := w.accuracy(t, w.in.Base)
	promoted := 0
	for seed := range uint64(3) {
		c, r, err := adapt.Run(t.Context(), w.backend, w.in, worldRun().Seeded(seed+1), nil)
		if err != nil {
			t.Fatal(err)
		}
		after := w.accuracy(t, c)
		t.Logf("seed %d: mix %g, accuracy %.3f -> %.3f, %s: %s", seed+1, r.Refit.Mix, before, after, r.Verdict.Decision, r.Verdict.Reason)
		if r.Verdict.Decision != adapt.Promote {
			continue
		}
		promoted++
		if after <= before {
			t.Errorf("seed %d was promoted and truly goes from %.3f to %.3f", seed+1, before, after)
		}
	}
	if promoted == 0 {
		t.Error("no good candidate was promoted")
	}
}

// TestRunRepeats: the same input and settings give the same candidate and the same verdict, with every recipe.
func TestRunRepeats(t *testing.T) {
	w := openWorld(t)
	for _, recipe := range []adapt.Recipe{adapt.RecipeHead, adapt.RecipeBoth} {
		s := worldRun()
		s.Recipe = recipe
		s.Tune.Steps, s.Refit.Swaps, s.Eval.Swaps, s.Eval.Resamples = 4, 60, 60, 100
		var digest, verdict [2]string
		for i := range digest {
			stages := map[string]bool{}
			c, r, err := adapt.Run(t.Context(), w.backend, w.in, s, func(p adapt.Progress) { stages[p.Stage] = true })
			if err != nil {
				t.Fatal(err)
			}
			digest[i], verdict[i] = c.Digest(), fmt.Sprint(r.Verdict.Decision, failing(r.Verdict))
			if r.Candidate != digest[i] {
				t.Errorf("the report names %.12s, the candidate is %.12s", r.Candidate, digest[i])
			}
			if !stages["figures"] || !stages["plates"] || !stages["refit"] {
				t.Errorf("stages %v", stages)
			}
		}
		if digest[0] != digest[1] || verdict[0] != verdict[1] {
			t.Errorf("%s: %.12s %s, then %.12s %s", recipe, digest[0], verdict[0], digest[1], verdict[1])
		}
		if digest[0] == w.in.Base.Digest() {
			t.Errorf("%s: the candidate is the base", recipe)
		}
	}
}

// TestRunTriesHalf: where the whole way changes too many answers, half of it is judged, and is the candidate if it may be.
func TestRunTriesHalf(t *testing.T) {
	w := openWorld(t)
	s := worldRun()
	whole, r, err := adapt.Run(t.Context(), w.backend, w.in, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict.Decision != adapt.Promote || r.Share != 1 || r.Other != nil {
		t.Fatalf("%s, share %g, other %v: %s", r.Verdict.Decision, r.Share, r.Other, r.Verdict.Reason)
	}
	agrees := *r.Figures.AgreementParent
	s.Gate.AgreementParent = agrees + .01
	half, r, err := adapt.Run(t.Context(), w.backend, w.in, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := adapt.Between(w.in.Parent, whole, .5).Digest(); half.Digest() != want || r.Candidate != want {
		t.Errorf("the candidate is %.12s, half of the way is %.12s", r.Candidate, want)
	}
	if r.Verdict.Decision != adapt.Promote || r.Share != .5 || !strings.Contains(r.Verdict.Reason, "half of the way") {
		t.Errorf("%s, share %g: %s", r.Verdict.Decision, r.Share, r.Verdict.Reason)
	}
	if o := r.Other; o == nil || o.Share != 1 || o.Candidate != whole.Digest() || *o.Figures.AgreementParent != agrees || failing(o.Verdict) != "agreement_parent" {
		t.Errorf("the whole way is told as %+v", o)
	}
	s.Gate.Gain = .9
	refused, r, err := adapt.Run(t.Context(), w.backend, w.in, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if refused.Digest() != whole.Digest() || r.Verdict.Decision != adapt.Reject || r.Share != 1 || r.Other == nil || r.Other.Share != .5 || r.Other.Verdict.Decision != adapt.Reject {
		t.Errorf("both refused: %s, share %g, other %+v", r.Verdict.Decision, r.Share, r.Other)
	}
}

// TestRunRefusesAForeignPack: figures on other kept-apart objects would mean nothing.
func TestRunRefusesAForeignPack(t *testing.T) {
	w := openWorld(t)
	in := w.in
	pack := *in.Pack
	pack.Labelled = "another"
	in.Pack = &pack
	if _, _, err := adapt.Run(t.Context(), w.backend, in, worldRun(), nil); err == nil || !strings.Contains(err.Error(), "kept apart") {
		t.Errorf("error %v", err)
	}
	pack.Labelled, pack.Base = w.in.Pack.Labelled, "another"
	if _, _, err := adapt.Run(t.Context(), w.backend, in, worldRun(), nil); err == nil || !strings.Contains(err.Error(), "base") {
		t.Errorf("error %v", err)
	}
}

func failing(v adapt.Verdict) string {
	var names []string
	for _, c := range v.Checks {
		if c.OK == nil {
			names = append(names, c.Name+"?")
		} else if !*c.OK {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, " ")
}

func number(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%+.3f", *v)
}

func TestBetween(t *testing.T) {
	c := model.Random(model.Config{ImageHeight: 16, ImageWidth: 16, Patch: 8, Dim: 6, Depth: 1, Heads: 1, Hidden: 6, Classes: 2, Labels: []string{"a", "b"}, Readout: model.ReadClass, Epsilon: 1e-6, PositionResize: model.PositionAntialias}, 1)
	other := model.Random(c.Config, 2)
	for share, want := range map[float64]*model.Checkpoint{0: c, 1: other} {
		if got := adapt.Between(c, other, share); got.Digest() != want.Digest() {
			t.Errorf("share %g of the way is another model than its end", share)
		}
	}
	half := adapt.Between(c, other, .5)
	if got, want := half.Params.HeadWeight[3], (c.Params.HeadWeight[3]+other.Params.HeadWeight[3])/2; got != want {
		t.Errorf("half way, a weight is %g, want %g", got, want)
	}
	if got := other.Digest(); got != model.Random(c.Config, 2).Digest() {
		t.Error("the candidate was changed")
	}
}

// TestTuneSetLooksTwice: frames bear what the parent says of frame and object together, and those it is unsure of are
// left out; labelled pictures bear their class.
func TestTuneSetLooksTwice(t *testing.T) {
	w := openWorld(t)
	in := w.in
	in.Parent = bad.Noisy(w.in.Base, .2, 1) // not the base, which cuts masks
	plates, err := w.in.Pack.Backgrounds(t.Context(), adapt.Train)
	if err != nil {
		t.Fatal(err)
	}
	draw := func(target adapt.Target, confidence float64) map[string]adapt.TuneExample {
		s := worldRun()
		s.Tune.Target, s.Tune.Confidence, s.Tune.Batch = target, confidence, 1 // a batch of 8 would cut the held-out ones to whole batches
		set, err := in.TuneSet(t.Context(), w.backend, plates, s)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]adapt.TuneExample{}
		for _, e := range slices.Concat(set.Train, set.Held) {
			all[e.Name] = e
		}
		return all
	}
	net, err := model.NewNet(w.backend, in.Parent)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	all := draw(adapt.TargetTwice, 0)
	var sure []float64
	moved := 0
	for i, one := range w.in.Pack.Samples {
		e, used := all[fmt.Sprint(one.Camera, " ", one.Sequence)]
		if !used {
			continue
		}
		p, mask, err := w.in.Pack.Read(i)
		if err != nil {
			t.Fatal(err)
		}
		said := func(p *adapt.Picture) []float32 {
			pixels := make([]float32, 3*net.Config.ImageHeight*net.Config.ImageWidth)
			if err := net.Preprocess.Pixels(p.RGB, p.Width, p.Height, pixels); err != nil {
				t.Fatal(err)
			}
			out, err := net.Run(0, pixels, nil)
			if err != nil {
				t.Fatal(err)
			}
			return model.Probabilities(out.Logits)
		}
		want := said(p)
		if box, ok := adapt.FovealBox(mask, p.Width, p.Height); ok {
			moved++
			sum := float32(0)
			for k, v := range said(&adapt.Picture{Width: box.Dx(), Height: box.Dy(), RGB: adapt.FovealView(p.RGB, p.Width, box)}) {
				want[k] *= v
				sum += want[k]
			}
			for k := range want {
				want[k] /= sum
			}
		}
		for k := range want {
			if math.Abs(float64(e.Target[k]-want[k])) > 1e-4 {
				t.Fatalf("%s: target %v, the product of both looks is %v", e.Name, e.Target, want)
			}
		}
		sure = append(sure, float64(slices.Max(e.Target)))
	}
	if len(sure) < 20 || moved < len(sure)/2 {
		t.Fatalf("%d frames, %d with a second look", len(sure), moved)
	}
	slices.Sort(sure)
	limit := sure[len(sure)/2]
	few := draw(adapt.TargetTwice, limit)
	for name, e := range all {
		_, kept := few[name]
		if want := e.Class >= 0 || float64(slices.Max(e.Target)) >= limit; kept != want {
			t.Errorf("%s, class %d, target %v: kept %v with confidence %.3f", name, e.Class, e.Target, kept, limit)
		}
		if (e.Target == nil) != (e.Class >= 0) {
			t.Errorf("%s: class %d, target %v", name, e.Class, e.Target)
		}
	}
	for name, e := range draw(adapt.TargetParent, limit) {
		if e.Target != nil {
			t.Errorf("%s has a target of its own", name)
		}
	}
}
