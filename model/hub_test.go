package model

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const testCommit = "0123456789abcdef0123456789abcdef01234567"

// hubServer serves a folder as the hub serves the repository org/name, and counts the weights asked for.
func hubServer(t *testing.T, dir string, change func(info map[string]any)) (weights *atomic.Int32) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var siblings []any
	sums := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(text))
		file := map[string]any{"rfilename": e.Name(), "size": len(text)}
		if filepath.Ext(e.Name()) == ".safetensors" {
			file["lfs"] = map[string]any{"sha256": sums[e.Name()], "size": len(text)}
		}
		siblings = append(siblings, file)
	}
	info := map[string]any{"id": "org/name", "sha": testCommit, "siblings": siblings, "cardData": map[string]any{"license": "apache-2.0"}}
	if change != nil {
		change(info)
	}
	weights = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "gated", http.StatusUnauthorized)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/models/org/name/revision/") {
			json.NewEncoder(w).Encode(info)
			return
		}
		name, is := strings.CutPrefix(r.URL.Path, "/org/name/resolve/"+testCommit+"/")
		if !is || sums[name] == "" {
			http.NotFound(w, r)
			return
		}
		if filepath.Ext(name) == ".safetensors" {
			weights.Add(1)
		}
		w.Header().Set("ETag", `"`+sums[name]+`"`)
		http.ServeFile(w, r, filepath.Join(dir, name))
	}))
	t.Cleanup(server.Close)
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_TOKEN", "secret")
	return weights
}

func TestPull(t *testing.T) {
	for _, base := range []string{"hf-vit", "hf-deit-distilled-sharded", "timm-dinov2-reg4"} {
		t.Run(base, func(t *testing.T) {
			from := filepath.Join("testdata/parity", base)
			hubServer(t, from, nil)
			parent := t.TempDir()
			dir := filepath.Join(parent, "model")
			var last, total int64
			got, err := Pull(t.Context(), "hf:org/name", dir, func(d, n int64) { last, total = d, n })
			if err != nil {
				t.Fatal(err)
			}
			if want := "hf:org/name@" + testCommit + ", apache-2.0"; got.Source != want {
				t.Errorf("source %q, want %q", got.Source, want)
			}
			if total == 0 || last != total {
				t.Errorf("progress ended at %d of %d", last, total)
			}
			want, err := Load(from)
			if err != nil {
				t.Fatal(err)
			}
			saved, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if saved.Digest() != want.Digest() || saved.Preprocess != want.Preprocess || saved.Source != got.Source {
				t.Error("another model was saved")
			}
			if left, _ := os.ReadDir(parent); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestPullRefuses(t *testing.T) {
	bert := t.TempDir()
	writeFile(t, filepath.Join(bert, "config.json"), []byte(`{"model_type":"bert"}`))
	writeFile(t, filepath.Join(bert, "model.safetensors"), withHeader(`{}`, 0))
	pickled := t.TempDir()
	writeFile(t, filepath.Join(pickled, "config.json"), []byte(`{"model_type":"vit"}`))
	writeFile(t, filepath.Join(pickled, "pytorch_model.bin"), nil)
	const vit = "testdata/parity/hf-vit"
	each := func(change func(file map[string]any)) func(map[string]any) {
		return func(info map[string]any) {
			for _, f := range info["siblings"].([]any) {
				if f := f.(map[string]any); f["lfs"] != nil {
					change(f)
				}
			}
		}
	}
	for name, v := range map[string]struct {
		ref, dir string
		change   func(info map[string]any)
		token    string
		want     string
		fetched  bool // weights were asked for
	}{
		"no reference":     {"facebook/dinov2-small", vit, nil, "secret", "want hf:ORG/NAME", false},
		"path":             {"hf:../../etc", vit, nil, "secret", "want hf:ORG/NAME", false},
		"another name":     {"hf:org/other", vit, nil, "secret", "is the name right", false},
		"no token":         {"hf:org/name", vit, nil, "wrong", "does it need HF_TOKEN", false},
		"another family":   {"hf:org/name", bert, nil, "secret", `model_type "bert" is none that Fovea reads`, false},
		"pickled":          {"hf:org/name", pickled, nil, "secret", "it has no model.safetensors", false},
		"commit is a path": {"hf:org/name", vit, func(i map[string]any) { i["sha"] = "../../../x" }, "secret", `"../../../x" for a commit`, false},
		"checksum":         {"hf:org/name", vit, each(func(f map[string]any) { f["lfs"] = map[string]any{"sha256": strings.Repeat("0", 64)} }), "secret", "the hub says 0000", true},
		"size":             {"hf:org/name", vit, each(func(f map[string]any) { f["size"] = 12 }), "secret", "bytes arrived, want 12", true},
		"huge":             {"hf:org/name", vit, each(func(f map[string]any) { f["size"] = 1 << 40 }), "secret", "bytes of weights", false},
		"negative":         {"hf:org/name", vit, each(func(f map[string]any) { f["size"] = -5 }), "secret", "bytes of weights", false},
	} {
		t.Run(name, func(t *testing.T) {
			weights := hubServer(t, v.dir, v.change)
			t.Setenv("HF_TOKEN", v.token)
			parent := t.TempDir()
			_, err := Pull(t.Context(), v.ref, filepath.Join(parent, "model"), nil)
			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("error %v, want one that says %q", err, v.want)
			}
			if fetched := weights.Load() > 0; fetched != v.fetched {
				t.Errorf("weights fetched: %v, want %v", fetched, v.fetched)
			}
			if left, _ := os.ReadDir(parent); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestPullStops: a hub that never answers does not hold the verb.
func TestPullStops(t *testing.T) {
	asked, release := make(chan struct{}, 8), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	t.Setenv("HF_ENDPOINT", server.URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := Pull(ctx, "hf:org/name", filepath.Join(t.TempDir(), "model"), nil); err == nil || ctx.Err() == nil {
		t.Errorf("error %v", err)
	}
}
