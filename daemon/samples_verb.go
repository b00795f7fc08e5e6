package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/google/renameio/v2"
	"golang.org/x/term"

	"github.com/seed-a98b2d25/fovea/store"
)

type samplesVerb struct {
	List   samplesListVerb   `cmd:"" help:"What is kept, and why."`
	Show   samplesShowVerb   `cmd:"" help:"One sample: what is known of it, and a picture with its mask."`
	Label  samplesLabelVerb  `cmd:"" help:"Say what a sample shows."`
	Drop   samplesDropVerb   `cmd:"" help:"Delete samples."`
	Export samplesExportVerb `cmd:"" help:"Write samples as a folder of class folders, with masks."`
	Import samplesImportVerb `cmd:"" help:"Take such a folder in."`
	Purge  samplesPurgeVerb  `cmd:"" help:"Delete all samples, leaving no pixel."`
}

func (samplesVerb) Help() string {
	return `The daemon keeps frames that are worth learning from, each with the mask of its object. These verbs ask the
daemon that runs; where none does, they read its files themselves.

  fovea samples list --camera door
  fovea samples show 1234 --out 1234.png
  fovea samples export kept && fovea head fit --base models/base --data kept --out models/mine`
}

// samplesOf says which daemon is meant.
type samplesOf struct {
	Config string `short:"c" help:"Configuration file of the daemon (default: /etc/fovea/fovea.yaml if it is there)." placeholder:"FILE"`
}

func (v samplesOf) dial(ctx context.Context) (*client, error) {
	config, err := loadConfig(v.Config)
	if err != nil {
		return nil, err
	}
	return dial(ctx, config)
}

// decodeTo reads JSON.
func decodeTo(v any) func(io.Reader) error {
	return func(r io.Reader) error { return json.NewDecoder(r).Decode(v) }
}

type samplesListVerb struct {
	samplesOf
	Camera string `help:"Of this camera." placeholder:"ID"`
	Label  string `help:"Of this class: as labelled, else as predicted." placeholder:"LABEL"`
	Why    string `help:"Kept for this reason: novel, uncertain, disputed, 'rare class', 'rare hour', imported." placeholder:"REASON"`
	Held   bool   `help:"Of the hold-out alone."`
	Limit  int    `default:"40" help:"How many, newest first."`
	JSON   bool   `help:"As JSON."`
}

func (v samplesListVerb) Run(ctx context.Context, out io.Writer) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	q := url.Values{"camera": {v.Camera}, "label": {v.Label}, "why": {v.Why}, "limit": {strconv.Itoa(v.Limit)}}
	if v.Held {
		q.Set("held", "1")
	}
	var list samplesList
	if err := c.do(ctx, http.MethodGet, "/api/samples?"+q.Encode(), nil, decodeTo(&list)); err != nil {
		return err
	}
	if v.JSON {
		return printJSON(out, list)
	}
	fmt.Fprintf(out, "%d samples (%d with a mask to train on, %d held out, %d labelled), %.1f of %.0f MB", list.Samples, list.Masks, list.Protected, list.Labelled, float64(list.Bytes)/1e6, float64(list.Limit)/1e6)
	if list.Matching != list.Samples {
		fmt.Fprintf(out, "; %d match", list.Matching)
	}
	fmt.Fprintln(out)
	if len(list.Page) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NUMBER\tTIME\tCAMERA\tCLASS\tSCORE\tMASK\tRELEVANCE\tWHY\t")
	for _, m := range list.Page {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", m.Seq, m.Time.Local().Format("2006-01-02 15:04:05"), m.Camera, className(m), topScore(m), maskQuality(m), relevance(m), reason(m))
	}
	return t.Flush()
}

// className is the label, else the prediction in brackets.
func className(m store.Meta) string {
	switch {
	case m.Label != "":
		return m.Label
	case m.Predicted != "":
		return "(" + m.Predicted + ")"
	}
	return "-"
}

func topScore(m store.Meta) string {
	if len(m.Scores) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", m.Scores[0].Score)
}

func maskQuality(m store.Meta) string {
	switch {
	case m.Mask == nil:
		return "none"
	case !m.Mask.Accepted:
		return fmt.Sprintf("%.2f, not used", m.Mask.Quality)
	}
	return fmt.Sprintf("%.2f", m.Mask.Quality)
}

func relevance(m store.Meta) string {
	if m.Relevance == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *m.Relevance)
}

func reason(m store.Meta) string {
	if m.Protected {
		return m.Why + ", held out"
	}
	return m.Why
}

type samplesShowVerb struct {
	samplesOf
	Number uint64 `arg:"" help:"Number of the sample."`
	Out    string `help:"Write the picture here, what is not of the object greyed." placeholder:"FILE.png"`
}

func (v samplesShowVerb) Run(ctx context.Context, out io.Writer) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	s, err := c.fetch(ctx, v.Number)
	if err != nil {
		return err
	}
	if err := printJSON(out, s.Meta); err != nil || v.Out == "" {
		return err
	}
	picture, err := drawSample(s)
	if err != nil {
		return err
	}
	return writeImage(v.Out, picture)
}

// fetch gets a sample, without its features.
func (c *client) fetch(ctx context.Context, seq uint64) (*store.Sample, error) {
	s := &store.Sample{}
	path := fmt.Sprintf("/api/samples/%d", seq)
	if err := c.do(ctx, http.MethodGet, path, nil, decodeTo(&s.Meta)); err != nil {
		return nil, err
	}
	err := c.do(ctx, http.MethodGet, path+"/picture.jpg", nil, func(r io.Reader) (err error) { s.JPEG, err = io.ReadAll(r); return err })
	if err != nil || s.Mask == nil {
		return s, err
	}
	return s, c.do(ctx, http.MethodGet, path+"/mask.png", nil, func(r io.Reader) error {
		mask, err := png.Decode(r)
		if err != nil {
			return err
		}
		grey, ok := mask.(*image.Gray)
		if !ok || grey.Rect != image.Rect(0, 0, s.Mask.Width, s.Mask.Height) {
			return fmt.Errorf("mask of sample %d: %v, want %d x %d grey", seq, mask.Bounds(), s.Mask.Width, s.Mask.Height)
		}
		s.MaskPixels = grey.Pix
		return nil
	})
}

type samplesLabelVerb struct {
	samplesOf
	Number uint64 `arg:"" help:"Number of the sample."`
	Label  string `arg:"" help:"What it shows; '' takes a label back."`
}

func (v samplesLabelVerb) Run(ctx context.Context) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	body, err := json.Marshal(map[string]string{"label": v.Label})
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, fmt.Sprintf("/api/samples/%d/label", v.Number), strings.NewReader(string(body)), nil)
}

type samplesDropVerb struct {
	samplesOf
	Numbers []uint64 `arg:"" help:"Numbers of the samples."`
}

func (samplesDropVerb) Help() string {
	return `Their pixels stay in free pages of samples.db until those are used again; "fovea db compact" removes them now.`
}

func (v samplesDropVerb) Run(ctx context.Context) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	for _, seq := range v.Numbers {
		if err := c.do(ctx, http.MethodDelete, fmt.Sprintf("/api/samples/%d", seq), nil, nil); err != nil {
			return err
		}
	}
	return nil
}

type samplesPurgeVerb struct {
	samplesOf
	Yes bool `help:"Do not ask."`
}

func (samplesPurgeVerb) Help() string {
	return `Deletes samples.db and what was set aside of it, the pack of the live version and the maps of all. An adaptation that
runs is ended. Labels and masks go with the pictures. What was exported, or is in
a model folder, stays.`
}

func (v samplesPurgeVerb) Run(ctx context.Context, out io.Writer) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var list samplesList
	if err := c.do(ctx, http.MethodGet, "/api/samples?limit=1", nil, decodeTo(&list)); err != nil {
		return err
	}
	if !v.Yes {
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return errors.New("add --yes to delete all samples without being asked")
		}
		fmt.Fprintf(out, "Delete all %d samples, %d of them labelled? Type yes: ", list.Samples, list.Labelled)
		answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if strings.TrimSpace(answer) != "yes" {
			return errors.New("nothing was deleted")
		}
	}
	if err := c.do(ctx, http.MethodPost, "/api/samples/purge", nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d samples deleted\n", list.Samples)
	return nil
}

// writeImage leaves the whole PNG or none.
func writeImage(file string, picture image.Image) error {
	var data bytes.Buffer
	if err := png.Encode(&data, picture); err != nil {
		return err
	}
	return renameio.WriteFile(file, data.Bytes(), 0o644)
}
