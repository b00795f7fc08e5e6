package adapt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/floats"

	"github.com/seed-a98b2d25/fovea/model"
)

// RefitSettings say how a head is fitted anew.
type RefitSettings struct {
	Swaps int    `json:"swaps" yaml:"swaps"` // labelled objects laid on backgrounds of the device
	Seed  uint64 `json:"seed" yaml:"seed"`
	// Foveal fits the head on second views too (FovealBox): for a device that looks twice.
	Foveal bool `json:"foveal,omitempty" yaml:"foveal,omitempty"`
}

// DefaultRefit takes about 700 forward passes for some 250 labelled pictures: a minute on two idle cores.
var DefaultRefit = RefitSettings{Swaps: 300, Seed: 1}

// emptyEvery is of how many labelled pictures, and of how many frames, one is taken with its object flattened.
const emptyEvery = 4

// RefitReport is what a refit found.
type RefitReport struct {
	Settings    RefitSettings `json:"settings"`
	Originals   int           `json:"originals"`   // labelled pictures as they are
	Swaps       int           `json:"swaps"`       // labelled objects laid on backgrounds
	Samples     int           `json:"samples"`     // frames of the device that a person labelled
	Empty       int           `json:"empty"`       // views without an object
	Backgrounds int           `json:"backgrounds"` //
	L2          float64       `json:"l2"`
	// Mix is the share of the new head in the result, the rest is the parent's; Loss the cross-entropy at each of
	// Mixes that chose it, on objects that the heads of their fold were not fitted on.
	Mix  float64   `json:"mix"`
	Loss []float64 `json:"loss"`
}

// Mixes are the shares of the new head that are tried.
var Mixes = []float64{0, .25, .5, .75, 1}

// Refit fits a head anew on a frozen backbone: on the labelled pictures and on their objects laid on the device's
// backgrounds, each class equally on each; on views without an object, the backgrounds and labelled pictures and
// frames whose object is flattened, it is fitted to be undecided. parent's backbone is kept; base cuts the masks that do not lie beside
// their picture. Of the labelled set only the part Fit is used.
//
// The new head is then mixed with the parent's, W = (1 - a) W_parent + a W_new. a has the least cross-entropy over
// folds of the labelled objects: in each, a head fitted on the other folds' originals stands for the parent's,
// which has seen them all. Ties and a useless new head give a = 0, the parent itself.
//
// The same inputs give the same head. progress, which may be nil, is called after each picture.
func Refit(ctx context.Context, b *model.Backend, base, parent *model.Checkpoint, set *Labelled, pack *Pack, backgrounds []Background, s RefitSettings, progress func(done, of int)) (*model.Checkpoint, *RefitReport, error) {
	out, r, err := refit(ctx, b, base, parent, set, pack, backgrounds, s, progress)
	if err != nil {
		return nil, nil, fmt.Errorf("refit head: %w", err)
	}
	return out, r, nil
}

func refit(ctx context.Context, b *model.Backend, base, parent *model.Checkpoint, set *Labelled, pack *Pack, backgrounds []Background, s RefitSettings, progress func(done, of int)) (*model.Checkpoint, *RefitReport, error) {
	if parent.Config.Readout == model.ReadDistilled {
		return nil, nil, errors.New("a distilled model has two heads: fit one by \"fovea head fit\" first")
	}
	if len(backgrounds) == 0 {
		return nil, nil, fmt.Errorf("%w: no background of the device", ErrFew)
	}
	masker, err := model.NewNet(b, base)
	if err != nil {
		return nil, nil, err
	}
	defer masker.Close()
	net, err := model.NewNet(b, parent)
	if err != nil {
		return nil, nil, err
	}
	defer net.Close()
	m := &refitMaker{net: net, ctx: ctx, progress: progress, labels: parent.Config.Labels, foveal: s.Foveal}
	m.e = Examples{Classes: len(m.labels), Width: parent.Config.Dim}
	if parent.Config.Readout == model.ReadClassMean {
		m.e.Width *= 2
	}
	r := &RefitReport{Settings: s, Backgrounds: len(backgrounds)}
	if err := m.pictures(set, labelledMasks(set, masker), pack, backgrounds, s, r); err != nil {
		return nil, nil, err
	}
	fit, err := FitHead(ctx, &m.e, m.labels, s.Seed, nil)
	if err != nil {
		return nil, nil, err
	}
	r.L2 = fit.L2
	if r.Loss, err = m.mixLosses(fit.L2, s.Seed); err != nil {
		return nil, nil, err
	}
	r.Mix = Mixes[floats.MinIdx(r.Loss)]
	head := Head{Weight: mixed(parent.Params.HeadWeight, fit.Weight, r.Mix), Bias: mixed(parent.Params.HeadBias, fit.Bias, r.Mix)}

	out := *parent
	params := *parent.Params // Into sets the head of the copy alone
	out.Params = &params
	if err := head.Into(&out, parent.Config.Readout, m.labels); err != nil {
		return nil, nil, err
	}
	return &out, r, nil
}

func mixed(old, fresh []float32, share float64) []float32 {
	out := make([]float32, len(old))
	for i := range out {
		out[i] = float32((1-share)*float64(old[i]) + share*float64(fresh[i]))
	}
	return out
}

// refitMaker gathers what a head is fitted on.
type refitMaker struct {
	net      *model.Net
	ctx      context.Context
	progress func(done, of int)
	labels   []string
	foveal   bool
	done, of int

	e    Examples
	swap []bool // of each example: laid on a background of the device
}

func (m *refitMaker) pictures(set *Labelled, masks func(i int) (*Picture, []byte, error), pack *Pack, backgrounds []Background, s RefitSettings, r *RefitReport) error {
	fit := alternate(set, Fit, s.Seed)
	m.of = len(fit) + s.Swaps
	var objects []cutout
	for n, i := range fit {
		p := set.Pictures[i]
		class := slices.Index(m.labels, set.Classes[p.Class])
		if class < 0 {
			return fmt.Errorf("the labelled pictures have a class %q, the model has %q", set.Classes[p.Class], m.labels)
		}
		whole, mask, err := masks(i)
		if err != nil {
			return err
		}
		if err := m.add(whole, mask, class, p.Group, false); err != nil {
			return err
		}
		r.Originals++
		if mask == nil {
			continue
		}
		if n%emptyEvery == 0 {
			if err := m.empty(whole.FlattenObject(mask), p.Group); err != nil {
				return err
			}
		}
		if img, err := lift(whole, mask); err == nil {
			objects = append(objects, cutout{class: class, group: p.Group, image: img})
		}
	}
	if len(objects) == 0 {
		return fmt.Errorf("%w: no labelled picture has a mask", ErrFew)
	}
	for i, b := range backgrounds {
		if err := m.empty(b.Picture, fmt.Sprint("background ", i)); err != nil {
			return err
		}
	}
	if err := m.swaps(objects, backgrounds, s); err != nil {
		return err
	}
	r.Swaps = s.Swaps
	masked := 0
	for i, one := range pack.Samples {
		class := slices.Index(m.labels, one.Label)
		if one.MaskBytes > 0 {
			masked++
		}
		hollow := one.MaskBytes > 0 && masked%emptyEvery == 0
		if one.Part != Train || class < 0 && !hollow {
			continue
		}
		picture, mask, err := pack.Read(i)
		if err != nil {
			return err
		}
		minute := fmt.Sprint(one.Camera, " ", one.UnixNano/6e10)
		if class >= 0 {
			if err := m.add(picture, mask, class, fmt.Sprint("sample ", minute, " ", one.Label), true); err != nil {
				return err
			}
			r.Samples++
		}
		if hollow {
			if err := m.empty(picture.FlattenObject(mask), minute); err != nil {
				return err
			}
		}
	}
	for _, class := range m.e.Class {
		if class == NoClass {
			r.Empty++
		}
	}
	return nil
}

// empty adds a view without an object.
func (m *refitMaker) empty(p *Picture, group string) error {
	return m.add(p, nil, NoClass, "empty "+group, true)
}

// swaps lays objects, classes in turn, on backgrounds in turn: each class is laid equally often on each.
func (m *refitMaker) swaps(objects []cutout, backgrounds []Background, s RefitSettings) error {
	of := make([][]cutout, len(m.labels))
	var classes []int
	for _, o := range objects {
		if of[o.class] == nil {
			classes = append(classes, o.class)
		}
		of[o.class] = append(of[o.class], o)
	}
	slices.Sort(classes)
	random := rand.New(rand.NewPCG(s.Seed, 17))
	for n := range s.Swaps {
		round := n / len(classes)
		list := of[classes[n%len(classes)]]
		o := list[(round/len(backgrounds)+round*7919)%len(list)]
		picture, mask := trainPlacing.onto(backgrounds[round%len(backgrounds)].Picture, o.image, m.net.Preprocess, random)
		if err := m.add(picture, mask, o.class, o.group, true); err != nil {
			return err
		}
	}
	return nil
}

// add takes the features of a picture and, where they are wanted, of the second view that its mask gives; mask may be
// nil.
func (m *refitMaker) add(p *Picture, mask []byte, class int, group string, swap bool) error {
	if err := m.look(p, class, group, swap); err != nil {
		return err
	}
	if m.done++; m.progress != nil {
		m.progress(m.done, max(m.done, m.of))
	}
	if !m.foveal || mask == nil {
		return nil
	}
	box, ok := FovealBox(mask, p.Width, p.Height)
	if !ok {
		return nil
	}
	return m.look(&Picture{Width: box.Dx(), Height: box.Dy(), RGB: FovealView(p.RGB, p.Width, box)}, class, group, swap)
}

func (m *refitMaker) look(p *Picture, class int, group string, swap bool) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	c := m.net.Config
	pixels := make([]float32, 3*c.ImageHeight*c.ImageWidth)
	if err := m.net.Preprocess.Pixels(p.RGB, p.Width, p.Height, pixels); err != nil {
		return err
	}
	var want model.Want
	if c.Readout == model.ReadClassMean {
		want = model.WantFeatures
	}
	o, err := m.net.Run(want, pixels, nil)
	if err != nil {
		return err
	}
	m.e.X = append(m.e.X, headInput(o, c.Readout, c.Dim)...)
	m.e.Class, m.e.Group, m.swap = append(m.e.Class, class), append(m.e.Group, group), append(m.swap, swap)
	return nil
}

// mixLosses is the cross-entropy of each of Mixes on the folds left out, half of it from swaps and half from
// originals, each the mean over classes.
func (m *refitMaker) mixLosses(l2 float64, seed uint64) ([]float64, error) {
	folds, err := m.e.folds(m.labels, seed+1)
	if err != nil {
		return nil, err
	}
	n, classes := len(m.e.Class), m.e.Classes
	logits := make([][]float64, len(Mixes))
	for k := range logits {
		logits[k] = make([]float64, n*classes)
	}
	for f := range slices.Max(folds) + 1 {
		if err := m.ctx.Err(); err != nil {
			return nil, err
		}
		fresh := newRegression(&m.e, func(i int) bool { return folds[i] != f })
		old := newRegression(&m.e, func(i int) bool { return folds[i] != f && !m.swap[i] })
		for _, r := range []*regression{fresh, old} {
			if err := r.minimise(l2); err != nil {
				return nil, err
			}
		}
		a, b := old.head(l2), fresh.head(l2)
		for k, share := range Mixes {
			head := Head{Weight: mixed(a.Weight, b.Weight, share), Bias: mixed(a.Bias, b.Bias, share)}
			for i := range folds {
				if folds[i] == f {
					head.logits(m.e.row(i), logits[k][i*classes:(i+1)*classes])
				}
			}
		}
	}
	losses := make([]float64, len(Mixes))
	for k := range losses {
		losses[k] = (m.loss(logits[k], true) + m.loss(logits[k], false)) / 2
	}
	return losses, nil
}

func (m *refitMaker) loss(logits []float64, swaps bool) float64 {
	sum, n := make([]float64, m.e.Classes), make([]float64, m.e.Classes)
	for i, y := range m.e.Class {
		if m.swap[i] == swaps && y != NoClass {
			l := logits[i*m.e.Classes : (i+1)*m.e.Classes]
			sum[y] += floats.LogSumExp(l) - l[y]
			n[y]++
		}
	}
	mean, known := 0., 0.
	for y := range sum {
		if n[y] > 0 {
			mean += sum[y] / n[y]
			known++
		}
	}
	return mean / max(known, 1)
}
