package adapt

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// gaussians draws n examples a class around centres at +-shift on every axis of its own, each a group.
func gaussians(random *rand.Rand, counts []int, width int, shift float64) *Examples {
	e := &Examples{Width: width, Classes: len(counts)}
	for y, n := range counts {
		for range n {
			for j := range width {
				v := random.NormFloat64()
				if j%len(counts) == y {
					v += shift
				}
				e.X = append(e.X, float32(5+3*v)) // neither centred nor of unit deviation
			}
			e.Class = append(e.Class, y)
			e.Group = append(e.Group, fmt.Sprint("g", len(e.Class)))
		}
	}
	return e
}

func labels(n int) []string {
	l := make([]string, n)
	for i := range l {
		l[i] = fmt.Sprint("class", i)
	}
	return l
}

func fitHead(t *testing.T, e *Examples, seed uint64) *HeadFit {
	t.Helper()
	fit, err := FitHead(context.Background(), e, labels(e.Classes), seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fit
}

func TestHeadGradientIsThatOfTheLoss(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	e := gaussians(random, []int{5, 7, 3}, 4, 1)
	e.Class[1], e.Class[8] = NoClass, NoClass
	r := newRegression(e, func(i int) bool { return i != 2 })
	x := make([]float64, len(r.at))
	for i := range x {
		x[i] = random.NormFloat64()
	}
	const l2, h = .7, 1e-5
	gradient := make([]float64, len(x))
	r.loss(x, l2, gradient)
	for i := range x {
		at := x[i]
		x[i] = at + h
		up := r.loss(x, l2, nil)
		x[i] = at - h
		down := r.loss(x, l2, nil)
		x[i] = at
		if want := (up - down) / (2 * h); math.Abs(gradient[i]-want) > 1e-8 {
			t.Errorf("gradient[%d] is %.10f, by differences %.10f", i, gradient[i], want)
		}
	}
}

func TestHeadSeparatesWhatIsSeparable(t *testing.T) {
	e := gaussians(rand.New(rand.NewPCG(3, 4)), []int{30, 30, 30}, 6, 8)
	fit := fitHead(t, e, 1)
	if right, of := fit.Validation.Total(); right != of {
		t.Errorf("cross-validation calls %d of %d right:\n%v", right, of, fit.Validation)
	}
	for i, y := range e.Class {
		if got := fit.Predict(e.row(i)); got != y {
			t.Errorf("example %d of class %d is called %d", i, y, got)
		}
	}
}

// Two unit Gaussians whose centres lie 2 apart cannot be told apart better than Phi(1) = .841.
func TestHeadReachesTheBayesRate(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	e := gaussians(random, []int{400, 400}, 2, math.Sqrt2)
	fit := fitHead(t, e, 1)
	if a := fit.Validation.Macro(); a < .80 || a > .88 {
		t.Errorf("cross-validated accuracy %.3f, the best possible is .841", a)
	}
	fresh := gaussians(random, []int{2000, 2000}, 2, math.Sqrt2)
	right := 0
	for i, y := range fresh.Class {
		if fit.Predict(fresh.row(i)) == y {
			right++
		}
	}
	if a := float64(right) / float64(len(fresh.Class)); a < .82 || a > .86 {
		t.Errorf("accuracy on fresh examples %.3f, the best possible is .841", a)
	}
}

func TestHeadShrinksWhereThereIsNothingToLearn(t *testing.T) {
	e := gaussians(rand.New(rand.NewPCG(7, 8)), []int{60, 60}, 40, 0)
	fit := fitHead(t, e, 1)
	if fit.L2 < 1 {
		t.Errorf("noise is fitted with a penalty of %g: losses %v", fit.L2, fit.Loss)
	}
	if a := fit.Validation.Macro(); a < .3 || a > .7 {
		t.Errorf("cross-validated accuracy on noise is %.2f", a)
	}
}

func TestHeadWeighsClassesAlike(t *testing.T) {
	e := gaussians(rand.New(rand.NewPCG(9, 10)), []int{900, 45}, 2, math.Sqrt2)
	fit := fitHead(t, e, 1)
	for y := range 2 {
		if right, of := fit.Validation.Right(y); float64(right)/float64(of) < .7 {
			t.Errorf("class %d of %v: %d of %d right\n%v", y, []int{900, 45}, right, of, fit.Validation)
		}
	}
}

// Ten copies of each of 24 noise vectors, labelled by chance: a head that saw one copy knows the others. With
// copies kept together there is nothing to know.
func TestCrossValidationKeepsGroupsTogether(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	e := &Examples{Width: 64, Classes: 2}
	for g := range 24 {
		row := make([]float32, e.Width)
		for j := range row {
			row[j] = float32(random.NormFloat64())
		}
		for range 10 {
			e.X = append(e.X, row...)
			e.Class = append(e.Class, g%2)
			e.Group = append(e.Group, fmt.Sprint("object", g))
		}
	}
	kept := fitHead(t, e, 1).Validation.Macro()
	for i := range e.Group {
		e.Group[i] = fmt.Sprint("picture", i)
	}
	leaked := fitHead(t, e, 1).Validation.Macro()
	if leaked < .99 || kept > .8 {
		t.Errorf("accuracy %.2f with groups kept together, %.2f with copies in both parts; want chance and 1", kept, leaked)
	}
}

func TestFoldsDealEachClassOutAndSplitNoGroup(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	for range 50 {
		e := &Examples{Classes: 2 + random.IntN(4)}
		groups := map[int]int{}
		for y := range e.Classes {
			groups[y] = 2 + random.IntN(9)
			for g := range groups[y] {
				for range 1 + random.IntN(4) {
					e.Class = append(e.Class, y)
					e.Group = append(e.Group, fmt.Sprintf("%d/%d", y, g))
				}
			}
		}
		folds, err := e.folds(labels(e.Classes), random.Uint64())
		if err != nil {
			t.Fatal(err)
		}
		k := slices.Max(folds) + 1
		of := map[string]int{}
		inFold := map[[2]int]map[string]bool{}
		for i, g := range e.Group {
			if f, known := of[g]; known && f != folds[i] {
				t.Fatalf("group %s lies in folds %d and %d", g, f, folds[i])
			}
			of[g] = folds[i]
			key := [2]int{e.Class[i], folds[i]}
			if inFold[key] == nil {
				inFold[key] = map[string]bool{}
			}
			inFold[key][g] = true
		}
		for y := range e.Classes {
			for f := range k {
				if n, least := len(inFold[[2]int{y, f}]), groups[y]/k; n < least || n > least+1 {
					t.Fatalf("class %d of %d groups has %d in fold %d of %d", y, groups[y], n, f, k)
				}
			}
		}
	}
}

// TestHeadIsUndecidedWhereNothingIsShown: rows without a class lie where a head that never saw them is sure.
func TestHeadIsUndecidedWhereNothingIsShown(t *testing.T) {
	random := rand.New(rand.NewPCG(21, 22))
	e := gaussians(random, []int{60, 60}, 4, 2)
	sure := func(h *HeadFit) float64 { // mean probability of the first guess on fresh rows
		sum := 0.
		for range 200 {
			row, logits := make([]float32, 4), make([]float64, 2)
			for j := range row {
				row[j] = float32(5 + 3*random.NormFloat64())
			}
			row[0] += 6
			row[3] += 18
			h.logits(row, logits)
			sum += 1 / (1 + math.Exp(-math.Abs(logits[0]-logits[1])))
		}
		return sum / 200
	}
	before := sure(fitHead(t, e, 1))
	for i := range 60 {
		for j := range 4 {
			v := float32(5 + 3*random.NormFloat64())
			switch j {
			case 0:
				v += 6
			case 3:
				v += 18
			}
			e.X = append(e.X, v)
		}
		e.Class, e.Group = append(e.Class, NoClass), append(e.Group, fmt.Sprint("none", i))
	}
	fit := fitHead(t, e, 1)
	after := sure(fit)
	if before < .9 || after > .75 {
		t.Errorf("confidence %.3f without, %.3f with rows of no class", before, after)
	}
	if right, of := fit.Validation.Total(); of != 120 || right < 100 {
		t.Errorf("%d of %d right", right, of)
	}
}

func TestHeadIsDeterministic(t *testing.T) {
	e := gaussians(rand.New(rand.NewPCG(15, 16)), []int{40, 60, 25}, 12, 1)
	a, b := fitHead(t, e, 7), fitHead(t, e, 7)
	if !slices.Equal(a.Weight, b.Weight) || !slices.Equal(a.Bias, b.Bias) || a.L2 != b.L2 {
		t.Error("two fits of the same examples and seed differ")
	}
}

func TestHeadRefusesWhatItCannotFit(t *testing.T) {
	for name, e := range map[string]*Examples{
		"one class":             {Width: 1, Classes: 1, X: []float32{1, 2}, Class: []int{0, 0}, Group: []string{"a", "b"}},
		"a class without rows":  {Width: 1, Classes: 2, X: []float32{1, 2}, Class: []int{0, 0}, Group: []string{"a", "b"}},
		"a group of two labels": {Width: 1, Classes: 2, X: []float32{1, 2}, Class: []int{0, 1}, Group: []string{"a", "a"}},
		"not a number": {
			Width: 1, Classes: 2, X: []float32{1, 2, float32(math.NaN()), 4},
			Class: []int{0, 0, 1, 1}, Group: []string{"a", "b", "c", "d"},
		},
	} {
		if fit, err := FitHead(context.Background(), e, labels(e.Classes), 1, nil); err == nil {
			t.Errorf("%s: fitted %+v, want an error", name, fit.Head)
		}
	}
}

func TestWilson(t *testing.T) {
	// Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{{81, 263, .2553, .3662}, {15, 148, .0624, .1605}, {0, 20, 0, .1611}, {0, 0, 0, 1}} {
		low, high := Wilson(c.k, c.n)
		if math.Abs(low-c.low) > 5e-5 || math.Abs(high-c.high) > 5e-5 {
			t.Errorf("Wilson(%d, %d) = %.4f to %.4f, want %.4f to %.4f", c.k, c.n, low, high, c.low, c.high)
		}
	}
}
