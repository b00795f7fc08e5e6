package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-a98b2d25/fovea/model"
)

func TestLikeliest(t *testing.T) {
	c := model.Config{Classes: 7, Labels: strings.Split("a b c d e f g", " ")}
	got, margin := likeliest(c, []float32{0.0625, 0.25, 0.125, 0.0625, 0.375, 0.0625, 0.0625})
	want := []guess{{"e", 0.375}, {"b", 0.25}, {"c", 0.125}, {"a", 0.0625}, {"d", 0.0625}}
	if diff := cmp.Diff(want, got); diff != "" || margin != 0.125 {
		t.Errorf("margin %v, guesses (-want +got):\n%s", margin, diff)
	}
	if got, margin := likeliest(model.Config{Classes: 1}, []float32{1}); len(got) != 1 || margin != 1 {
		t.Errorf("one class: %v, margin %v", got, margin)
	}
}

func TestTiming(t *testing.T) {
	var timing timing
	now := time.Unix(1e9, 0)
	if _, _, _, ok := timing.since(now, time.Minute); ok {
		t.Error("an answer before the first")
	}
	for i := range 200 { // 10 a second; the last 5 s are slow
		took := 10 * time.Millisecond
		if i >= 150 {
			took = 100 * time.Millisecond
		}
		timing.add(now.Add(time.Duration(i-199)*100*time.Millisecond), took)
	}
	if rate, p50, p95, _ := timing.since(now, 5*time.Second); rate != 10 || p50 != 0.1 || p95 != 0.1 {
		t.Errorf("5 s: %v a second, %v, %v", rate, p50, p95)
	}
	if rate, p50, p95, _ := timing.since(now, 20*time.Second); rate != 10 || p50 != 0.01 || p95 != 0.1 {
		t.Errorf("20 s: %v a second, %v, %v", rate, p50, p95)
	}
	for i := range 5000 { // more than it keeps, 1000 a second
		timing.add(now.Add(time.Duration(i)*time.Millisecond), time.Millisecond)
	}
	if rate, _, _, _ := timing.since(now.Add(5*time.Second), time.Minute); rate < 990 || rate > 1010 {
		t.Errorf("full: %v a second, want 1000", rate)
	}
}

func TestHistory(t *testing.T) {
	var h history
	for i := range 1000 {
		h.add(point{TS: int64(i / 2)})
	}
	if got := h.since(497); len(got) != 2 || got[0].TS != 498 || got[1].TS != 499 {
		t.Errorf("since 497: %v", got)
	}
	if got := h.since(0); len(got) != historyLength || got[0].TS != 200 {
		t.Errorf("%d points from %v", len(got), got[0])
	}
}

func TestLevels(t *testing.T) {
	if got := levels([]float32{2, 4, 3}); !slices.Equal(got, []byte{0, 255, 128}) {
		t.Errorf("levels %v", got)
	}
	if got := levels([]float32{5, 5}); !slices.Equal(got, []byte{0, 0}) {
		t.Errorf("a constant map: %v", got)
	}
}

// follow runs a part again when its section changes, and only then.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var configs newest[*Config]
		with := func(dir, listen string) *Config {
			return &Config{Model: ModelConfig{Dir: dir}, Web: WebConfig{Listen: listen}}
		}
		configs.set(with("a", "1"))
		var ran []string
		running := 0
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- follow(ctx, &configs, func(c *Config) string { return c.Model.Dir }, func(ctx context.Context, dir string) error {
				running++
				ran = append(ran, dir)
				if dir != "short" {
					<-ctx.Done()
				}
				running--
				return nil
			})
		}()
		for _, c := range []*Config{with("a", "2"), with("b", "2"), with("short", "2"), with("c", "3")} {
			synctest.Wait()
			configs.set(c)
		}
		synctest.Wait()
		if want := []string{"a", "b", "short", "c"}; !slices.Equal(ran, want) || running != 1 {
			t.Errorf("ran %v, want %v; %d run", ran, want, running)
		}
		cancel()
		if err := <-ended; err != nil || running != 0 {
			t.Errorf("ended with %v, %d run", err, running)
		}
	})
	var configs newest[*Config]
	configs.set(&Config{})
	broken := errors.New("broken")
	if err := follow(t.Context(), &configs, func(*Config) int { return 0 }, func(context.Context, int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a part that fails: %v", err)
	}
}

func TestSecretFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	first, err := secretFile(file)
	if err != nil || len(first) < 40 {
		t.Fatalf("%q, %v", first, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if again, err := secretFile(file); again != first || err != nil {
		t.Errorf("%q then %q, %v", first, again, err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secretFile(file); err == nil {
		t.Error("an empty secret is taken")
	}
}

// Exit codes are what systemd decides by.
func TestExitCodes(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("modle: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"", 0, "fovea config example > fovea.yaml", ""},
		{"--help", 0, "Begin:", ""},
		{"--version", 0, "devel", ""},
		{"run --help", 0, "kill -HUP", ""},
		{"check --config testdata/full.good.yaml", 0, "is right: 2 cameras", ""},
		{"check --config " + bad, exitConfiguration, "", "bad.yaml:1:1: modle: unknown key; did you mean model?"},
		{"run --config " + bad, exitConfiguration, "", "unknown key"},
		{"run --config /nowhere.yaml", exitConfiguration, "", "/nowhere.yaml"},
		{"config example", 0, exampleConfig, ""},
		{"config schema", 0, configSchema, ""},
		{"models show /nowhere", exitFailure, "", "/nowhere"},
		{"rum", exitUsage, "", "unexpected argument rum"},
		{"check --confg x", exitUsage, "", "unknown flag"},
	} {
		var out, err bytes.Buffer
		code := execute(t.Context(), strings.Fields(c.args), &out, &err)
		if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(err.String(), c.err) {
			t.Errorf("fovea %s: code %d, want %d\n%s%s", c.args, code, c.code, &out, &err)
		}
	}
}

// The folder that models import writes, shown and timed.
func TestModelsShowAndBench(t *testing.T) {
	dir := tinyModel(t)
	var out, errs bytes.Buffer
	if code := execute(t.Context(), []string{"models", "show", dir}, &out, &errs); code != 0 || !strings.Contains(out.String(), "cup") || !strings.Contains(out.String(), "ViT-32/8, 3 classes") {
		t.Errorf("show: %d\n%s%s", code, &out, &errs)
	}
	out.Reset()
	saved := filepath.Join(t.TempDir(), "saved")
	if code := execute(t.Context(), []string{"bench", "--model", dir, "--backend", "go", "--runs", "5", "--save", saved}, &out, &errs); code != 0 {
		t.Errorf("bench: %d\n%s", code, &errs)
	}
	for _, want := range []string{"logits", "features", "explained", "on go, batch 1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("bench does not say %s:\n%s", want, &out)
		}
	}
	before, err := model.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	after, err := model.Load(saved)
	if err != nil || after.Digest() != before.Digest() {
		t.Errorf("what bench saved is not what it timed: %v", err)
	}
	errs.Reset()
	if code := execute(t.Context(), []string{"models", "import", "x.onnx", "--out", dir}, &out, &errs); code != exitFailure || !strings.Contains(errs.String(), "is there already") {
		t.Errorf("import over a model: %d %s", code, &errs)
	}
}
