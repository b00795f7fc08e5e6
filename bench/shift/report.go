package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/internal/rank"
)

// study is the results of one kind: what one table is about.
type study struct {
	part part
	rho  float64
	size int
	runs map[string][]run // by recipe
}

// readResults reads a folder of results; files that lie elsewhere in it are no results.
func readResults(dir string) ([]*study, map[string]pictures, error) {
	shown := map[string]pictures{}
	files, err := filepath.Glob(filepath.Join(dir, "pictures-*.json"))
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		var p pictures
		if err := readJSON(file, &p); err != nil {
			return nil, nil, err
		}
		shown[p.Material] = p
	}
	if files, err = filepath.Glob(filepath.Join(dir, "*", "*.json")); err != nil {
		return nil, nil, err
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("no result in %s: \"go run ./bench/shift\" makes them", dir)
	}
	var studies []*study
	for _, file := range files {
		var r run
		if err := readJSON(file, &r); err != nil {
			return nil, nil, err
		}
		for set, said := range r.Said {
			if n := len(shown[r.Split.material()].Sets[set].Of); n != len(said) {
				return nil, nil, fmt.Errorf("%s: said: %s has %d letters, pictures-%s.json tells of %d pictures", file, set, len(said), r.Split.material(), n)
			}
		}
		at := slices.IndexFunc(studies, func(s *study) bool {
			return s.part == r.Split.Part && s.rho == r.Split.Rho && s.size == r.Size
		})
		if at < 0 {
			at = len(studies)
			studies = append(studies, &study{r.Split.Part, r.Split.Rho, r.Size, map[string][]run{}})
		}
		studies[at].runs[r.Recipe] = append(studies[at].runs[r.Recipe], r)
	}
	slices.SortFunc(studies, func(a, b *study) int {
		return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.size, b.size), cmp.Compare(math.Abs(a.rho-.8), math.Abs(b.rho-.8)), cmp.Compare(a.rho, b.rho))
	})
	return studies, shown, nil
}

func readJSON(file string, v any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// names are the recipes of the kinds that a study has, in the order of recipes.
func (s *study) names(kinds ...kind) []string {
	var names []string
	for _, r := range recipes {
		if len(s.runs[r.name]) > 0 && slices.Contains(kinds, r.kind) {
			names = append(names, r.name)
		}
	}
	return names
}

// partner is the run of another recipe that a run is compared with: the same split and order, or the only order.
func (s *study) partner(r run, recipe string) (run, bool) {
	var found run
	have := false
	for _, o := range s.runs[recipe] {
		if o.Split.Number == r.Split.Number && (o.Order == r.Order || !have) {
			found, have = o, true
		}
	}
	return found, have
}

// change compares a recipe with another, picture by picture, on a test set. runs is how many had a partner.
func (s *study) change(shown map[string]pictures, recipe, other, set string) (i interval, runs int) {
	type key struct {
		split         int
		object, scene string
	}
	cells := map[key]*cell{}
	var order []key
	for _, r := range s.runs[recipe] {
		o, have := s.partner(r, other)
		if !have || r.Said[set] == "" || o.Said[set] == "" {
			continue
		}
		runs++
		t := shown[r.Split.material()].Sets[set]
		for n, of := range t.Of {
			k := key{r.Split.Number, t.Objects[of[0]], t.Scenes[of[1]]}
			c := cells[k]
			if c == nil {
				c = &cell{split: k.split, class: int(t.class(n) - 'a'), object: k.object, scene: k.scene}
				cells[k] = c
				order = append(order, k)
			}
			c.pictures++
			c.sum += one(r.Said[set][n] == t.class(n)) - one(o.Said[set][n] == t.class(n))
		}
	}
	if runs == 0 {
		return interval{math.NaN(), math.NaN(), math.NaN(), math.NaN()}, 0
	}
	list := make([]cell, len(order))
	for n, k := range order {
		list[n] = *cells[k]
	}
	return bootstrap(list), runs
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// accuracy is the mean over a recipe's runs.
func (s *study) accuracy(recipe, set string) float64 {
	sum, n := 0., 0.
	for _, r := range s.runs[recipe] {
		if a, have := r.Accuracy[set]; have {
			sum += a
			n++
		}
	}
	return sum / n
}

// printReport prints the tables of a folder of results.
func printReport(out io.Writer, dir string) error {
	studies, shown, err := readResults(dir)
	if err != nil {
		return err
	}
	for _, s := range studies {
		s.print(out, shown)
	}
	for _, p := range []part{dev, final, data} {
		printTrust(out, p, studies)
	}
	return nil
}

func (s *study) print(out io.Writer, shown map[string]pictures) {
	what := strings.ToUpper(string(s.part))
	if s.part != data {
		what += fmt.Sprintf(", rho %g", s.rho)
	}
	fmt.Fprintf(out, "%s, input %d x %d: accuracy, and its change in points (95 %% by bootstrap over objects, scenes and splits)\n\n", what, s.size, s.size)
	s.table(out, shown, recipes[0].name, s.names(forward, trains, ceiling))
	chosen := strings.TrimSpace(oursText)
	for _, c := range []struct{ recipe, rival, question string }{
		{chosen, "refit", "ours against the refit alone"},
		{"distilled+relevance", "distilled", "does relevance earn its place"},
		{"distilled+relevance+refit", "refit", "does training add to the refit"},
	} {
		if c.recipe != c.rival && len(s.runs[c.recipe]) > 0 && len(s.runs[c.rival]) > 0 {
			fmt.Fprintf(out, "%s: %s against %s\n\n", c.question, c.recipe, c.rival)
			s.table(out, shown, c.rival, []string{c.recipe})
		}
	}
	if i, runs := s.change(shown, chosen, recipes[0].name, "crossed"); runs > 0 {
		fmt.Fprintf(out, "ours on crossed labelled scenes: %+.1f points, lower bound %+.1f (one-sided 95 %%)\n\n", 100*i.mean, 100*i.least)
	}
}

// table prints recipes against one of them.
func (s *study) table(out io.Writer, shown map[string]pictures, against string, names []string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "recipe\truns\t%s\n", strings.Join(testSets, "\t"))
	for _, name := range names {
		compared, cells := 0, ""
		for _, set := range testSets {
			a := s.accuracy(name, set)
			i, runs := s.change(shown, name, against, set)
			compared = max(compared, runs)
			switch {
			case math.IsNaN(a):
				cells += "\t-"
			case name == against || runs == 0:
				cells += fmt.Sprintf("\t%.3f", a)
			default:
				cells += fmt.Sprintf("\t%.3f %+.1f (%+.1f to %+.1f)", a, 100*i.mean, 100*i.low, 100*i.high)
			}
		}
		fmt.Fprintf(w, "%s\t%d%s\n", name, compared, cells)
	}
	_ = w.Flush()
	fmt.Fprintln(out)
}

// judged is a model that the gate looked at, and the truth.
type judged struct {
	point
	parent float64 // true accuracy
}

func (j judged) gain() float64 { return j.Deployment - j.parent }

// Of the gate, in points of true accuracy.
const (
	trueLoss = .03 // more than this must not be promoted
	trueGain = .05 // this or more should be
)

// judgedOf collects the points of a part's runs: of each run the candidate, then those on the way to it.
func judgedOf(p part, studies []*study) [][]judged {
	var runs [][]judged
	for _, s := range studies {
		if s.part != p {
			continue
		}
		for _, name := range s.names(forward, trains, ceiling, wrong) {
			for _, r := range s.runs[name] {
				before, have := s.partner(r, recipes[0].name)
				if !have || len(r.Points) == 0 {
					continue
				}
				var points []judged
				for _, at := range r.Points {
					points = append(points, judged{at, before.Accuracy["deployment"]})
				}
				runs = append(runs, points)
			}
		}
	}
	return runs
}

// printTrust holds what the gate sees without labels against the truth.
func printTrust(out io.Writer, p part, studies []*study) {
	runs := judgedOf(p, studies)
	if len(runs) == 0 {
		return
	}
	list := slices.Concat(runs...)
	fmt.Fprintf(out, "%s: label-free figures against true deployment accuracy, %d models (candidates, and points on the way to them)\n\n", strings.ToUpper(string(p)), len(list))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "rank correlation with deployment\tmodels\tlabelled-swap accuracy\tfollow index\tchange of both: swap\tfollow")
	for _, kind := range []struct {
		name string
		use  func(judged) bool
	}{
		{"all", func(judged) bool { return true }},
		{"without collapsed ones", func(j judged) bool { return !j.Collapsed }},
	} {
		var truth, gain []float64
		var swap, follow, swaps, follows []float64
		for _, j := range list {
			if !kind.use(j) || j.Swap.Candidate == nil || j.Follow.Candidate == nil {
				continue
			}
			truth, gain = append(truth, j.Deployment), append(gain, j.gain())
			swap, follow = append(swap, *j.Swap.Candidate), append(follow, *j.Follow.Candidate)
			swaps, follows = append(swaps, *j.Swap.Difference), append(follows, *j.Follow.Difference)
		}
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\n", kind.name, len(truth), rank.Correlation(swap, truth), rank.Correlation(follow, truth), rank.Correlation(swaps, gain), rank.Correlation(follows, gain))
	}
	_ = w.Flush()
	fmt.Fprintln(out)
	first := func(n int) (list [][]judged) {
		for _, points := range runs {
			list = append(list, points[:min(n, len(points))])
		}
		return list
	}
	printPromoted(out, fmt.Sprintf("%d candidates", len(runs)), first(1))
	printPromoted(out, "the same, and half way to one that was refused", first(2))
	fmt.Fprintln(out)
}

// printPromoted tells what a gate that is shown each run's models in turn, until it promotes one, does to the truth.
func printPromoted(out io.Writer, what string, runs [][]judged) {
	promoted, lost, gains, found := 0, 0, 0, 0
	for _, models := range runs {
		gained := models[0].gain() >= trueGain
		gains += int(one(gained))
		at := slices.IndexFunc(models, func(j judged) bool { return j.Decision == adapt.Promote })
		if at < 0 {
			continue
		}
		promoted++
		lost += int(one(models[at].gain() < -trueLoss))
		found += int(one(gained))
	}
	fmt.Fprintf(out, "%s: promoted %d, of which %d truly lost more than %.0f points (at most %.0f %%, Clopper-Pearson, one-sided 95 %%); of %d that truly gain %.0f points or more %d\n",
		what, promoted, lost, 100*trueLoss, 100*clopperPearson(lost, promoted), gains, 100*trueGain, found)
}

// oursText names the recipe that was chosen on dev; empty until it is.
//
//go:embed ours.txt
var oursText string
