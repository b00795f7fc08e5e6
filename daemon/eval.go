package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

type evalVerb struct {
	Model   string `required:"" placeholder:"DIR" help:"Model folder with a head."`
	Data    string `required:"" placeholder:"DIR" help:"Folder of class folders with jpg and png pictures, named as the model's labels."`
	Backend string `default:"auto" enum:"${backends}" help:"What computes: ${enum}."`
	Foveal  bool   `help:"Measure second looks too, inside a box around the object: at every picture that shows one, and at those alone of which the first look is unsure."`
	JSON    bool   `help:"Print the report as JSON."`
}

func (evalVerb) Help() string {
	return `Prints how often the first guess and one of the first five guesses are right, with 95 % intervals, for each
class and over all, and what was taken for what.

  fovea eval --model models/mine --data photos-of-today
  fovea eval --model models/mine --data models/mine/labelled/accept    what the head never saw
  fovea eval --model models/mine --data photos-of-today --foveal       is inference.foveal worth it?`
}

// evalReport is what fovea eval found.
type evalReport struct {
	Model  string             `json:"model"` // digest
	Device string             `json:"device"`
	Bad    []adapt.BadPicture `json:"bad"`
	Top1   *score             `json:"top1"`
	Top5   proportion         `json:"top5"`
	Foveal []fovealScore      `json:"foveal,omitempty"` // with --foveal: as inference.foveal off, auto and on
}

// proportion is a share with its 95 % interval by Wilson.
type proportion struct {
	Right int     `json:"right"`
	Of    int     `json:"of"`
	Share float64 `json:"share"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

func newProportion(right, of int) proportion {
	p := proportion{Right: right, Of: of}
	p.Low, p.High = adapt.Wilson(right, of)
	if of > 0 {
		p.Share = float64(right) / float64(of)
	}
	return p
}

func (p proportion) String() string {
	if p.Of == 0 {
		return "none"
	}
	return fmt.Sprintf("%5.1f %%  (95 %%: %.1f to %.1f)  %d of %d", 100*p.Share, 100*p.Low, 100*p.High, p.Right, p.Of)
}

// score is a confusion table with its figures.
type score struct {
	Pictures  int              `json:"pictures"`
	Groups    int              `json:"groups"` // objects; pictures of one are not independent
	Accuracy  proportion       `json:"accuracy"`
	Macro     float64          `json:"macro"` // mean over the classes; 0 without pictures
	Classes   []proportion     `json:"classes"`
	Confusion *adapt.Confusion `json:"confusion"`
}

func newScore(t *adapt.Confusion, groups int) *score {
	right, of := t.Total()
	s := &score{Pictures: of, Groups: groups, Accuracy: newProportion(right, of), Confusion: t}
	if of > 0 {
		s.Macro = t.Macro()
	}
	for class := range t.Labels {
		s.Classes = append(s.Classes, newProportion(t.Right(class)))
	}
	return s
}

func (s *score) print(out io.Writer) {
	fmt.Fprintf(out, "  right %v, %d objects; mean over classes %.1f %%\n\n", s.Accuracy, s.Groups, 100*s.Macro)
	for line := range strings.Lines(s.Confusion.String()) {
		fmt.Fprint(out, "  ", line)
	}
}

func (v evalVerb) Run(ctx context.Context, out io.Writer) error {
	set, err := adapt.ReadLabelled(v.Data)
	if err != nil {
		return fmt.Errorf("eval: %w", err)
	}
	net, err := openNet(v.Model, v.Backend)
	if err != nil {
		return fmt.Errorf("eval: %w", err)
	}
	defer net.Close()
	classes := net.Config.Classes
	own, err := matchLabels(set.Classes, net.Config)
	if err != nil {
		return fmt.Errorf("eval: %s: %w", v.Data, err)
	}

	var logits []float32 // [pictures, classes]
	bar := newProgress(int64(len(set.Pictures)), "pictures")
	err = set.Run(ctx, net.Net, 0, func() { _ = bar.Add(1) }, func(o *model.Output) { logits = append(logits, o.Logits...) })
	_ = bar.Finish()
	if err != nil {
		return fmt.Errorf("eval: %w", err)
	}

	labels := make([]string, classes)
	for i := range labels {
		labels[i] = net.Config.Label(i)
	}
	table, inFive := adapt.NewConfusion(labels), 0
	for i, p := range set.Pictures {
		order := ranking(logits[i*classes : (i+1)*classes])
		table.Add(own[p.Class], order[0])
		if slices.Contains(order[:min(5, classes)], own[p.Class]) {
			inFive++
		}
	}
	r := &evalReport{
		Model: net.Digest, Device: net.device, Bad: set.Bad,
		Top1: newScore(table, set.Objects()), Top5: newProportion(inFive, len(set.Pictures)),
	}
	if v.Foveal {
		if r.Foveal, err = evalFoveal(ctx, net.Net, set, own); err != nil {
			return fmt.Errorf("eval: %w", err)
		}
	}
	if v.JSON {
		return printJSON(out, r)
	}
	r.print(out)
	return nil
}

func (r *evalReport) print(out io.Writer) {
	fmt.Fprintf(out, "%d pictures", r.Top1.Pictures)
	printBad(out, r.Bad)
	fmt.Fprintf(out, "first guess      %v\n", r.Top1.Accuracy)
	if len(r.Top1.Classes) > 5 {
		fmt.Fprintf(out, "first five       %v\n", r.Top5)
	}
	fmt.Fprintf(out, "mean of classes  %5.1f %%\n\n", 100*r.Top1.Macro)
	width := 0
	for _, l := range r.Top1.Confusion.Labels {
		width = max(width, len([]rune(l)))
	}
	seen := 0
	for i, p := range r.Top1.Classes {
		if p.Of > 0 {
			fmt.Fprintf(out, "  %-*s %v\n", width, r.Top1.Confusion.Labels[i], p)
			seen++
		}
	}
	if r.Foveal != nil {
		fmt.Fprintln(out)
	}
	for _, f := range r.Foveal {
		fmt.Fprintf(out, "foveal %-4s %v, %d looked at twice, %d answers changed; %.1f ms a picture, %.1f ms for a second look\n", f.Mode, f.Accuracy, f.Twice, f.Changed, f.PictureMS, f.SecondMS)
	}
	if len(r.Top1.Classes) <= 20 { // a table that still fits a screen
		fmt.Fprintf(out, "\n%v", r.Top1.Confusion)
	}
}

// matchLabels finds the model's class of each class folder.
func matchLabels(folders []string, c model.Config) ([]int, error) {
	own := make([]int, len(folders))
	var unknown []string
	for i, name := range folders {
		if own[i] = slices.Index(c.Labels, name); own[i] < 0 {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		known := c.Labels
		if len(known) > 12 {
			known = append(slices.Clone(known[:12]), "...")
		}
		return nil, fmt.Errorf("the model has no label %s; it has %s: rename the folders", quoted(unknown), quoted(known))
	}
	return own, nil
}

func quoted(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, ", ")
}

// ranking returns the classes from the likeliest on; of equal ones the first comes first.
func ranking(logits []float32) []int {
	order := make([]int, len(logits))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	return order
}

// verbNet is a net with the name of its backend.
type verbNet struct {
	*model.Net
	device string
}

// openNet loads a model that has a head, for a verb.
func openNet(dir, backend string) (*verbNet, error) {
	c, err := model.Load(dir)
	if err != nil {
		return nil, err
	}
	if c.Config.Classes == 0 {
		return nil, fmt.Errorf("%s is a backbone without a head: fit one to your classes with \"fovea head fit --base %s\"", dir, dir)
	}
	b, err := model.OpenBackend(backend, model.FindPlugins())
	if err != nil {
		return nil, err
	}
	net, err := model.NewNet(b, c)
	if err != nil {
		return nil, err
	}
	return &verbNet{net, b.Kind}, nil
}

// printBad ends a line about pictures with those that were left out, naming the first ten.
func printBad(out io.Writer, bad []adapt.BadPicture) {
	if len(bad) == 0 {
		fmt.Fprintln(out)
		return
	}
	fmt.Fprintf(out, "; left out %d:\n", len(bad))
	for _, b := range bad[:min(10, len(bad))] {
		fmt.Fprintf(out, "  %s: %s\n", b.File, b.Problem)
	}
	if len(bad) > 10 {
		fmt.Fprintf(out, "  and %d more\n", len(bad)-10)
	}
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
