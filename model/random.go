package model

import (
	"math"
	"math/rand/v2"
	"strings"
)

// Random returns a checkpoint of that shape with random weights, the same for the same seed: for timing and
// tests. Activations keep about unit size through the blocks, so that its logits are neither flat nor wild.
func Random(c Config, seed uint64) *Checkpoint {
	r := rand.New(rand.NewPCG(seed, 1))
	k := &Checkpoint{
		Config: c, Params: NewParams[[]float32](c), Source: "random weights",
		Preprocess: Preprocess{
			Height: c.ImageHeight, Width: c.ImageWidth, ResizeHeight: c.ImageHeight, ResizeWidth: c.ImageWidth,
			Filter: Bilinear, Scale: 1. / 255, Mean: half, Std: half,
		},
	}
	k.Params.Each(c, func(p Param, v *[]float32) {
		*v = make([]float32, p.Size())
		mean, spread := 0., .02
		switch {
		case strings.Contains(p.Name, "norm") && strings.HasSuffix(p.Name, "weight"), strings.Contains(p.Name, "gamma"):
			mean = 1
		case strings.HasSuffix(p.Name, "weight"):
			spread = 1 / math.Sqrt(float64(p.Size()/p.Shape[0]))
		}
		for i := range *v {
			(*v)[i] = float32(mean + spread*r.NormFloat64())
		}
	})
	return k
}
