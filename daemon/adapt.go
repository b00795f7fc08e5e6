package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

type adaptVerb struct {
	Base    string `required:"" placeholder:"DIR" help:"Model folder to begin with; it needs a head."`
	Images  string `required:"" xor:"source" placeholder:"DIR" help:"Folder of jpg and png pictures; one in a folder named like a class of the model counts as labelled."`
	Masks   string `placeholder:"DIR" help:"Folder of masks: for a picture a/b.jpg the file a/b.png, bright where the object is. Without it they are found without labels (TokenCut), which needs a self-supervised backbone."`
	Cut     string `placeholder:"DIR" name:"mask-backbone" help:"Self-supervised model (DINOv2) that finds the masks; default: the base, if it is one."`
	Out     string `required:"" placeholder:"DIR" help:"Model folder to write; it must not exist."`
	Preset  string `default:"device" enum:"published,device" help:"device: for unlabelled pictures of a camera; published: the recipe of the paper, for labelled sets."`
	Backend string `default:"auto" enum:"${backends}" help:"What computes: ${enum}."`
	Seed    uint64 `default:"1" help:"Of the order, crops and flips, and of which pictures are held out."`
	JSON    bool   `help:"Print the report as JSON."`

	Pack     string `required:"" xor:"source" placeholder:"FILE" help:"Instead of --images: what the daemon packed of its samples. Makes the candidate that the daemon made, and judges it: the same pack, base, parent, settings and backend give the same digest."`
	Parent   string `placeholder:"FILE" help:"With --pack: weights of the live model; default: the base's."`
	Settings string `placeholder:"FILE" help:"With --pack: settings in JSON, as a receipt has them; default: the daemon's."`
	Lines    bool   `hidden:"" help:"With --pack: progress as lines of JSON; ends when standard input does. No labelled pictures are copied."`
	Maps     bool   `hidden:"" help:"With --pack: draw relevance maps of parent and candidate too, where the gate lets it pass."`

	Steps       *int     `help:"Steps instead of the preset's."`
	Batch       *int     `help:"Pictures a step instead of the preset's."`
	MicroBatch  *int     `help:"Pictures computed at a time: less memory, the same result."`
	FreezeBelow *int     `help:"Blocks before this one stay as they are; negative counts from the last."`
	Rate        *float64 `help:"Learning rate instead of the preset's."`
	WeightDecay *float64 `help:"Decoupled weight decay instead of the preset's."`
	Temperature *float64 `help:"Of the cross-entropy, instead of the preset's."`
}

func (adaptVerb) Help() string {
	return `Fine-tunes a model so that its relevance map lies on the object and not on the background (Chefer et al. 2022).
A fifth of the pictures is held out: they choose the step that is kept and give the figures. The output is a model
folder with a report in it: report/index.html shows losses, figures and maps before and after.

  fovea adapt --base models/mine --images shots --out models/tuned
  fovea adapt --base models/mine --images set --masks set-masks --out models/paper --preset published --steps 500
  fovea adapt --base models/mine --pack run.pack --out models/again      what the daemon does, on a workstation

Ctrl-C ends it; the output folder is then absent, never half-written.`
}

// settings are the preset's with what the command line changes.
func (v adaptVerb) settings(base *model.Checkpoint) (adapt.Settings, error) {
	s, err := adapt.Preset(v.Preset, base)
	if err != nil {
		return s, err
	}
	s.Seed = v.Seed
	override(&s.Steps, v.Steps)
	override(&s.Batch, v.Batch)
	override(&s.MicroBatch, v.MicroBatch)
	override(&s.FreezeBelow, v.FreezeBelow)
	override(&s.Rate, v.Rate)
	override(&s.AdamW.WeightDecay, v.WeightDecay)
	override(&s.Objective.Temperature, v.Temperature)
	return s, nil
}

func override[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (v adaptVerb) Run(ctx context.Context, out io.Writer) error {
	if err := mustNotExist(v.Out); err != nil {
		return fmt.Errorf("adapt: %w", err)
	}
	if v.Pack != "" {
		if err := v.runPack(ctx, os.Stdin, out); err != nil {
			return fmt.Errorf("adapt: %w", err)
		}
		return nil
	}
	base, err := model.Load(v.Base)
	if err != nil {
		return fmt.Errorf("adapt: %w", err)
	}
	if base.Config.Classes == 0 { // before masks are looked for, which takes minutes
		return fmt.Errorf("adapt: %s is a backbone without a head, so there is no class to explain: fit one with \"fovea head fit --base %s\"", v.Base, v.Base)
	}
	s, err := v.settings(base)
	if err != nil {
		return fmt.Errorf("adapt: %w", err)
	}
	backend, err := model.OpenBackend(v.Backend, model.FindPlugins())
	if err != nil {
		return fmt.Errorf("adapt: %w", err)
	}
	set, err := v.read(ctx, backend, base, s)
	if err != nil {
		return fmt.Errorf("adapt: %w", err)
	}

	bar := newProgress(int64(s.Steps), "tuning")
	tuned, r, err := adapt.FineTune(ctx, backend, base, set, s, func(step adapt.TuneStep) {
		bar.Describe(fmt.Sprintf("tuning, loss %.4f", step.Losses.Total))
		_ = bar.Add(1)
	})
	_ = bar.Finish()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("adapt: stopped after %d steps; nothing was written: %w", bar.State().CurrentNum, err)
	}
	if err != nil {
		return fmt.Errorf("adapt: %w", err)
	}

	tuned.Source = base.Source
	if err := writeFolder(v.Out, func(dir string) error { return v.write(dir, tuned, set, r) }); err != nil {
		return fmt.Errorf("adapt: %w", err)
	}
	if v.JSON {
		return printJSON(out, r)
	}
	printTuneReport(out, r)
	fmt.Fprintf(out, "\nWritten: %s. See %s\n", v.Out, filepath.Join(v.Out, "report", "index.html"))
	return nil
}

func (v adaptVerb) read(ctx context.Context, backend *model.Backend, base *model.Checkpoint, s adapt.Settings) (*adapt.TuneSet, error) {
	masks := adapt.MaskFolder(v.Masks)
	if v.Masks == "" {
		net, err := v.maskNet(backend, base)
		if err != nil {
			return nil, err
		}
		defer net.Close()
		masks = adapt.CutMasks(net, adapt.DefaultMasks)
	}
	bar := newProgress(-1, "pictures and masks")
	defer bar.Finish() //nolint:errcheck // a bar
	return adapt.ReadTuneSet(ctx, v.Images, masks, base, s, func(done, of int) {
		bar.ChangeMax(of)
		_ = bar.Set(done)
	})
}

// maskNet is the backbone whose features are cut. Those of a supervised one do not part object and background.
func (v adaptVerb) maskNet(backend *model.Backend, base *model.Checkpoint) (*model.Net, error) {
	if v.Cut != "" {
		var err error
		if base, err = model.Load(v.Cut); err != nil {
			return nil, err
		}
	}
	if !base.Config.LayerScale {
		return nil, fmt.Errorf("masks are found by a self-supervised backbone (DINOv2), which %s is not: name one by --mask-backbone, or give --masks", cmp.Or(v.Cut, v.Base))
	}
	return model.NewNet(backend, base)
}

// write fills the model folder: the checkpoint, the labelled pictures that came with the base, the report.
func (v adaptVerb) write(dir string, tuned *model.Checkpoint, set *adapt.TuneSet, r *adapt.TuneReport) error {
	if err := copyLabelled(v.Base, dir); err != nil {
		return err
	}
	report := filepath.Join(dir, "report")
	if err := os.Mkdir(report, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(report, "report.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := writeTunePage(report, tuned.Config, set, r); err != nil {
		return err
	}
	return tuned.Save(dir)
}

// copyLabelled takes the labelled pictures of a base along, if it has any.
func copyLabelled(base, dir string) error {
	err := os.CopyFS(filepath.Join(dir, adapt.LabelledDir), os.DirFS(filepath.Join(base, adapt.LabelledDir)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("labelled pictures of %s: %w", base, err)
	}
	return nil
}

// tuneRows are the figures of a report as a table: name, before, after.
func tuneRows(r *adapt.TuneReport) [][3]string {
	number := func(name, format string, before, after float64) [3]string {
		return [3]string{name, fmt.Sprintf(format, before), fmt.Sprintf(format, after)}
	}
	b, a := r.Before, r.After
	rows := [][3]string{
		number("relevance on the object", "%.3f", b.Foreground, a.Foreground),
		number("AUROC of relevance and mask", "%.3f", b.AUROC, a.AUROC),
		number("patches the map spreads over", "%.1f", b.Effective, a.Effective),
		number("loss, background", "%.4f", b.Losses.Background, a.Losses.Background),
		number("loss, foreground", "%.4f", b.Losses.Foreground, a.Losses.Foreground),
		number("loss, cross-entropy", "%.4f", b.Losses.Classification, a.Losses.Classification),
		number("loss, total", "%.4f", b.Losses.Total, a.Losses.Total),
		number("same first guess as the base", "%.3f", b.Agreement, a.Agreement),
		number("entropy, nats", "%.3f", b.Entropy, a.Entropy),
		{"classes predicted", fmt.Sprint(b.Classes), fmt.Sprint(a.Classes)},
	}
	if b.Accuracy != nil && a.Accuracy != nil {
		rows = append([][3]string{number("accuracy on the labelled ones", "%.3f", *b.Accuracy, *a.Accuracy)}, rows...)
	}
	return rows
}

func printTuneReport(out io.Writer, r *adapt.TuneReport) {
	fmt.Fprintf(out, "%d pictures trained on, %d held out", r.Train, r.Held)
	if r.Unsure > 0 {
		fmt.Fprintf(out, ", %d left out: the model is not sure of them", r.Unsure)
	}
	if r.Small > 0 {
		fmt.Fprintf(out, ", %d left out: the object covers under %.1f %%", r.Small, 100*r.Settings.MinMask)
	}
	printBad(out, r.Bad)
	fmt.Fprintf(out, "\n%d steps in %.0f s on %s, %s\n\n", len(r.Steps), r.Seconds, r.Device, chosen(r))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "on the held-out pictures\tbefore\tafter\t")
	for _, row := range tuneRows(r) {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", row[0], row[1], row[2])
	}
	_ = w.Flush()
}

// chosen says which step was kept.
func chosen(r *adapt.TuneReport) string {
	if r.Chosen == 0 {
		return "none of which lowered the loss on the held-out pictures: the output is the base, unchanged"
	}
	return fmt.Sprintf("step %d kept: the lowest loss on the held-out pictures", r.Chosen)
}
