// Package bad makes candidates that lose: what a gate must not let pass.
package bad

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// Maker makes one kind of candidate.
type Maker struct {
	Name string
	// Trains tells that it takes steps of fine-tuning: seconds to minutes.
	Trains bool
	Make   func(Given) (*model.Checkpoint, error)
}

// Given is what candidates are made from.
type Given struct {
	Context  context.Context
	Backend  *model.Backend
	Parent   *model.Checkpoint
	Set      *adapt.TuneSet // pictures of the device with masks
	Settings adapt.Settings // of the ones that train
	Seed     uint64
}

// Makers are the kinds, first those that change the head alone. Chain makes the drift chain.
var Makers = []Maker{
	{"collapsed to one class", false, func(g Given) (*model.Checkpoint, error) {
		c := clone(g.Parent)
		c.Params.HeadBias[g.random().IntN(c.Config.Classes)] += 1000
		return c, nil
	}},
	{"constant", false, func(g Given) (*model.Checkpoint, error) {
		c := clone(g.Parent)
		clear(c.Params.HeadWeight)
		return c, nil
	}},
	{"head x 10", false, func(g Given) (*model.Checkpoint, error) {
		c := clone(g.Parent)
		scale(c.Params.HeadWeight, 10)
		scale(c.Params.HeadBias, 10)
		return c, nil
	}},
	{"head plus noise", false, func(g Given) (*model.Checkpoint, error) {
		c := clone(g.Parent)
		disturb(g.random(), c.Params.HeadWeight, .1+.4*g.random().Float64())
		return c, nil
	}},
	{"a fifth moved to the majority", false, majority},
	{"classes exchanged", false, func(g Given) (*model.Checkpoint, error) {
		c, d := clone(g.Parent), g.Parent.Config.Dim
		a := g.random().IntN(c.Config.Classes)
		b := (a + 1) % c.Config.Classes
		w := c.Params.HeadWeight
		for i := range d {
			w[a*d+i], w[b*d+i] = w[b*d+i], w[a*d+i]
		}
		c.Params.HeadBias[a], c.Params.HeadBias[b] = c.Params.HeadBias[b], c.Params.HeadBias[a]
		return c, nil
	}},
	{"weights are not numbers", false, func(g Given) (*model.Checkpoint, error) {
		c := clone(g.Parent)
		c.Params.Blocks[len(c.Params.Blocks)-1].FC1Weight[0] = float32(math.NaN())
		return c, nil
	}},
	{"random last block", false, func(g Given) (*model.Checkpoint, error) {
		c := clone(g.Parent)
		c.Params.Blocks[c.Config.Depth-1] = model.Random(c.Config, g.Seed+100).Params.Blocks[c.Config.Depth-1]
		return c, nil
	}},
	{"weights scaled", false, func(g Given) (*model.Checkpoint, error) {
		c, by := clone(g.Parent), float32(1.3+g.random().Float64())
		c.Params.Each(c.Config, func(p model.Param, v *[]float32) {
			if len(p.Shape) == 2 && p.Block >= 0 && p.Block < c.Config.Depth {
				scale(*v, by)
			}
		})
		return c, nil
	}},
	{"attends one patch", false, func(g Given) (*model.Checkpoint, error) {
		c := clone(g.Parent)
		for l := c.Config.Depth / 2; l < c.Config.Depth; l++ { // softmax near its argmax
			scale(c.Params.Blocks[l].QueryWeight, 8)
			scale(c.Params.Blocks[l].QueryBias, 8)
		}
		return c, nil
	}},
	{"parent plus noise", false, func(g Given) (*model.Checkpoint, error) {
		return Noisy(g.Parent, .02+.2*g.random().Float64(), g.Seed), nil
	}},
	{"trained on inverted masks", true, func(g Given) (*model.Checkpoint, error) {
		return g.train(func(e *adapt.TuneExample, _ int) {
			mask := make([]byte, len(e.Mask))
			for i, m := range e.Mask {
				mask[i] = 255 - m
			}
			e.Mask = mask
			e.Class = -1
		})
	}},
	{"trained on one class", true, func(g Given) (*model.Checkpoint, error) {
		one := g.random().IntN(g.Parent.Config.Classes)
		return g.train(func(e *adapt.TuneExample, _ int) { e.Class = one })
	}},
	{"trained on shuffled masks", true, func(g Given) (*model.Checkpoint, error) {
		r := g.random()
		return g.train(func(e *adapt.TuneExample, n int) {
			e.Mask = g.Set.Train[r.IntN(len(g.Set.Train))].Mask
			e.Class = -1
		})
	}},
	{"trained on shuffled labels", true, func(g Given) (*model.Checkpoint, error) {
		r := g.random()
		return g.train(func(e *adapt.TuneExample, _ int) { e.Class = r.IntN(g.Parent.Config.Classes) })
	}},
}

// Chain is ten generations of small noise, each made of the one before.
func Chain(parent *model.Checkpoint, seed uint64) []*model.Checkpoint {
	var chain []*model.Checkpoint
	for i := range uint64(10) {
		parent = Noisy(parent, .06, seed+1000*i)
		chain = append(chain, parent)
	}
	return chain
}

// Noisy disturbs the last block and the head by noise of so many parts of their own size.
func Noisy(parent *model.Checkpoint, by float64, seed uint64) *model.Checkpoint {
	c := clone(parent)
	r := rand.New(rand.NewPCG(seed, 23))
	c.Params.Each(c.Config, func(p model.Param, v *[]float32) {
		if p.Block >= c.Config.Depth-1 {
			disturb(r, *v, by)
		}
	})
	return c
}

// majority raises the bias of the class that is said most until a fifth of the guesses have moved to it.
func majority(g Given) (*model.Checkpoint, error) {
	net, err := model.NewNet(g.Backend, g.Parent)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	c := clone(g.Parent)
	said := make([]int, c.Config.Classes)
	var all [][]float32
	for i := range g.Set.Held {
		rgb, _ := g.Set.Centre(&g.Set.Held[i], c.Config)
		in := make([]float32, len(rgb))
		if err := c.Preprocess.Pixels(rgb, c.Config.ImageWidth, c.Config.ImageHeight, in); err != nil {
			return nil, err
		}
		o, err := net.Run(0, in, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, o.Logits)
		said[slices.Index(o.Logits, slices.Max(o.Logits))]++
	}
	most := slices.Index(said, slices.Max(said))
	var needed []float64 // what each other guess lacks
	for _, l := range all {
		if d := float64(slices.Max(l) - l[most]); d > 0 {
			needed = append(needed, d)
		}
	}
	if len(needed) == 0 {
		return nil, fmt.Errorf("every guess is the majority's already")
	}
	slices.Sort(needed)
	c.Params.HeadBias[most] += float32(needed[min(len(needed)-1, len(all)/5)]) * 1.0001
	return c, nil
}

// train fine-tunes the parent on the set with every training picture changed.
func (g Given) train(change func(e *adapt.TuneExample, n int)) (*model.Checkpoint, error) {
	set := *g.Set
	set.Train = slices.Clone(set.Train)
	for i := range set.Train {
		change(&set.Train[i], i)
	}
	set.Held = slices.Clone(set.Train[:min(len(set.Held), len(set.Train))]) // an honest held-out part would keep the parent
	s := g.Settings
	s.Confidence = 0 // of every picture of the set
	if set.Train[0].Class < 0 {
		s.Objective.Classification = .01 // little holds the answers where the masks are wrong
	}
	c, r, err := adapt.FineTune(g.Context, g.Backend, g.Parent, &set, s, nil)
	if err == nil && r.Chosen == 0 {
		return nil, fmt.Errorf("no step lowered the loss: the candidate would be its parent")
	}
	return c, err
}

func (g Given) random() *rand.Rand { return rand.New(rand.NewPCG(g.Seed, 29)) }

// clone copies a checkpoint, weights too.
func clone(c *model.Checkpoint) *model.Checkpoint {
	out := *c
	out.Params = model.NewParams[[]float32](c.Config)
	flat := c.Params.Flat(c.Config)
	for i := range flat {
		flat[i] = slices.Clone(flat[i])
	}
	out.Params = model.ParamsFrom(c.Config, flat)
	return &out
}

func scale(v []float32, by float32) {
	for i := range v {
		v[i] *= by
	}
}

// disturb adds noise of so many parts of the root mean square of v.
func disturb(r *rand.Rand, v []float32, by float64) {
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	size := by * math.Sqrt(square/float64(max(len(v), 1)))
	for i := range v {
		v[i] += float32(size * r.NormFloat64())
	}
}
