package adapt

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func put(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	file := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// noisePNG is a picture that no other seed gives.
func noisePNG(t *testing.T, seed uint64) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	img := image.NewRGBA(image.Rect(0, 0, 24, 18))
	for i := range img.Pix {
		img.Pix[i] = uint8(random.Uint32()) | 0x0f
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t *testing.T, dir string) *Labelled {
	t.Helper()
	s, err := ReadLabelled(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadLabelledNamesWhatItLeavesOut(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "cup/one.PNG", noisePNG(t, 1))
	put(t, dir, "cup/one.mask.png", noisePNG(t, 2))
	put(t, dir, "cup/blue/1.png", noisePNG(t, 3))
	put(t, dir, "cup/blue/deep/1.png", noisePNG(t, 4))
	put(t, dir, "cup/notes.txt", []byte("hello"))
	put(t, dir, "cup/.DS_Store", []byte("x"))
	put(t, dir, "key/both.png", noisePNG(t, 5))
	put(t, dir, "cup/both.png", noisePNG(t, 5))
	put(t, dir, "key/two.png", noisePNG(t, 6))
	put(t, dir, "loose.png", noisePNG(t, 7))
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := read(t, dir)
	if want := []string{"cup", "key"}; !slices.Equal(s.Classes, want) {
		t.Errorf("classes %v, want %v", s.Classes, want)
	}
	var got []string
	for _, p := range s.Pictures {
		got = append(got, fmt.Sprint(p.File, " ", s.Classes[p.Class], " ", p.Object, " ", p.Mask))
	}
	if want := []string{"cup/blue/1.png cup blue ", "cup/one.PNG cup  cup/one.mask.png", "key/two.png key  "}; !slices.Equal(got, want) {
		t.Errorf("pictures %q, want %q", got, want)
	}
	var bad []string
	for _, b := range s.Bad {
		bad = append(bad, b.File)
	}
	slices.Sort(bad)
	if want := []string{"cup/blue/deep", "cup/both.png", "cup/notes.txt", "empty", "key/both.png", "loose.png"}; !slices.Equal(bad, want) {
		t.Errorf("left out %q, want %q", bad, want)
	}
}

func TestReadLabelledWithoutPicturesSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadLabelled(dir); err == nil || !strings.Contains(err.Error(), "make a folder for each class") {
		t.Errorf("an empty folder gives %v", err)
	}
	if _, err := ReadLabelled(filepath.Join(dir, "absent")); err == nil {
		t.Error("an absent folder is read")
	}
}

// set builds a Labelled whose pictures are known by their digest and hash alone.
func set(classes int, pictures ...LabelledPicture) *Labelled {
	s := &Labelled{Pictures: pictures}
	for i := range classes {
		s.Classes = append(s.Classes, string(rune('a'+i)))
	}
	return s
}

func TestGroupJoinsNearDuplicatesOnly(t *testing.T) {
	far := func(i int) uint64 { return 0xff << (8 * i) } // 16 bits apart
	s := set(2,
		LabelledPicture{File: "a/flower1.png", SHA256: "11-----------", hash: far(0)},
		LabelledPicture{File: "a/flower2.png", SHA256: "12-----------", hash: far(1)},           // another one, whatever its name
		LabelledPicture{File: "a/again.png", SHA256: "13-----------", hash: far(0) ^ 0b111},     // flower1 by its hash
		LabelledPicture{File: "a/close.png", SHA256: "14-----------", hash: far(2)},             // flower2 by its features
		LabelledPicture{File: "b/again.png", SHA256: "15-----------", hash: far(0), Class: 1},   // of another class
		LabelledPicture{File: "a/x/1.png", SHA256: "16-----------", hash: far(3), Object: "x"},  // said to be one object,
		LabelledPicture{File: "a/x/2.png", SHA256: "17-----------", hash: far(4), Object: "x"},  // alike or not
		LabelledPicture{File: "a/x2.png", SHA256: "18-----------", hash: far(4) ^ 0b1000},       // the second picture of x
		LabelledPicture{File: "a/y/2.png", SHA256: "19-----------", hash: far(4), Object: "y"},  // said to be another
		LabelledPicture{File: "a/step.png", SHA256: "20-----------", hash: far(0) ^ 0b11111000}, // 8 from flower1, 5+ from again: no chain
	)
	axis := func(i int) []float32 { v := make([]float32, 10); v[i] = 2; return v }
	var tokens []float32
	for i := range s.Pictures {
		tokens = append(tokens, axis(i)...)
	}
	copy(tokens[3*10:], []float32{0, 1, 0, .2}) // cosine .98 with flower2
	s.Group(tokens, 10)
	var got []string
	for _, p := range s.Pictures {
		got = append(got, p.Group)
	}
	want := []string{
		"a/11----------", "a/12----------", "a/11----------", "a/12----------", "b/15----------",
		"a/x", "a/x", "a/x", "a/y", "a/20----------",
	}
	if !slices.Equal(got, want) {
		t.Errorf("groups\n%q, want\n%q", got, want)
	}
}

func TestSplitKeepsAQuarterOfTheGroupsByContent(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for range 40 {
		s := set(3)
		for class := range 3 {
			for g := range 1 + random.IntN(12) {
				for range 1 + random.IntN(3) {
					s.Pictures = append(s.Pictures, LabelledPicture{
						File: fmt.Sprint(random.Uint64()), SHA256: fmt.Sprintf("%016x", random.Uint64()),
						Class: class, Group: fmt.Sprintf("%s/%d", s.Classes[class], g),
					})
				}
			}
		}
		single := s.Split()
		parts := map[string]Part{}
		for _, p := range s.Pictures {
			if q, known := parts[p.Group]; known && q != p.Part {
				t.Fatalf("group %s is in both parts", p.Group)
			}
			parts[p.Group] = p.Part
		}
		for _, name := range s.Classes {
			fit, accept := 0, 0
			for g, p := range parts {
				if strings.HasPrefix(g, name+"/") {
					if p == Accept {
						accept++
					} else {
						fit++
					}
				}
			}
			n := fit + accept
			if slices.Contains(single, name) != (n == 1) || n > 1 && accept != (n+3)/4 || fit == 0 {
				t.Fatalf("class %s of %d groups: %d kept apart, single %v", name, n, accept, single)
			}
		}

		again := set(3, slices.Clone(s.Pictures)...)
		random.Shuffle(len(again.Pictures), func(i, j int) {
			again.Pictures[i], again.Pictures[j] = again.Pictures[j], again.Pictures[i]
		})
		rename := map[string]string{} // groups get other names, files too
		for i := range again.Pictures {
			p := &again.Pictures[i]
			p.Part, p.File = "", fmt.Sprint("other", i)
			if rename[p.Group] == "" {
				rename[p.Group] = fmt.Sprintf("%s/%d", again.Classes[p.Class], random.Uint64())
			}
			p.Group = rename[p.Group]
		}
		again.Split()
		byDigest := map[string]Part{}
		for _, p := range again.Pictures {
			byDigest[p.SHA256] = p.Part
		}
		for _, p := range s.Pictures {
			if byDigest[p.SHA256] != p.Part {
				t.Fatal("the split depends on the names or the order of the files")
			}
		}
	}
}

func TestManifestKeepsSetAndParts(t *testing.T) {
	dir := t.TempDir()
	for i := range 8 {
		put(t, dir, fmt.Sprintf("data/%c/%d.png", 'a'+i%2, i), noisePNG(t, uint64(i)))
	}
	put(t, dir, "data/a/0.mask.png", noisePNG(t, 100))
	s := read(t, filepath.Join(dir, "data"))
	for i := range s.Pictures {
		s.Pictures[i].Group = s.Classes[s.Pictures[i].Class] + "/" + s.Pictures[i].SHA256[:12]
	}
	s.Split()
	kept := filepath.Join(dir, "model", LabelledDir)
	if err := s.WriteTo(kept); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteTo(kept); err == nil {
		t.Error("a second set is written over the first")
	}
	got := read(t, kept)
	if !slices.Equal(got.Classes, s.Classes) || len(got.Pictures) != len(s.Pictures) {
		t.Fatalf("read back %v and %d pictures, want %v and %d", got.Classes, len(got.Pictures), s.Classes, len(s.Pictures))
	}
	for i, p := range got.Pictures {
		w := s.Pictures[i]
		if p.Class != w.Class || p.Group != w.Group || p.Part != w.Part || p.SHA256 != w.SHA256 || (p.Mask == "") != (w.Mask == "") {
			t.Errorf("read back %+v, want %+v", p, w)
		}
		if p.Mask != "" && !fileExists(got.at(p.Mask)) {
			t.Errorf("mask %s is not there", p.Mask)
		}
	}

	// The part alone is a folder of class folders too, with the same groups.
	accept := read(t, filepath.Join(kept, string(Accept)))
	if !reflect.DeepEqual(accept.Classes, s.Classes) || len(accept.Pictures) != 2 {
		t.Errorf("accept holds %v, %d pictures", accept.Classes, len(accept.Pictures))
	}

	put(t, kept, got.Pictures[0].File, noisePNG(t, 77))
	if _, err := ReadLabelled(kept); err == nil || !strings.Contains(err.Error(), got.Pictures[0].File) {
		t.Errorf("a changed picture gives %v", err)
	}
	for name, text := range map[string]string{
		"leaves":  `{"version":1,"min_reader":1,"classes":["a"],"pictures":[{"file":"../x.png","class":"a","group":"a/1","part":"fit"}]}`,
		"newer":   `{"version":9,"min_reader":9,"classes":["a"],"pictures":[{"file":"x.png"}]}`,
		"class":   `{"version":1,"min_reader":1,"classes":["a"],"pictures":[{"file":"x.png","class":"b","group":"b/1","part":"fit"}]}`,
		"part":    `{"version":1,"min_reader":1,"classes":["a"],"pictures":[{"file":"x.png","class":"a","group":"a/1","part":"test"}]}`,
		"group":   `{"version":1,"min_reader":1,"classes":["a"],"pictures":[{"file":"x.png","class":"a","group":"b/1","part":"fit"}]}`,
		"no json": `{`,
	} {
		put(t, kept, manifestName, []byte(text))
		if _, err := ReadLabelled(kept); err == nil || !strings.Contains(err.Error(), manifestName) {
			t.Errorf("manifest that %s: %v", name, err)
		}
	}
}

func TestReadPictureRespectsAlpha(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	img.SetNRGBA(0, 0, color.NRGBA{200, 10, 20, 255})
	img.SetNRGBA(1, 0, color.NRGBA{255, 255, 255, 0}) // nothing, whatever colour lies there
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	p, err := DecodePicture(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte{200, 10, 20, backdrop.R, backdrop.G, backdrop.B}; !bytes.Equal(p.RGB, want) {
		t.Errorf("pixels %v, want %v", p.RGB, want)
	}
	if want := []byte{255, 0}; !bytes.Equal(p.Alpha, want) {
		t.Errorf("alpha %v, want %v", p.Alpha, want)
	}
}

// The eight orientations of EXIF, as letters in a 3 x 2 picture that reads ABC DEF upright.
func TestReadPictureTurnsUpright(t *testing.T) {
	stored := map[int][]string{
		1: {"ABC", "DEF"}, 2: {"CBA", "FED"}, 3: {"FED", "CBA"}, 4: {"DEF", "ABC"},
		5: {"AD", "BE", "CF"}, 6: {"CF", "BE", "AD"}, 7: {"FC", "EB", "DA"}, 8: {"DA", "EB", "FC"},
	}
	for o, rows := range stored {
		p := &Picture{Width: len(rows[0]), Height: len(rows)}
		for _, c := range strings.Join(rows, "") {
			p.RGB = append(p.RGB, byte(c), byte(c), byte(c))
			p.Alpha = append(p.Alpha, byte(c))
		}
		up := p.upright(o)
		if string(up.Alpha) != "ABCDEF" || up.RGB[3*4] != 'E' || up.Width != 3 {
			t.Errorf("orientation %d: %s, %d wide", o, up.Alpha, up.Width)
		}
	}

	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8)), nil); err != nil {
		t.Fatal(err)
	}
	exif := append([]byte("\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01"), "\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"...)
	turned := append(append([]byte("\xff\xd8"), exif...), b.Bytes()[2:]...)
	if o := orientation(turned); o != 6 {
		t.Errorf("orientation %d, want 6", o)
	}
	if o := orientation(b.Bytes()); o != 1 {
		t.Errorf("orientation of a JPEG without EXIF %d, want 1", o)
	}
}

func FuzzDecodePicture(f *testing.F) {
	f.Add([]byte("\xff\xd8\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06"))
	f.Add([]byte("\x89PNG\r\n\x1a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		orientation(data)
		if p, err := DecodePicture(data); err == nil && len(p.RGB) != 3*p.Width*p.Height {
			t.Fatalf("%d x %d with %d bytes", p.Width, p.Height, len(p.RGB))
		}
	})
}

func TestDifferenceHashToleratesScaleAndCompression(t *testing.T) {
	scene := func(w, h int, phase float64) image.Image {
		img := image.NewRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				u, v := float64(x)/float64(w), float64(y)/float64(h)
				g := uint8(127 + 60*(u*v+phase*u-v*v))
				if int(u*5+phase)%2 == int(v*4)%2 {
					g += 50
				}
				img.Set(x, y, color.RGBA{g, g / 2, 255 - g, 255})
			}
		}
		return img
	}
	a := newPicture(scene(320, 240, .3)).differenceHash()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, scene(160, 120, .3), &jpeg.Options{Quality: 60}); err != nil {
		t.Fatal(err)
	}
	small, err := DecodePicture(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if d := hamming(a, small.differenceHash()); d > sameBits {
		t.Errorf("the same scene, smaller and compressed, differs in %d bits", d)
	}
	if d := hamming(a, newPicture(scene(320, 240, 1.6)).differenceHash()); d <= sameBits {
		t.Errorf("another scene differs in %d bits only", d)
	}
}
