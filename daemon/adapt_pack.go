package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

// reportFile holds the RunReport in a folder that adapt --pack wrote.
const reportFile = "report.json"

// runPack makes and judges a candidate: a pure function of base, parent, pack and settings, run by the daemon as a
// child, and by anyone who doubts it.
func (v adaptVerb) runPack(ctx context.Context, in io.Reader, out io.Writer) error {
	settings := adapt.DefaultRun.Seeded(v.Seed)
	if v.Settings != "" {
		text, err := os.ReadFile(v.Settings)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &settings); err != nil {
			return fmt.Errorf("settings %s: %w", v.Settings, err)
		}
	}
	base, err := model.Load(v.Base)
	if err != nil {
		return err
	}
	run := adapt.RunInput{Base: base, Parent: base}
	if v.Parent != "" {
		if run.Parent, err = base.WithWeights(v.Parent); err != nil {
			return fmt.Errorf("parent: %w", err)
		}
	}
	if run.Labelled, err = adapt.ReadLabelled(filepath.Join(v.Base, adapt.LabelledDir)); err != nil {
		return fmt.Errorf("%w; fit the head with \"fovea head fit\", which keeps them in the model folder", err)
	}
	if run.Pack, err = adapt.OpenPack(v.Pack); err != nil {
		return err
	}
	defer run.Pack.Close()
	backend, err := model.OpenBackend(v.Backend, model.FindPlugins())
	if err != nil {
		return err
	}

	tell, done := v.follow(out)
	if v.Lines {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() { // the daemon that started this is gone
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
	}
	candidate, report, err := adapt.Run(ctx, backend, run, settings, tell)
	done()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("stopped; nothing was written: %w", err)
	}
	if err != nil {
		return err
	}
	if err := writeFolder(v.Out, func(dir string) error {
		text, err := json.MarshalIndent(report, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, reportFile), append(text, '\n'), 0o644); err != nil {
			return err
		}
		if !v.Lines {
			if err := copyLabelled(v.Base, dir); err != nil {
				return err
			}
		}
		if v.Maps && report.Verdict.Decision == adapt.Promote {
			if err := writeMaps(ctx, filepath.Join(dir, mapsDir), backend, run.Parent, candidate, run.Pack); err != nil {
				return fmt.Errorf("maps: %w", err)
			}
		}
		return candidate.Save(dir)
	}); err != nil {
		return err
	}
	switch {
	case v.Lines:
		return nil
	case v.JSON:
		return printJSON(out, report)
	}
	printRunReport(out, report)
	fmt.Fprintf(out, "\nWritten: %s\n", v.Out)
	return nil
}

// follow returns what is told of the progress, and what ends it: lines for the daemon, a bar for people.
func (v adaptVerb) follow(out io.Writer) (tell func(adapt.Progress), done func()) {
	if v.Lines {
		lines := json.NewEncoder(out)
		return func(p adapt.Progress) { _ = lines.Encode(p) }, func() {}
	}
	bar := newProgress(-1, "")
	stage := ""
	return func(p adapt.Progress) {
		if p.Stage != stage {
			stage = p.Stage
			bar.Describe(stage)
		}
		bar.ChangeMax(max(p.Of, 1))
		_ = bar.Set(p.Done)
	}, func() { _ = bar.Finish() }
}

// printRunReport is the verdict with its checks.
func printRunReport(out io.Writer, r *adapt.RunReport) {
	fmt.Fprintf(out, "candidate  %s\nparent     %s\npack       %s\nin %.0f s on %s\n\n", r.Candidate, r.Parent, r.Pack, r.Seconds, r.Device)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range r.Verdict.Checks {
		word := "too few"
		if c.OK != nil {
			word = map[bool]string{true: "kept", false: "broken"}[*c.OK]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Name, word, c.Text)
	}
	_ = w.Flush()
	printVerdict(out, r)
}

// printVerdict is the decision on the candidate and, where two were judged, on the other.
func printVerdict(out io.Writer, r *adapt.RunReport) {
	fmt.Fprintf(out, "\n%s: %s\n", r.Verdict.Decision, r.Verdict.Reason)
	if o := r.Other; o != nil {
		fmt.Fprintf(out, "%s, %s: %s\n", map[bool]string{true: "the whole way", false: "half of the way"}[o.Share == 1], o.Verdict.Decision, o.Verdict.Reason)
	}
}
