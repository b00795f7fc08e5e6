package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
)

// versionName is how a version of this device's model is named: by its number, or the beginning of a digest.
var versionName = regexp.MustCompile(`^([0-9]{1,9}|[0-9a-f]{6,64})$`)

type modelsListVerb struct {
	samplesOf
	Record int  `default:"10" help:"How many entries of the record are shown, newest first."`
	JSON   bool `help:"As JSON."`
}

func (modelsListVerb) Help() string {
	return `Each model that adaptation made is a version of its own; nothing is overwritten. Labelled-swap is the accuracy on
labelled objects laid on the backgrounds of the cameras, of the parent and of the version, as the gate measured it.

  fovea models list
  fovea models show 3          what the gate said of version 3, check by check
  fovea models rollback        the last good version is live again`
}

func (v modelsListVerb) Run(ctx context.Context, out io.Writer) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var list modelsList
	if err := c.do(ctx, http.MethodGet, "/api/models", nil, decodeTo(&list)); err != nil {
		return err
	}
	if v.JSON {
		return printJSON(out, list)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tSTATE\tPARENT\tCREATED\tPROMOTED\tPROBATION\tLABELLED-SWAP\tSHA256\t")
	for _, m := range list.Versions {
		swap := "-"
		if m.Before != nil && m.After != nil {
			swap = fmt.Sprintf("%.3f -> %.3f", *m.Before, *m.After)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.12s\t\n", m.Number, dash(m.State), number(m.Parent), stamp(&m.Created), stamp(m.Promoted), dash(m.Probation), swap, m.SHA256)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(list.Record) > 0 && v.Record > 0 {
		fmt.Fprintln(out)
	}
	for _, e := range list.Record[:min(v.Record, len(list.Record))] {
		fmt.Fprintln(out, eventLine(e))
	}
	return nil
}

// eventLine is an entry of the record in one line.
func eventLine(e modelEvent) string {
	line := fmt.Sprintf("%4d  %s  %-11s", e.Seq, stamp(&e.Time), e.Word)
	if e.Version != nil {
		line += fmt.Sprintf(" version %d", *e.Version)
	}
	if e.To != nil {
		line += fmt.Sprintf(", %d is live again", *e.To)
	}
	said := slices.DeleteFunc([]string{e.Why, e.Said}, func(s string) bool { return s == "" })
	return strings.TrimRight(line, " ") + "  " + printable(strings.Join(said, ": "))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func number(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func stamp(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// version asks for one.
func (c *client) version(ctx context.Context, name string) (d modelDetails, err error) {
	return d, c.do(ctx, http.MethodGet, "/api/models/"+name, nil, decodeTo(&d))
}

// showVersion prints the receipt of a version.
func (v showVerb) showVersion(ctx context.Context, out io.Writer) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	d, err := c.version(ctx, v.Name)
	if err != nil {
		return err
	}
	if v.JSON {
		return printJSON(out, d)
	}
	printVersion(out, d)
	return nil
}

func printVersion(out io.Writer, d modelDetails) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-11s "+format+"\n", append([]any{name}, args...)...)
	}
	line("version", "%d, %s", d.Number, map[string]string{"": "kept"}[d.State]+d.State)
	line("sha256", "%s", d.SHA256)
	line("checkpoint", "%s", d.Digest)
	line("parent", "%s", number(d.Parent))
	line("created", "%s", stamp(&d.Created))
	line("promoted", "%s", stamp(d.Promoted))
	if d.Probation != "" {
		line("probation", "%s", d.Probation)
	}
	if d.RolledBack != nil {
		line("rolled back", "%s: %s", stamp(d.RolledBack), printable(d.Reason))
	}
	r := d.Report
	if r == nil {
		line("made", "by no adaptation here: it is a base")
		return
	}
	line("made", "in %.0f s on %s: recipe %s, seed %d", r.Seconds, r.Device, r.Settings.Recipe, r.Settings.Refit.Seed)
	line("pack", "%.12s, %s", r.Pack, map[bool]string{true: "kept: \"fovea models replay\" makes the version again", false: "no longer kept"}[d.Pack != ""])
	line("labelled", "%.12s", r.Labelled)
	for _, name := range environmentNames(d.Environment) {
		line(name, "%s", printable(d.Environment[name]))
	}
	fmt.Fprintln(out)
	printGate(out, d.Gate)
	printVerdict(out, r)
}

func printGate(out io.Writer, rows []gateRow) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tVERDICT\tPARENT\tCANDIDATE\tDIFFERENCE\tSAYS")
	for _, g := range rows {
		word := "too few"
		if g.OK != nil {
			word = map[bool]string{true: "kept", false: "broken"}[*g.OK]
		}
		interval := "-"
		if g.Low != nil && g.High != nil {
			interval = fmt.Sprintf("%+.3f to %+.3f", *g.Low, *g.High)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, word, three(g.Parent), three(g.Candidate), interval, g.Text)
	}
	_ = t.Flush()
}

func three(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *v)
}

type modelsVerifyVerb struct {
	samplesOf
	JSON bool `help:"As JSON."`
}

func (modelsVerifyVerb) Help() string {
	return `Walks the record of verdicts, each entry of which names the digest of the one before it, and reads every kept
weights file through. Ends with 1 where something is not as it was written.`
}

func (v modelsVerifyVerb) Run(ctx context.Context, out io.Writer) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var found verified
	if err := c.do(ctx, http.MethodPost, "/api/models/verify", nil, decodeTo(&found)); err != nil {
		return err
	}
	if v.JSON {
		err = printJSON(out, found)
	} else {
		for _, b := range found.Broken {
			fmt.Fprintln(out, printable(b))
		}
		_, err = fmt.Fprintf(out, "%d verdicts, %d versions, %d broken\n", found.Verdicts, found.Versions, len(found.Broken))
	}
	if err == nil && len(found.Broken) > 0 {
		err = errors.New("what the daemon keeps of its models was changed or damaged")
	}
	return err
}

// environmentNames are in the order of what matters most.
func environmentNames(environment map[string]string) (names []string) {
	for _, name := range []string{"program", "go", "machine", "hardware", "threads"} {
		if environment[name] != "" {
			names = append(names, name)
		}
	}
	return names
}

// sameRun compares a run with its repetition: "same digest", "equivalent", or what differs.
func sameRun(before, after *adapt.RunReport, was, is map[string]string) (word string, differs []string) {
	if before.Candidate == after.Candidate && before.Verdict.Decision == after.Verdict.Decision {
		return "same digest", nil
	}
	for _, name := range environmentNames(was) {
		if was[name] != is[name] {
			differs = append(differs, fmt.Sprintf("%s is %q, it was %q", name, is[name], was[name]))
		}
	}
	elsewhere := len(differs) > 0
	differs = append(differs, fmt.Sprintf("the checkpoint is %.12s, it was %.12s", after.Candidate, before.Candidate))
	if before.Verdict.Decision != after.Verdict.Decision {
		return "differs", append(differs, fmt.Sprintf("the verdict is %s, it was %s", after.Verdict.Decision, before.Verdict.Decision))
	}
	far := false
	again := gateRows(after)
	for i, g := range gateRows(before) {
		if i >= len(again) || g.Name == "latency" || strings.HasPrefix(g.Name, "least_") || g.Candidate == nil || again[i].Candidate == nil {
			continue
		}
		a, b := *g.Candidate, *again[i].Candidate
		if tolerance := replayTolerance * max(1, a, -a); b-a > tolerance || a-b > tolerance {
			far = true
			differs = append(differs, fmt.Sprintf("%s is %.3f, it was %.3f", g.Name, b, a))
		}
	}
	if elsewhere && !far {
		return "equivalent", differs
	}
	return "differs", differs
}

// replayTolerance is the most that a figure of a candidate may differ between machines, in itself up to 1 and in
// parts of the figure above: one or two of a hundred compositions may fall to the other side of a decision.
const replayTolerance = .02
