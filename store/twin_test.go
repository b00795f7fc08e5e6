package store

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// twin is what the store must be: the same by plain means, everything in memory, every neighbour looked for.
type twin struct {
	samples []Sample // by Seq
	next    uint64
	limit   int64
	queue   [][]byte
	dropped uint64
	leased  int
	command map[string]string
}

func (w *twin) bytes() (n int64) {
	for _, s := range w.samples {
		n += int64(len(s.JPEG) + s.MaskBytes + 2*len(s.Features) + overhead)
	}
	return n
}

// near is the largest cosine of a sample to another of its camera and network.
func (w *twin) near(s Sample) float32 {
	near := float32(-1)
	for _, o := range w.samples {
		if o.Seq != s.Seq && o.Camera == s.Camera && o.Backbone == s.Backbone && len(o.Features) > 0 && len(s.Features) > 0 {
			near = max(near, dot(unitOf(s.Features), unitOf(o.Features)))
		}
	}
	return near
}

func (w *twin) evict() {
	rank := func(s Sample) (tier int, redundancy float32) {
		redundancy = w.near(s)
		if s.Mask == nil || !s.Mask.Accepted {
			redundancy += untrusted
		}
		switch {
		case s.Protected:
			return 2, redundancy
		case s.Label != "":
			return 1, redundancy
		}
		return 0, redundancy
	}
	first := 0
	for i := range w.samples {
		t, r := rank(w.samples[i])
		ft, fr := rank(w.samples[first])
		if t < ft || t == ft && r > fr {
			first = i
		}
	}
	w.samples = slices.Delete(w.samples, first, first+1)
}

func (w *twin) put(s Sample) {
	s.PictureBytes, s.SHA256 = len(s.JPEG), digestOf(s.JPEG)
	s.Features = roundTrip(s.Features)
	if s.Mask != nil {
		s.MaskBytes = len(encodeRuns(s.MaskPixels))
	}
	for w.bytes()+int64(len(s.JPEG)+s.MaskBytes+2*len(s.Features)+overhead) > w.limit {
		w.evict()
	}
	s.Seq = w.next
	w.next++
	w.samples = append(w.samples, s)
}

func (w *twin) find(seq uint64) *Sample {
	for i := range w.samples {
		if w.samples[i].Seq == seq {
			return &w.samples[i]
		}
	}
	return nil
}

func (w *twin) push(m []byte) {
	if len(w.queue) >= queueLimit {
		w.dropped++
		if w.leased == len(w.queue) {
			return
		}
		w.queue = slices.Delete(w.queue, w.leased, w.leased+1)
	}
	w.queue = append(w.queue, m)
}

// TestAgainstTwin does at least 10,000 random operations, 22,000 in the mean, to a store and to its twin. The hold-out's choice is the
// store's own: the twin only follows it, TestHoldOutSpreadsOverTime judges it.
func TestAgainstTwin(t *testing.T) {
	for name, value := range map[string]string{"rapid.checks": "100", "rapid.steps": "220"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	operations := 0
	rapid.Check(t, func(t *rapid.T) {
		dir, remove := tempDir(t)
		defer remove()
		limit := int64(rapid.IntRange(8, 40).Draw(t, "budget")) * 4096
		options := Options{Samples: Limits{Bytes: limit}}
		s, err := Open(context.Background(), dir, options)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		quick := func() { s.State.db.NoSync, s.Samples.db.NoSync = true, true }
		quick()
		w := &twin{limit: limit, next: 1, command: map[string]string{}}
		seqs := rapid.Custom(func(t *rapid.T) uint64 {
			if len(w.samples) == 0 || rapid.IntRange(0, 9).Draw(t, "unknown") == 0 {
				return rapid.Uint64Range(0, 300).Draw(t, "any")
			}
			return rapid.SampledFrom(w.samples).Draw(t, "kept").Seq
		})
		follow := func() { // the hold-out
			for i := range w.samples {
				w.samples[i].Protected = s.Samples.index.entries[w.samples[i].Seq] != nil && s.Samples.index.entries[w.samples[i].Seq].Protected
			}
		}

		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				p := drawSample(t)
				seq, err := s.Samples.Put(context.Background(), p)
				if err != nil {
					t.Fatal(err)
				}
				w.put(p)
				if seq != w.next-1 {
					t.Fatalf("number %d, want %d", seq, w.next-1)
				}
				follow()
			},
			"label": func(t *rapid.T) {
				seq, label := seqs.Draw(t, "seq"), rapid.SampledFrom([]string{"", "cup", "key"}).Draw(t, "label")
				err, kept := s.Samples.Label(seq, label), w.find(seq)
				if (kept == nil) != errors.Is(err, ErrNoSample) || kept != nil && err != nil {
					t.Fatalf("label %d: %v", seq, err)
				}
				if kept != nil {
					kept.Label = label
				}
			},
			"drop": func(t *rapid.T) {
				gone := rapid.SliceOfN(seqs, 0, 3).Draw(t, "seqs")
				if err := s.Samples.Drop(gone...); err != nil {
					t.Fatal(err)
				}
				w.samples = slices.DeleteFunc(w.samples, func(s Sample) bool { return slices.Contains(gone, s.Seq) })
			},
			"get": func(t *rapid.T) {
				seq := seqs.Draw(t, "seq")
				got, err := s.Samples.Get(seq)
				want := w.find(seq)
				if want == nil {
					if !errors.Is(err, ErrNoSample) {
						t.Fatalf("get %d: %v", seq, err)
					}
					return
				}
				if err != nil || !bytes.Equal(got.JPEG, want.JPEG) || !bytes.Equal(got.MaskPixels, want.MaskPixels) || !slices.Equal(got.Features, want.Features) ||
					got.Label != want.Label || !got.Time.Equal(want.Time) || got.SHA256 != want.SHA256 {
					t.Fatalf("get %d: %+v, %v", seq, got, err)
				}
			},
			"around": func(t *rapid.T) {
				p := drawSample(t)
				got := s.Samples.Around(Candidate{Camera: p.Camera, Backbone: p.Backbone, Features: p.Features, Predicted: p.Predicted, Time: p.Time})
				same := 0
				for _, o := range w.samples {
					if o.Predicted == p.Predicted {
						same++
					}
				}
				p.Features = roundTrip(p.Features)
				near := w.near(Sample{Meta: Meta{Camera: p.Camera, Backbone: p.Backbone}, Features: p.Features})
				if got.OfClass != same || got.Samples != len(w.samples) || near > -1 && got.Distance != 1-float64(near) || near == -1 && got.Distance != 2 {
					t.Fatalf("around %+v, want %d of the class, nearest %v", got, same, near)
				}
			},
			"purge": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					if err := s.Samples.Purge(); err != nil {
						t.Fatal(err)
					}
					w.samples = nil
					quick()
				}
			},
			"compact": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					if _, _, err := s.Samples.Compact(); err != nil {
						t.Fatal(err)
					}
					quick()
				}
			},
			"reopen": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "rarely") > 0 {
					return
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = Open(context.Background(), dir, options); err != nil || len(s.Alarms) > 0 { // it is checked, too
					t.Fatal(err, s.Alarms)
				}
				quick()
				w.leased = 0
			},
			"push": func(t *rapid.T) {
				m := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "message")
				if err := s.State.Queue.Push(m); err != nil {
					t.Fatal(err)
				}
				w.push(m)
			},
			"lease": func(t *rapid.T) {
				n := rapid.IntRange(0, 20).Draw(t, "n")
				got, err := s.State.Queue.Lease(n)
				w.leased = min(n, len(w.queue))
				if err != nil || !slices.EqualFunc(got, w.queue[:w.leased], bytes.Equal) {
					t.Fatalf("leased %q, want %q: %v", got, w.queue[:w.leased], err)
				}
			},
			"remove": func(t *rapid.T) {
				n := rapid.IntRange(0, 20).Draw(t, "n")
				if err := s.State.Queue.Remove(n); err != nil {
					t.Fatal(err)
				}
				w.queue, w.leased = slices.Clone(w.queue[min(n, w.leased):]), 0
			},
			"save": func(t *rapid.T) {
				id, text := rapid.StringMatching(`[a-c]`).Draw(t, "id"), rapid.String().Draw(t, "text")
				if err := s.State.Commands.Save(id, []byte(text)); err != nil {
					t.Fatal(err)
				}
				w.command[id] = text
			},
			"forget": func(t *rapid.T) {
				id := rapid.StringMatching(`[a-d]`).Draw(t, "id")
				if err := s.State.Commands.Forget([]string{id}); err != nil {
					t.Fatal(err)
				}
				delete(w.command, id)
			},
			"": func(t *rapid.T) {
				operations++
				w.compare(t, s)
			},
		})
	})
	if operations < 10_000 {
		t.Errorf("only %d operations", operations)
	}
	t.Logf("%d operations", operations)
}

// compare looks at all that does not need the file.
func (w *twin) compare(t *rapid.T, s *Store) {
	list := s.Samples.List(nil)
	if len(list) != len(w.samples) {
		t.Fatalf("%d samples, want %d", len(list), len(w.samples))
	}
	for i, m := range list {
		if want := w.samples[len(list)-1-i]; m.Seq != want.Seq || m.Label != want.Label {
			t.Fatalf("sample %d %q, want %d %q", m.Seq, m.Label, want.Seq, want.Label)
		}
	}
	if sum := s.Samples.Summary(); sum.Bytes != w.bytes() || sum.Bytes > w.limit {
		t.Fatalf("%d bytes counted, want %d of at most %d", sum.Bytes, w.bytes(), w.limit)
	}
	if q := s.State.Queue; q.Len() != len(w.queue) || q.Dropped() != w.dropped {
		t.Fatalf("queue of %d, %d dropped; want %d, %d", q.Len(), q.Dropped(), len(w.queue), w.dropped)
	}
	records, err := s.State.Commands.Load()
	if err != nil || len(records) != len(w.command) {
		t.Fatalf("%d commands, want %d: %v", len(records), len(w.command), err)
	}
	for _, r := range records {
		if !slices.ContainsFunc(slices.Collect(maps.Values(w.command)), func(text string) bool { return text == string(r) }) {
			t.Fatalf("command %q", r)
		}
	}
}

func drawSample(t *rapid.T) Sample {
	p := Sample{
		Meta: Meta{
			Camera: rapid.SampledFrom([]string{"door", "yard"}).Draw(t, "camera"), Backbone: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "backbone"),
			Predicted: rapid.SampledFrom([]string{"cup", "key", ""}).Draw(t, "predicted"),
			Time:      noon.Add(time.Duration(rapid.IntRange(-100, 5000).Draw(t, "minute")) * time.Minute),
		},
		JPEG: bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(1, 9000).Draw(t, "size")),
	}
	if rapid.Bool().Draw(t, "features") {
		for range 6 {
			p.Features = append(p.Features, float32(rapid.IntRange(-3, 3).Draw(t, "feature"))+.5)
		}
	}
	if rapid.Bool().Draw(t, "mask") {
		p.Mask = &Mask{Width: 4, Height: 3, Accepted: rapid.Bool().Draw(t, "accepted")}
		p.MaskPixels = []byte{0, 255, 255, 0, 0, 255, 255, 0, 0, 0, 0, 0}
	}
	return p
}

// tempDir is for a check, which has no TempDir of its own.
func tempDir(t *rapid.T) (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "fovea-twin-")
	if err != nil {
		t.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}
