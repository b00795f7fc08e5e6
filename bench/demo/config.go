package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// config writes fovea.yaml: what a person would write for two cameras, with comments where a value is the
// demonstration's own.
func (v makeVerb) config(dir string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `# The demonstration: two fixed views in which objects pass. Paths are relative to this file.
state_dir: %q
device:
  labels: {site: demonstration}
model:
  dir: %q # from "fovea head fit --data labelled"
inference:
  relevance_every: 2
cameras:
`, v.State, v.Model)
	for _, c := range cameras {
		// No fps: every frame is counted, so that its number tells its place in truth.jsonl.
		fmt.Fprintf(&b, "  - {id: %s, source: %s.mp4, loop: true}\n", c.name, c.name)
	}
	fmt.Fprintf(&b, "web:\n  listen: %q\n", v.Listen)
	return "cameras " + cameras[0].name + " and " + cameras[1].name, os.WriteFile(filepath.Join(dir, "fovea.yaml"), []byte(b.String()), 0o644)
}
