// Masks measures the masks of package adapt where the truth is known: on
// photographic cut-outs laid over photographs.
//
//	masks -model vit_s_focus.onnx                 figures on the reporting half
//	masks -model vit_s_focus.onnx -part choose -fit   the weights of the quality
//	masks -compare                                time beside NumPy and SciPy
//	masks -model demo/model -clip demo            on the clips of bench/demo, with what moved; a day of them
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/model"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("masks: ")
	var (
		checkpoint = flag.String("model", "", "the backbone: a checkpoint's `folder`, or an ONNX file that holds a DINOv2")
		share      = flag.String("share", "/usr/share", "`folder` of the Debian packages' pictures")
		number     = flag.Int("n", 300, "composites")
		seed       = flag.Uint64("seed", 1, "of the composites")
		half       = flag.String("part", string(reporting), "half of the material: choose or report")
		weights    = flag.Bool("fit", false, "print the least-squares weights of the quality")
		overlays   = flag.String("overlays", "", "`folder` for sheets of the masks, drawn over the pictures")
		times      = flag.Bool("compare", false, "time a mask beside NumPy and SciPy instead")
		python     = flag.String("python", "python3", "for -compare: a Python with numpy and scipy")
		clips      = flag.String("clip", "", "the demonstration's `folder`: measure on its clips instead")
		grabber    = flag.String("grabber", "", "for -clip: fovea-grab; default: beside this program, then in PATH")
		rounds     = flag.Int("rounds", 7, "for -compare")
	)
	flag.Parse()
	var err error
	switch {
	case *times:
		err = compare(*python, *rounds)
	case *clips != "":
		err = measureClips(*checkpoint, *clips, *grabber)
	default:
		err = measure(*checkpoint, *share, part(*half), *number, *seed, *weights, *overlays)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// measure cuts masks of n composites and prints how well they fit.
func measure(checkpoint, share string, p part, n int, seed uint64, weights bool, overlays string) error {
	if p != choosing && p != reporting {
		return fmt.Errorf("part %q: want %s or %s", p, choosing, reporting)
	}
	eye, err := openEye(checkpoint)
	if err != nil {
		return err
	}
	studio, err := newStudio(share, p, seed)
	if err != nil {
		return err
	}
	fmt.Printf("%d composites of %d cut-outs over %d photographs, half %q, seed %d, %s\n", n, len(studio.cutouts), len(studio.photographs), p, seed, filepath.Base(checkpoint))
	var results []result
	for i := range n {
		c := studio.next(i, eye.preprocess.Height)
		r, err := eye.look(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		results = append(results, r)
	}
	report(os.Stdout, results)
	if weights {
		if err := fit(os.Stdout, results); err != nil {
			return err
		}
	}
	if overlays != "" {
		return drawSheets(overlays, results)
	}
	return nil
}

// eye is a backbone and the makers of masks.
type eye struct {
	net        *model.Net
	preprocess model.Preprocess
	ours       *adapt.Masker
	plain      []*adapt.Masker // published program, at the taus of plainTaus
}

var plainTaus = []float32{adapt.PublishedCut.Tau, adapt.DefaultMasks.Cut.Tau}

// openBackbone reads a checkpoint's folder, or a DINOv2 out of an ONNX file.
func openBackbone(path string) (*model.Checkpoint, error) {
	switch {
	case path == "":
		return nil, fmt.Errorf("no backbone: give -model")
	case filepath.Ext(path) == ".onnx":
		return model.ImportONNX(path)
	}
	return model.Load(path)
}

func openEye(path string) (*eye, error) {
	c, err := openBackbone(path)
	if err != nil {
		return nil, err
	}
	if err := c.Resize(224, 224); err != nil {
		return nil, err
	}
	backend, err := model.OpenBackend(model.BackendAuto, model.FindPlugins())
	if err != nil {
		return nil, err
	}
	e := &eye{ours: adapt.NewMasker(adapt.DefaultMasks)}
	if e.net, err = model.NewNet(backend, c); err != nil {
		return nil, err
	}
	e.preprocess = e.net.Preprocess.At(c.Config.ImageHeight, c.Config.ImageWidth)
	e.preprocess.ResizeHeight, e.preprocess.ResizeWidth = e.preprocess.Height, e.preprocess.Width // a composite is all view
	for _, tau := range plainTaus {
		e.plain = append(e.plain, adapt.NewMasker(adapt.MaskOptions{Cut: adapt.CutOptions{Tau: tau, Epsilon: adapt.PublishedCut.Epsilon}}))
	}
	return e, nil
}

// result is what was made of one composite.
type result struct {
	composite
	mask        adapt.Mask
	accepted    bool
	overlap     float64   // with the truth
	coarse      []float64 // the same of the published program, a tau each: before the solver
	plainSolver []float64 // and after
}

func (e *eye) look(c composite) (result, error) {
	r := result{composite: c}
	pixels := make([]float32, 3*e.preprocess.Height*e.preprocess.Width)
	if err := e.preprocess.Pixels(c.rgb, c.width, c.height, pixels); err != nil {
		return r, err
	}
	out, err := e.net.Run(model.WantFeatures, pixels, nil)
	if err != nil {
		return r, err
	}
	gridH, gridW := e.net.Config.Grid()
	view := adapt.View{Features: out.Features, GridH: gridH, GridW: gridW, RGB: c.rgb, Height: c.height, Width: c.width}
	if r.mask, err = e.ours.Mask(view); err != nil {
		return r, err
	}
	r.accepted = e.ours.Accepted(r.mask)
	r.overlap = intersectionOverUnion(r.mask.Pixels, c.truth)
	for _, plain := range e.plain {
		coarse, binary, _, err := plain.Published(view)
		if err != nil {
			return r, err
		}
		r.coarse = append(r.coarse, intersectionOverUnion(coarse, c.truth))
		r.plainSolver = append(r.plainSolver, intersectionOverUnion(binary, c.truth))
	}
	return r, nil
}

func intersectionOverUnion(a, b []uint8) float64 {
	both, either := 0, 0
	for i := range a {
		if a[i] != 0 && b[i] != 0 {
			both++
		}
		if a[i] != 0 || b[i] != 0 {
			either++
		}
	}
	return float64(both) / float64(max(either, 1))
}
