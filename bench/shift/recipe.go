package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/gate/bad"
	"github.com/seed-a98b2d25/fovea/model"
)

// recipe makes a candidate of a world's parent.
type recipe struct {
	name  string
	about string
	// orders is how many orders of training are tried: 1 where nothing is drawn.
	orders int
	kind   kind
	make   func(ctx context.Context, w *world, order uint64) (*candidate, error)
}

// kind groups recipes by what they cost and what they are for.
type kind string

const (
	forward kind = "forward" // no step through the backbone: seconds to a minute
	trains  kind = "train"   // steps through it: minutes
	ceiling kind = "ceiling" // forward, with what a device cannot know
	wrong   kind = "bad"     // loses on purpose: what the gate must not promote
)

// candidate is what a recipe made.
type candidate struct {
	model    *model.Checkpoint
	second   string  // whether and where it looks again
	floor    float32 // least quality of a mask that places a second view
	sure     float32 // probability from which on the first look is enough; 0: none is
	training any     // report
	judged   bool    // as a point on the way to another candidate
}

// recipes are all that is measured. The first is what the others are compared with.
var recipes = append([]recipe{
	{"before", "the parent: one head for all, fitted on the labelled pictures", 1, forward, func(_ context.Context, w *world, _ uint64) (*candidate, error) {
		return &candidate{model: w.in.Parent, second: once}, nil
	}},
	{"foveal", "the parent looks twice", 1, forward, func(_ context.Context, w *world, _ uint64) (*candidate, error) {
		return twice(&candidate{model: w.in.Parent}), nil
	}},
	{"foveal-any", "that, wherever there is a mask, however bad", 1, forward, func(_ context.Context, w *world, _ uint64) (*candidate, error) {
		return anywhere(&candidate{model: w.in.Parent}), nil
	}},
	{"foveal-auto", "the parent looks twice where the first look is unsure, as inference.foveal: auto does", 1, forward, func(_ context.Context, w *world, _ uint64) (*candidate, error) {
		return unsure(&candidate{model: w.in.Parent}), nil
	}},
	{"foveal-fit", "a head fitted on both views of the labelled pictures, looks twice", 1, forward, func(ctx context.Context, w *world, _ uint64) (*candidate, error) {
		c, err := w.fitBoth(ctx)
		return twice(c), err
	}},
	{"foveal-fit-any", "that head, wherever there is a mask", 1, forward, func(ctx context.Context, w *world, _ uint64) (*candidate, error) {
		c, err := w.fitBoth(ctx)
		return anywhere(c), err
	}},
	{"refit-labelled", "head refit with swaps on the labelled scenes alone: the control", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.refit(ctx, "labelled", adapt.DefaultRun.Seeded(order).Refit)
	}},
	{"refit", "head refit with swaps on the device's scenes", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.refit(ctx, string(adapt.Train), adapt.DefaultRun.Seeded(order).Refit)
	}},
	{"foveal+refit", "that head looks twice", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := w.refit(ctx, string(adapt.Train), adapt.DefaultRun.Seeded(order).Refit)
		return twice(c), err
	}},
	{"foveal+refit-any", "that, wherever there is a mask", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := w.refit(ctx, string(adapt.Train), adapt.DefaultRun.Seeded(order).Refit)
		return anywhere(c), err
	}},
	{"foveal+refit-auto", "that head looks twice where the first look is unsure", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := w.refit(ctx, string(adapt.Train), adapt.DefaultRun.Seeded(order).Refit)
		return unsure(c), err
	}},
	{"refit-half", "half way from the parent to the refit head", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.refitHalf(ctx, order)
	}},
	{"foveal+refit-half", "that head looks twice", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := w.refitHalf(ctx, order)
		return twice(c), err
	}},
	{"foveal+refit-both", "head refit on both views, looks twice", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := w.refitBoth(ctx, order)
		return twice(c), err
	}},
	{"foveal+refit-both-any", "that head, wherever there is a mask", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := w.refitBoth(ctx, order)
		return anywhere(c), err
	}},
	{"foveal-fit+refit-auto", "head refit on frames, mixed with one that was fitted on both views, looks twice where the first look is unsure: what the daemon does", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		_, c, err := w.refitOfBoth(ctx, order, false)
		return unsure(c), err
	}},
	{"foveal-fit+refit", "head refit on both views and mixed with one that was fitted on both, looks twice wherever there is a mask", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		_, c, err := w.refitOfBoth(ctx, order, true)
		return anywhere(c), err
	}},
	{"foveal-fit+refit-half", "half way from the head that was fitted on both to that one", 2, forward, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		from, c, err := w.refitOfBoth(ctx, order, true)
		if err != nil {
			return nil, err
		}
		return anywhere(&candidate{model: adapt.Between(from.model, c.model, .5)}), nil
	}},
	{"published", "the published recipe on the device's frames, as its program would run there", 2, trains, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.published(ctx, order, func(e adapt.TuneExample) bool { return e.Class < 0 })
	}},
	{"published-labelled", "the published recipe on the labelled pictures", 2, trains, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.published(ctx, order, func(e adapt.TuneExample) bool { return e.Class >= 0 && !strings.Contains(e.Name, " on ") })
	}},
	{"distilled", "the foveal view as the teacher of the single view, on frames, beside labelled pictures and swaps", 2, trains, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.distilled(ctx, order, false)
	}},
	{"distilled+relevance", "that, with the relevance terms", 2, trains, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.distilled(ctx, order, true)
	}},
	{"distilled+refit", "that without relevance, and the head refit on it", 2, trains, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.distilledAndRefit(ctx, order, false)
	}},
	{"distilled+relevance+refit", "that with relevance, and the head refit on it: does training add to the refit?", 2, trains, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.distilledAndRefit(ctx, order, true)
	}},
	{"foveal+distilled+relevance+refit-auto", "that looks twice where the first look is unsure", 2, trains, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		c, err := w.distilledAndRefit(ctx, order, true)
		return unsure(c), err
	}},
	{"ceiling-foveal", "second views placed by the true masks", 1, ceiling, func(_ context.Context, w *world, _ uint64) (*candidate, error) {
		return &candidate{model: w.in.Parent, second: trueBoxes}, nil
	}},
	{"ceiling-refit", "head refit with true masks on true empty views", 2, ceiling, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
		return w.refit(ctx, "true", adapt.DefaultRun.Seeded(order).Refit)
	}},
}, wrongOnes()...)

// wrongOnes are candidates of bench/gate that lose by their head alone.
func wrongOnes() []recipe {
	var list []recipe
	for _, m := range bad.Makers {
		if !slices.Contains([]string{"collapsed to one class", "constant", "head plus noise", "classes exchanged"}, m.Name) {
			continue
		}
		list = append(list, recipe{"bad-" + strings.ReplaceAll(m.Name, " ", "-"), m.Name, 2, wrong, func(ctx context.Context, w *world, order uint64) (*candidate, error) {
			c, err := m.Make(bad.Given{Context: ctx, Backend: w.backend, Parent: w.in.Parent, Seed: order})
			return &candidate{model: c, second: once}, err
		}})
	}
	return list
}

// find returns a recipe by its name.
func find(name string) (recipe, error) {
	var names []string
	for _, r := range recipes {
		if r.name == name {
			return r, nil
		}
		names = append(names, r.name)
	}
	return recipe{}, fmt.Errorf("no recipe %q: want one of %s", name, strings.Join(names, ", "))
}

// twice makes a candidate look again where a mask is to be trusted.
func twice(c *candidate) *candidate {
	if c == nil {
		return nil
	}
	out := *c
	out.second, out.floor = cutBoxes, float32(adapt.DefaultMasks.Floor)
	return &out
}

// anywhere makes a candidate look again wherever there is a mask.
func anywhere(c *candidate) *candidate {
	if c = twice(c); c != nil {
		c.floor = 0
	}
	return c
}

// unsure makes a candidate look again where a mask is to be trusted and the first look is below the daemon's default
// of inference.foveal_below.
func unsure(c *candidate) *candidate {
	if c = twice(c); c != nil {
		c.sure = .9
	}
	return c
}

// refitBoth is the product's refit on the device's backgrounds, on both views.
func (w *world) refitBoth(ctx context.Context, order uint64) (*candidate, error) {
	s := adapt.DefaultRun.Seeded(order).Refit
	s.Foveal = true
	return w.refit(ctx, string(adapt.Train), s)
}

// refitOfBoth is the product's refit, on both views or on frames alone, of a parent that was fitted on both; and this
// parent.
func (w *world) refitOfBoth(ctx context.Context, order uint64, foveal bool) (from, c *candidate, err error) {
	if from, err = w.fitBoth(ctx); err != nil {
		return nil, nil, err
	}
	s := adapt.DefaultRun.Seeded(order).Refit
	s.Foveal = foveal
	c, err = w.refitOf(ctx, from.model, string(adapt.Train), s)
	return from, c, err
}

// refitHalf is half of the refit head and half of the parent's: what weight averaging makes more robust (Wortsman et
// al., "Robust fine-tuning of zero-shot models", CVPR 2022).
func (w *world) refitHalf(ctx context.Context, order uint64) (*candidate, error) {
	c, err := w.refit(ctx, string(adapt.Train), adapt.DefaultRun.Seeded(order).Refit)
	if err != nil {
		return nil, err
	}
	return &candidate{model: adapt.Between(w.in.Parent, c.model, .5), second: once, judged: true}, nil
}

// fitBoth fits the parent's head anew, on both views of the labelled pictures; the same one is made once a world.
func (w *world) fitBoth(ctx context.Context) (*candidate, error) {
	const key = "labelled pictures alone"
	if have := w.made[key]; have != nil {
		return have, nil
	}
	net, err := model.NewNet(w.backend, w.in.Parent)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	e := newEye(net)
	x := adapt.Examples{Width: net.Config.Dim, Classes: net.Config.Classes}
	for _, one := range w.in.Labelled.Pictures {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if one.Part != adapt.Fit {
			continue
		}
		p, err := adapt.ReadPicture(filepath.Join(w.in.Labelled.Dir, one.File))
		if err != nil {
			return nil, err
		}
		frame, view, quality, err := e.look(p, nil, nil, cutBoxes)
		if err != nil {
			return nil, err
		}
		views := [][]float32{frame, view}
		if view == nil || quality < float32(adapt.DefaultMasks.Floor) {
			views = views[:1]
		}
		for _, v := range views {
			x.X, x.Class, x.Group = append(x.X, v...), append(x.Class, one.Class), append(x.Group, one.Group)
		}
	}
	fit, err := adapt.FitHead(ctx, &x, net.Config.Labels, 1, nil)
	if err != nil {
		return nil, err
	}
	c, err := withHead(w.in.Parent, fit.Head, net.Config.Labels)
	if err != nil {
		return nil, err
	}
	w.made[key] = &candidate{model: c, second: once}
	return w.made[key], nil
}

func (w *world) refit(ctx context.Context, backgrounds string, s adapt.RefitSettings) (*candidate, error) {
	return w.refitOf(ctx, w.in.Parent, backgrounds, s)
}

// refitOf is adapt.Refit on backgrounds of a kind; the same one is made once a world.
func (w *world) refitOf(ctx context.Context, parent *model.Checkpoint, backgrounds string, s adapt.RefitSettings) (*candidate, error) {
	key := fmt.Sprint(parent.Digest(), backgrounds, s)
	if have := w.made[key]; have != nil {
		return have, nil
	}
	labelled, pack := w.in.Labelled, w.in.Pack
	switch backgrounds {
	case "labelled":
		pack = &adapt.Pack{} // nothing of the device
	case "true":
		labelled = w.masked
	}
	list, err := w.backgrounds(ctx, backgrounds)
	if err != nil {
		return nil, err
	}
	c, report, err := adapt.Refit(ctx, w.backend, w.in.Base, parent, labelled, pack, list, s, func(done, of int) { w.tell("refit, picture", done, of) })
	if err != nil {
		return nil, err
	}
	w.made[key] = &candidate{model: c, second: once, training: report}
	return w.made[key], nil
}

// published is the published recipe, cut at what a device can spend, on the pictures of a TuneSet that use admits.
func (w *world) published(ctx context.Context, order uint64, use func(adapt.TuneExample) bool) (*candidate, error) {
	s := adapt.DefaultRun.Seeded(order)
	var err error
	if s.Tune, err = adapt.Preset(adapt.Published.Preset, w.in.Parent); err != nil {
		return nil, err
	}
	s.Tune.Seed, s.Tune.Steps, s.Tune.MicroBatch = order, w.steps, 2
	set, err := w.tuneSet(ctx, s)
	if err != nil {
		return nil, err
	}
	drop := func(e adapt.TuneExample) bool { return !use(e) }
	set.Train, set.Held = slices.DeleteFunc(set.Train, drop), slices.DeleteFunc(set.Held, drop)
	return w.tune(ctx, set, s.Tune)
}

func (w *world) tuneSet(ctx context.Context, s adapt.RunSettings) (*adapt.TuneSet, error) {
	plates, err := w.backgrounds(ctx, string(adapt.Train))
	if err != nil {
		return nil, err
	}
	return w.in.TuneSet(ctx, w.backend, plates, s)
}

func (w *world) tune(ctx context.Context, set *adapt.TuneSet, s adapt.Settings) (*candidate, error) {
	c, report, err := adapt.FineTune(ctx, w.backend, w.in.Parent, set, s, func(step adapt.TuneStep) { w.tell("step", step.Step, s.Steps) })
	if err != nil {
		return nil, err
	}
	report.Steps = nil // the checks tell enough
	return &candidate{model: c, second: once, training: report}, nil
}

// distilled is the product's preset for a device, with or without its relevance terms. The model is kept in the cache:
// further recipes begin with it.
func (w *world) distilled(ctx context.Context, order uint64, relevance bool) (*candidate, error) {
	name := "distilled"
	if relevance {
		name += "+relevance"
	}
	s := adapt.DefaultRun.Seeded(order)
	s.Tune.Steps = w.steps
	if !relevance {
		s.Tune.Objective.Relevance, s.Tune.GradientRatio = 0, 0
	}
	of := sha256.Sum256(fmt.Append(nil, s.Tune, w.in.Parent.Digest(), w.in.Pack.Digest))
	dir := filepath.Join(w.dir, fmt.Sprintf("%s-%d-%.6x", name, order, of))
	report := filepath.Join(dir, "report.json")
	if have, err := model.Load(dir); err == nil {
		c := &candidate{model: have, second: once, training: &adapt.TuneReport{}}
		return c, readJSON(report, c.training)
	}
	set, err := w.tuneSet(ctx, s)
	if err != nil {
		return nil, err
	}
	c, err := w.tune(ctx, set, s.Tune)
	if err != nil {
		return nil, err
	}
	if err := writeJSON(report, c.training); err != nil {
		return nil, err
	}
	return c, c.model.Save(dir)
}

// distilledAndRefit is the product's refit of a head whose backbone was distilled.
func (w *world) distilledAndRefit(ctx context.Context, order uint64, relevance bool) (*candidate, error) {
	c, err := w.distilled(ctx, order, relevance)
	if err != nil {
		return nil, err
	}
	return w.refitOf(ctx, c.model, string(adapt.Train), adapt.DefaultRun.Seeded(order).Refit)
}

// logits are the head of c on the frame's class token and, unless it is nil, on the second view's.
func logits(c *model.Checkpoint, frame, view []float32) []float32 {
	head := func(token []float32) []float32 {
		out := make([]float32, c.Config.Classes)
		for k := range out {
			sum := float64(c.Params.HeadBias[k])
			for j, v := range token {
				sum += float64(v) * float64(c.Params.HeadWeight[k*len(token)+j])
			}
			out[k] = float32(sum)
		}
		return out
	}
	if view == nil {
		return head(frame)
	}
	return adapt.FovealLogits(head(frame), head(view))
}

// answers is what a candidate says of each picture of a set, its class as a letter from a on.
func (w *world) answers(ctx context.Context, c *candidate, backbone, set string) (string, error) {
	l, err := w.look(ctx, c.model, backbone, set, c.second)
	if err != nil {
		return "", err
	}
	said := make([]byte, len(l.Frame))
	for i := range said {
		view := l.View[i]
		if c.second == once || l.Quality[i] < c.floor || c.sure > 0 && slices.Max(model.Probabilities(logits(c.model, l.Frame[i], nil))) >= c.sure {
			view = nil
		}
		out := logits(c.model, l.Frame[i], view)
		said[i] = 'a' + byte(slices.Index(out, slices.Max(out)))
	}
	return string(said), nil
}

// collapsed tells that one class takes most of what is said.
func collapsed(said string) bool {
	most := 0
	for _, letter := range said {
		most = max(most, strings.Count(said, string(letter)))
	}
	return float64(most) > mostOfOneClass*float64(len(said))
}

const mostOfOneClass = .6
