package adapt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/model"
)

// TuneReport is all that a run of fine-tuning found, in the words of its JSON.
type TuneReport struct {
	Base     string   `json:"base"`  // digest of the parent
	Model    string   `json:"model"` // digest of the result
	Device   string   `json:"device"`
	Settings Settings `json:"settings"`

	Train  int          `json:"pictures_trained"`
	Held   int          `json:"pictures_held_out"`
	Small  int          `json:"pictures_small"`  // left out, the object is too small
	Unsure int          `json:"pictures_unsure"` // left out, the parent is not sure of them
	Bad    []BadPicture `json:"bad"`

	Steps  []TuneStep `json:"steps"`
	Checks []TuneStep `json:"checks"` // losses on the held-out pictures, at first and after each epoch
	Chosen int        `json:"chosen"` // the step whose weights were kept: lowest total on the held-out pictures; 0: none was better than the parent
	Before Figures    `json:"before"`
	After  Figures    `json:"after"`

	Seconds float64 `json:"seconds"`

	// Maps of the held-out pictures, [H, W] each, before and after; not in the JSON.
	MapsBefore [][]float32 `json:"-"`
	MapsAfter  [][]float32 `json:"-"`
}

// TuneStep is one line of the log.
type TuneStep struct {
	Step   int             `json:"step"` // from 1; 0 is before the first
	Rate   float64         `json:"rate,omitempty"`
	Losses Losses[float64] `json:"losses"`
	// The norms of the gradients of the relevance terms and of the cross-entropy, where they were measured,
	// and the factor that the cross-entropy was given by them.
	RelevanceNorm      float64 `json:"relevance_norm,omitempty"`
	ClassificationNorm float64 `json:"classification_norm,omitempty"`
	Balance            float64 `json:"balance,omitempty"`
}

// FineTune tunes a copy of base on the set so that its relevance lies on the masks (Chefer et al. 2022). The
// result depends on base, set and settings alone, but for the rounding of the backend. progress, which may be
// nil, is called after each step.
func FineTune(ctx context.Context, b *model.Backend, base *model.Checkpoint, set *TuneSet, s Settings, progress func(TuneStep)) (*model.Checkpoint, *TuneReport, error) {
	started := time.Now()
	run, err := newTuneRun(b, base, set, s)
	if err != nil {
		return nil, nil, err
	}
	defer run.tuner.Close()
	r := run.report
	best, err := run.tuner.Params()
	if err != nil {
		return nil, nil, err
	}
	lowest, err := run.check(0)
	if err != nil {
		return nil, nil, err
	}
	for n := range s.Steps {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		step, err := run.step(n)
		if err != nil {
			return nil, nil, err
		}
		if progress != nil {
			progress(step)
		}
		if (n+1)%s.StepsPerEpoch != 0 && n+1 != s.Steps {
			continue
		}
		total, err := run.check(n + 1)
		if err != nil {
			return nil, nil, err
		}
		if total < lowest {
			lowest, r.Chosen = total, n+1
			if best, err = run.tuner.Params(); err != nil {
				return nil, nil, err
			}
		}
	}

	out := *base
	out.Params = best
	var guesses []int32
	if guesses, r.MapsBefore, err = run.look(base, &r.Before, nil); err != nil {
		return nil, nil, err
	}
	if _, r.MapsAfter, err = run.look(&out, &r.After, guesses); err != nil {
		return nil, nil, err
	}
	for _, c := range r.Checks {
		if c.Step == 0 {
			r.Before.Losses = c.Losses
		}
		if c.Step == r.Chosen {
			r.After.Losses = c.Losses
		}
	}
	r.Model, r.Seconds = out.Digest(), time.Since(started).Seconds()
	return &out, r, nil
}

// tuneRun is a run under way.
type tuneRun struct {
	backend    *model.Backend
	config     model.Config
	preprocess model.Preprocess
	set        *TuneSet
	settings   Settings
	tuner      *Tuner
	random     *rand.Rand
	order      []int // of set.Train, the rest of this pass over it
	report     *TuneReport

	probabilities map[*TuneExample][]float32 // the parent's, of the centre view
}

func newTuneRun(b *model.Backend, base *model.Checkpoint, set *TuneSet, s Settings) (*tuneRun, error) {
	if s.Steps < 1 || s.Batch < 1 || s.StepsPerEpoch < 1 || s.DecayEpochs < 1 || !(s.Rate > 0) {
		return nil, fmt.Errorf("tune: steps %d, batch %d, steps an epoch %d, rate %g: want all above 0", s.Steps, s.Batch, s.StepsPerEpoch, s.Rate)
	}
	freeze := s.FreezeBelow
	if freeze < 0 {
		freeze = max(0, base.Config.Depth+freeze)
	}
	run := &tuneRun{
		backend: b, config: base.Config, preprocess: base.Preprocess, set: set, settings: s,
		random: rand.New(rand.NewPCG(s.Seed, 2)),
		report: &TuneReport{
			Base: base.Digest(), Device: b.Kind, Settings: s,
			Train: len(set.Train), Held: len(set.Held), Small: set.Small, Unsure: set.Unsure, Bad: set.Bad,
		},
	}
	if s.HalfNormalisation {
		run.preprocess.Mean, run.preprocess.Std = [3]float64{.5, .5, .5}, [3]float64{.5, .5, .5}
	}
	if s.Target == TargetParent || s.Target == TargetTwice {
		if err := run.askParent(base); err != nil {
			return nil, err
		}
	}
	var err error
	run.tuner, err = NewTuner(b, base, TunerOptions{Objective: s.Objective, AdamW: s.AdamW, FreezeBelow: freeze, MicroBatch: s.MicroBatch})
	return run, err
}

// askParent keeps what the parent says of every picture that bears neither class nor target, before anything moves.
func (run *tuneRun) askParent(base *model.Checkpoint) error {
	open := func(e TuneExample) bool { return e.Class < 0 && e.Target == nil }
	if !slices.ContainsFunc(run.set.Train, open) && !slices.ContainsFunc(run.set.Held, open) {
		return nil
	}
	net, err := model.NewNet(run.backend, base)
	if err != nil {
		return err
	}
	defer net.Close()
	run.probabilities = map[*TuneExample][]float32{}
	for _, list := range [][]TuneExample{run.set.Train, run.set.Held} {
		for i := range list {
			e := &list[i]
			if !open(*e) {
				continue
			}
			var b Batch
			run.set.into(&b, e, run.set.centre(run.config), run.config, run.preprocess)
			o, err := net.Run(0, b.Pixels, nil)
			if err != nil {
				return err
			}
			said := o.Logits
			if run.settings.Target == TargetTwice {
				rgb, mask := run.set.Centre(e, run.config)
				if said, err = lookAgain(net, rgb, mask, run.config.ImageWidth, run.config.ImageHeight, said); err != nil {
					return err
				}
			}
			run.probabilities[e] = model.Probabilities(said)
		}
	}
	return nil
}

// add appends a view of an example to the batch, with its target and the weight of its relevance.
func (run *tuneRun) add(b *Batch, e *TuneExample, at crop) {
	run.set.into(b, e, at, run.config, run.preprocess)
	if run.settings.Target == TargetOwnGuess {
		return
	}
	target := e.Target
	switch {
	case e.Class >= 0: // a known class beats the parent's opinion
		target = make([]float32, run.config.Classes)
		target[e.Class] = 1
	case target == nil:
		target = run.probabilities[e]
	}
	weight := float32(0)
	if float64(slices.Max(target)) >= run.settings.Confidence {
		weight = 1
	}
	b.Targets = append(b.Targets, target...)
	b.Weights = append(b.Weights, weight)
}

// step draws a batch and moves the weights once; n counts from 0.
func (run *tuneRun) step(n int) (TuneStep, error) {
	var b Batch
	for range run.settings.Batch {
		if len(run.order) == 0 {
			run.order = run.random.Perm(len(run.set.Train))
		}
		run.add(&b, &run.set.Train[run.order[0]], run.set.random(run.config, run.random))
		run.order = run.order[1:]
	}
	step := TuneStep{Step: n + 1, Rate: run.settings.RateAt(n)}
	if run.settings.GradientRatio > 0 && n%run.settings.StepsPerEpoch == 0 {
		if err := run.balance(b, &step); err != nil {
			return step, err
		}
	}
	var err error
	step.Losses, err = run.tuner.Step(b, step.Rate)
	run.report.Steps = append(run.report.Steps, step)
	return step, err
}

// balance measures both gradients of a batch and keeps the cross-entropy's from drowning the relevance's.
func (run *tuneRun) balance(b Batch, step *TuneStep) (err error) {
	run.tuner.Balance(1)
	step.RelevanceNorm, step.ClassificationNorm, err = run.tuner.GradientNorms(b)
	if err != nil {
		return err
	}
	step.Balance = 1
	if most := run.settings.GradientRatio * step.RelevanceNorm; step.RelevanceNorm > 0 && step.ClassificationNorm > most {
		step.Balance = most / step.ClassificationNorm
	}
	run.tuner.Balance(step.Balance)
	return nil
}

// check evaluates the held-out pictures after step n and returns their total loss, without the balance.
func (run *tuneRun) check(n int) (float64, error) {
	factor := run.tuner.balance
	run.tuner.Balance(1)
	defer run.tuner.Balance(factor)
	sum := TuneStep{Step: n}
	at := run.set.centre(run.config)
	for from := 0; from < len(run.set.Held); from += run.settings.Batch {
		part := run.set.Held[from:min(from+run.settings.Batch, len(run.set.Held))]
		var b Batch
		for i := range part {
			run.add(&b, &part[i], at)
		}
		l, err := run.tuner.Losses(b)
		if err != nil {
			return 0, err
		}
		share := float64(len(part)) / float64(len(run.set.Held))
		sum.Losses.Background += share * l.Background
		sum.Losses.Foreground += share * l.Foreground
		sum.Losses.Classification += share * l.Classification
		sum.Losses.Total += share * l.Total
	}
	run.report.Checks = append(run.report.Checks, sum)
	return sum.Losses.Total, nil
}

// look takes the figures of a checkpoint on the held-out pictures.
func (run *tuneRun) look(k *model.Checkpoint, f *Figures, parent []int32) (guesses []int32, maps [][]float32, err error) {
	net, err := model.NewNet(run.backend, k)
	if err != nil {
		return nil, nil, err
	}
	defer net.Close()
	*f, guesses, maps, err = figures(net, run.set, run.preprocess, parent)
	return guesses, maps, err
}
