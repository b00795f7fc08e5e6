package adapt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/model"
)

// EvalSettings say how many pictures the figures are taken on.
type EvalSettings struct {
	Seed      uint64 `json:"seed" yaml:"seed"`
	Swaps     int    `json:"swaps" yaml:"swaps"`         // labelled objects kept apart, laid on held-out backgrounds
	Labelled  int    `json:"labelled" yaml:"labelled"`   // labelled pictures kept apart, as they are
	Originals int    `json:"originals" yaml:"originals"` // held-out frames
	Pairs     int    `json:"pairs" yaml:"pairs"`         // of the follow index
	Explained int    `json:"explained" yaml:"explained"` // pictures whose relevance map is compared with a mask
	Resamples int    `json:"resamples" yaml:"resamples"` // of the bootstrap
	// Least is the number of pictures below which a figure is null.
	Least int `json:"least" yaml:"least"`
	// Confidence is the base's probability from which its class is a reference where no label is.
	Confidence float64 `json:"confidence" yaml:"confidence"`
	// Alike is the cosine of the base's features from which two backgrounds are too alike to be told apart.
	Alike float64 `json:"alike" yaml:"alike"`
}

// DefaultEval takes about 900 forward passes a model, of which 64 with relevance. With fewer swaps the interval of
// the main figure is wider: the bootstrap counts what a composition has of its own three times (Owen 2007, section
// 4).
var DefaultEval = EvalSettings{
	Seed: 1, Swaps: 480, Labelled: 96, Originals: 64, Pairs: 120, Explained: 64, Resamples: 2000, Least: 12, Confidence: .6, Alike: .8,
}

// EvalSet is the pictures that figures are taken on, fixed once for all models: what is in it depends on the base,
// the labelled set, the pack and the settings, never on a candidate.
type EvalSet struct {
	settings   EvalSettings
	preprocess model.Preprocess
	config     model.Config // of the base; classes in the order of its labels
	items      []item
	sources    sources
	backbones  map[string]seenBackbone // by digest

	Backgrounds int     // held-out backgrounds, plates or flattened frames
	Objects     int     // labelled objects kept apart, with a mask
	Visits      int     // visits to a camera that held-out frames with a mask show
	Drift       float64 // 1 - cosine of the mean base features of the held-out frames and of the labelled pictures
}

// kind of an item.
type kind int

const (
	labelledSwap kind = iota // a labelled object kept apart, on a held-out background
	labelledAsIs             // a labelled picture kept apart
	followPair               // the object of one picture on the background of another
	original                 // a held-out frame
	emptyView                // a held-out background alone
	noObject                 // a picture whose object is hidden
	noSurround               // a picture of which all but the object is hidden
)

// item is a picture of an EvalSet.
type item struct {
	kind  kind
	view  []byte    // [3, H, W] grey levels
	cover []float64 // [patches] the mask's share of each, for relevance; nil: not explained
	class int       // the label, or the base's confident class; -1: neither
	other int       // of a followPair: the class of the background's picture
	twin  int       // of noSurround: the item noObject of the same picture

	object bool // of an original: it has a mask

	camera            string // of the background; "" for a labelled one
	donor, background int    // sources
}

// maskedPicture is a picture with a mask and a reference class: a source of follow pairs.
type maskedPicture struct {
	picture *Picture
	mask    []byte
	class   int
	camera  string
	source  int
	emptied *Picture
	feature []float32 // of emptied, normalised
}

// NewEvalSet draws the pictures. base is the untouched model: its masks and features are used, and its confident
// classes are the references. held are the backgrounds of the held-out part, as Pack.Backgrounds returns them.
func NewEvalSet(ctx context.Context, base *model.Net, labelled *Labelled, pack *Pack, held []Background, s EvalSettings) (*EvalSet, error) {
	e := &evalMaker{
		EvalSet: &EvalSet{settings: s, preprocess: base.Preprocess, config: base.Config, Backgrounds: len(held)},
		ctx:     ctx, base: base, random: rand.New(rand.NewPCG(s.Seed, 11)),
	}
	if len(base.Config.Labels) > maxStrata {
		return nil, fmt.Errorf("figures: %d classes, at most %d can be judged", len(base.Config.Labels), maxStrata)
	}
	for _, step := range []func() error{
		func() error { return e.labelled(labelled, held) },
		func() error { return e.frames(pack) },
		e.pairs,
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("figures: %w", err)
		}
	}
	return e.EvalSet, nil
}

type evalMaker struct {
	*EvalSet
	ctx       context.Context
	base      *model.Net
	random    *rand.Rand
	scenes    []maskedPicture
	explained int
	means     [2][]float64 // sums of base features: labelled, held-out frames
}

// labelled adds swaps, labelled pictures as they are, and the empty views.
func (e *evalMaker) labelled(set *Labelled, held []Background) error {
	apart, objects, err := e.keptApart(set)
	if err != nil {
		return err
	}
	for i, b := range held {
		at := e.sources.of("camera "+b.Camera, fmt.Sprint("view ", i))
		if err := e.add(item{kind: emptyView, class: -1, camera: b.Camera, donor: at, background: -1}, b.Picture, nil); err != nil {
			return err
		}
	}
	groups := map[string]bool{}
	for i, a := range apart {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		p := set.Pictures[a.picture]
		donor := e.sources.of("class "+set.Classes[p.Class], p.Group)
		if i < e.settings.Labelled {
			if err := e.add(item{kind: labelledAsIs, class: a.class, donor: donor, background: -1}, a.whole, nil); err != nil {
				return err
			}
			f, err := e.feature(a.whole)
			if err != nil {
				return err
			}
			e.sum(0, f)
			if a.mask != nil && i < mostLabelledScenes {
				e.scenes = append(e.scenes, maskedPicture{picture: a.whole, mask: a.mask, class: a.class, source: donor})
			}
		}
		if a.mask != nil {
			groups[p.Group] = true
		}
	}
	e.Objects = len(groups)
	if len(objects) == 0 || len(held) == 0 {
		return nil
	}
	// Every object kept apart, in turn, on every background in turn: the backgrounds see each class alike.
	for n := range e.settings.Swaps {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		o := objects[n%len(objects)]
		round := n / len(objects)
		at := (n + round) % len(held)
		b := held[at]
		picture, mask := judgePlacing.onto(b.Picture, o.image, e.preprocess, e.random)
		err := e.add(item{
			kind: labelledSwap, class: o.class, camera: b.Camera,
			donor:      e.sources.of("class "+e.config.Labels[o.class], o.group),
			background: e.sources.of("camera "+b.Camera, fmt.Sprint("view ", at)),
		}, picture, mask)
		if err != nil {
			return err
		}
		if n%6 == 0 {
			if err := e.hide(o.class, picture, mask, b.Camera, e.items[len(e.items)-1].donor); err != nil {
				return err
			}
		}
	}
	return nil
}

// mostLabelledScenes bounds what the follow index keeps in memory. Objects take turns, so they are different ones.
const mostLabelledScenes = 48

// apartPicture is a labelled picture that nothing was ever fitted on.
type apartPicture struct {
	picture int
	class   int // in the model's labels
	whole   *Picture
	mask    []byte // nil: none
}

// keptApart reads the labelled pictures kept apart, class by class in turn, and lifts their objects.
func (e *evalMaker) keptApart(set *Labelled) ([]apartPicture, []cutout, error) {
	masks := labelledMasks(set, e.base)
	var apart []apartPicture
	var objects []cutout
	for _, i := range alternate(set, Accept, e.settings.Seed) {
		if len(apart) >= max(e.settings.Labelled, e.settings.Swaps) {
			break
		}
		if err := e.ctx.Err(); err != nil {
			return nil, nil, err
		}
		p := set.Pictures[i]
		class := slices.Index(e.config.Labels, set.Classes[p.Class])
		if class < 0 {
			continue
		}
		whole, mask, err := masks(i)
		if err != nil {
			return nil, nil, err
		}
		apart = append(apart, apartPicture{i, class, whole, mask})
		if mask == nil {
			continue
		}
		if img, err := lift(whole, mask); err == nil {
			objects = append(objects, cutout{class: class, group: p.Group, image: img})
		}
	}
	return apart, objects, nil
}

// alternate orders the pictures of a part so that classes, and within them groups, take turns.
func alternate(set *Labelled, part Part, seed uint64) []int {
	random := rand.New(rand.NewPCG(seed, 13))
	var queues [][]int // a queue a class
	for class := range set.Classes {
		var groups []string
		members := map[string][]int{}
		for i, p := range set.Pictures {
			if p.Part == part && p.Class == class {
				if members[p.Group] == nil {
					groups = append(groups, p.Group)
				}
				members[p.Group] = append(members[p.Group], i)
			}
		}
		slices.Sort(groups)
		random.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
		var lists [][]int
		for _, g := range groups {
			lists = append(lists, members[g])
		}
		queues = append(queues, takeTurns(lists))
	}
	return takeTurns(queues)
}

func takeTurns(queues [][]int) []int {
	var out []int
	for n := 0; ; n++ {
		took := false
		for _, q := range queues {
			if n < len(q) {
				out = append(out, q[n])
				took = true
			}
		}
		if !took {
			return out
		}
	}
}

// labelledMasks returns a function that reads a labelled picture and its mask: the one that lies beside it, else
// one that is cut; nil where neither is to be trusted.
func labelledMasks(set *Labelled, base *model.Net) func(i int) (*Picture, []byte, error) {
	var cut MaskOf
	return func(i int) (*Picture, []byte, error) {
		p := set.Pictures[i]
		whole, err := ReadPicture(set.at(p.File))
		if err != nil {
			return nil, nil, err
		}
		if p.Mask != "" {
			m, err := ReadPicture(set.at(p.Mask))
			if err != nil {
				return nil, nil, err
			}
			if m.Width != whole.Width || m.Height != whole.Height {
				return nil, nil, fmt.Errorf("mask %s is %d x %d pixels, its picture %d x %d", p.Mask, m.Width, m.Height, whole.Width, whole.Height)
			}
			return whole, m.bright(), nil
		}
		if !base.Config.LayerScale {
			return whole, nil, nil // a supervised backbone cuts no masks
		}
		if cut == nil {
			cut = CutMasks(base, DefaultMasks)
		}
		mask, err := cut(p.File, whole)
		if err != nil {
			return whole, nil, nil //nolint:nilerr // a picture without a mask is one that is not laid anywhere
		}
		return whole, mask, nil
	}
}

// frames adds held-out frames as they are.
func (e *evalMaker) frames(pack *Pack) error {
	visits := pack.visits()
	seen := map[string]bool{}
	for n, i := range e.originals(pack) {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		s := pack.Samples[i]
		picture, mask, err := pack.Read(i)
		if err != nil {
			return err
		}
		out, err := e.look(picture)
		if err != nil {
			return err
		}
		e.sum(1, out.Class)
		class := slices.Index(e.config.Labels, s.Label)
		if guess := top(out.Logits); class < 0 && float64(model.Probabilities(out.Logits)[guess]) >= e.settings.Confidence {
			class = int(guess)
		}
		source := e.sources.of("camera "+s.Camera, visits[i])
		if mask != nil {
			seen[visits[i]] = true
		}
		it := item{kind: original, class: class, object: mask != nil && slices.Max(mask) > 0, camera: s.Camera, donor: source, background: -1}
		if class < 0 {
			mask = nil // nothing to explain
		}
		if err := e.add(it, picture, mask); err != nil {
			return err
		}
		if !it.object || class < 0 {
			continue
		}
		e.scenes = append(e.scenes, maskedPicture{picture: picture, mask: mask, class: class, camera: s.Camera, source: source})
		if n%2 == 0 {
			if err := e.hide(class, picture, mask, s.Camera, source); err != nil {
				return err
			}
		}
	}
	e.Visits = len(seen)
	e.Drift = e.drift()
	return nil
}

// originals are the held-out samples that are looked at, three quarters of them with a mask, as far as there are;
// both are taken evenly over the pack.
func (e *evalMaker) originals(pack *Pack) []int {
	var with, without []int
	for i, s := range pack.Samples {
		switch {
		case s.Part != Held:
		case s.MaskBytes > 0:
			with = append(with, i)
		default:
			without = append(without, i)
		}
	}
	room := e.settings.Originals
	n := min(len(with), max(room*3/4, room-len(without)))
	return slices.Sorted(slices.Values(append(evenly(with, n), evenly(without, room-n)...)))
}

// evenly takes at most n of a list, evenly over it.
func evenly(list []int, n int) []int {
	if len(list) <= n {
		return list
	}
	taken := make([]int, n)
	for k := range taken {
		taken[k] = list[k*len(list)/n]
	}
	return taken
}

// visits names the visit that each sample is of: samples of a camera that follow each other within 10 s, at most
// a minute long. Frames of one visit show one object in one place, and count as one picture.
func (p *Pack) visits() []string {
	type visit struct {
		name        string
		first, last time.Time
	}
	open := map[string]visit{}
	names := make([]string, len(p.Samples))
	for i, s := range p.Samples {
		v, have := open[s.Camera]
		t := s.Time()
		if !have || t.Sub(v.last).Abs() > 10*time.Second || t.Sub(v.first).Abs() > time.Minute {
			v = visit{name: fmt.Sprint(s.Camera, " from ", s.Sequence), first: t}
		}
		v.last = t
		open[s.Camera] = v
		names[i] = v.name
	}
	return names
}

// hide adds the picture without its object, and the object without its surroundings.
func (e *evalMaker) hide(class int, p *Picture, mask []byte, camera string, source int) error {
	without := item{kind: noObject, class: class, camera: camera, donor: source, background: -1}
	if err := e.add(without, p.FlattenObject(mask), nil); err != nil {
		return err
	}
	alone := &Picture{Width: p.Width, Height: p.Height, RGB: slices.Clone(p.RGB)}
	for i, m := range mask {
		if m == 0 {
			copy(alone.RGB[3*i:], []byte{backdrop.R, backdrop.G, backdrop.B})
		}
	}
	return e.add(item{kind: noSurround, class: class, twin: len(e.items) - 1, camera: camera, donor: source, background: -1}, alone, nil)
}

// pairs adds the compositions of the follow index: the object of one scene on the background of another whose
// reference is another class and whose emptied background differs by the base's features.
func (e *evalMaker) pairs() error {
	if len(e.scenes) < 2 {
		return nil
	}
	for i := range e.scenes {
		s := &e.scenes[i]
		if err := e.ctx.Err(); err != nil {
			return err
		}
		s.emptied = s.picture.FlattenObject(s.mask)
		f, err := e.feature(s.emptied)
		if err != nil {
			return err
		}
		s.feature = slices.Clone(f)
		normalise(s.feature)
	}
	added := 0
	for range 20 * e.settings.Pairs { // most draws fit; the bound ends a set of which none does
		if added == e.settings.Pairs {
			break
		}
		a, b := &e.scenes[e.random.IntN(len(e.scenes))], &e.scenes[e.random.IntN(len(e.scenes))]
		if a.class == b.class || a.class < 0 || b.class < 0 || float64(dot(a.feature, b.feature)) >= e.settings.Alike {
			continue
		}
		if a.camera == "" && b.camera == "" && added%4 != 0 {
			continue // three quarters of the pairs hold a view of the device
		}
		if err := e.ctx.Err(); err != nil {
			return err
		}
		object, err := lift(a.picture, a.mask)
		if err != nil {
			continue
		}
		picture, _ := judgePlacing.onto(b.emptied, object, e.preprocess, e.random)
		it := item{kind: followPair, class: a.class, other: b.class, camera: b.camera, donor: a.source, background: b.source}
		if err := e.add(it, picture, nil); err != nil {
			return err
		}
		added++
	}
	return nil
}

// add makes an item of a picture; with a mask its relevance is looked at, while there is room.
func (e *evalMaker) add(it item, p *Picture, mask []byte) error {
	var err error
	if it.view, err = e.grey(p); err != nil {
		return err
	}
	if mask != nil && e.explained < e.settings.Explained {
		three := make([]byte, 3*len(mask))
		for i, m := range mask {
			three[3*i], three[3*i+1], three[3*i+2] = m, m, m
		}
		levels, err := e.grey(&Picture{Width: p.Width, Height: p.Height, RGB: three})
		if err != nil {
			return err
		}
		flat := make([]float32, len(levels)/3)
		for i := range flat {
			flat[i] = float32(levels[i]) / 255
		}
		it.cover = patchCover(e.config, flat)
		e.explained++
	}
	e.items = append(e.items, it)
	return nil
}

// grey is what the network sees of a picture, [3, H, W] grey levels.
func (s *EvalSet) grey(p *Picture) ([]byte, error) {
	plain := s.preprocess
	plain.Scale, plain.Mean, plain.Std = 1, [3]float64{}, [3]float64{1, 1, 1}
	levels := make([]float32, 3*s.config.ImageHeight*s.config.ImageWidth)
	if err := plain.Pixels(p.RGB, p.Width, p.Height, levels); err != nil {
		return nil, err
	}
	out := make([]byte, len(levels))
	for i, v := range levels {
		out[i] = byte(v + .5)
	}
	return out, nil
}

func (e *evalMaker) look(p *Picture) (*model.Output, error) {
	in := make([]float32, 3*e.config.ImageHeight*e.config.ImageWidth)
	if err := e.preprocess.Pixels(p.RGB, p.Width, p.Height, in); err != nil {
		return nil, err
	}
	return e.base.Run(0, in, nil)
}

func (e *evalMaker) feature(p *Picture) ([]float32, error) {
	o, err := e.look(p)
	if err != nil {
		return nil, err
	}
	return o.Class, nil
}

func (e *evalMaker) sum(which int, f []float32) {
	if e.means[which] == nil {
		e.means[which] = make([]float64, len(f))
	}
	for i, v := range f {
		e.means[which][i] += float64(v)
	}
}

func (e *evalMaker) drift() float64 {
	a, b := e.means[0], e.means[1]
	if a == nil || b == nil {
		return 0
	}
	var ab, aa, bb float64
	for i := range a {
		ab, aa, bb = ab+a[i]*b[i], aa+a[i]*a[i], bb+b[i]*b[i]
	}
	return 1 - ab/math.Sqrt(aa*bb)
}

// Outcomes are what a model says of every picture of an EvalSet.
type Outcomes struct {
	Model string // digest
	// Problem says why the model cannot be judged at all: weights or logits that are not finite, another shape.
	Problem string
	// Milliseconds is the least that a forward pass took: what else runs on the machine only adds.
	Milliseconds float64

	items []said
}

// Look puts every picture through a model. A model that breaks is no error: Outcomes.Problem says so, and Judge
// rejects it. A model that differs from one seen before by its head alone is asked for maps alone: its logits are
// computed from the class tokens that the other left. One goroutine calls Look.
func (s *EvalSet) Look(ctx context.Context, b *model.Backend, c *model.Checkpoint, progress func(done, of int)) (*Outcomes, error) {
	o := &Outcomes{Model: c.Digest(), Milliseconds: math.Inf(1)}
	if o.Problem = s.unfit(c); o.Problem != "" {
		return o, nil
	}
	if len(s.items) == 0 {
		return nil, errors.New("figures: no picture to look at")
	}
	net, err := model.NewNet(b, c)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	backbone := c.BackboneDigest()
	seen, have := s.backbones[backbone]
	if have {
		o.Milliseconds = seen.milliseconds
	}
	var tokens [][]float32
	input := s.input(c)
	for i := range s.items {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		it, said := &s.items[i], said{auroc: math.NaN(), effective: math.NaN()}
		if it.cover == nil && have {
			said.logits, err = headLogits(c, seen.tokens[i])
		} else {
			err = said.look(net, input(it), it, o)
		}
		if err != nil {
			o.Problem = err.Error()
			return o, nil
		}
		tokens = append(tokens, said.token)
		o.items = append(o.items, said)
		if progress != nil {
			progress(i+1, len(s.items))
		}
	}
	if !have && c.Config.Readout == model.ReadClass {
		if s.backbones == nil {
			s.backbones = map[string]seenBackbone{}
		}
		s.backbones[backbone] = seenBackbone{tokens, o.Milliseconds}
	}
	return o, nil
}

// seenBackbone is what a model left for others that differ from it by their head alone.
type seenBackbone struct {
	tokens       [][]float32 // class token of each item
	milliseconds float64
}

// said is what a model says of an item.
type said struct {
	logits    []float32
	token     []float32 // class token
	auroc     float64   // NaN where the item is not explained
	effective float64
}

// look runs the net on an item.
func (s *said) look(net *model.Net, pixels []float32, it *item, o *Outcomes) error {
	var want model.Want
	if it.cover != nil {
		want = model.WantRelevance
	}
	began := time.Now()
	out, err := net.Run(want, pixels, []int32{int32(it.class)})
	if err != nil {
		return err
	}
	s.logits, s.token = out.Logits, out.Class
	if it.cover == nil {
		o.Milliseconds = min(o.Milliseconds, float64(time.Since(began).Microseconds())/1000)
		return nil
	}
	s.auroc, s.effective = 0, effective(out.Relevance) // a map of zeros counts 0
	if s.effective > 0 {
		s.auroc = auroc(out.Relevance, it.cover)
	}
	return nil
}

// input returns a function that normalises an item for a checkpoint; it keeps one buffer.
func (s *EvalSet) input(c *model.Checkpoint) func(it *item) []float32 {
	var levels [3][256]float32
	for k := range levels {
		for v := range levels[k] {
			levels[k][v] = float32((float64(v)*c.Preprocess.Scale - c.Preprocess.Mean[k]) / c.Preprocess.Std[k])
		}
	}
	plane := c.Config.ImageHeight * c.Config.ImageWidth
	pixels := make([]float32, 3*plane)
	return func(it *item) []float32 {
		for k := range levels {
			for j, v := range it.view[k*plane : (k+1)*plane] {
				pixels[k*plane+j] = levels[k][v]
			}
		}
		return pixels
	}
}

// headLogits is the head of a checkpoint on a class token, as model.Forward computes it.
func headLogits(c *model.Checkpoint, token []float32) ([]float32, error) {
	out := make([]float32, c.Config.Classes)
	for k := range out {
		out[k] = dot(token, c.Params.HeadWeight[k*len(token):(k+1)*len(token)]) + c.Params.HeadBias[k]
		if v := float64(out[k]); math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, errors.New("its head gives logits that are not finite")
		}
	}
	return out, nil
}

// unfit says why a checkpoint cannot be judged; "" where it can.
func (s *EvalSet) unfit(c *model.Checkpoint) string {
	switch {
	case c.Preprocess != s.preprocess || c.Config.ImageHeight != s.config.ImageHeight || c.Config.ImageWidth != s.config.ImageWidth:
		return "it sees another part of the picture than the base"
	case !slices.Equal(c.Config.Labels, s.config.Labels):
		return "its classes are not those of the base"
	}
	problem := ""
	c.Params.Each(c.Config, func(p model.Param, v *[]float32) {
		for _, x := range *v {
			if problem == "" && (math.IsNaN(float64(x)) || math.IsInf(float64(x), 0)) {
				problem = "a weight of " + p.Name + " is not finite"
			}
		}
	})
	return problem
}
