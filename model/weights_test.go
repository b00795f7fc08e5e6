package model

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWeightsAlone(t *testing.T) {
	c := Config{
		ImageHeight: 32, ImageWidth: 48, Patch: 16, Dim: 12, Depth: 2, Heads: 2, Hidden: 24, Classes: 3, Readout: ReadClass,
		PrefixPosition: true, QKVBias: true, Epsilon: 1e-6, PositionResize: PositionBicubic,
	}
	one, two := Random(c, 1), Random(c, 2)
	var text bytes.Buffer
	if err := two.WriteWeights(&text); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "two.safetensors")
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := one.WithWeights(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != two.Digest() || one.Digest() == two.Digest() {
		t.Errorf("digest %s, want that of the written checkpoint %s", got.Digest(), two.Digest())
	}
	c.Depth = 3
	if _, err := Random(c, 1).WithWeights(file); err == nil || !strings.Contains(err.Error(), "blocks.2") {
		t.Errorf("weights of two blocks for a network of three: %v", err)
	}
}
