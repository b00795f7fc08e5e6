package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/store"
)

// unlabelled is the folder of exported pictures that nobody labelled.
const unlabelled = "unlabelled"

// drawSample is the picture with what is not of the object greyed.
func drawSample(s *store.Sample) (image.Image, error) {
	p, err := adapt.DecodePicture(s.JPEG)
	if err != nil {
		return nil, err
	}
	out := rgba(p)
	if s.Mask == nil {
		return out, nil
	}
	return maskedOut(out, wholeMask(s)), nil
}

type samplesExportVerb struct {
	samplesOf
	Out       string `arg:"" placeholder:"DIR" help:"Folder to write; it must not exist."`
	Predicted bool   `help:"Put pictures without a label into the folder of the class that the model predicted. Look through them before you fit a head on them."`
	Held      bool   `help:"The hold-out alone."`
}

func (samplesExportVerb) Help() string {
	return `Writes CLASS/NUMBER.jpg, with NUMBER.mask.png (white where the object is) and NUMBER.json (what is known of it).
Pictures without a label are in the folder "unlabelled". "fovea head fit" and "fovea adapt" read such a folder,
"fovea samples import" takes it back in.`
}

func (v samplesExportVerb) Run(ctx context.Context, out io.Writer) error {
	if err := absent(v.Out); err != nil {
		return err
	}
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	path := "/api/samples?limit=1000000000"
	if v.Held {
		path += "&held=1"
	}
	var list samplesList
	if err := c.do(ctx, http.MethodGet, path, nil, decodeTo(&list)); err != nil {
		return err
	}
	gone := 0
	err = writeFolder(v.Out, func(temp string) error {
		for _, m := range list.Page {
			err := c.export(ctx, m.Seq, temp, v.Predicted)
			var answered *answerError
			if errors.As(err, &answered) && answered.status == http.StatusNotFound { // evicted meanwhile
				gone++
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	fmt.Fprintf(out, "%d samples -> %s\n", len(list.Page)-gone, v.Out)
	return nil
}

func (c *client) export(ctx context.Context, seq uint64, dir string, predicted bool) error {
	s, err := c.fetch(ctx, seq)
	if err != nil {
		return err
	}
	class := s.Label
	if class == "" && predicted && labelProblem(s.Predicted) == "" {
		class = s.Predicted
	}
	if class == "" {
		class = unlabelled
	}
	folder := filepath.Join(dir, class)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	name := filepath.Join(folder, fmt.Sprintf("%06d", seq))
	facts, err := json.MarshalIndent(s.Meta, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{".jpg": s.JPEG, ".json": append(facts, '\n')}
	if s.Mask != nil {
		var mask bytes.Buffer
		if err := png.Encode(&mask, wholeMask(s)); err != nil {
			return err
		}
		files[".mask.png"] = mask.Bytes()
	}
	for end, data := range files {
		if err := os.WriteFile(name+end, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

type samplesImportVerb struct {
	samplesOf
	From string `arg:"" placeholder:"DIR" help:"Folder of class folders; pictures in the folder itself, or in one named unlabelled, have no label."`
}

func (samplesImportVerb) Help() string {
	return `Takes in CLASS/NAME.jpg or .png, with NAME.mask.png if it is there (as large as the picture, bright where the object
is) and NAME.json as "fovea samples export" wrote it. Where a daemon with a model runs it finds the missing masks. What cannot be
read is told and left out; what is kept already is left as it is.`
}

func (v samplesImportVerb) Run(ctx context.Context, out io.Writer) error {
	files, err := picturesBelow(v.From)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if len(files) == 0 {
		return fmt.Errorf("import: %s holds no .jpg, .jpeg or .png pictures", v.From)
	}
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	taken, known, bad := 0, 0, 0
	for _, file := range files {
		err := c.importFile(ctx, v.From, file)
		var answered *answerError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			taken++
		case errors.As(err, &answered) && answered.status == http.StatusConflict:
			known++
		case errors.As(err, &answered) && answered.status >= 500:
			return fmt.Errorf("import: %d taken in, then %s: %w", taken, file, err)
		default:
			bad++
			fmt.Fprintf(out, "%s: left out: %v\n", file, err)
		}
	}
	fmt.Fprintf(out, "%d taken in, %d known already, %d left out\n", taken, known, bad)
	return nil
}

// picturesBelow lists the pictures of a folder, masks left out, by name.
func picturesBelow(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name := strings.ToLower(e.Name())
		if err == nil && e.Type().IsRegular() && !strings.HasSuffix(name, ".mask.png") && slices.Contains([]string{".jpg", ".jpeg", ".png"}, filepath.Ext(name)) {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// importFile sends one picture with what lies beside it.
func (c *client) importFile(ctx context.Context, dir, file string) error {
	sample, err := readSample(dir, file)
	if err != nil {
		return err
	}
	body, err := json.Marshal(sample)
	if err != nil {
		return err
	}
	if len(body) > importBytes {
		return fmt.Errorf("larger than %d MB", importBytes>>20)
	}
	return c.do(ctx, http.MethodPost, "/api/samples", bytes.NewReader(body), nil)
}

// readSample reads a picture, its mask and its facts. Nothing that a stranger wrote into them decides more than
// what they show.
func readSample(dir, file string) (*store.Sample, error) {
	picture, err := adapt.ReadPicture(file)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(file, filepath.Ext(file))
	s := &store.Sample{Meta: store.Meta{Camera: "import", Time: time.Now()}}
	if facts, err := os.ReadFile(name + ".json"); err == nil {
		var earlier store.Meta
		if err := json.Unmarshal(facts, &earlier); err != nil {
			return nil, fmt.Errorf("%s.json: %w", name, err)
		}
		s.Camera, s.Time = earlier.Camera, earlier.Time
		s.Predicted, s.Scores, s.Margin, s.Relevance = earlier.Predicted, earlier.Scores, earlier.Margin, earlier.Relevance
		s.Model, s.ModelVersion, s.Mask = earlier.Model, earlier.ModelVersion, earlier.Mask
	} else if info, err := os.Stat(file); err == nil {
		s.Time = info.ModTime()
	}
	s.Why, s.Width, s.Height = "imported", picture.Width, picture.Height
	if class := filepath.Dir(file); filepath.Clean(class) != filepath.Clean(dir) && filepath.Base(class) != unlabelled {
		s.Label = filepath.Base(class)
	}
	if s.JPEG, err = os.ReadFile(file); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(s.JPEG, []byte{0xff, 0xd8}) {
		if s.JPEG, err = encodeJPEG(picture.RGB, picture.Width, picture.Height); err != nil {
			return nil, err
		}
	}
	return s, readMask(s, name+".mask.png", picture)
}

// readMask reads a mask as large as the picture; without the file the sample has none. One that came without
// facts was made by a person and is trusted.
func readMask(s *store.Sample, file string, picture *adapt.Picture) error {
	facts := s.Mask
	s.Mask = nil
	mask, err := adapt.ReadPicture(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case mask.Width != picture.Width || mask.Height != picture.Height:
		return fmt.Errorf("%s: %d x %d pixels, want %d x %d as the picture has", file, mask.Width, mask.Height, picture.Width, picture.Height)
	}
	s.MaskPixels = make([]byte, mask.Width*mask.Height)
	for i := range s.MaskPixels {
		if mask.RGB[3*i+1] >= 128 {
			s.MaskPixels[i] = 255
		}
	}
	s.Mask = &store.Mask{Quality: 1, Accepted: true}
	if facts != nil {
		*s.Mask = *facts
	}
	s.Mask.Width, s.Mask.Height, s.Mask.View = mask.Width, mask.Height, [4]int{0, 0, mask.Width, mask.Height}
	return nil
}
