package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The package fovea-grab-source builds fovea-grab without a network, against the OpenCV that is here.
func TestGrabRebuild(t *testing.T) {
	if os.Getenv("FOVEA_SOAK") == "" {
		t.Skip("compiles OpenCV's bindings from nothing, a minute or more; set FOVEA_SOAK=1")
	}
	source := filepath.Join(t.TempDir(), "source")
	if out, err := exec.Command("../tools/grab-source.sh", source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := filepath.Join(t.TempDir(), "fovea-grab")
	rebuild := exec.Command("package/fovea-grab-rebuild", program)
	rebuild.Env = append(os.Environ(), "FOVEA_GRAB_SOURCE="+source, "PKG_CONFIG_PATH=", "GOPROXY=off", "GOFLAGS=")
	out, err := rebuild.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	// By hand it says what it is and ends with 2.
	words, err := exec.Command(program).CombinedOutput()
	if err == nil || !strings.Contains(string(words), "is started by fovea") {
		t.Errorf("what was built says %q, %v", words, err)
	}
}
