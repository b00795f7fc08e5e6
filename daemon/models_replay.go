package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/seed-a98b2d25/fovea/adapt"
)

type modelsReplayVerb struct {
	samplesOf
	Name string `arg:"" name:"VERSION" help:"Number of the version, or the beginning of its digest."`
	JSON bool   `help:"As JSON."`
}

func (modelsReplayVerb) Help() string {
	return fmt.Sprintf(`Makes the version again, from its pack, its parent and the settings of its receipt, and compares. It says "same
digest"; or "equivalent", where program or machine are others than then and the verdict is the same and every figure
of the candidate within %g (in parts of figures above 1); or what differs, and ends with 1. The pack of the newest
promoted version alone is kept, since it holds pictures. It runs where nobody else wants to, as the daemon's do.

  fovea models replay 3`, replayTolerance)
}

// replayed is what a replay found.
type replayed struct {
	Version   int64    `json:"version"`
	Word      string   `json:"word"` // same digest, equivalent, differs
	Candidate string   `json:"candidate"`
	Differs   []string `json:"differs,omitempty"`
	Seconds   float64  `json:"seconds"`
}

func (v modelsReplayVerb) Run(ctx context.Context, out io.Writer) error {
	config, err := loadConfig(v.Config)
	if err != nil {
		return err
	}
	d, err := v.ask(ctx)
	switch {
	case err != nil:
		return err
	case d.Report == nil:
		return fmt.Errorf("version %d was not made by an adaptation here", d.Number)
	case d.Pack == "":
		return fmt.Errorf("the pack of version %d is no longer kept, or was purged with the samples", d.Number)
	case d.ParentWeights == "":
		return fmt.Errorf("the weights of the parent of version %d are no longer kept", d.Number)
	}
	after, err := again(ctx, config, d)
	if err != nil {
		return err
	}
	r := replayed{Version: d.Number, Candidate: after.Candidate, Seconds: after.Seconds}
	r.Word, r.Differs = sameRun(d.Report, after, d.Environment, environment())
	if v.JSON {
		if err := printJSON(out, r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "version %d: %s, %.12s in %.0f s\n", r.Version, r.Word, r.Candidate, r.Seconds)
		for _, what := range r.Differs {
			fmt.Fprintf(out, "  %s\n", printable(what))
		}
	}
	if r.Word == "differs" {
		return errors.New("the version was not made again")
	}
	return nil
}

// ask gets the receipt, and leaves the store to others.
func (v modelsReplayVerb) ask(ctx context.Context) (modelDetails, error) {
	c, err := v.dial(ctx)
	if err != nil {
		return modelDetails{}, err
	}
	defer c.close()
	return c.version(ctx, v.Name)
}

// again runs the child that made a version once more.
func again(ctx context.Context, config *Config, d modelDetails) (*adapt.RunReport, error) {
	work, err := os.MkdirTemp("", "fovea-replay-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	text, err := json.Marshal(d.Report.Settings)
	if err != nil {
		return nil, err
	}
	settings, out := filepath.Join(work, "settings.json"), filepath.Join(work, outDir)
	if err := os.WriteFile(settings, text, 0o600); err != nil {
		return nil, err
	}
	bar, stage := newProgress(-1, ""), ""
	defer bar.Finish() //nolint:errcheck // a bar
	t := trainer{
		arguments: []string{
			"adapt", "--pack", d.Pack, "--base", config.Model.Dir, "--parent", d.ParentWeights,
			"--settings", settings, "--out", out, "--backend", d.Report.Device, "--lines",
		},
		environment: config.Model.plugins().Environment(),
		busy:        1, hold: func() string { return "" }, paused: func(string) {}, log: slog.New(slog.DiscardHandler),
		progress: func(p adapt.Progress) {
			if p.Stage != stage {
				stage = p.Stage
				bar.Describe(stage)
			}
			bar.ChangeMax(max(p.Of, 1))
			_ = bar.Set(p.Done)
		},
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	return readRunReport(filepath.Join(out, reportFile))
}

func readRunReport(file string) (*adapt.RunReport, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r adapt.RunReport
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("the report of the adaptation: %w", err)
	}
	return &r, nil
}
