package main

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// cell is all renderings of one object on one scene in one split.
type cell struct {
	split, class  int
	object, scene string
	sum           float64 // of the pictures' values: how much better the one recipe is than the other, -1 to 1 each
	pictures      float64
}

// interval is a mean with its bounds.
type interval struct {
	mean      float64
	low, high float64 // 95 %, two-sided
	least     float64 // 95 %, one-sided
}

const resamples = 2000

// bootstrap figures the mean over classes of the cells' means. In each resampling objects (within their class),
// scenes and splits are drawn with replacement, each by itself, and a cell counts as often as all three were drawn:
// Owen's pigeonhole bootstrap (Annals of Applied Statistics 2007), which is a little wide rather than narrow.
// The same cells give the same interval.
func bootstrap(cells []cell) interval {
	var objects, scenes, splits []string
	strata := map[int][]int{} // class -> objects
	type index struct{ object, scene, split, class int }
	at := make([]index, len(cells))
	number := func(list *[]string, name string) (int, bool) {
		i := slices.Index(*list, name)
		if i >= 0 {
			return i, false
		}
		*list = append(*list, name)
		return len(*list) - 1, true
	}
	cells = slices.Clone(cells)
	slices.SortStableFunc(cells, func(a, b cell) int {
		return cmp.Or(cmp.Compare(a.split, b.split), cmp.Compare(a.object, b.object), cmp.Compare(a.scene, b.scene))
	})
	classes := 0
	for i, c := range cells {
		o, fresh := number(&objects, c.object)
		if fresh {
			strata[c.class] = append(strata[c.class], o)
		}
		s, _ := number(&scenes, c.scene)
		k, _ := number(&splits, string(rune(c.split)))
		at[i] = index{o, s, k, c.class}
		classes = max(classes, c.class+1)
	}
	mean := func(object, scene, split []float64) float64 {
		sum, n := make([]float64, classes), make([]float64, classes)
		for i, c := range cells {
			w := object[at[i].object] * scene[at[i].scene] * split[at[i].split]
			sum[c.class] += w * c.sum
			n[c.class] += w * c.pictures
		}
		total, known := 0., 0.
		for class := range sum {
			if n[class] > 0 {
				total += sum[class] / n[class]
				known++
			}
		}
		return total / known
	}
	drawn := [3][]float64{make([]float64, len(objects)), make([]float64, len(scenes)), make([]float64, len(splits))}
	fill := func(v float64) {
		for _, d := range drawn {
			for i := range d {
				d[i] = v
			}
		}
	}
	fill(1)
	out := interval{mean: mean(drawn[0], drawn[1], drawn[2])}
	random := rand.New(rand.NewPCG(1, uint64(len(cells))))
	var means []float64
	for range resamples {
		fill(0)
		for class := range classes {
			for range strata[class] {
				drawn[0][strata[class][random.IntN(len(strata[class]))]]++
			}
		}
		for _, d := range drawn[1:] {
			for range d {
				d[random.IntN(len(d))]++
			}
		}
		if m := mean(drawn[0], drawn[1], drawn[2]); !math.IsNaN(m) {
			means = append(means, m)
		}
	}
	slices.Sort(means)
	quantile := func(p float64) float64 { return stat.Quantile(p, stat.Empirical, means, nil) }
	out.low, out.high, out.least = quantile(.025), quantile(.975), quantile(.05)
	return out
}

// clopperPearson is the exact upper bound, one-sided 95 %, of the probability of what happened k times in n.
func clopperPearson(k, n int) float64 {
	if k >= n {
		return 1
	}
	return distuv.Beta{Alpha: float64(k + 1), Beta: float64(n - k)}.Quantile(.95)
}
