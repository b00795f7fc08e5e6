package model

import (
	"fmt"
	"image"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPixelsEqualPillow compares with Pillow's resize and crop (testdata/make_parity.py), to the bit.
func TestPixelsEqualPillow(t *testing.T) {
	io := readTensors(t, "testdata/preprocess.safetensors")
	tried := 0
	for name, in := range io {
		base, is := strings.CutSuffix(name, ".in")
		if !is || base == "processor" {
			continue
		}
		tried++
		t.Run(base, func(t *testing.T) {
			part := strings.Split(base, ".") // number, filter, size
			want := io[base+".out"]
			p := Preprocess{Height: want.shape[0], Width: want.shape[1], Filter: Filter(part[1]), Scale: 1, Std: [3]float64{1, 1, 1}}
			if _, err := fmt.Sscanf(part[2], "%dx%d", &p.ResizeWidth, &p.ResizeHeight); err != nil {
				t.Fatal(err)
			}
			got := pixelsOf(t, p, in)
			n := p.Height * p.Width
			for i := range n {
				for c := range 3 {
					if got[c*n+i] != want.values[3*i+c] {
						t.Fatalf("pixel %d, channel %d is %g, want %g", i, c, got[c*n+i], want.values[3*i+c])
					}
				}
			}
		})
	}
	if tried != 6 {
		t.Fatalf("%d pictures tried, want 6", tried)
	}
}

// TestPixelsEqualProcessor compares all of Pixels with an image processor of transformers.
func TestPixelsEqualProcessor(t *testing.T) {
	io := readTensors(t, "testdata/preprocess.safetensors")
	p := dinov2Preprocess
	p.Height, p.Width, p.ResizeHeight, p.ResizeWidth = 32, 32, 36, 36
	got := pixelsOf(t, p, io["processor.in"])
	if diff, at := largestDifference(got, io["processor.out"].values); !(diff < 1e-6) {
		t.Errorf("differs by %g at %d", diff, at)
	}
}

func pixelsOf(t *testing.T, p Preprocess, picture valued) []float32 {
	t.Helper()
	rgb := make([]byte, len(picture.values))
	for i, v := range picture.values {
		rgb[i] = byte(v)
	}
	out := make([]float32, 3*p.Height*p.Width)
	if err := p.Pixels(rgb, picture.shape[1], picture.shape[0], out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestView(t *testing.T) {
	square := dinov2Preprocess // 256, then the middle 224
	squeezed := Preprocess{Height: 224, Width: 224, ResizeHeight: 224, ResizeWidth: 224}
	wide := square.At(224, 392) // 16 : 9 nearly
	for _, v := range []struct {
		name string
		p    Preprocess
		w, h int
		want image.Rectangle
	}{
		// 640 x 360 becomes 455 x 256, of which columns 115 to 339 and rows 16 to 240 are seen.
		{"landscape", square, 640, 360, image.Rect(162, 23, 477, 338)},
		{"upright", square, 360, 640, image.Rect(23, 162, 338, 477)},
		{"squeezed", squeezed, 640, 360, image.Rect(0, 0, 640, 360)},
		// 455 x 256 again, of which columns 31 to 423 and rows 16 to 240 are seen.
		{"wide", wide, 640, 360, image.Rect(44, 23, 595, 338)},
	} {
		if got := v.p.View(v.w, v.h); got != v.want {
			t.Errorf("%s: %v, want %v", v.name, got, v.want)
		}
	}
}

func TestPixelsRefuses(t *testing.T) {
	p := dinov2Preprocess
	out := make([]float32, 3*224*224)
	for name, v := range map[string]struct {
		p         Preprocess
		rgb       int
		w, h, out int
	}{
		"short picture": {p, 11, 2, 2, len(out)},
		"no picture":    {p, 0, 0, 0, len(out)},
		"huge picture":  {p, 12, 1 << 30, 1 << 30, len(out)},
		"short input":   {p, 12, 2, 2, 12},
		"large crop":    {Preprocess{Height: 224, Width: 224, ResizeHeight: 200, ResizeWidth: 224, Filter: Bicubic, Scale: 1, Std: half}, 12, 2, 2, len(out)},
		"other filter":  {Preprocess{Height: 224, Width: 224, ResizeHeight: 224, ResizeWidth: 224, Filter: "nearest", Scale: 1, Std: half}, 12, 2, 2, len(out)},
		"std of zero":   {Preprocess{Height: 224, Width: 224, ResizeHeight: 224, ResizeWidth: 224, Filter: Bicubic, Scale: 1}, 12, 2, 2, len(out)},
	} {
		if err := v.p.Pixels(make([]byte, v.rgb), v.w, v.h, out[:v.out]); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestReadPreprocess reads the files that checkpoints bring.
func TestReadPreprocess(t *testing.T) {
	vit := Preprocess{Height: 224, Width: 224, ResizeHeight: 224, ResizeWidth: 224, Filter: Bilinear, Scale: 1. / 255, Mean: half, Std: half}
	larger := vit
	larger.Height, larger.Width, larger.ResizeHeight, larger.ResizeWidth = 384, 384, 384, 384
	deit := vit
	deit.ResizeHeight, deit.ResizeWidth, deit.Filter, deit.Mean, deit.Std = 256, 256, Bicubic, imageNetMean, imageNetStd
	wide := dinov2Preprocess.At(224, 392)
	squeezed := vit.At(160, 224)
	written := func(p Preprocess) string {
		text, err := writePreprocess(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, v := range map[string]struct {
		text   string
		family Preprocess
		want   Preprocess
	}{
		"google/vit-base-patch16-224": {`{"do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 224}`, vit, vit},
		"google/vit at 384":           {`{"image_processor_type": "ViTImageProcessor", "size": {"height": 384, "width": 384}, "resample": 2}`, vit, larger},
		"facebook/deit-small-patch16-224": {`{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true, "feature_extractor_type": "DeiTFeatureExtractor",
			"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 256}`, vit, deit},
		"facebook/dinov2-small": {`{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
			"image_mean": [0.485, 0.456, 0.406], "image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 3,
			"rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256}}`, vit, dinov2Preprocess},
		"ours":           {written(dinov2Preprocess), Preprocess{}, dinov2Preprocess},
		"ours, wide":     {written(wide), Preprocess{}, wide},
		"ours, squeezed": {written(squeezed), Preprocess{}, squeezed},
	} {
		got, err := readPreprocess([]byte(v.text), v.family)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(v.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, v := range map[string]struct{ text, want string }{
		"nearest":       {`{"resample": 0}`, "resample is 0"},
		"no resize":     {`{"do_resize": false}`, "do_resize is false"},
		"huge":          {`{"size": {"height": 1000000, "width": 224}}`, "1000000 pixels"},
		"longest edge":  {`{"size": {"longest_edge": 224}}`, "shortest_edge"},
		"two means":     {`{"image_mean": [0.5, 0.5]}`, "image_mean has 2 values"},
		"std of zero":   {`{"image_std": [0, 1, 1]}`, "std above 0"},
		"crop too wide": {`{"do_center_crop": true, "crop_size": 300}`, "does not fit"},
		"not JSON":      {`size=224`, "invalid character"},
	} {
		if _, err := readPreprocess([]byte(v.text), vit); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, v.want)
		}
	}
}

func BenchmarkPixels(b *testing.B) {
	const w, h = 640, 360
	rgb := make([]byte, w*h*3)
	for i := range rgb {
		rgb[i] = byte(int(127 + 120*math.Sin(float64(i)/50)))
	}
	out := make([]float32, 3*224*224)
	b.ReportAllocs()
	for b.Loop() {
		if err := dinov2Preprocess.Pixels(rgb, w, h, out); err != nil {
			b.Fatal(err)
		}
	}
}
