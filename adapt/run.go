package adapt

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/model"
)

// Recipe says what a run changes.
type Recipe string

// The recipes.
const (
	RecipeHead     Recipe = "head"     // Refit: the head alone; seconds to a minute, the default of a device
	RecipeBackbone Recipe = "backbone" // FineTune: the last blocks, with the head
	RecipeBoth     Recipe = "both"     // FineTune, then Refit on the tuned backbone
)

// RunSettings are all that a run depends on beside models, labelled pictures and pack.
type RunSettings struct {
	Recipe Recipe        `json:"recipe"`
	Refit  RefitSettings `json:"refit"`
	Tune   Settings      `json:"tune"`
	Eval   EvalSettings  `json:"eval"`
	Gate   Thresholds    `json:"gate"`
}

// DefaultRun is what a device does unless it is told otherwise.
var DefaultRun = RunSettings{Recipe: RecipeHead, Refit: DefaultRefit, Tune: Device, Eval: DefaultEval, Gate: DefaultThresholds}

// Seeded returns the settings with every seed set to one.
func (s RunSettings) Seeded(seed uint64) RunSettings {
	s.Refit.Seed, s.Tune.Seed, s.Eval.Seed = seed, seed, seed
	return s
}

// RunInput is what a run works on; it changes none of it.
type RunInput struct {
	Base     *model.Checkpoint // the first generation: masks, references and the agreement budget are its
	Parent   *model.Checkpoint // the generation that is live; the base where it is
	Labelled *Labelled         // divided, as ReadLabelled gives it from a model folder
	Pack     *Pack
}

// RunReport is all that a run found, in the words of its JSON: what a receipt keeps.
type RunReport struct {
	Base      string `json:"base"`      // digests
	Parent    string `json:"parent"`    //
	Candidate string `json:"candidate"` // "" where there is none
	Pack      string `json:"pack"`
	Labelled  string `json:"labelled"`
	Device    string `json:"device"` // backend

	Settings RunSettings  `json:"settings"`
	Refit    *RefitReport `json:"refit,omitempty"`
	Tune     *TuneReport  `json:"tune,omitempty"`
	Share    float64      `json:"share"` // of the way from the parent to what the recipe made: 1, or .5
	Figures  *Comparison  `json:"figures"`
	Verdict  Verdict      `json:"verdict"`
	// Other is the other model that was judged, where the whole way was refused: the whole, if half of it is the
	// candidate, else the half.
	Other *Trial `json:"other,omitempty"`

	Seconds float64 `json:"seconds"`
}

// Trial is what was found of a model on the way from the parent to what a recipe made.
type Trial struct {
	Share     float64     `json:"share"`
	Candidate string      `json:"candidate"` // digest
	Figures   *Comparison `json:"figures"`
	Verdict   Verdict     `json:"verdict"`
}

// Progress is how far a run is.
type Progress struct {
	Stage string `json:"stage"` // plates, tune, refit, figures, half
	Done  int    `json:"done"`
	Of    int    `json:"of"`
}

// Run makes a candidate of the parent on a pack, takes its figures beside the parent's, and judges it: steps 10
// and 11 of the way of a frame. It is a pure function: the same input and settings give, on the same backend, a
// candidate of the same digest and the same verdict. A candidate that is not promoted is returned too.
//
// Where what the recipe made is refused, the model half way to it is judged as well: averaged weights lose less of what
// the parent knew and are often as good on the new scenes (Wortsman et al., "Robust fine-tuning of zero-shot models",
// CVPR 2022), and its figures scatter less.
//
// Errors are ErrFew, where the pack or the labelled pictures cannot make a candidate at all, a pack that belongs
// to another base or labelled set, and ctx's. progress, which may be nil, is called often.
func Run(ctx context.Context, b *model.Backend, in RunInput, s RunSettings, progress func(Progress)) (*model.Checkpoint, *RunReport, error) {
	candidate, r, err := in.run(ctx, b, s, progress)
	if err != nil {
		return nil, nil, fmt.Errorf("adapt: %w", err)
	}
	return candidate, r, nil
}

func (in RunInput) run(ctx context.Context, b *model.Backend, s RunSettings, progress func(Progress)) (*model.Checkpoint, *RunReport, error) {
	started := time.Now()
	if progress == nil {
		progress = func(Progress) {}
	}
	stage := func(name string) func(done, of int) {
		return func(done, of int) { progress(Progress{name, done, of}) }
	}
	r := &RunReport{
		Base: in.Base.Digest(), Parent: in.Parent.Digest(), Pack: in.Pack.Digest, Labelled: in.Labelled.Digest(),
		Device: b.Kind, Settings: s,
	}
	if err := in.check(r); err != nil {
		return nil, nil, err
	}
	if err := s.Gate.Validate(); err != nil {
		return nil, nil, err
	}

	plates := stage("plates")
	plates(0, 2)
	train, err := in.Pack.Backgrounds(ctx, Train)
	if err != nil {
		return nil, nil, err
	}
	plates(1, 2)
	held, err := in.Pack.Backgrounds(ctx, Held)
	if err != nil {
		return nil, nil, err
	}
	plates(2, 2)
	if n := in.Pack.heldObjects(); n < s.Gate.LeastFrames || len(held) < s.Gate.LeastBackgrounds { // nothing made now could be judged
		return nil, nil, fmt.Errorf("%w: %d held-out frames with an object and %d held-out backgrounds, want %d and %d",
			ErrFew, n, len(held), s.Gate.LeastFrames, s.Gate.LeastBackgrounds)
	}

	candidate := in.Parent
	switch s.Recipe {
	case RecipeHead, RecipeBackbone, RecipeBoth:
	default:
		return nil, nil, fmt.Errorf("recipe %q, want %q, %q or %q", s.Recipe, RecipeHead, RecipeBackbone, RecipeBoth)
	}
	if s.Recipe != RecipeHead {
		set, err := in.TuneSet(ctx, b, train, s)
		if err != nil {
			return nil, nil, err
		}
		step := 0
		if candidate, r.Tune, err = FineTune(ctx, b, candidate, set, s.Tune, func(TuneStep) {
			step++
			progress(Progress{"tune", step, s.Tune.Steps})
		}); err != nil {
			return nil, nil, err
		}
	}
	if s.Recipe != RecipeBackbone {
		if candidate, r.Refit, err = Refit(ctx, b, in.Base, candidate, in.Labelled, in.Pack, train, s.Refit, stage("refit")); err != nil {
			return nil, nil, err
		}
	}
	candidate, chosen, other, err := in.judge(ctx, b, candidate, held, s, stage)
	if err != nil {
		return nil, nil, err
	}
	r.Candidate, r.Share, r.Figures, r.Verdict, r.Other = chosen.Candidate, chosen.Share, chosen.Figures, chosen.Verdict, other
	r.Seconds = time.Since(started).Seconds()
	return candidate, r, nil
}

// judge takes the figures of a candidate and judges it, and the model half way to it if it is refused. It returns the
// model that was chosen; other is nil where one was judged.
func (in RunInput) judge(ctx context.Context, b *model.Backend, candidate *model.Checkpoint, held []Background, s RunSettings, stage func(string) func(done, of int)) (_ *model.Checkpoint, chosen, other *Trial, err error) {
	set, err := in.EvalSet(ctx, b, held, s.Eval)
	if err != nil {
		return nil, nil, nil, err
	}
	said := map[string]*Outcomes{}
	trial := func(share float64, c *model.Checkpoint, progress func(done, of int)) (*Trial, error) {
		figures, err := in.figures(ctx, b, set, said, c, progress)
		if err != nil {
			return nil, err
		}
		return &Trial{share, c.Digest(), figures, Judge(figures, s.Gate)}, nil
	}
	whole, err := trial(1, candidate, stage("figures"))
	if err != nil || whole.Verdict.Decision != Reject || whole.Figures.Problem != "" {
		return candidate, whole, nil, err
	}
	between := Between(in.Parent, candidate, .5)
	half, err := trial(.5, between, stage("half"))
	if err != nil || half.Verdict.Decision != Promote {
		return candidate, whole, half, err
	}
	half.Verdict.Reason = "half of the way, the whole was refused: " + half.Verdict.Reason
	return between, half, whole, nil
}

// Between is the model that lies a share of the way from one to another of the same network: a weighted mean of their
// weights. What both share is shared.
func Between(from, to *model.Checkpoint, share float64) *model.Checkpoint {
	out, params := *to, *to.Params
	out.Params = &params
	params.Blocks = slices.Clone(params.Blocks)
	var start [][]float32
	from.Params.Each(from.Config, func(_ model.Param, v *[]float32) { start = append(start, *v) })
	n := 0
	out.Params.Each(out.Config, func(_ model.Param, v *[]float32) {
		a, b := start[n], *v
		n++
		if len(a) > 0 && len(b) > 0 && &a[0] == &b[0] {
			return
		}
		*v = mixed(a, b, share)
	})
	return &out
}

// check refuses a pack that was drawn for another base or labelled set.
func (in RunInput) check(r *RunReport) error {
	switch {
	case in.Pack.Base != r.Base:
		return fmt.Errorf("the pack was drawn for base %.12s, this one is %.12s: draw another", in.Pack.Base, r.Base)
	case in.Pack.Labelled != r.Labelled:
		return fmt.Errorf("the pack goes with labelled pictures %.12s, these are %.12s: the objects kept apart must be the same for ever", in.Pack.Labelled, r.Labelled)
	case !in.Labelled.Divided():
		return fmt.Errorf("the labelled pictures in %s have no parts: take the folder %s of a model that \"fovea head fit\" wrote", in.Labelled.Dir, LabelledDir)
	case in.Parent.Config.Classes < 2:
		return fmt.Errorf("the model has %d classes, want two or more", in.Parent.Config.Classes)
	}
	for _, class := range in.Labelled.Classes {
		if !slices.Contains(in.Parent.Config.Labels, class) {
			return fmt.Errorf("the labelled pictures have a class %q, the model has %q", class, in.Parent.Config.Labels)
		}
	}
	return nil
}

// figures looks at base, parent and candidate, as far as said does not know them yet by their digests.
func (in RunInput) figures(ctx context.Context, b *model.Backend, set *EvalSet, said map[string]*Outcomes, candidate *model.Checkpoint, progress func(done, of int)) (*Comparison, error) {
	models := []*model.Checkpoint{in.Base, in.Parent, candidate}
	var of [3]*Outcomes
	for i, c := range models {
		digest := c.Digest()
		if said[digest] == nil {
			o, err := set.Look(ctx, b, c, func(done, all int) { progress(i*all+done, len(models)*all) })
			if err != nil {
				return nil, err
			}
			said[digest] = o
		}
		of[i] = said[digest]
		if i < 2 && of[i].Problem != "" {
			return nil, fmt.Errorf("the model %.12s that is live cannot be looked at: %s", of[i].Model, of[i].Problem)
		}
	}
	return set.Compare(of[0], of[1], of[2]), nil
}

// EvalSet draws the pictures that figures are taken on.
func (in RunInput) EvalSet(ctx context.Context, b *model.Backend, held []Background, s EvalSettings) (*EvalSet, error) {
	net, err := model.NewNet(b, in.Base)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	return NewEvalSet(ctx, net, in.Labelled, in.Pack, held, s)
}

// TuneSet are labelled pictures, as they are and laid on the device's backgrounds, with their labels and masks,
// and frames of the device with their masks. A fifth of the labelled objects and of the frames' visits choose the
// step that is kept. With TargetTwice frames bear what the parent says when it looks twice, and those of which it is
// less sure than s.Tune.Confidence are left out.
func (in RunInput) TuneSet(ctx context.Context, b *model.Backend, backgrounds []Background, s RunSettings) (*TuneSet, error) {
	if len(backgrounds) == 0 {
		return nil, fmt.Errorf("%w: no background of the device", ErrFew)
	}
	net, err := model.NewNet(b, in.Base)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	var teacher *model.Net // looks twice
	if s.Tune.Target == TargetTwice {
		if teacher, err = model.NewNet(b, in.Parent); err != nil {
			return nil, err
		}
		defer teacher.Close()
	}
	c := in.Parent.Config
	m := tuneMaker{set: &TuneSet{
		Height: int(math.Round(float64(c.ImageHeight) * 256 / 224)), Width: int(math.Round(float64(c.ImageWidth) * 256 / 224)),
	}, least: s.Tune.MinMask, held: map[string]bool{}, random: rand.New(rand.NewPCG(s.Tune.Seed, 19))}
	m.view = tuneView(in.Parent.Preprocess, m.set.Height, m.set.Width)

	masks := labelledMasks(in.Labelled, net)
	for n, i := range alternate(in.Labelled, Fit, s.Tune.Seed) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := in.Labelled.Pictures[i]
		whole, mask, err := masks(i)
		if err != nil {
			return nil, err
		}
		if mask == nil {
			continue
		}
		class := slices.Index(c.Labels, in.Labelled.Classes[p.Class])
		if err := m.add(TuneExample{Name: p.File, Class: class}, p.Group, whole, mask); err != nil {
			return nil, err
		}
		object, err := lift(whole, mask)
		if err != nil {
			continue
		}
		bg := backgrounds[n%len(backgrounds)]
		laid, on := trainPlacing.onto(bg.Picture, object, in.Parent.Preprocess, m.random)
		if err := m.add(TuneExample{Name: p.File + " on " + bg.Camera, Class: class}, p.Group, laid, on); err != nil {
			return nil, err
		}
	}
	visits := in.Pack.visits()
	for i, one := range in.Pack.Samples {
		if one.Part != Train || one.MaskBytes == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		picture, mask, err := in.Pack.Read(i)
		if err != nil {
			return nil, err
		}
		e := TuneExample{Name: fmt.Sprint(one.Camera, " ", one.Sequence), Class: slices.Index(c.Labels, one.Label)}
		if e.Class < 0 && teacher != nil {
			if e.Target, err = lookTwice(teacher, picture, mask); err != nil {
				return nil, err
			}
			if float64(slices.Max(e.Target)) < s.Tune.Confidence {
				m.set.Unsure++
				continue
			}
		}
		if err := m.add(e, visits[i], picture, mask); err != nil {
			return nil, err
		}
	}
	if held := m.set.Held; len(held) > heldMost { // each further one costs a pass at every check
		m.random.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		m.set.Held = held[:heldMost]
	}
	if n := len(m.set.Held); n > s.Tune.Batch { // whole batches: each further size is a compilation of seconds
		m.set.Held = m.set.Held[:n-n%s.Tune.Batch]
	}
	if len(m.set.Train) < 2 || len(m.set.Held) < 1 {
		return nil, fmt.Errorf("%w: %d pictures with a mask to train on and %d held out, %d of which the model is not sure", ErrFew, len(m.set.Train), len(m.set.Held), m.set.Unsure)
	}
	return m.set, nil
}

type tuneMaker struct {
	set    *TuneSet
	view   model.Preprocess
	least  float64
	held   map[string]bool // of each group
	random *rand.Rand
}

// add keeps an example of a picture, squeezed, unless its object is too small.
func (m *tuneMaker) add(e TuneExample, group string, p *Picture, mask []byte) error {
	three := make([]byte, 3*len(mask))
	for i, v := range mask {
		three[3*i], three[3*i+1], three[3*i+2] = v, v, v
	}
	planes := make([]float32, 3*m.set.Height*m.set.Width)
	levels := func(rgb []byte) ([]byte, error) {
		if err := m.view.Pixels(rgb, p.Width, p.Height, planes); err != nil {
			return nil, err
		}
		out := make([]byte, len(planes))
		interleave(out, planes)
		return out, nil
	}
	var err error
	if e.RGB, err = levels(p.RGB); err != nil {
		return err
	}
	if three, err = levels(three); err != nil {
		return err
	}
	for i := range len(three) / 3 {
		e.Mask = append(e.Mask, three[3*i])
	}
	if e.cover() < m.least {
		m.set.Small++
		return nil
	}
	held, known := m.held[group]
	if !known {
		held = m.random.Float64() < heldShare
		m.held[group] = held
	}
	if held {
		m.set.Held = append(m.set.Held, e)
	} else {
		m.set.Train = append(m.set.Train, e)
	}
	return nil
}

// tuneView is what crops are taken from: what the network sees of a live frame, with the margin that its own
// preprocessing cuts off where that is as wide, in grey levels.
func tuneView(p model.Preprocess, h, w int) model.Preprocess {
	p.ResizeHeight, p.ResizeWidth = max(p.ResizeHeight, h), max(p.ResizeWidth, w)
	p.Height, p.Width = h, w
	p.Scale, p.Mean, p.Std = 1, [3]float64{}, [3]float64{1, 1, 1}
	return p
}
