package adapt

import (
	"math"
	"slices"

	"github.com/seed-a98b2d25/fovea/model"
)

// Figures describe a model on pictures whose masks are known, by means over the pictures.
type Figures struct {
	Pictures   int             `json:"pictures"`
	Losses     Losses[float64] `json:"losses"`
	Foreground float64         `json:"foreground_relevance"` // sum(r m) / sum(r), 0..1; a map of zeros counts 0
	AUROC      float64         `json:"relevance_auroc"`      // does r rank object patches above the others? .5 is chance
	Effective  float64         `json:"effective_patches"`    // exp of the entropy of r: a share that rises while this falls is no gain
	Agreement  float64         `json:"agreement"`            // share whose first guess is the parent's
	Accuracy   *float64        `json:"accuracy,omitempty"`   // of the pictures whose class is known; nil without any
	Entropy    float64         `json:"entropy"`              // of the probabilities, nats
	Classes    int             `json:"classes_predicted"`    // different first guesses: 1 is a collapse
}

// figures runs the centre views of the held-out pictures through a model. guesses are its first guesses;
// parent are the parent's, nil for the parent itself. maps are the relevance maps, [H, W] each in 0..1.
func figures(n *model.Net, s *TuneSet, p model.Preprocess, parent []int32) (f Figures, guesses []int32, maps [][]float32, err error) {
	c := n.Config
	f.Pictures = len(s.Held)
	var known, right int
	predicted := map[int32]bool{}
	for i := range s.Held {
		var b Batch
		s.into(&b, &s.Held[i], s.centre(c), c, p)
		o, err := n.Run(model.WantRelevance, b.Pixels, b.Classes)
		if err != nil {
			return f, nil, nil, err
		}
		guess := top(o.Logits)
		guesses = append(guesses, guess)
		predicted[guess] = true
		maps = append(maps, o.Map)
		if s.Held[i].Class >= 0 {
			known++
			if int(guess) == s.Held[i].Class {
				right++
			}
		}
		if parent == nil || parent[i] == guess {
			f.Agreement++
		}
		f.Entropy += entropy(model.Probabilities(o.Logits))
		cover := patchCover(c, b.Masks)
		f.Foreground += foreground(o.Relevance, cover)
		f.AUROC += auroc(o.Relevance, cover)
		f.Effective += effective(o.Relevance)
	}
	for _, v := range []*float64{&f.Foreground, &f.AUROC, &f.Effective, &f.Agreement, &f.Entropy} {
		*v /= float64(f.Pictures)
	}
	f.Classes = len(predicted)
	if known > 0 {
		a := float64(right) / float64(known)
		f.Accuracy = &a
	}
	return f, guesses, maps, nil
}

func top(logits []float32) int32 {
	return int32(slices.Index(logits, slices.Max(logits)))
}

func entropy(p []float32) (h float64) {
	for _, v := range p {
		if v > 0 {
			h -= float64(v) * math.Log(float64(v))
		}
	}
	return h
}

// patchCover is the share of each patch that the mask [H, W] covers.
func patchCover(c model.Config, mask []float32) []float64 {
	rows, cols := c.Grid()
	cover := make([]float64, rows*cols)
	for i, v := range mask {
		y, x := i/c.ImageWidth, i%c.ImageWidth
		cover[y/c.Patch*cols+x/c.Patch] += float64(v) / float64(c.Patch*c.Patch)
	}
	return cover
}

// foreground is the share of the relevance that lies on the object.
func foreground(r []float32, cover []float64) float64 {
	var on, all float64
	for i, v := range r {
		on += float64(v) * cover[i]
		all += float64(v)
	}
	if !(all > 0) || math.IsInf(all, 0) {
		return 0
	}
	return on / all
}

// auroc is the probability that a patch of the object (half covered or more) has more relevance than one that
// is not, ties by halves; .5 where one of the two kinds is missing.
func auroc(r []float32, cover []float64) float64 {
	order := make([]int, len(r))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case r[a] < r[b]:
			return -1
		case r[a] > r[b]:
			return 1
		}
		return 0
	})
	var ranks, objects float64
	for at := 0; at < len(order); {
		end := at
		for end < len(order) && r[order[end]] == r[order[at]] {
			end++
		}
		for _, i := range order[at:end] {
			if cover[i] >= .5 {
				objects++
				ranks += float64(at+end+1) / 2 // the mean rank of the tie, from 1
			}
		}
		at = end
	}
	others := float64(len(r)) - objects
	if objects == 0 || others == 0 {
		return .5
	}
	return (ranks - objects*(objects+1)/2) / (objects * others)
}

// effective is the number of patches that a map of this entropy would spread over evenly; 0 for a map of zeros.
func effective(r []float32) float64 {
	var all float64
	for _, v := range r {
		all += float64(v)
	}
	if !(all > 0) || math.IsInf(all, 0) {
		return 0
	}
	var h float64
	for _, v := range r {
		if p := float64(v) / all; p > 0 {
			h -= p * math.Log(p)
		}
	}
	return math.Exp(h)
}
