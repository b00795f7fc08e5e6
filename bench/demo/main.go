// Demo makes the demonstration that "make run" starts, from photographs and photographic cut-outs in Debian's
// packages tuxpaint-stamps-default, lomiri-wallpapers-16.04, mate-backgrounds and opencv-doc:
//
//	labelled/     class/cut-out/N.jpg with N.mask.png: for fovea head fit
//	test/         cut-outs and scenes that labelled has not: for fovea eval
//	yard.mp4 ...  a clip a camera: objects pass before a fixed view, cut-outs and views that labelled has not
//	masks/        of the clips: CAMERA/FRAME.png, white where the object is
//	truth.jsonl   what is to be seen in each frame of the clips
//	fovea.yaml    the configuration of a daemon that watches the clips
//
// The same seed gives the same pictures. "demo score" compares a running daemon with truth.jsonl.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type commandLine struct {
	Make  makeVerb  `cmd:"" default:"withargs" help:"Make the demonstration."`
	Score scoreVerb `cmd:"" help:"Watch a daemon that shows the clips: how often is its first guess right?"`
}

type makeVerb struct {
	Out     string        `required:"" type:"path" placeholder:"DIR" help:"Folder to write; it must not exist."`
	Share   string        `default:"/usr/share" placeholder:"DIR" help:"Where the packages' files lie."`
	Seed    uint64        `default:"1" help:"Which cut-outs are kept for the clips, and every position."`
	Length  time.Duration `default:"75s" help:"Of each clip."`
	Model   string        `default:"model" placeholder:"DIR" help:"Model folder to name in fovea.yaml, relative to it."`
	State   string        `default:"state" placeholder:"DIR" help:"State folder to name in fovea.yaml, relative to it."`
	Listen  string        `default:"127.0.0.1:8080" help:"Address of the page to name in fovea.yaml."`
	Own     float64       `default:"1" help:"Share of the labelled pictures before scenes that belong to their class."`
	Renders int           `default:"4" help:"Labelled pictures of each cut-out."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var line commandLine
	parsed := kong.Parse(&line, kong.Name("demo"), kong.BindTo(ctx, (*context.Context)(nil)))
	parsed.FatalIfErrorf(parsed.Run())
}

func (v makeVerb) Run(ctx context.Context) error {
	if _, err := os.Lstat(v.Out); err == nil {
		return fmt.Errorf("%s is there already: remove it, or choose another --out", v.Out)
	}
	began := time.Now()
	m, err := gather(v.Share, v.Seed)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(v.Out), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(v.Out), "."+filepath.Base(v.Out)+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // what is left over after a failure
	steps := []struct {
		what string
		do   func(dir string) (string, error)
	}{
		{"labelled", func(dir string) (string, error) {
			return m.pictures(ctx, filepath.Join(dir, "labelled"), m.labelled, labelledScenes, v.Own, labelledSpan, v.Renders, v.Seed)
		}},
		{"test", func(dir string) (string, error) {
			return m.pictures(ctx, filepath.Join(dir, "test"), m.unseen, testScenes, 0, clipSpan, 4, v.Seed+1)
		}},
		{"clips", func(dir string) (string, error) { return m.clips(ctx, dir, v.Length, v.Seed+2) }},
		{"fovea.yaml", func(dir string) (string, error) { return v.config(dir) }},
	}
	for _, s := range steps {
		at := time.Now()
		said, err := s.do(temp)
		if err != nil {
			return fmt.Errorf("demo: %s: %w", s.what, err)
		}
		fmt.Printf("%-10s %s (%.1f s)\n", s.what, said, time.Since(at).Seconds())
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(temp, v.Out); err != nil {
		return err
	}
	fmt.Printf("%-10s %s (%.1f s)\n", "done", v.Out, time.Since(began).Seconds())
	return nil
}
