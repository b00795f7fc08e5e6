package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
	"github.com/seed-a98b2d25/fovea/model"
)

// run is what one recipe did on one split: one JSON file.
type run struct {
	Split  split  `json:"split"`
	Recipe string `json:"recipe"`
	Order  int    `json:"order"` // of training, from 1
	Size   int    `json:"size"`  // side of the network's input
	machine
	Parent    string             `json:"parent"` // digests
	Candidate string             `json:"candidate"`
	Accuracy  map[string]float64 `json:"accuracy"` // of each test set, for people
	Said      map[string]string  `json:"said"`     // of each picture of each test set, the class as a letter from a on
	Points    []point            `json:"points"`   // none where it was not judged: a candidate that looks twice or is half of another, a split beyond -judged
	Training  any                `json:"training,omitempty"`
	Seconds   float64            `json:"seconds"` // to make, test and judge it; what was trained for another recipe is not trained again
}

// machine is where a run was made.
type machine struct {
	Commit    string `json:"commit"`
	Processor string `json:"processor"`
	Backend   string `json:"backend"`
	Plugin    string `json:"plugin"` // SHA-256
}

// point is a model on the way from the parent, 0, to the candidate, 1: the truth and what the gate sees without labels.
type point struct {
	Share      float64        `json:"share"`
	Deployment float64        `json:"deployment"` // true accuracy
	Collapsed  bool           `json:"collapsed"`
	Decision   adapt.Decision `json:"decision"`
	Failed     []string       `json:"failed,omitempty"` // checks
	Swap       adapt.Paired   `json:"labelled_swap_accuracy"`
	Follow     adapt.Paired   `json:"follow_index"`
}

// pictures says what the letters of run.Said are about: one file for all runs of a material.
type pictures struct {
	Material string               `json:"material"`
	Sets     map[string]testShots `json:"sets"`
}

type testShots struct {
	Classes []string `json:"classes,omitempty"` // the letters; empty: those of the cut-outs
	Objects []string `json:"objects"`           // CLASS/NAME; a group of near-duplicates is one object
	Scenes  []string `json:"scenes"`
	Of      [][2]int `json:"of"` // each picture's object and scene
}

// class is the letter of a picture's true class.
func (t testShots) class(i int) byte {
	name, _, _ := strings.Cut(t.Objects[t.Of[i][0]], "/")
	if t.Classes != nil {
		return 'a' + byte(slices.Index(t.Classes, name))
	}
	return 'a' + byte(slices.IndexFunc(collage.Classes, func(c collage.Class) bool { return c.Name == name }))
}

// right is the share of what was said right.
func (t testShots) right(said string) float64 {
	n := 0
	for i := range t.Of {
		if said[i] == t.class(i) {
			n++
		}
	}
	return float64(n) / float64(len(t.Of))
}

// picturesOf lists the test sets that an album has.
func picturesOf(material string, a album, perClass int) pictures {
	p := pictures{Material: material, Sets: map[string]testShots{}}
	for _, set := range testSets {
		shots := a.tests(set, perClass)
		if len(shots) == 0 {
			continue
		}
		t := testShots{Classes: a.classes()}
		index := func(list *[]string, name string) int {
			for i, have := range *list {
				if have == name {
					return i
				}
			}
			*list = append(*list, name)
			return len(*list) - 1
		}
		for _, s := range shots {
			t.Of = append(t.Of, [2]int{index(&t.Objects, s.object), index(&t.Scenes, s.scene)})
		}
		p.Sets[set] = t
	}
	return p
}

// measure makes, tests and judges one candidate. A run that is there is left as it is.
func (b *bench) measure(ctx context.Context, w *world, r recipe, order int) error {
	began := time.Now()
	c, err := r.make(ctx, w, uint64(order))
	if err != nil {
		return err
	}
	if b.keep != "" {
		if err := c.model.Save(filepath.Join(b.keep, fmt.Sprintf("%s-%s-%d", w.split, r.name, order))); err != nil {
			return err
		}
	}
	out := run{
		Split: *w.split, Recipe: r.name, Order: order, Size: b.size, machine: b.machine, Parent: w.in.Parent.Digest(), Candidate: c.model.Digest(),
		Accuracy: map[string]float64{}, Said: map[string]string{}, Training: c.training,
	}
	truth := picturesOf(w.material(), w.album, w.perClass)
	backbone := c.model.BackboneDigest()
	for set := range truth.Sets {
		if out.Said[set], err = w.answers(ctx, c, backbone, set); err != nil {
			return err
		}
		out.Accuracy[set] = truth.Sets[set].right(out.Said[set])
	}
	judge := (w.Rho == .8 || w.Part == data) && w.Number <= b.judged && !c.judged
	if judge && c.second == once && r.name != recipes[0].name {
		if out.Points, err = b.points(ctx, w, c, truth.Sets["deployment"], out.Said["deployment"]); err != nil {
			return err
		}
	}
	out.Seconds = time.Since(began).Seconds()
	fmt.Printf("%s %-20s %d  ", w.split, r.name, order)
	for _, set := range testSets {
		if a, have := out.Accuracy[set]; have {
			fmt.Printf("%s %.3f  ", set, a)
		}
	}
	fmt.Printf("%s  %.0f s\n", out.decision(), out.Seconds)
	return writeJSON(b.file(w.split, r.name, order), out)
}

func (r run) decision() adapt.Decision {
	if len(r.Points) == 0 {
		return ""
	}
	return r.Points[0].Decision
}

// shares are the points on the way to a candidate that are judged beside it.
var shares = []float64{1, .5}

// points judges the candidate and weaker ones without labels, beside the truth.
func (b *bench) points(ctx context.Context, w *world, c *candidate, truth testShots, said string) ([]point, error) {
	if err := w.openEval(ctx); err != nil {
		return nil, err
	}
	var list []point
	for _, share := range shares {
		at := *c
		if share != 1 {
			at.model = adapt.Between(w.in.Parent, c.model, share)
			var err error
			if said, err = w.answers(ctx, &at, at.model.BackboneDigest(), "deployment"); err != nil {
				return nil, err
			}
		}
		looked, err := w.eval.Look(ctx, w.backend, at.model, nil)
		if err != nil {
			return nil, err
		}
		figures := w.eval.Compare(w.said, w.said, looked)
		verdict := adapt.Judge(figures, adapt.DefaultThresholds)
		p := point{
			Share: share, Deployment: truth.right(said), Collapsed: collapsed(said), Decision: verdict.Decision,
			Swap: figures.LabelledSwap, Follow: figures.Follow,
		}
		for _, check := range verdict.Checks {
			if check.OK == nil || !*check.OK {
				p.Failed = append(p.Failed, check.Name)
			}
		}
		list = append(list, p)
	}
	return list, nil
}

// openEval draws what the gate looks at and asks the parent.
func (w *world) openEval(ctx context.Context) error {
	if w.eval != nil {
		return nil
	}
	held, err := w.backgrounds(ctx, string(adapt.Held))
	if err != nil {
		return err
	}
	if w.eval, err = w.in.EvalSet(ctx, w.backend, held, adapt.DefaultEval); err != nil {
		return err
	}
	w.said, err = w.eval.Look(ctx, w.backend, w.in.Parent, nil)
	return err
}

// file is where a run lies.
func (b *bench) file(s *split, recipe string, order int) string {
	return filepath.Join(b.results, fmt.Sprintf("%s-%d", s, b.size), fmt.Sprintf("%s-%d.json", recipe, order))
}

// done tells whether a run is there already.
func (b *bench) done(s *split, recipe string, order int) bool {
	_, err := os.Stat(b.file(s, recipe, order))
	return err == nil
}

// keepPictures writes what the test pictures show, or checks that they are what earlier runs saw.
func (b *bench) keepPictures(s *split, a album) error {
	shown := picturesOf(s.material(), a, b.perClass)
	file := filepath.Join(b.results, "pictures-"+s.material()+".json")
	want, err := json.Marshal(shown)
	if err != nil {
		return err
	}
	have, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return writeJSON(file, shown)
	}
	if err == nil && strings.TrimSpace(string(have)) != string(want) {
		return fmt.Errorf("%s tells of other pictures than these: results of two kinds must not lie in one folder, give another -results", file)
	}
	return err
}

func writeJSON(file string, v any) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(file, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// thisMachine reads what a run notes of where it was made.
func thisMachine(ctx context.Context, b *model.Backend) (machine, error) {
	m := machine{Backend: b.Kind}
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
		// Results are written while the benchmark runs: they do not make the program another one.
		if out, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ":/*.go", ":/go.mod").Output(); err != nil || len(out) > 0 {
			m.Commit += "+"
		}
	}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan() && m.Processor == ""; {
			if key, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
				m.Processor = strings.TrimSpace(value)
			}
		}
	}
	if b.Plugin == "" {
		return m, nil
	}
	f, err := os.Open(b.Plugin)
	if err != nil {
		return m, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return m, err
	}
	m.Plugin = hex.EncodeToString(h.Sum(nil))
	return m, nil
}
