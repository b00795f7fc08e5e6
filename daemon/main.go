// Fovea keeps an image classifier looking at the object instead of the background, on the device that runs
// it. This program is the daemon, its page, and every verb around them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/seed-a98b2d25/fovea/model"
)

// commandLine lists the verbs; each is a struct in the file of its name.
type commandLine struct {
	Run    runVerb    `cmd:"" help:"Watch the cameras: the daemon."`
	Check  checkVerb  `cmd:"" help:"Name every fault of a configuration, each with its line."`
	Config configVerb `cmd:"" help:"Print an example configuration, or its JSON Schema."`
	Token  tokenVerb  `cmd:"" help:"Print the token of the page and its API."`

	Head headVerb `cmd:"" help:"Fit a head to your own classes."`
	Eval evalVerb `cmd:"" help:"How often is a model right? On pictures whose class is known."`
	Look lookVerb `cmd:"" help:"Draw what a model sees in pictures."`

	Adapt  adaptVerb  `cmd:"" help:"Fine-tune a model so that it looks at the object."`
	Bench  benchVerb  `cmd:"" help:"Time forward passes."`
	Models modelsVerb `cmd:"" help:"Fetch and import models; the versions of this device's: list, show, verify, replay, roll back."`
	Plugin pluginVerb `cmd:"" help:"Install what makes a backend fast."`
	Doctor doctorVerb `cmd:"" help:"What is wrong with this device, and what to do."`
	Man    manVerb    `cmd:"" hidden:""`

	Samples samplesVerb `cmd:"" help:"The pictures that are kept to learn from: list, show, export, import, purge."`
	DB      dbVerb      `cmd:"" name:"db" help:"Check and compact what the daemon keeps."`

	Fleet fleetVerb `cmd:"" help:"Many devices over their broker: list, watch, adapt, roll back."`

	Version kong.VersionFlag `help:"Print the version."`
}

const about = `An image classifier that looks at the object and not at the background, watching cameras on this device.

Begin:
  fovea config example > fovea.yaml    a configuration to edit; every key explained
  fovea check --config fovea.yaml      is it right?
  fovea run --config fovea.yaml        then open http://127.0.0.1:8080

"fovea VERB --help" shows examples for each verb.`

// Exit codes, from sysexits.h. systemd must not restart after either (RestartPreventExitStatus=64 78): the
// next start would fail in the same way. Any other failure is 1.
const (
	exitFailure       = 1
	exitUsage         = 64
	exitConfiguration = 78
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns the exit code. A verb's Run takes any of: context.Context, done
// at SIGINT and SIGTERM; io.Writer, the standard output.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var line commandLine
	exited := -1 // by --help or --version
	parser := kong.Must(&line,
		kong.Name("fovea"),
		kong.Description(about),
		kong.Vars{"version": version(), "plugins": pluginDir, "backends": strings.Join(model.BackendNames, ",")},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
	)
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	switch {
	case exited >= 0:
		return exited
	case err != nil:
		fmt.Fprintf(stderr, "fovea: %v\nTry \"fovea --help\".\n", err)
		return exitUsage
	}
	err = parsed.Run()
	var (
		faults *configError
		coded  *exitError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return 0
	case errors.As(err, &faults):
		fmt.Fprintln(stderr, err)
		return exitConfiguration
	case errors.As(err, &coded):
		fmt.Fprintf(stderr, "fovea: %v\n", err)
		return coded.code
	default:
		fmt.Fprintf(stderr, "fovea: %v\n", err)
		return exitFailure
	}
}

// release is set by the release build: -ldflags "-X main.release=v1.2.3".
var release string

// version is the release, else the commit that go build recorded, else "devel".
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return "devel-" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return "devel"
}
