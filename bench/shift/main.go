// Shift measures recipes where the background goes with the class: a device has labelled pictures whose scenes give
// the class away, unlabelled frames of its own four views, and is asked about objects that nobody showed it.
//
//	go run ./bench/shift -base build/weights/dinov2              the forward-only recipes, on every split of dev
//	go run ./bench/shift -base ... -recipes all                  and those that train: hours on two cores
//	go run ./bench/shift -base ... -final                        the same on what dev never touched, once
//	go run ./bench/shift -base ... -data FOLDER                  the same on pictures of yours (data.go says how they lie)
//	go run ./bench/shift -report                                 the tables of the results in the repository
//	go run ./bench/shift -base ... -quick                        two small splits, in minutes
//	go run ./bench/shift -base ... -sheet build/shift.png        what the pictures of a split look like
//
// Cut-outs and photographs are of Debian's packages (bench/internal/collage). final.txt lists what is kept for FINAL.
// A run is one JSON file; one that is there is not repeated, so a benchmark that was stopped goes on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
	"github.com/seed-a98b2d25/fovea/model"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("shift: ")
	var b bench
	flag.StringVar(&b.base, "base", "build/weights/dinov2", "`folder` of the backbone")
	flag.StringVar(&b.share, "share", "/usr/share", "`folder` of the Debian packages' pictures")
	flag.StringVar(&b.cache, "cache", "build/shift", "`folder` for pictures and features; may be removed")
	flag.StringVar(&b.results, "results", "bench/shift/results", "`folder` of the results")
	flag.StringVar(&b.recipes, "recipes", "", "names, with commas, of recipes or kinds: forward (default), train, ceiling, bad, all; with -quick by default those that matter most")
	flag.StringVar(&b.backend, "backend", "auto", "what computes")
	flag.StringVar(&b.sheet, "sheet", "", "draw pictures of the first split into this `file` instead")
	flag.IntVar(&b.size, "size", 154, "side of the network's input: 154 or 224")
	flag.IntVar(&b.splits, "splits", 8, "splits at rho .8")
	flag.IntVar(&b.others, "others", 3, "splits at rho .6 and at rho 1")
	flag.IntVar(&b.from, "from", 1, "number of the first split: two processes may do different ones")
	flag.IntVar(&b.judged, "judged", 4, "splits at rho .8 on which the gate judges each candidate, which takes longer than to make it")
	flag.IntVar(&b.most, "orders", 2, "orders of training of a recipe in which there is one")
	flag.IntVar(&b.perClass, "pictures", 80, "pictures a class in each test set")
	flag.IntVar(&b.labelled, "labelled", 40, "labelled pictures a class")
	flag.IntVar(&b.steps, "steps", 300, "steps of 8 pictures of what trains: what a device can spend")
	flag.BoolVar(&b.final, "final", false, "measure what dev never touched: before and the recipe that ours.txt names, beside its rivals")
	flag.StringVar(&b.data, "data", "", "measure on pictures of yours instead: a `folder` of labelled/CLASS/, frames/CAMERA/ and deployment/CLASS/")
	flag.BoolVar(&b.quick, "quick", false, "two splits of 20 pictures a class, one order of training and the recipes that matter most, into the cache")
	flag.BoolVar(&b.report, "report", false, "print the tables of the results instead")
	flag.StringVar(&b.keep, "keep", "", "`folder` for the models that are made, to look at: fovea look --model")
	flag.StringVar(&b.plot, "plot", "", "with -report: `folder` for the same as pictures")
	flag.BoolVar(&b.freeze, "freeze", false, "print what final.txt was drawn as instead")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	base, share, cache, results, recipes, backend, sheet                string
	keep, plot, data                                                    string
	size, splits, others, from, judged, most, perClass, labelled, steps int
	final, quick, report, freeze                                        bool

	machine machine
}

func (b *bench) run(ctx context.Context) error {
	if b.report {
		if b.plot != "" {
			if err := plot(b.plot, b.results); err != nil {
				return err
			}
		}
		return printReport(os.Stdout, b.results)
	}
	if b.recipes == "" {
		b.recipes = string(forward)
		if b.quick {
			b.recipes = "before,foveal-auto,foveal-fit,refit-labelled,refit,foveal+refit-auto,foveal-fit+refit-auto"
		}
	}
	if b.data != "" {
		return b.measureData(ctx)
	}
	if b.quick {
		b.splits, b.others, b.most, b.judged, b.perClass = 2, 0, 1, 0, 20
		b.results, b.cache = filepath.Join(b.cache, "quick", "results"), filepath.Join(b.cache, "quick")
	}
	cutouts, err := collage.ReadCutouts(b.share)
	if err != nil {
		return err
	}
	if b.freeze {
		fmt.Print(freeze(cutouts))
		return nil
	}
	kept, err := readFrozen(finalText)
	if err != nil {
		return err
	}
	p := dev
	if b.final {
		p = final
		if err := committed(ctx, oursText); err != nil {
			return err
		}
	}
	splits, err := b.draw(p, cutouts, kept)
	if err != nil {
		return err
	}
	photographs := &collage.Photographs{Share: b.share}
	if b.sheet != "" {
		d, err := newStudio(splits[0], photographs, b.labelled)
		if err != nil {
			return err
		}
		return drawSheet(d, b.sheet)
	}
	list, err := b.chosen()
	if err != nil {
		return err
	}
	if err := b.measureAll(ctx, splits, list, photographs); err != nil {
		return err
	}
	if b.quick {
		return printReport(os.Stdout, b.results)
	}
	return nil
}

// draw makes the splits, those at rho .8 first.
func (b *bench) draw(p part, cutouts []collage.Cutout, kept frozen) ([]*split, error) {
	var splits []*split
	for _, kind := range []struct {
		rho float64
		n   int
	}{{.8, b.splits}, {.6, b.others}, {1, b.others}} {
		for number := range kind.n {
			s, err := newSplit(p, number+1, kind.rho, cutouts, kept)
			if err != nil {
				return nil, err
			}
			splits = append(splits, s)
		}
	}
	return splits, nil
}

// chosen are the recipes to run.
func (b *bench) chosen() ([]recipe, error) {
	var list []recipe
	for _, name := range strings.Split(b.recipes, ",") {
		switch name {
		case "all", string(forward), string(trains), string(ceiling), string(wrong):
			for _, r := range recipes {
				if name == "all" || r.kind == kind(name) {
					list = append(list, r)
				}
			}
		default:
			r, err := find(name)
			if err != nil {
				return nil, err
			}
			list = append(list, r)
		}
	}
	return list, nil
}

// measureAll goes split by split through what is not there yet.
func (b *bench) measureAll(ctx context.Context, splits []*split, list []recipe, photographs *collage.Photographs) error {
	var backend *model.Backend
	var backbone *model.Checkpoint
	for _, s := range splits {
		if s.Number < b.from || b.complete(s, list) {
			continue
		}
		if backend == nil {
			var err error
			if backend, backbone, err = b.open(ctx); err != nil {
				return err
			}
		}
		if err := b.measureSplit(ctx, s, list, backend, backbone, photographs); err != nil {
			return fmt.Errorf("split %s: %w", s, err)
		}
	}
	return nil
}

func (b *bench) complete(s *split, list []recipe) bool {
	for _, r := range list {
		for order := range b.orders(r) {
			if !b.done(s, r.name, order+1) {
				return false
			}
		}
	}
	return true
}

// orders is how many orders of training of a recipe are tried.
func (b *bench) orders(r recipe) int { return min(r.orders, b.most) }

func (b *bench) open(ctx context.Context) (*model.Backend, *model.Checkpoint, error) {
	backbone, err := model.LoadAt(b.base, b.size, b.size)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: \"make demo\" makes it", err)
	}
	// The whole picture, as "fovea head fit --view whole" does for a fixed camera.
	backbone.Preprocess.KeepAspect, backbone.Preprocess.ResizeHeight, backbone.Preprocess.ResizeWidth = false, b.size, b.size
	backbone.Config.Classes, backbone.Config.Labels, backbone.Config.Readout = 0, nil, model.ReadClass
	backend, err := model.OpenBackend(b.backend, model.FindPlugins())
	if err != nil {
		return nil, nil, err
	}
	b.machine, err = thisMachine(ctx, backend)
	return backend, backbone, err
}

func (b *bench) measureSplit(ctx context.Context, s *split, list []recipe, backend *model.Backend, backbone *model.Checkpoint, photographs *collage.Photographs) error {
	d, err := newStudio(s, photographs, b.labelled)
	if err != nil {
		return err
	}
	return b.measureOn(ctx, s, d, list, backend, backbone)
}

// measureOn goes through what is not there yet of a split whose pictures an album has.
func (b *bench) measureOn(ctx context.Context, s *split, a album, list []recipe, backend *model.Backend, backbone *model.Checkpoint) error {
	if err := b.keepPictures(s, a); err != nil {
		return err
	}
	w, err := openWorld(ctx, backend, backbone, filepath.Join(b.cache, fmt.Sprint(b.size)), s, a, b.perClass, b.labelled, b.steps)
	if err != nil {
		return err
	}
	defer w.close()
	for _, r := range list {
		for order := 1; order <= b.orders(r); order++ {
			if b.done(s, r.name, order) {
				continue
			}
			if err := b.measure(ctx, w, r, order); err != nil {
				return fmt.Errorf("recipe %s, order %d: %w", r.name, order, err)
			}
		}
	}
	return nil
}

// committed refuses FINAL as long as the choice is not made and committed: it must not be made in its light.
func committed(ctx context.Context, chosen string) error {
	chosen = strings.TrimSpace(chosen)
	if chosen == "" {
		return errors.New("final: bench/shift/ours.txt names no recipe: choose one by dev's table, and commit it")
	}
	if _, err := find(chosen); err != nil {
		return fmt.Errorf("final: bench/shift/ours.txt: %w", err)
	}
	out, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ":/bench/shift/*.go", ":/bench/shift/*.txt", ":/adapt", ":/model").CombinedOutput()
	if err != nil {
		return fmt.Errorf("final: git status: %w: %s", err, out)
	}
	if len(out) > 0 {
		return fmt.Errorf("final: recipe %q is not committed as it is now, commit first:\n%s", chosen, out)
	}
	return nil
}
