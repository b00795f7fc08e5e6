package systemd

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exposureLimit is the most that "systemd-analyze security" may find of the unit, on its scale of 0 to 10;
// docs/systemd.md explains each remaining point.
const exposureLimit = 2.0

// root makes a folder that looks to systemd-analyze like a machine on which the unit is installed, with the
// drop-ins named.
func root(t *testing.T, dropIns ...string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"fovea.service": "etc/systemd/system/fovea.service"}
	for _, d := range dropIns {
		files[d] = filepath.Join("etc/systemd/system/fovea.service.d", d)
	}
	for from, to := range files {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What the unit starts, and the targets that it names.
	for _, program := range []string{"usr/bin/fovea", "bin/kill"} {
		path := filepath.Join(dir, program)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

type point struct {
	Name        string `json:"name"`
	JSONField   string `json:"json_field"`
	Description string `json:"description"`
	Exposure    string `json:"exposure"` // absent where nothing is exposed
}

func security(t *testing.T, dropIns ...string) []point {
	t.Helper()
	analyze := exec.Command("systemd-analyze", "security", "--offline=true", "--root="+root(t, dropIns...), "--json=short", "--no-pager", "fovea.service")
	out, err := analyze.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := string(out[strings.Index(string(out), "["):])
	var points []point
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&points); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return points
}

func TestExposure(t *testing.T) {
	limit := "--threshold=20" // tenths
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--root="+root(t), limit, "--no-pager", "fovea.service").CombinedOutput()
	text := string(out)
	overall := regexp.MustCompile(`Overall exposure level for fovea.service: ([0-9.]+)`).FindStringSubmatch(text)
	if err != nil || overall == nil {
		t.Fatalf("more than %.1f: %v\n%s", exposureLimit, err, text)
	}
	t.Log(overall[0])
	if strings.Contains(text, "Unknown") || strings.Contains(text, "Failed") {
		t.Errorf("the unit is not understood:\n%s", text)
	}
}

// Each point of exposure that is left stands in docs/systemd.md with its reason, and no other.
func TestEveryRemainingPointIsExplained(t *testing.T) {
	page, err := os.ReadFile("../docs/systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([0-9.]+) \\|").FindAllStringSubmatch(string(page), -1) {
		explained[strings.ReplaceAll(m[1], `\|`, "|")+" "+m[2]] = true
	}
	left := 0
	for _, p := range security(t) {
		if p.Exposure == "" {
			continue
		}
		left++
		if key := p.Name + " " + p.Exposure; !explained[key] {
			t.Errorf("docs/systemd.md does not explain `%s` (%s): %s", p.Name, p.Exposure, p.Description)
		} else {
			delete(explained, key)
		}
	}
	for key := range explained {
		t.Errorf("docs/systemd.md explains %s, which is not there any more", key)
	}
	if left == 0 {
		t.Error("no points read")
	}
}

// systemd reads the unit and its drop-ins without a complaint.
func TestUnitsVerify(t *testing.T) {
	for _, dropIns := range [][]string{nil, {"jetson.conf"}, {"dgpu.conf"}} {
		dir := root(t, dropIns...)
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--root="+dir, "fovea.service").CombinedOutput()
		if err != nil || len(strings.TrimSpace(string(out))) > 0 {
			t.Errorf("with %v: %v\n%s", dropIns, err, out)
		}
	}
}
