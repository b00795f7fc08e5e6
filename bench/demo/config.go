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
  relevance_every: 3
  fps: 2.17 # what two slow cores do beside an adaptation; no whole number of looks a clip, so that each round shows other frames
cameras:
`, v.State, v.Model)
	for _, c := range cameras {
		// No fps: every frame is counted, so that its number tells its place in truth.jsonl.
		fmt.Fprintf(&b, "  - {id: %s, source: %s.mp4, loop: true}\n", c.name, c.name)
	}
	// The clips show the same passes again and again, so frames count as new that are nearer to each other than on a
	// real camera, and fewer of them start an adaptation.
	fmt.Fprint(&b, "samples: {every: 1s, apart: 0.01, novel: 0.02}\nadapt: {new_samples: 60, cooldown: 20m, daily: 20}\n")
	fmt.Fprintf(&b, "web:\n  listen: %q\n", v.Listen)
	return "cameras " + cameras[0].name + " and " + cameras[1].name, os.WriteFile(filepath.Join(dir, "fovea.yaml"), []byte(b.String()), 0o644)
}
