package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// picture makes bytes in place of a JPEG; the store does not look into it.
func picture(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func features(r *rand.Rand, n int) []float32 {
	f := make([]float32, n)
	for i := range f {
		f[i] = float32(r.NormFloat64())
	}
	return f
}

// sample makes one of a camera with an accepted mask.
func sample(r *rand.Rand, camera string, at time.Time, size int) Sample {
	s := Sample{
		Meta: Meta{
			Camera: camera, Time: at, Width: 8, Height: 6, Predicted: "cup", Scores: []Score{{"cup", .8}, {"key", .1}},
			Margin: .7, Model: "m", Backbone: "b", Why: string(Novel),
			Mask: &Mask{Width: 8, Height: 6, View: [4]int{0, 0, 8, 6}, Quality: .75, Accepted: true},
		},
		JPEG: picture(r, size), MaskPixels: make([]byte, 48), Features: features(r, 16),
	}
	for i := range s.MaskPixels {
		if r.IntN(2) == 1 {
			s.MaskPixels[i] = 255
		}
	}
	return s
}

func put(t *testing.T, s *Store, p Sample) uint64 {
	t.Helper()
	seq, err := s.Samples.Put(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestSampleSurvives(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	r := rand.New(rand.NewPCG(1, 1))
	want := sample(r, "door", noon, 5000)
	share := .25
	want.Relevance = &share
	want.Features = roundTrip(want.Features)
	seq := put(t, s, want)
	put(t, s, Sample{Meta: Meta{Camera: "yard", Time: noon}, JPEG: []byte{1}})
	must(t, s.Samples.Label(seq, "leaf"))
	s = reopen(t, s, dir)
	got, err := s.Samples.Get(seq)
	must(t, err)
	want.Seq, want.Label, want.Protected = seq, "leaf", true
	want.SHA256, want.PictureBytes, want.MaskBytes = digestOf(want.JPEG), 5000, len(encodeRuns(want.MaskPixels))
	if d := cmp.Diff(&want, got); d != "" {
		t.Error(d)
	}
	if list := s.Samples.List(func(m *Meta) bool { return m.Camera == "yard" }); len(list) != 1 || list[0].Seq != seq+1 {
		t.Errorf("list %+v", list)
	}
	must(t, s.Samples.Drop(seq, 99))
	if _, err := s.Samples.Get(seq); !errors.Is(err, ErrNoSample) {
		t.Error(err)
	}
	if err := s.Samples.Label(seq, "x"); !errors.Is(err, ErrNoSample) {
		t.Error(err)
	}
	must(t, s.Close())
	must(t, CheckFile(filepath.Join(dir, "samples.db")))
	if _, err := s.Samples.Put(context.Background(), want); !errors.Is(err, ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
}

func TestRefusedSamples(t *testing.T) {
	s := open(t, t.TempDir())
	r := rand.New(rand.NewPCG(1, 1))
	for name, change := range map[string]func(*Sample){
		"no picture":       func(p *Sample) { p.JPEG = nil },
		"a huge one":       func(p *Sample) { p.JPEG = make([]byte, maxPicture+1) },
		"pixels alone":     func(p *Sample) { p.Mask = nil },
		"mask alone":       func(p *Sample) { p.MaskPixels = nil },
		"another size":     func(p *Sample) { p.Mask.Height++ },
		"overflowing size": func(p *Sample) { p.Mask.Width, p.Mask.Height = math.MaxInt, 2 },
		"not a number":     func(p *Sample) { p.Features[3] = float32(math.NaN()) },
		"endless facts":    func(p *Sample) { p.Why = string(make([]byte, maxMeta)) },
	} {
		p := sample(r, "door", noon, 100)
		change(&p)
		if _, err := s.Samples.Put(context.Background(), p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	small, err := Open(context.Background(), t.TempDir(), Options{Samples: Limits{Bytes: 10_000}})
	must(t, err)
	defer small.Close()
	if _, err := small.Samples.Put(context.Background(), sample(r, "door", noon, 10_000)); !errors.Is(err, ErrInvalid) {
		t.Errorf("larger than the budget: %v", err)
	}
}

func TestHalf(t *testing.T) {
	for in, want := range map[float32]float32{
		0: 0, 1: 1, -2.5: -2.5, 1.0 / 3: 0.33325195, 65504: 65504, 1e9: 65504, float32(math.Inf(-1)): -65504,
		6e-8: 5.9604645e-08, 1e-9: 0, 2048.5: 2048, 2049.5: 2050, 65519: 65504,
	} {
		if got := fromHalf(toHalf(in)); got != want {
			t.Errorf("%v became %v, want %v", in, got, want)
		}
	}
	for h := range 1 << 16 { // every finite number stays
		if h>>10&31 != 31 && toHalf(fromHalf(uint16(h))) != uint16(h) {
			t.Fatalf("%04x became %04x", h, toHalf(fromHalf(uint16(h))))
		}
	}
}

func TestRuns(t *testing.T) {
	for _, mask := range [][]byte{{0}, {255}, {0, 255, 255, 0}, {255, 255}, make([]byte, 100_000)} {
		got, err := decodeRuns(encodeRuns(mask), len(mask))
		if err != nil || !bytes.Equal(got, mask) {
			t.Errorf("%d pixels: %v", len(mask), err)
		}
	}
}

func FuzzDecodeRuns(f *testing.F) {
	f.Add([]byte{3, 1}, 4)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 9)
	f.Fuzz(func(t *testing.T, runs []byte, n int) {
		n &= 1<<20 - 1
		pixels, err := decodeRuns(runs, n)
		if err == nil && len(pixels) != n {
			t.Errorf("%d pixels, want %d", len(pixels), n)
		}
	})
}

func FuzzDecodeIndex(f *testing.F) {
	good, err := encodeIndex(&Meta{Seq: 7, Camera: "door"}, []float32{1, 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, record []byte) { _, _, _ = decodeIndex(record) })
}

// TestEvictionSparesTheDiverse: of many pictures of one scene and few of others the few stay.
func TestEvictionSparesTheDiverse(t *testing.T) {
	s, err := Open(context.Background(), t.TempDir(), Options{Samples: Limits{Bytes: 20 * 4096}})
	must(t, err)
	defer s.Close()
	r := rand.New(rand.NewPCG(2, 1))
	scene := features(r, 16)
	rare := map[uint64]bool{}
	for i := range 200 {
		p := sample(r, "door", noon.Add(time.Duration(i)*time.Second), 1500)
		if i%20 == 0 {
			rare[put(t, s, p)] = true
			continue
		}
		p.Features = roundTrip(scene)
		for k := range p.Features {
			p.Features[k] += float32(r.NormFloat64()) * .02
		}
		put(t, s, p)
	}
	left := 0
	for _, m := range s.Samples.List(nil) {
		if rare[m.Seq] {
			left++
		}
	}
	sum := s.Samples.Summary()
	if left != len(rare) || sum.Bytes > sum.Limit || sum.Evicted == 0 {
		t.Errorf("%d of %d rare ones are left, %+v", left, len(rare), sum)
	}
}

func TestHoldOutSpreadsOverTime(t *testing.T) {
	s, err := Open(context.Background(), t.TempDir(), Options{Samples: Limits{Bytes: 100 * 4096}})
	must(t, err)
	defer s.Close()
	s.Samples.db.NoSync = true
	r := rand.New(rand.NewPCG(3, 1))
	for i := range 1000 { // ten hours, every 36 s
		put(t, s, sample(r, "door", noon.Add(time.Duration(i)*36*time.Second), 1500))
	}
	var times []time.Time // newest first
	for _, m := range s.Samples.List(func(m *Meta) bool { return m.Protected }) {
		times = append(times, m.Time)
	}
	all := s.Samples.Summary().Samples
	if n := len(times); n < all/holdOutOf-1 || n > all/holdOutOf+1 {
		t.Errorf("%d of %d are held out", n, all)
	}
	for i := 1; i < len(times); i++ {
		if d := times[i-1].Sub(times[i]); d < holdOutGap {
			t.Errorf("two held out within %v", d)
		}
	}
	if span := times[0].Sub(times[len(times)-1]); span < 8*time.Hour {
		t.Errorf("the hold-out spans %v of 10 h", span)
	}
}

func TestPurgeLeavesNoPixel(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	marker := []byte("a marker in place of a face")
	p := Sample{Meta: Meta{Camera: "door", Time: noon}, JPEG: bytes.Repeat(marker, 200)}
	first := put(t, s, p)
	put(t, s, p)
	must(t, s.Samples.Drop(first))
	must(t, os.WriteFile(filepath.Join(dir, "samples.db.corrupt-1"), marker, 0o600))
	must(t, s.Samples.Purge())
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, marker) {
			t.Errorf("%s holds the marker", path)
		}
		return err
	}))
	if next := put(t, s, p); next <= first+1 {
		t.Errorf("number %d again", next)
	}
	if n := s.Samples.Summary().Samples; n != 1 {
		t.Errorf("%d samples", n)
	}
}

func TestCompact(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	r := rand.New(rand.NewPCG(1, 1))
	var all []uint64
	for range 50 {
		all = append(all, put(t, s, sample(r, "door", noon, 40_000)))
	}
	must(t, s.Samples.Drop(all[1:]...))
	before, after, err := s.Samples.Compact()
	if err != nil || after*4 > before {
		t.Errorf("from %d to %d bytes: %v", before, after, err)
	}
	if _, err := s.Samples.Get(all[0]); err != nil {
		t.Error(err)
	}
	next := put(t, s, sample(r, "door", noon, 100))
	if next != all[49]+1 {
		t.Errorf("number %d after %d", next, all[49])
	}
	must(t, s.Close())
	must(t, CheckFile(filepath.Join(dir, "samples.db")))
}

// TestAge: by order of arrival, a few at a time, and a picture without a believed time takes none with it.
func TestAge(t *testing.T) {
	s, err := Open(context.Background(), t.TempDir(), Options{Samples: Limits{MaxAge: 24 * time.Hour}})
	must(t, err)
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 300 {
		p := sample(r, "door", noon.Add(time.Duration(i)*time.Minute), 100)
		p.TimeSynced = true
		if i == 299 {
			p.Time, p.TimeSynced = time.Unix(0, 0), false
		}
		put(t, s, p)
	}
	must(t, s.Samples.Age(noon.Add(25*time.Hour))) // 60 are too old
	if n := s.Samples.Summary().Samples; n != 297 {
		t.Errorf("%d left after one call", n)
	}
	for range 100 {
		must(t, s.Samples.Age(noon.Add(25*time.Hour)))
	}
	list := s.Samples.List(nil)
	if len(list) != 240 || list[len(list)-1].Seq != 61 {
		t.Errorf("%d left, the oldest is %d", len(list), list[len(list)-1].Seq)
	}
}

// TestWriteFails: a commit that fails leaves memory and file as they were.
func TestWriteFails(t *testing.T) {
	s, err := Open(context.Background(), t.TempDir(), Options{Samples: Limits{Bytes: 10 * 4096}})
	must(t, err)
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 30 {
		put(t, s, sample(r, "door", noon.Add(time.Duration(i)*time.Hour), 1500))
	}
	before := s.Samples.List(nil)
	x := s.Samples
	x.mu.Lock()
	next := x.index.next
	adds := []*pending{{sample: ptr(sample(r, "door", noon, 1500))}, {sample: ptr(sample(r, "door", noon, 3500))}}
	for _, p := range adds {
		must(t, x.prepare(p.sample))
	}
	must(t, x.db.Close())
	err = x.change([]uint64{before[0].Seq}, adds)
	x.mu.Unlock()
	if err == nil {
		t.Fatal("a closed file took a change")
	}
	if d := cmp.Diff(before, s.Samples.List(nil)); d != "" {
		t.Error(d)
	}
	if x.index.next != next {
		t.Errorf("next is %d, was %d", x.index.next, next)
	}
	for _, e := range x.index.entries {
		if near, _ := e.group.nearest(e.unit, e); near != e.near {
			t.Errorf("sample %d: nearest %v, want %v", e.Seq, e.near, near)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(context.Background(), dir, Options{LockWait: 50 * time.Millisecond})
	if !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
}

func TestJudge(t *testing.T) {
	low, high := .1, .9
	around := Surroundings{Since: time.Hour, Distance: .1, Samples: 100, OfClass: 50, Classes: 2, OfCamera: 80, OfDayPart: 40, DayParts: 2}
	sure := Candidate{Predicted: "cup", Margin: .9, Relevance: &high}
	for _, c := range []struct {
		name      string
		candidate func(*Candidate)
		around    func(*Surroundings)
		why       Reason
		keep      bool
	}{
		{"the first", func(*Candidate) {}, func(s *Surroundings) { *s = Surroundings{Since: -1, Distance: 2, Classes: 1, DayParts: 1} }, Novel, true},
		{"right after another", func(*Candidate) {}, func(s *Surroundings) { s.Since, s.Distance = 9*time.Second, 1 }, Burst, false},
		{"seen before", func(c *Candidate) { c.Margin = 0 }, func(s *Surroundings) { s.Distance = .05 }, Known, false},
		{"unlike all", func(*Candidate) {}, func(s *Surroundings) { s.Distance = .15 }, Novel, true},
		{"hesitating", func(c *Candidate) { c.Margin = .1 }, func(*Surroundings) {}, Uncertain, true},
		{"looking beside", func(c *Candidate) { c.Relevance = &low }, func(*Surroundings) {}, Disputed, true},
		{"relevance unknown", func(c *Candidate) { c.Relevance = nil }, func(*Surroundings) {}, Ordinary, false},
		{"a class with a fifth of its share", func(*Candidate) {}, func(s *Surroundings) { s.OfClass = 10 }, RareClass, true},
		{"the night", func(*Candidate) {}, func(s *Surroundings) { s.OfDayPart = 1 }, RareHour, true},
		{"one more of the same", func(*Candidate) {}, func(*Surroundings) {}, Ordinary, false},
	} {
		candidate, s := sure, around
		c.candidate(&candidate)
		c.around(&s)
		if why, keep := DefaultTaste.Judge(candidate, s); why != c.why || keep != c.keep {
			t.Errorf("%s: %s, %v; want %s, %v", c.name, why, keep, c.why, c.keep)
		}
	}
}

func TestAround(t *testing.T) {
	s := open(t, t.TempDir())
	r := rand.New(rand.NewPCG(1, 1))
	a := sample(r, "door", noon, 10)
	if got := s.Samples.Around(Candidate{Camera: "door", Time: noon, Features: a.Features, Predicted: "cup"}); got != (Surroundings{Since: -1, Distance: 2, Classes: 1, DayParts: 1}) {
		t.Errorf("%+v", got)
	}
	put(t, s, a)
	b := sample(r, "yard", noon.Add(12*time.Hour), 10)
	b.Predicted = "key"
	put(t, s, b)
	got := s.Samples.Around(Candidate{Camera: "door", Time: noon.Add(-time.Minute), Features: a.Features, Backbone: "b", Predicted: "leaf"})
	if got.Distance > 1e-6 || got.Since != time.Minute || got.Samples != 2 || got.OfClass != 0 || got.Classes != 3 || got.OfCamera != 1 {
		t.Errorf("%+v", got)
	}
	if got := s.Samples.Around(Candidate{Camera: "door", Features: a.Features, Backbone: "another"}); got.Distance != 2 {
		t.Errorf("compared across networks: %+v", got)
	}
}

// TestRoughSearchFindsTheNearest: as the search of all does, where a nearest one is near.
func TestRoughSearchFindsTheNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	g := &group{}
	for i := range 2000 {
		f := features(r, 384)
		for k := range f {
			f[k] += 1 // as real features: half of the length in common
		}
		g.entries = append(g.entries, newEntry(Meta{Seq: uint64(i)}, f))
	}
	for i := range 200 {
		noise := features(r, 384)
		query := make([]float32, 384)
		for k, v := range g.entries[i].unit {
			query[k] = v + noise[k]*float32(i)/200/20
		}
		unit := unitOf(query)
		want, _ := g.nearest(unit, nil)
		got, found := g.cosine(unit)
		if !found || got != want && want > .75 {
			t.Errorf("cosine %v, nearest is %v", got, want)
		}
	}
}

// BenchmarkChoose is what a frame costs beside its forward pass: 8,000 samples of a camera, 384 features.
func BenchmarkChoose(b *testing.B) {
	s := &Samples{index: newIndex()}
	r := rand.New(rand.NewPCG(1, 1))
	g := &group{}
	for i := range 8000 {
		e := newEntry(Meta{Seq: uint64(i + 1), Camera: "door", Time: noon}, features(r, 384))
		g.entries = append(g.entries, e)
	}
	s.index.groups[groupKey{"door", ""}] = g
	c := Candidate{Camera: "door", Time: noon, Features: features(r, 384)}
	for b.Loop() {
		if why, _ := DefaultTaste.Judge(c, s.Around(c)); why == "" {
			b.Fatal("no reason")
		}
	}
}

func ExampleTaste_Judge() {
	why, keep := DefaultTaste.Judge(
		Candidate{Camera: "door", Predicted: "cup", Margin: 0.05},
		Surroundings{Since: time.Minute, Distance: 0.1, Samples: 40, OfClass: 20, Classes: 2, OfCamera: 40, OfDayPart: 40, DayParts: 1})
	fmt.Println(why, keep)
	// Output: uncertain true
}
