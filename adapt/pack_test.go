package adapt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func jpegOf(t testing.TB, w, h int, seed uint64) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		img.SetRGBA(i%w, i/w, color.RGBA{uint8(r.IntN(256)), uint8(i % w), uint8(i / w), 255})
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packSamples(t testing.TB, n int) []Sample {
	t.Helper()
	var list []Sample
	for i := range n {
		s := Sample{
			Part: Train, Camera: "yard", Time: time.Unix(1000+int64(i), 7), Sequence: uint64(10 + i), JPEG: jpegOf(t, 40, 30, uint64(i)),
		}
		if i >= n/2 {
			s.Part, s.Time = Held, s.Time.Add(time.Minute)
		}
		if i%2 == 0 {
			s.Mask, s.Quality = make([]byte, 40*30), .75
			for j := range 200 {
				s.Mask[100+i+j] = 255
			}
		}
		if i%3 == 0 {
			s.Label = "cup"
		}
		list = append(list, s)
	}
	return list
}

func writePack(t testing.TB, list []Sample) (file, digest string, err error) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "a.pack")
	digest, err = WritePack(file, PackInfo{Base: "b", Labelled: "l", Gap: 10}, len(list), func(i int) (Sample, error) { return list[i], nil })
	return file, digest, err
}

func TestPackKeepsWhatItWasGiven(t *testing.T) {
	list := packSamples(t, 8)
	file, digest, err := writePack(t, list)
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPack(file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Digest != digest || p.Base != "b" || p.Labelled != "l" || p.Gap != 10 || len(p.Samples) != len(list) {
		t.Errorf("%+v, digest %s, want %s", p.PackInfo, p.Digest, digest)
	}
	for i, want := range list {
		s := p.Samples[i]
		if s.Part != want.Part || s.Camera != want.Camera || !s.Time().Equal(want.Time) || s.Sequence != want.Sequence || s.Label != want.Label || s.Quality != want.Quality {
			t.Errorf("sample %d: %+v, want %+v", i, s, want)
		}
		picture, mask, err := p.Read(i)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mask, want.Mask) || picture.Width != 40 || picture.Height != 30 {
			t.Errorf("sample %d: mask or picture differ", i)
		}
	}
	again, digest2, err := writePack(t, list)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(file)
	b, _ := os.ReadFile(again)
	if digest != digest2 || !bytes.Equal(a, b) {
		t.Error("the same content gave other bytes")
	}
	list[3].Label = "key"
	if _, digest3, _ := writePack(t, list); digest3 == digest {
		t.Error("another label gave the same digest")
	}
}

func TestWritePackRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(list []Sample)
		want  string
	}{
		"held out too near in time": {func(l []Sample) { l[4].Time = l[3].Time.Add(9 * time.Second) }, "other times"},
		"held out before":           {func(l []Sample) { l[4].Time = l[3].Time.Add(-9 * time.Second) }, "other times"},
		"out of order":              {func(l []Sample) { l[5].Sequence = 1 }, "order"},
		"no JPEG":                   {func(l []Sample) { l[2].JPEG = []byte("x") }, "JPEG"},
		"mask of another size":      {func(l []Sample) { l[2].Mask = []byte{1} }, "mask"},
		"unknown part":              {func(l []Sample) { l[2].Part = "x" }, "part"},
		"quality":                   {func(l []Sample) { l[2].Quality = 2 }, "quality"},
		"a long label":              {func(l []Sample) { l[2].Label = strings.Repeat("x", 5000) }, "description"},
	} {
		list := packSamples(t, 8)
		test.spoil(list)
		file, _, err := writePack(t, list)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "sample ") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a file was left", name)
		}
	}
	if _, err := WritePack(filepath.Join(t.TempDir(), "x"), PackInfo{}, 0, nil); err == nil {
		t.Error("an empty pack was written")
	}
}

// TestHostilePacks: every byte counts, and what is too long is refused before memory is taken.
func TestHostilePacks(t *testing.T) {
	file, _, err := writePack(t, packSamples(t, 4))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p, err := OpenPack(file)
		runtime.ReadMemStats(&after)
		if err == nil {
			p.Close()
			t.Errorf("%s: opened", name)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
			t.Errorf("%s: took %d bytes", name, took)
		}
	}
	for n := 0; n < len(whole); n += 1 + len(whole)/97 {
		try("cut off", whole[:n])
		flipped := slices.Clone(whole)
		flipped[n] ^= 4
		try("a bit flipped", flipped)
	}
	try("more at the end", append(slices.Clone(whole), 0))
	replace := func(old, new string) []byte { return bytes.Replace(whole, []byte(old), []byte(new), 1) }
	try("a count beyond bounds", replace(`"samples":4`, `"samples":4000000000`))
	try("fewer than there are", replace(`"samples":4`, `"samples":3`))
	try("no samples", replace(`"samples":4`, `"samples":0`))
	try("newer", replace(`"min_reader":1`, `"min_reader":2`))
	try("a line without end", append([]byte(packMagic), bytes.Repeat([]byte("x"), 1<<20)...))
	at := bytes.Index(whole, []byte(`"jpeg_bytes":`)) + len(`"jpeg_bytes":`)
	try("a picture beyond bounds", append(append(slices.Clone(whole[:at]), "99999999"...), whole[at:]...))
	try("a negative picture", append(append(slices.Clone(whole[:at]), "-"...), whole[at:]...))
}

// TestPackReadChecksTheSample: a pack that was changed while it is open.
func TestPackReadChecksTheSample(t *testing.T) {
	file, _, err := writePack(t, packSamples(t, 4))
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPack(file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var eight [8]byte
	binary.LittleEndian.PutUint64(eight[:], 12345)
	if _, err := f.WriteAt(eight[:], p.Samples[1].at+20); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Read(1); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("error %v", err)
	}
}

func FuzzOpenPack(f *testing.F) {
	file, _, err := writePack(f, packSamples(f, 2))
	if err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(packMagic + `{"version":1,"min_reader":1,"samples":1}` + "\n" + `{"part":"train","jpeg_bytes":1}` + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := OpenPack(file); err == nil {
			for i := range p.Samples {
				_, _, _ = p.Read(i)
			}
			p.Close()
		}
	})
}

func TestDivideKeepsTimesApart(t *testing.T) {
	var times []time.Time
	for i := range 100 {
		times = append(times, time.Unix(int64(i), 0))
	}
	gap := 5 * time.Second
	parts := Divide(times, 10, gap)
	count := map[PackPart]int{}
	for i, p := range parts {
		count[p]++
		for j, q := range parts {
			if p == Train && q == Held && times[i].Sub(times[j]).Abs() < gap {
				t.Fatalf("samples %d and %d are %v apart", i, j, times[i].Sub(times[j]))
			}
		}
	}
	if count[Held] < 20 || count[Train] < 40 {
		t.Errorf("%v", count)
	}
	few := Divide(times[:12], 10, time.Second)
	if !slices.Contains(few, Held) || !slices.Contains(few, Train) {
		t.Errorf("few samples: %v", few)
	}
}
