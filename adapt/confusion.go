package adapt

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Confusion counts what was said of pictures whose class is known.
type Confusion struct {
	Labels []string `json:"labels"`
	Count  [][]int  `json:"count"` // [true class][said class]
}

// NewConfusion returns an empty table.
func NewConfusion(labels []string) *Confusion {
	t := &Confusion{Labels: labels, Count: make([][]int, len(labels))}
	for i := range t.Count {
		t.Count[i] = make([]int, len(labels))
	}
	return t
}

// Add counts one picture.
func (t *Confusion) Add(class, said int) { t.Count[class][said]++ }

// Right returns how many of a class's pictures were called right, of how many.
func (t *Confusion) Right(class int) (right, of int) {
	for _, n := range t.Count[class] {
		of += n
	}
	return t.Count[class][class], of
}

// Total is Right over all classes.
func (t *Confusion) Total() (right, of int) {
	for class := range t.Count {
		r, n := t.Right(class)
		right, of = right+r, of+n
	}
	return right, of
}

// Macro is the mean over the classes that have pictures of the share called right; NaN without pictures.
func (t *Confusion) Macro() float64 {
	sum, classes := 0., 0.
	for class := range t.Count {
		if right, of := t.Right(class); of > 0 {
			sum += float64(right) / float64(of)
			classes++
		}
	}
	return sum / classes
}

// String draws the table: a row for each true class, a column for what was said, nothing for zero.
func (t *Confusion) String() string {
	first := utf8.RuneCountInString("true \\ said")
	for _, l := range t.Labels {
		first = max(first, utf8.RuneCountInString(l))
	}
	column := func(label string) string { // a column's head fits above its numbers
		if r := []rune(label); len(r) > 8 {
			return string(r[:7]) + "…"
		}
		return label
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", first, "true \\ said")
	for _, l := range t.Labels {
		fmt.Fprintf(&b, " %8s", column(l))
	}
	b.WriteString("     right\n")
	for class, row := range t.Count {
		fmt.Fprintf(&b, "%-*s", first, t.Labels[class])
		for _, n := range row {
			if n == 0 {
				fmt.Fprintf(&b, " %8s", "·")
			} else {
				fmt.Fprintf(&b, " %8d", n)
			}
		}
		if right, of := t.Right(class); of > 0 {
			fmt.Fprintf(&b, " %8.0f%%", 100*float64(right)/float64(of))
		} else {
			fmt.Fprintf(&b, " %9s", "-")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Wilson is the 95 % interval of a share of which k of n were seen (Wilson 1927): 0, 1 for n = 0. It takes the
// n for independent; where several pictures show one object it is too narrow.
func Wilson(k, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959963984540054
	p, m := float64(k)/float64(n), float64(n)
	centre := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, centre-half), min(1, centre+half)
}
