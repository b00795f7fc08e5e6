package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/internal/rank"
)

func TestBootstrapOfKnownCases(t *testing.T) {
	near := func(what string, got, want, within float64) {
		t.Helper()
		if !(math.Abs(got-want) <= within) {
			t.Errorf("%s is %.4f, want %.4f within %.4f", what, got, want, within)
		}
	}
	// A constant has no width, whatever is drawn.
	var cells []cell
	for split := range 3 {
		for class := range 2 {
			for object := range 4 {
				for scene := range 4 {
					cells = append(cells, cell{split, class, string(rune('a'+class)) + string(rune('a'+object)), string(rune('A' + scene)), 2.5, 10})
				}
			}
		}
	}
	i := bootstrap(cells)
	near("the mean of a constant", i.mean, .25, 1e-12)
	near("its lower bound", i.low, .25, 1e-12)
	near("its upper bound", i.high, .25, 1e-12)

	// One factor alone: the deviation of a mean of n independent draws is that of one, by the root of n.
	random := rand.New(rand.NewPCG(3, 3))
	const n = 400
	for what, make := range map[string]func(k int, v float64) cell{
		"objects": func(k int, v float64) cell { return cell{0, 0, string(rune(1000 + k)), "scene", v, 1} },
		"scenes":  func(k int, v float64) cell { return cell{0, 0, "object", string(rune(1000 + k)), v, 1} },
		"splits":  func(k int, v float64) cell { return cell{k, 0, "object", "scene", v, 1} },
	} {
		var list []cell
		var sum, squares float64
		for k := range n {
			v := random.NormFloat64()
			sum, squares = sum+v, squares+v*v
			list = append(list, make(k, v))
		}
		mean := sum / n
		deviation := math.Sqrt((squares/n - mean*mean) / n)
		i := bootstrap(list)
		near("the mean over "+what, i.mean, mean, 1e-12)
		near("half the width over "+what, (i.high-i.low)/2, 1.96*deviation, .15*1.96*deviation)
		near("the one-sided bound over "+what, i.mean-i.least, 1.645*deviation, .15*1.645*deviation)
	}

	// Classes weigh alike, however many pictures they have.
	i = bootstrap([]cell{{0, 0, "a", "s", 90, 90}, {0, 1, "b", "s", 0, 10}})
	near("the mean over classes", i.mean, .5, 1e-12)
}

// By scipy.stats: spearmanr([1, 2, 2, 4, 5], [3, 1, 4, 4, 2]) and beta.ppf(.95, 3, 18).
const (
	spearmanOfTies = -0.02631578947368421
	clopper2of20   = 0.2826185248858609
)

func TestRankCorrelationAndClopperPearson(t *testing.T) {
	if got := rank.Correlation([]float64{1, 2, 3, 4}, []float64{10, 100, 1000, 10000}); math.Abs(got-1) > 1e-12 {
		t.Errorf("a rising order correlates by %g", got)
	}
	if got := rank.Correlation([]float64{1, 2, 2, 4, 5}, []float64{3, 1, 4, 4, 2}); math.Abs(got-spearmanOfTies) > 1e-12 {
		t.Errorf("with ties it is %.16g, want %.16g", got, spearmanOfTies)
	}
	if !math.IsNaN(rank.Correlation([]float64{1, 2}, []float64{1, 2})) {
		t.Error("two pairs have a rank correlation")
	}
	for _, c := range []struct {
		k, n int
		want float64
	}{
		{0, 60, 1 - math.Pow(.05, 1./60)}, // nothing in n: (1 - p)^n = .05
		{3, 3, 1},
		{0, 0, 1},
		{2, 20, clopper2of20},
	} {
		if got := clopperPearson(c.k, c.n); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%d of %d: %.12f, want %.12f", c.k, c.n, got, c.want)
		}
	}
}

// writeStudy writes the pictures of one split, four of two objects of two classes on two scenes, and runs on them.
func writeStudy(t *testing.T, p part, said map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	sets := map[string]testShots{}
	for _, set := range testSets {
		sets[set] = testShots{
			Objects: []string{"bird/owl", "flower/rose"}, Scenes: []string{"hill", "road"},
			Of: [][2]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}},
		}
	}
	s := split{Part: p, Number: 1, Rho: .8}
	if err := writeJSON(filepath.Join(dir, "pictures-"+s.material()+".json"), pictures{s.material(), sets}); err != nil {
		t.Fatal(err)
	}
	for name, letters := range said {
		recipe, order := strings.TrimRight(name, "12"), int(name[len(name)-1]-'0')
		r := run{Split: s, Recipe: recipe, Order: order, Size: 154, Said: map[string]string{}, Accuracy: map[string]float64{}}
		for _, set := range testSets {
			r.Said[set] = letters
			r.Accuracy[set] = sets[set].right(letters)
		}
		if recipe != "before" {
			swap, change := r.Accuracy["deployment"], .1
			whole := point{
				Share: 1, Deployment: r.Accuracy["deployment"], Decision: adapt.Promote,
				Swap: adapt.Paired{Candidate: &swap, Difference: &change}, Follow: adapt.Paired{Candidate: &swap, Difference: &change},
			}
			r.Points = []point{whole}
			if order == 2 { // only its half is promoted
				half := whole
				half.Share, r.Points[0].Decision = .5, adapt.Reject
				r.Points = append(r.Points, half)
			}
		}
		if err := writeJSON(filepath.Join(dir, "any", name+".json"), r); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReportOfSmallResults(t *testing.T) {
	// The truth is aabb. Before is right on one of each class, refit on three and on all of four, foveal on one.
	dir := writeStudy(t, dev, map[string]string{"before1": "abab", "refit1": "aaba", "refit2": "aabb", "foveal1": "bbba"})
	var out strings.Builder
	if err := printReport(&out, dir); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{
		"DEV, rho 0.8, input 154 x 154",
		"before          1     0.500 ",
		"foveal          1     0.250 -25.0 (",
		"refit           2     0.875 +37.5 (",
		"4 models",
		"3 candidates: promoted 2, of which 1 truly lost more than 3 points (at most 97 %, Clopper-Pearson, one-sided 95 %); of 2 that truly gain 5 points or more 1",
		"half way to one that was refused: promoted 3, of which 1 truly lost more than 3 points (at most 86 %, Clopper-Pearson, one-sided 95 %); of 2 that truly gain 5 points or more 2",
	} {
		if !strings.Contains(collapse(text), collapse(want)) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	plots := t.TempDir()
	if err := plot(plots, dir); err != nil {
		t.Fatal(err)
	}
	drawn, err := os.ReadFile(filepath.Join(plots, "shift-dev-rho0.8-154.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(drawn, new(struct{})); err != nil || bytes.Count(drawn, []byte("<circle")) != 2*len(testSets) {
		t.Errorf("two recipes on four sets are drawn as (%v):\n%s", err, drawn)
	}
	if strings.Contains(text, "FINAL") {
		t.Errorf("the report tells of FINAL, which was not run:\n%s", text)
	}
}

// collapse makes one space of many.
func collapse(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestReportKeepsFinalApart(t *testing.T) {
	dir := writeStudy(t, final, map[string]string{"before1": "abab", "refit1": "aabb"})
	var out strings.Builder
	if err := printReport(&out, dir); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "FINAL, rho 0.8") || strings.Contains(out.String(), "DEV") {
		t.Errorf("results of FINAL alone are reported as:\n%s", out.String())
	}
}

func TestReportRefusesWhatDoesNotFit(t *testing.T) {
	if err := printReport(&strings.Builder{}, t.TempDir()); err == nil {
		t.Error("an empty folder has a report")
	}
	dir := writeStudy(t, dev, map[string]string{"before1": "abab"})
	bad := run{Split: split{Part: dev, Number: 1, Rho: .8}, Recipe: "refit", Order: 1, Size: 154, Said: map[string]string{"deployment": "abc"}}
	if err := writeJSON(filepath.Join(dir, "any", "bad.json"), bad); err != nil {
		t.Fatal(err)
	}
	if err := printReport(&strings.Builder{}, dir); err == nil || !strings.Contains(err.Error(), "bad.json: said: deployment has 3 letters") {
		t.Errorf("answers on other pictures are reported: %v", err)
	}
}

func TestFinalWantsACommittedChoice(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-c", "user.name=Test", "-c", "user.email=test@localhost"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	file := filepath.Join(dir, "bench", "shift", "ours.txt")
	write := func(text string) {
		t.Helper()
		if err := writeFile(file, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	git("init", "-q")
	write("refit\n")
	for _, choice := range []string{"", "\n", "no such recipe", "refit\n"} { // the last is a recipe, but not committed
		if err := committed(t.Context(), choice); err == nil || !strings.Contains(err.Error(), "ours.txt") {
			t.Errorf("FINAL runs with the choice %q: %v", choice, err)
		}
	}
	git("add", "-A")
	git("commit", "-qm", "the choice")
	if err := committed(t.Context(), "refit\n"); err != nil {
		t.Errorf("a choice that is committed is refused: %v", err)
	}
	write("foveal\n")
	if err := committed(t.Context(), "foveal\n"); err == nil {
		t.Error("FINAL runs with a choice that was changed after the commit")
	}
}
