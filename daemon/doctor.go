package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type doctorVerb struct {
	Config string `short:"c" help:"Configuration file (default: /etc/fovea/fovea.yaml if it is there)." placeholder:"FILE"`
	JSON   bool   `name:"json" help:"One JSON object instead of a page."`
	Quick  bool   `help:"Do not time the model, which compiles it first."`
}

func (doctorVerb) Help() string {
	return `Looks at everything that keeps a device from doing its job: configuration, cameras and their decoders, model,
plugin and its checksum, speed, GPU, clock, disk, permissions, broker. It changes nothing. A running daemon
is asked; where none runs, cameras and broker are tried from here. Ends with 1 if there is a fault.
The page holds no passwords: paste it into a report.

  sudo -u fovea fovea doctor           with the rights that the daemon has
  fovea doctor --config fovea.yaml --json`
}

// Words of finding.State.
const (
	findingOK      = "ok"
	findingWarning = "warning" // it works, but worse than it could, or not for ever
	findingFault   = "fault"   // a part that is configured does not work
)

// finding is what the doctor says of one part.
type finding struct {
	Part  string `json:"part"`
	State string `json:"state"` // ok, warning, fault
	Says  string `json:"says"`
	Do    string `json:"do,omitempty"` // what a person can do about it
}

// diagnosis is the JSON of fovea doctor.
type diagnosis struct {
	Version  string    `json:"version"`
	At       time.Time `json:"at"`
	Machine  string    `json:"machine"`
	Running  bool      `json:"running"` // whether a daemon was asked
	Faults   int       `json:"faults"`
	Warnings int       `json:"warnings"`
	Findings []finding `json:"findings"`
}

func (d *diagnosis) add(state, part, do, format string, args ...any) {
	switch state {
	case findingFault:
		d.Faults++
	case findingWarning:
		d.Warnings++
	}
	d.Findings = append(d.Findings, finding{Part: part, State: state, Says: fmt.Sprintf(format, args...), Do: do})
}

func (d *diagnosis) ok(part, format string, args ...any) { d.add(findingOK, part, "", format, args...) }

func (d *diagnosis) warn(part, do, format string, args ...any) {
	d.add(findingWarning, part, do, format, args...)
}

func (d *diagnosis) fault(part, do, format string, args ...any) {
	d.add(findingFault, part, do, format, args...)
}

func (v doctorVerb) Run(ctx context.Context, out io.Writer) error {
	d := &diagnosis{Version: version(), At: time.Now().Round(time.Second), Machine: machine()}
	config, err := loadConfig(v.Config)
	var bad *configError
	switch {
	case errors.As(err, &bad):
		for _, f := range bad.faults {
			d.fault("configuration", "correct "+bad.file+" there; \"fovea config example\" explains every key", "%s: %s: %s", f.where(bad.file), f.field, f.problem)
		}
	case err != nil:
		return err
	default:
		d.ok("configuration", "%s", configName(v.Config))
		d.examine(ctx, config, v.Quick)
	}
	if v.JSON {
		err = json.NewEncoder(out).Encode(d)
	} else {
		err = d.print(out)
	}
	if err == nil && d.Faults > 0 {
		err = fmt.Errorf("doctor: %s", d.count())
	}
	return err
}

// examine looks at one part after the other.
func (d *diagnosis) examine(ctx context.Context, c *Config, quick bool) {
	live := d.ask(ctx, c)
	d.user(c)
	d.clock(time.Now(), timeSynced())
	d.stateFolder(c.StateDir)
	d.secrets(c)
	d.gpu(c)
	d.model(ctx, c, live, quick)
	d.cameras(ctx, c, live)
	d.broker(ctx, c, live)
	d.page(c, live)
}

// daemonPatience is how long a running daemon may take to say how it is.
const daemonPatience = 10 * time.Second

// ask returns the status of the running daemon; nil where none runs or answers.
func (d *diagnosis) ask(ctx context.Context, c *Config) *status {
	const part = "daemon"
	live, err := dialDaemon(c)
	switch {
	case err != nil:
		d.warn(part, "run fovea doctor as root or as the daemon's user", "%v", err)
		return nil
	case live == nil:
		d.ok(part, "none runs with this configuration; its parts are tried from here")
		return nil
	}
	defer live.close()
	ctx, stop := context.WithTimeout(ctx, daemonPatience)
	defer stop()
	var s status
	if err := live.do(ctx, "GET", "/api/status", nil, decodeTo(&s)); err != nil {
		d.fault(part, "journalctl -u fovea -e tells what it does; systemctl restart fovea", "it runs and does not answer: %v", err)
		return nil
	}
	d.Running = true
	says := fmt.Sprintf("version %s runs since %v, health %s", s.Health.Version, (time.Duration(s.Health.UptimeSeconds) * time.Second).String(), s.Health.Health)
	if s.Health.Version != d.Version {
		d.warn(part, "restart it: systemctl restart fovea", "%s, and %s is installed", says, d.Version)
	} else {
		d.ok(part, "%s", says)
	}
	return &s
}

// print writes one page: faults first.
func (d *diagnosis) print(out io.Writer) error {
	var page bytes.Buffer
	fmt.Fprintf(&page, "fovea %s, %s: %s\n%s\n\n", d.Version, d.At.Format("2006-01-02 15:04:05 MST"), d.count(), d.Machine)
	for _, state := range []string{findingFault, findingWarning, findingOK} {
		for _, f := range d.Findings {
			if f.State != state {
				continue
			}
			fmt.Fprintf(&page, "%-8s %-14s %s\n", f.State, f.Part, f.Says)
			if f.Do != "" {
				fmt.Fprintf(&page, "%-8s %-14s -> %s\n", "", "", f.Do)
			}
		}
	}
	_, err := page.WriteTo(out)
	return err
}

func (d *diagnosis) count() string {
	number := func(n int, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return fmt.Sprintf("%d %ss", n, word)
	}
	return number(d.Faults, "fault") + ", " + number(d.Warnings, "warning")
}

// where is the file and line of a fault, as compilers print it.
func (f fault) where(file string) string {
	if f.line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d:%d", file, f.line, f.column)
}

func configName(file string) string {
	if file != "" {
		return file + " is right"
	}
	if _, err := os.Stat(systemConfig); err != nil {
		return "there is no " + systemConfig + ": the defaults"
	}
	return systemConfig + " is right"
}

// machine describes the computer in a line: board or processor, system, kernel, memory.
func machine() string {
	parts := []string{strings.TrimRight(firstLine("/proc/device-tree/model"), "\x00"), system()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		parts = append(parts, "Linux "+unix.ByteSliceToString(name.Release[:]))
	}
	if release := firstLine("/etc/nv_tegra_release"); release != "" {
		parts = append(parts, strings.TrimPrefix(release, "# "))
	}
	var memory unix.Sysinfo_t
	if unix.Sysinfo(&memory) == nil {
		parts = append(parts, fmt.Sprintf("%d processors, %.1f GB", runtime.NumCPU(), float64(memory.Totalram)*float64(memory.Unit)/1e9))
	}
	parts = append(parts, runtime.GOARCH)
	var known []string
	for _, p := range parts {
		if p != "" {
			known = append(known, p)
		}
	}
	return strings.Join(known, ", ")
}

// system is the distribution's own name.
func system() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	return ""
}
