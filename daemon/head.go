package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

type headVerb struct {
	Fit headFitVerb `cmd:"" help:"Fit a head to your own classes, from a folder of pictures for each."`
}

type headFitVerb struct {
	Base    string `required:"" placeholder:"DIR" help:"Model whose backbone is used; a head that it has is replaced."`
	Data    string `required:"" placeholder:"DIR" help:"Folder of class folders with jpg and png pictures."`
	Out     string `required:"" placeholder:"DIR" help:"Model folder to write; it must not exist."`
	Backend string `default:"auto" enum:"${backends}" help:"What computes: ${enum}."`
	Readout string `default:"class" enum:"class,class+mean" help:"What the head reads: the class token (class, which adaptation needs), or the mean of the patches beside it (class+mean)."`
	View    string `default:"model" enum:"model,whole" help:"What the network sees of a picture: what the model's own preprocessing cuts out of it (model), or all of it, squeezed (whole), as suits a fixed camera."`
	Size    int    `default:"0" placeholder:"PIXELS" help:"Side of the network's input, a multiple of its patch; 0: the model's own."`
	Foveal  bool   `default:"true" negatable:"" help:"Fit on second views too, each of them cut around the object of a picture: for a model that looks twice (inference.foveal)."`
	Seed    uint64 `default:"1" help:"Which groups fall into which fold of the cross-validation."`
	JSON    bool   `help:"Print the report as JSON."`
}

func (headFitVerb) Help() string {
	return `The folder holds one folder for each class. Pictures of one object belong into a folder of their own inside
it; of the others, near-duplicates are found by themselves. A quarter of the objects is kept apart and never
fitted on; the pictures become part of the model, in labelled/fit and labelled/accept.

  photos/cup/one.jpg  photos/cup/blue/1.jpg  photos/cup/blue/2.jpg  photos/key/...

  fovea head fit --base models/base --data photos --out models/mine
  fovea head fit --base models/base --data models/mine/labelled --out models/again   the same split again

Some 20 objects a class are a beginning. A file NAME.mask.png beside a picture, bright where the object is, is
kept with it.`
}

// headReport is what fovea head fit found; it lies in the model folder as head.json.
type headReport struct {
	Labels     []string           `json:"labels"`
	Pictures   int                `json:"pictures"`
	Groups     int                `json:"groups"`
	Views      int                `json:"second_views"` // that were fitted on beside the pictures
	Bad        []adapt.BadPicture `json:"bad"`
	Single     []string           `json:"single"` // classes of one group, of which nothing is kept apart
	L2         float64            `json:"l2"`
	Folds      int                `json:"folds"`
	Seed       uint64             `json:"seed"`
	Validation *score             `json:"validation"`
	Acceptance *score             `json:"acceptance"`
	Base       string             `json:"base"`   // digest
	Model      string             `json:"model"`  // digest
	Device     string             `json:"device"` // backend
	Seconds    float64            `json:"seconds"`
}

// headReportName is the report's file in the model folder.
const headReportName = "head.json"

func (v headFitVerb) Run(ctx context.Context, out io.Writer) error {
	started := time.Now()
	if err := mustNotExist(v.Out); err != nil {
		return fmt.Errorf("head fit: %w", err)
	}
	set, err := adapt.ReadLabelled(v.Data)
	if err != nil {
		return fmt.Errorf("head fit: %w", err)
	}
	if len(set.Classes) < 2 {
		return fmt.Errorf("head fit: %s holds one class, %s: a head needs two or more", v.Data, set.Classes[0])
	}
	c, err := v.backbone()
	if err != nil {
		return fmt.Errorf("head fit: %w", err)
	}
	backend, err := model.OpenBackend(v.Backend, model.FindPlugins())
	if err != nil {
		return fmt.Errorf("head fit: %w", err)
	}

	r := &headReport{Labels: set.Classes, Seed: v.Seed, Base: c.Digest(), Device: backend.Kind}
	x, width, e, err := v.examples(ctx, backend, c, set, r)
	if err != nil {
		return fmt.Errorf("head fit: %w", err)
	}
	fit, err := v.fit(ctx, set, e)
	if err != nil {
		return fmt.Errorf("head fit: %w", err)
	}
	if err := fit.Into(c, model.Readout(v.Readout), set.Classes); err != nil {
		return fmt.Errorf("head fit: %w", err)
	}
	accept := adapt.NewConfusion(set.Classes)
	for i, p := range set.Pictures {
		if p.Part == adapt.Accept {
			accept.Add(p.Class, fit.Predict(x[i*width:(i+1)*width]))
		}
	}
	r.Pictures, r.Groups, r.Bad = len(set.Pictures), set.Groups(""), set.Bad
	r.L2, r.Folds = fit.L2, fit.Folds
	r.Validation, r.Acceptance = newScore(fit.Validation, set.Groups(adapt.Fit)), newScore(accept, set.Groups(adapt.Accept))
	r.Model, r.Seconds = c.Digest(), time.Since(started).Seconds()

	if err := writeModel(v.Out, c, set, r); err != nil {
		return fmt.Errorf("head fit: %w", err)
	}
	if v.JSON {
		return printJSON(out, r)
	}
	r.print(out)
	fmt.Fprintf(out, "\nWritten: %s. Try it: fovea eval --model %s --data %s\n", v.Out, v.Out, filepath.Join(v.Out, adapt.LabelledDir, string(adapt.Accept)))
	return nil
}

// backbone loads the base without its head, at the size and view that were asked for.
func (v headFitVerb) backbone() (*model.Checkpoint, error) {
	c, err := model.Load(v.Base)
	if err == nil && v.Size != 0 {
		c, err = model.LoadAt(v.Base, v.Size, v.Size)
	}
	if err != nil {
		return nil, err
	}
	if v.View == "whole" {
		c.Preprocess.KeepAspect = false
		c.Preprocess.ResizeHeight, c.Preprocess.ResizeWidth = c.Preprocess.Height, c.Preprocess.Width
	}
	c.Config.Classes, c.Config.Labels, c.Config.Readout = 0, nil, model.ReadClass
	return c, nil
}

// examples runs the set through the backbone, divides it, and gathers what is fitted on; x is what a head reads of each
// picture, [pictures, width]. The net's memory is given back before the head is fitted.
func (v headFitVerb) examples(ctx context.Context, b *model.Backend, c *model.Checkpoint, set *adapt.Labelled, r *headReport) (x []float32, width int, e *adapt.Examples, err error) {
	net, err := model.NewNet(b, c)
	if err != nil {
		return nil, 0, nil, err
	}
	defer net.Close()
	readout := model.Readout(v.Readout)
	bar := newProgress(int64(len(set.Pictures)), "features")
	defer bar.Finish() //nolint:errcheck // a bar
	if x, width, err = set.Features(ctx, net, readout, func() { _ = bar.Add(1) }); err != nil {
		return nil, 0, nil, err
	}
	if !set.Divided() {
		set.Group(x, width)
		r.Single = set.Split()
	}
	e = &adapt.Examples{Width: width, Classes: len(set.Classes)}
	add := func(i int, x []float32) {
		p := set.Pictures[i]
		e.X, e.Class, e.Group = append(e.X, x...), append(e.Class, p.Class), append(e.Group, p.Group)
	}
	for i, p := range set.Pictures {
		if p.Part == adapt.Fit {
			add(i, x[i*width:(i+1)*width])
		}
	}
	if !v.Foveal {
		return x, width, e, nil
	}
	bar.Reset()
	bar.ChangeMax(len(e.Class))
	bar.Describe("second views")
	views, of, err := set.SecondViews(ctx, net, readout, adapt.Fit, func() { _ = bar.Add(1) })
	for n, i := range of {
		add(i, views[n*width:(n+1)*width])
	}
	r.Views = len(of)
	return x, width, e, err
}

func (v headFitVerb) fit(ctx context.Context, set *adapt.Labelled, e *adapt.Examples) (*adapt.HeadFit, error) {
	bar := newProgress(1, "head")
	defer bar.Finish() //nolint:errcheck // a bar
	return adapt.FitHead(ctx, e, set.Classes, v.Seed, func(step, steps int) {
		bar.ChangeMax(steps)
		_ = bar.Set(step)
	})
}

// writeModel fills the model folder: the labelled pictures, the report, the checkpoint.
func writeModel(dir string, c *model.Checkpoint, set *adapt.Labelled, r *headReport) error {
	return writeFolder(dir, func(temp string) error {
		if err := set.WriteTo(filepath.Join(temp, adapt.LabelledDir)); err != nil {
			return err
		}
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(temp, headReportName), append(text, '\n'), 0o644); err != nil {
			return err
		}
		return c.Save(temp)
	})
}

func (r *headReport) print(out io.Writer) {
	fmt.Fprintf(out, "%d pictures of %d objects in %d classes", r.Pictures, r.Groups, len(r.Labels))
	printBad(out, r.Bad)
	fmt.Fprintf(out, "\nCross-validation of pictures and %d second views, %d folds, no object in two of them (L2 %g):\n", r.Views, r.Folds, r.L2)
	r.Validation.print(out)
	if r.Acceptance.Pictures == 0 {
		fmt.Fprintln(out, "\nKept apart: nothing. Every class shows one object only; add pictures of others.")
		return
	}
	fmt.Fprintln(out, "\nKept apart, never fitted on:")
	r.Acceptance.print(out)
	if len(r.Single) > 0 {
		fmt.Fprintf(out, "\nOne object only, so nothing of it is kept apart: %s. Add pictures of others.\n", strings.Join(r.Single, ", "))
	}
}
