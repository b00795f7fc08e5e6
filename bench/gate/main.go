// Gate puts good and bad candidates of the demonstration's model through the gate, and holds the verdicts against
// what is true of them: accuracy on objects that no one labelled, laid on the cameras' views.
//
//	make demo && go run ./bench/gate
//	go run ./bench/gate -recipes head,both -train   backbones too, minutes each
//
// The pack is drawn from the demonstration's clips as a device would: frames every half second, masks by TokenCut.
// Columns: labelled-swap accuracy with its gain and the lower bound, follow index, accuracy on labelled pictures,
// confidence on empty views, AUROC and effective patches of the relevance, object over surroundings, agreement with
// the base, the verdict; and true gain: deployment accuracy of the candidate minus the parent's.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/bench/gate/bad"
	"github.com/seed-a98b2d25/fovea/model"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gate: ")
	var b bench
	flag.StringVar(&b.demo, "demo", "build/demo", "`folder` of the demonstration, with a fitted model in it")
	flag.StringVar(&b.recipes, "recipes", "head", "good candidates to make: head, backbone, both, with commas")
	flag.IntVar(&b.seeds, "seeds", 1, "seeds of each recipe and of each cheap bad kind")
	flag.BoolVar(&b.train, "train", false, "bad candidates that take steps of fine-tuning too: minutes each")
	flag.IntVar(&b.steps, "steps", 0, "steps of fine-tuning; 0: the preset's")
	flag.StringVar(&b.backend, "backend", "auto", "what computes")
	flag.StringVar(&b.json, "json", "", "`file` for all figures")
	flag.StringVar(&b.only, "only", "", "only candidates whose name holds this")
	flag.Parse()
	if err := b.run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	demo, recipes, backend, json, only string
	seeds, steps                       int
	train                              bool

	b      *model.Backend
	in     adapt.RunInput
	set    *adapt.EvalSet // what the gate sees
	truth  *adapt.EvalSet // objects that were never labelled, on the same views
	parent [2]*adapt.Outcomes
	rows   []row
}

// row is a candidate's line of the table.
type row struct {
	Name     string            `json:"name"`
	Figures  *adapt.Comparison `json:"figures"`
	Truth    *adapt.Comparison `json:"truth"`
	Verdict  adapt.Verdict     `json:"verdict"`
	Seconds  float64           `json:"seconds"`
	Training any               `json:"training,omitempty"`
}

func (b *bench) run(ctx context.Context) error {
	var err error
	if b.b, err = model.OpenBackend(b.backend, model.FindPlugins()); err != nil {
		return err
	}
	if err := b.open(ctx); err != nil {
		return err
	}
	defer b.in.Pack.Close()
	train, err := b.in.Pack.Backgrounds(ctx, adapt.Train)
	if err != nil {
		return err
	}
	held, err := b.in.Pack.Backgrounds(ctx, adapt.Held)
	if err != nil {
		return err
	}
	fmt.Printf("backgrounds: %d to train on, %d held out\n", len(train), len(held))
	settings := adapt.DefaultRun
	if b.steps > 0 {
		settings.Tune.Steps = b.steps
	}
	if b.set, err = b.in.EvalSet(ctx, b.b, held, settings.Eval); err != nil {
		return err
	}
	if err := b.openTruth(ctx, held, settings.Eval); err != nil {
		return err
	}
	for i, set := range []*adapt.EvalSet{b.set, b.truth} {
		if b.parent[i], err = set.Look(ctx, b.b, b.in.Parent, nil); err != nil {
			return err
		}
	}
	if err := b.good(ctx, settings, train); err != nil {
		return err
	}
	if err := b.bad(ctx, settings, train); err != nil {
		return err
	}
	b.print()
	return nil
}

// save writes the rows so far.
func (b *bench) save() error {
	if b.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(b.rows, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.json, text, 0o644)
}

// open reads model and labelled pictures and draws a pack from the clips.
func (b *bench) open(ctx context.Context) error {
	dir := filepath.Join(b.demo, "model")
	c, err := model.Load(dir)
	if err != nil {
		return fmt.Errorf("%w: \"make demo\" makes it", err)
	}
	b.in.Base, b.in.Parent = c, c
	if b.in.Labelled, err = adapt.ReadLabelled(filepath.Join(dir, adapt.LabelledDir)); err != nil {
		return err
	}
	file := filepath.Join(b.demo, "gate.pack")
	began := time.Now()
	if err := b.draw(ctx, file); err != nil {
		return err
	}
	b.in.Pack, err = adapt.OpenPack(file)
	if err != nil {
		return err
	}
	fmt.Printf("pack: %d samples in %.0f s\n", len(b.in.Pack.Samples), time.Since(began).Seconds())
	return nil
}

// frameEvery is how many frames of a clip pass between two samples: half a second.
const frameEvery = 4

// draw samples the clips and cuts masks, unless the file is there for this model already.
func (b *bench) draw(ctx context.Context, file string) error {
	info := adapt.PackInfo{Base: b.in.Base.Digest(), Labelled: b.in.Labelled.Digest(), Gap: 2}
	if p, err := adapt.OpenPack(file); err == nil {
		defer p.Close()
		if p.PackInfo == info {
			return nil
		}
	}
	net, err := model.NewNet(b.b, b.in.Base)
	if err != nil {
		return err
	}
	defer net.Close()
	cut := adapt.CutMasks(net, adapt.DefaultMasks)
	clips, err := filepath.Glob(filepath.Join(b.demo, "*.mp4"))
	if err != nil || len(clips) == 0 {
		return fmt.Errorf("no clip in %s", b.demo)
	}
	var samples []adapt.Sample
	for _, clip := range clips {
		frames, err := split(ctx, clip)
		if err != nil {
			return err
		}
		camera := strings.TrimSuffix(filepath.Base(clip), ".mp4")
		var times []time.Time
		for i := range frames {
			times = append(times, time.Unix(1_800_000_000, 0).Add(time.Duration(i)*time.Second/2))
		}
		for i, part := range adapt.Divide(times, 20, 2*time.Second) {
			if part == "" {
				continue
			}
			s := adapt.Sample{Part: part, Camera: camera, Time: times[i], Sequence: uint64(len(samples) + 1), JPEG: frames[i]}
			picture, err := adapt.DecodePicture(frames[i])
			if err != nil {
				return err
			}
			if mask, err := cut(camera, picture); err == nil {
				s.Mask, s.Quality = mask, adapt.DefaultMasks.Floor
			}
			samples = append(samples, s)
		}
	}
	_, err = adapt.WritePack(file, info, len(samples), func(i int) (adapt.Sample, error) { return samples[i], nil })
	return err
}

// split decodes every frameEvery-th frame of a clip into JPEGs.
func split(ctx context.Context, clip string) ([][]byte, error) {
	cmd := exec.CommandContext(ctx, "ffmpeg", "-v", "error", "-i", clip, "-vf", fmt.Sprintf("select=not(mod(n\\,%d))", frameEvery),
		"-vsync", "0", "-f", "image2pipe", "-c:v", "mjpeg", "-q:v", "3", "-")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ffmpeg: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	var frames [][]byte
	for len(out) > 0 {
		end := bytes.Index(out, []byte{0xff, 0xd9}) // 0xff is escaped inside the data
		if end < 0 {
			break
		}
		frames = append(frames, out[:end+2])
		out = out[end+2:]
	}
	return frames, nil
}

// openTruth lays the cut-outs of the demonstration's test part, which nobody labelled, on the same views.
func (b *bench) openTruth(ctx context.Context, held []adapt.Background, s adapt.EvalSettings) error {
	unseen, err := adapt.ReadLabelled(filepath.Join(b.demo, "test"))
	if err != nil {
		return err
	}
	for i := range unseen.Pictures {
		p := &unseen.Pictures[i]
		p.Part, p.Group = adapt.Accept, unseen.Classes[p.Class]+"/"+p.Object
	}
	in := b.in
	in.Labelled = unseen
	s.Swaps, s.Labelled, s.Pairs, s.Explained, s.Seed = len(unseen.Pictures), 0, 0, 0, 99
	s.Originals = 1
	b.truth, err = in.EvalSet(ctx, b.b, held, s)
	return err
}

func (b *bench) good(ctx context.Context, settings adapt.RunSettings, train []adapt.Background) error {
	for _, recipe := range strings.Split(b.recipes, ",") {
		for seed := range uint64(b.seeds) {
			name := fmt.Sprintf("recipe %s, seed %d", recipe, seed+1)
			if recipe == "" || !strings.Contains(name, b.only) {
				continue
			}
			began := time.Now()
			c, training := b.in.Parent, []any{}
			s := settings.Seeded(seed + 1)
			if adapt.Recipe(recipe) != adapt.RecipeHead {
				set, err := b.in.TuneSet(ctx, b.b, train, s)
				if err != nil {
					return err
				}
				tuned, report, err := adapt.FineTune(ctx, b.b, c, set, s.Tune, nil)
				if err != nil {
					return err
				}
				c, training = tuned, append(training, report)
			}
			if adapt.Recipe(recipe) != adapt.RecipeBackbone {
				refitted, report, err := adapt.Refit(ctx, b.b, b.in.Base, c, b.in.Labelled, b.in.Pack, train, s.Refit, nil)
				if err != nil {
					return err
				}
				fmt.Printf("refit: l2 %g, mix %g, losses %.3f\n", report.L2, report.Mix, report.Loss)
				c, training = refitted, append(training, report)
			}
			if err := b.judge(ctx, name, c, time.Since(began), training); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) bad(ctx context.Context, settings adapt.RunSettings, train []adapt.Background) error {
	set, err := b.in.TuneSet(ctx, b.b, train, settings)
	if err != nil {
		return err
	}
	settings.Tune.Rate, settings.Tune.Steps = 2e-5, 120 // bad ones are to be bad
	for _, m := range bad.Makers {
		for seed := range uint64(b.seeds) {
			if m.Trains && (!b.train || seed > 0) || !strings.Contains(m.Name, b.only) {
				continue
			}
			began := time.Now()
			c, err := m.Make(bad.Given{Context: ctx, Backend: b.b, Parent: b.in.Parent, Set: set, Settings: settings.Tune, Seed: seed + 1})
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			if err := b.judge(ctx, m.Name, c, time.Since(began), nil); err != nil {
				return err
			}
		}
	}
	if !strings.Contains("drift chain", b.only) {
		return nil
	}
	for i, c := range bad.Chain(b.in.Parent, 5) {
		if i%3 == 0 { // the first, fourth, seventh and tenth, against the base
			if err := b.judge(ctx, fmt.Sprint("drift chain, generation ", i+1), c, 0, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) judge(ctx context.Context, name string, c *model.Checkpoint, made time.Duration, training any) error {
	var said [2]*adapt.Outcomes
	for i, set := range []*adapt.EvalSet{b.set, b.truth} {
		var err error
		if said[i], err = set.Look(ctx, b.b, c, nil); err != nil {
			return err
		}
	}
	r := row{Name: name, Seconds: made.Seconds(), Training: training}
	r.Figures = b.set.Compare(b.parent[0], b.parent[0], said[0])
	r.Truth = b.truth.Compare(b.parent[1], b.parent[1], said[1])
	r.Verdict = adapt.Judge(r.Figures, adapt.DefaultThresholds)
	b.rows = append(b.rows, r)
	fmt.Printf("%-32s %-8s swap %s low %s, follow %s low %s, true gain %s; fails %s\n", name, r.Verdict.Decision,
		n(r.Figures.LabelledSwap.Difference), n(r.Figures.LabelledSwap.Low), n(r.Figures.Follow.Difference), n(r.Figures.Follow.Low),
		n(r.Truth.LabelledSwap.Difference), failed(r.Verdict))
	return b.save()
}

// failed names the checks that a verdict rests on.
func failed(v adapt.Verdict) string {
	var names []string
	for _, c := range v.Checks {
		if c.OK == nil {
			names = append(names, c.Name+"?")
		} else if !*c.OK {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, " ")
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\ncandidate\tswap\tgain\tlow\tfollow\tlow\tlabelled\tlow\tempty\thigh\tauroc\tlow\tpatches\tobject\tlow\tbase\tparent\tverdict\ttrue gain\tlow\thigh\tmade in\t")
	first := slices.IndexFunc(b.rows, func(r row) bool { return r.Figures.Problem == "" })
	if first >= 0 {
		f, t := b.rows[first].Figures, b.rows[first].Truth
		fmt.Fprintf(w, "parent\t%s\t\t\t%s\t\t%s\t\t%s\t\t%s\t\t%s\t%s\t\t\t\t\t%s\t\t\t\t\n",
			n(f.LabelledSwap.Parent), n(f.Follow.Parent), n(f.Labelled.Parent), n(f.Background.Parent), n(f.AUROC.Parent), n(f.Effective.Parent),
			n(f.Drop.Parent), n(t.LabelledSwap.Parent))
	}
	for _, r := range b.rows {
		f, t := r.Figures, r.Truth
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f s\t\n", r.Name,
			n(f.LabelledSwap.Candidate), n(f.LabelledSwap.Difference), n(f.LabelledSwap.Low),
			n(f.Follow.Candidate), n(f.Follow.Low), n(f.Labelled.Candidate), n(f.Labelled.Low),
			n(f.Background.Candidate), n(f.Background.High), n(f.AUROC.Candidate), n(f.AUROC.Low), n(f.Effective.Candidate),
			n(f.Drop.Candidate), n(f.Drop.Low), n(f.AgreementBase.Candidate), n(f.AgreementParent), r.Verdict.Decision,
			n(t.LabelledSwap.Difference), n(t.LabelledSwap.Low), n(t.LabelledSwap.High), r.Seconds)
	}
	_ = w.Flush()
}

func n(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *v)
}
