package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// manVerb prints the manual page, made from the verbs themselves; the packages ship it.
type manVerb struct{}

func (manVerb) Run(k *kong.Kong, out io.Writer) error {
	m := &manPage{out: out}
	m.line(`.TH FOVEA 1 "" "fovea %s" "User Commands"`, roff(version()))
	m.line(".SH NAME\nfovea \\- image classifier that looks at the object and not at the background")
	m.line(".SH SYNOPSIS\n.B fovea\n.I VERB\n[\\fIFLAGS\\fR]")
	m.line(".SH DESCRIPTION")
	m.text(about)
	m.line(".SH VERBS")
	m.verbs(k.Model.Node)
	m.line(".SH FILES")
	for _, f := range [][2]string{
		{systemConfig, "The configuration; fovea config example explains every key."},
		{"/var/lib/fovea", "Samples, model versions, the token of the page, the password of the embedded broker."},
		{"/usr/lib/fovea/pjrt_cpu.so", "The plugin of the backend xla:cpu; fovea plugin install puts it there."},
		{"/usr/lib/fovea/libonnxruntime.so", "ONNX Runtime, of the backends onnx:cpu and onnx:cuda."},
		{"/usr/share/fovea/drop-ins", "Drop-ins of the service for a Jetson and for an NVIDIA card."},
	} {
		m.line(".TP\n.I %s\n%s", roff(f[0]), roff(f[1]))
	}
	m.line(".SH EXIT STATUS")
	for _, s := range []struct {
		code int
		what string
	}{
		{0, "Done, or ended by a signal."},
		{exitFailure, "It failed; standard error says why. fovea doctor: it found a fault."},
		{exitUsage, "The command line is wrong."},
		{exitConfiguration, "The configuration is wrong; every fault is named with its line."},
	} {
		m.line(".TP\n.B %d\n%s", s.code, roff(s.what))
	}
	return m.err
}

type manPage struct {
	out io.Writer
	err error // the first
}

func (m *manPage) line(format string, args ...any) {
	if m.err == nil {
		_, m.err = fmt.Fprintf(m.out, format+"\n", args...)
	}
}

// text prints help as it stands: its examples are laid out by hand.
func (m *manPage) text(help string) {
	m.line(".nf\n%s\n.fi", roff(strings.TrimSpace(help)))
}

// verbs describes each verb that a person gives, with its flags, and then those below it.
func (m *manPage) verbs(n *kong.Node) {
	for _, verb := range n.Children {
		if verb.Hidden {
			continue
		}
		if len(verb.Children) == 0 {
			m.line(".SS %s", roff(strings.TrimPrefix(verb.Path(), "fovea ")+arguments(verb)))
			m.line("%s", roff(verb.Help))
			for _, f := range verb.Flags {
				if f.Hidden || f.Name == "help" {
					continue
				}
				m.line(".TP\n.B %s\n%s", roff(f.String()), roff(f.Help))
			}
			if verb.Detail != "" {
				m.line(".PP")
				m.text(verb.Detail)
			}
		}
		m.verbs(verb)
	}
}

func arguments(verb *kong.Node) string {
	var all strings.Builder
	for _, p := range verb.Positional {
		all.WriteString(" " + p.Summary())
	}
	return all.String()
}

// roff protects what the formatter would take for its own.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
