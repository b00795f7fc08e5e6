package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seed-a98b2d25/fovea/"

// Libraries that belong to one room each.
const (
	gocv  = "gocv.io/x/gocv"
	bbolt = "go.etcd.io/bbolt"
	paho  = "github.com/eclipse/paho.mqtt.golang"
	mochi = "github.com/mochi-mqtt/server"
	gomlx = "github.com/gomlx"
)

// rooms says what each room may import of ours, and which libraries never reach it, not even by way of another
// (docs/architecture.md). Rooms inside a room (capture/internal) follow it.
var rooms = map[string]struct{ ours, never []string }{
	"model":        {nil, []string{gocv, bbolt, paho, mochi}},
	"adapt":        {[]string{"model"}, []string{gocv, bbolt, paho, mochi}},
	"capture":      {nil, []string{gocv, gomlx, bbolt, paho, mochi}},
	"capture/grab": {nil, []string{gomlx, bbolt, paho, mochi}},
	"store":        {nil, []string{gocv, gomlx, paho, mochi}},
	"fleet":        {nil, []string{gocv, gomlx, bbolt}},
	"daemon":       {[]string{"model", "adapt", "capture", "store", "fleet"}, []string{gocv}},
}

func TestImportsPointDownwards(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "-tags", "gocv_specific_modules gocv_videoio", "../...")
	var stderr bytes.Buffer
	list.Stderr = &stderr
	text, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	seen := map[string]bool{}
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var p struct {
			ImportPath    string
			Imports, Deps []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		room := roomOf(p.ImportPath)
		rule, known := rooms[room]
		if !known {
			continue // bench, tools: programs outside the house
		}
		seen[room] = true
		for _, dep := range p.Deps {
			other := roomOf(dep)
			inside := other == room || room == "capture/grab" && strings.HasPrefix(dep, module+"capture/internal/")
			if strings.HasPrefix(dep, module) && !inside && !slices.Contains(rule.ours, other) {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
			for _, library := range rule.never {
				if dep == library || strings.HasPrefix(dep, library+"/") {
					t.Errorf("%s depends on %s", p.ImportPath, dep)
				}
			}
		}
		if room == "model" && slices.Contains(p.Imports, "net/http") {
			t.Errorf("%s imports net/http", p.ImportPath)
		}
	}
	for _, room := range []string{"model", "adapt", "capture", "capture/grab", "fleet", "daemon"} {
		if !seen[room] {
			t.Errorf("room %s was not looked at", room)
		}
	}
}

// roomOf is the room of a package of ours, "" for others.
func roomOf(importPath string) string {
	rest, ours := strings.CutPrefix(importPath, module)
	if !ours {
		return ""
	}
	if rest == "capture/grab" {
		return rest
	}
	first, _, _ := strings.Cut(path.Clean(rest), "/")
	return first
}
