package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-a98b2d25/fovea/store"
)

// samplesAPI answers for the page and for the verbs.
type samplesAPI struct {
	samples *store.Samples
	take    func(context.Context, store.Sample) error // an import
	forget  func(context.Context) error               // deletes pictures outside of samples.db; of socketRoutes
	changed func()                                    // what is kept has changed; nil: nobody asks
	skipped func() uint64                             // as in samplesList; nil: no daemon runs
}

// samplesList is the answer to GET /api/samples.
type samplesList struct {
	Samples   int          `json:"samples"` // kept in all
	Protected int          `json:"protected"`
	Labelled  int          `json:"labelled"`
	Masks     int          `json:"masks"`
	Bytes     int64        `json:"bytes"`
	Limit     int64        `json:"limit"`
	FileBytes int64        `json:"file_bytes"`
	Evicted   uint64       `json:"evicted"`
	Skipped   uint64       `json:"skipped"` // frames that came while others were looked at
	Matching  int          `json:"matching"`
	Cameras   []string     `json:"cameras"`
	Labels    []string     `json:"labels"` // given and predicted ones
	Page      []store.Meta `json:"page"`   // newest first
}

const (
	pageLength  = 60       // samples in one answer, unless ?limit says otherwise
	importBytes = 64 << 20 // of one imported sample, in JSON
	labelLength = 200      // bytes
)

func (a *samplesAPI) readRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/samples", a.list)
	mux.HandleFunc("GET /api/samples/{seq}", func(w http.ResponseWriter, r *http.Request) {
		if s := a.sample(w, r); s != nil {
			writeJSON(w, s.Meta)
		}
	})
	mux.HandleFunc("GET /api/samples/{seq}/picture.jpg", func(w http.ResponseWriter, r *http.Request) {
		if s := a.sample(w, r); s != nil {
			w.Header().Set("Content-Type", "image/jpeg")
			w.Header().Set("Cache-Control", "no-store") // what is dropped here must not stay there
			_, _ = w.Write(s.JPEG)
		}
	})
	mux.HandleFunc("GET /api/samples/{seq}/mask.png", func(w http.ResponseWriter, r *http.Request) {
		s := a.sample(w, r)
		if s == nil {
			return
		}
		if s.Mask == nil {
			http.Error(w, "this sample has no mask", http.StatusNotFound)
			return
		}
		picture, err := maskPNG(s)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(picture)
	})
}

func (a *samplesAPI) writeRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/samples/{seq}/label", func(w http.ResponseWriter, r *http.Request) {
		seq, ok := seqOf(w, r)
		if !ok {
			return
		}
		var body struct {
			Label *string `json:"label"`
		}
		r.Body = http.MaxBytesReader(w, r.Body, 4096)
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Label == nil {
			http.Error(w, `send {"label": "cup"}, or "" to take a label back`, http.StatusBadRequest)
			return
		}
		label := strings.TrimSpace(*body.Label)
		if problem := labelProblem(label); problem != "" {
			http.Error(w, problem, http.StatusUnprocessableEntity)
			return
		}
		a.done(w, a.samples.Label(seq, label))
	})
	mux.HandleFunc("DELETE /api/samples/{seq}", func(w http.ResponseWriter, r *http.Request) {
		if s := a.sample(w, r); s != nil {
			a.done(w, a.samples.Drop(s.Seq))
		}
	})
}

// labelProblem says why a label cannot be the name of a class, and so of a folder; "" is none.
func labelProblem(label string) string {
	switch {
	case len(label) > labelLength:
		return fmt.Sprintf("a label has at most %d bytes", labelLength)
	case strings.HasPrefix(label, "."), strings.ContainsAny(label, "/\\\x00\n\r"):
		return "a label is the name of a folder when samples are exported: without /, \\ and line ends, and not beginning with a dot"
	case label == unlabelled:
		return fmt.Sprintf("%q is the folder of pictures without a label", unlabelled)
	}
	return ""
}

// socketRoutes are for who may connect to the socket alone.
func (a *samplesAPI) socketRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/samples", func(w http.ResponseWriter, r *http.Request) {
		var sample store.Sample
		r.Body = http.MaxBytesReader(w, r.Body, importBytes)
		if err := json.NewDecoder(r.Body).Decode(&sample); err != nil {
			http.Error(w, "no sample in JSON: "+err.Error(), http.StatusBadRequest)
			return
		}
		if problem := labelProblem(sample.Label); problem != "" {
			http.Error(w, problem, http.StatusUnprocessableEntity)
			return
		}
		a.done(w, a.take(r.Context(), sample))
	})
	mux.HandleFunc("POST /api/samples/purge", func(w http.ResponseWriter, r *http.Request) {
		a.done(w, errors.Join(a.samples.Purge(), a.forget(r.Context())))
	})
	mux.HandleFunc("POST /api/db/compact", func(w http.ResponseWriter, r *http.Request) {
		before, after, err := a.samples.Compact()
		if err == nil {
			err = a.forget(r.Context())
		}
		if err != nil {
			a.done(w, err)
			return
		}
		writeJSON(w, map[string]int64{"before": before, "after": after})
	})
}

// done answers after a change.
func (a *samplesAPI) done(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		if a.changed != nil {
			a.changed()
		}
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, store.ErrNoSample):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, errKeptAlready):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, store.ErrInvalid):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func seqOf(w http.ResponseWriter, r *http.Request) (uint64, bool) {
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
	if err != nil {
		http.Error(w, "a sample has a number", http.StatusNotFound)
	}
	return seq, err == nil
}

func (a *samplesAPI) sample(w http.ResponseWriter, r *http.Request) *store.Sample {
	seq, ok := seqOf(w, r)
	if !ok {
		return nil
	}
	s, err := a.samples.Get(seq)
	if err != nil {
		a.done(w, err)
		return nil
	}
	return s
}

// list answers with a page of samples: ?camera, ?label (given, or predicted where none is), ?why, ?held (the
// hold-out), ?before=SEQ, ?limit.
func (a *samplesAPI) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	before, err := strconv.ParseUint(q.Get("before"), 10, 64)
	if err != nil {
		before = 1<<64 - 1
	}
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 {
		limit = pageLength
	}
	sum := a.samples.Summary()
	answer := samplesList{
		Samples: sum.Samples, Protected: sum.Protected, Labelled: sum.Labelled, Masks: sum.Masks, Bytes: sum.Bytes,
		Limit: sum.Limit, FileBytes: sum.FileBytes, Evicted: sum.Evicted, Page: []store.Meta{},
	}
	if a.skipped != nil {
		answer.Skipped = a.skipped()
	}
	cameras, labels := map[string]bool{}, map[string]bool{}
	matching := a.samples.List(func(m *store.Meta) bool {
		class := m.Label
		if class == "" {
			class = m.Predicted
		}
		cameras[m.Camera], labels[class] = true, true
		return (q.Get("camera") == "" || q.Get("camera") == m.Camera) && (q.Get("label") == "" || q.Get("label") == class) &&
			(q.Get("why") == "" || q.Get("why") == m.Why) && (q.Get("held") == "" || m.Protected)
	})
	answer.Matching, answer.Cameras, answer.Labels = len(matching), slices.Sorted(maps.Keys(cameras)), slices.Sorted(maps.Keys(labels))
	for _, m := range matching {
		if m.Seq < before && len(answer.Page) < limit {
			answer.Page = append(answer.Page, m)
		}
	}
	writeJSON(w, answer)
}

// maskPNG is the mask of a sample, white on black, as large as what the mask covers of the picture.
func maskPNG(s *store.Sample) ([]byte, error) {
	mask := &image.Gray{Pix: s.MaskPixels, Stride: s.Mask.Width, Rect: image.Rect(0, 0, s.Mask.Width, s.Mask.Height)}
	var out bytes.Buffer
	err := png.Encode(&out, mask)
	return out.Bytes(), err
}

// wholeMask lays the mask of a sample onto its whole picture, nearest neighbour; what it does not cover is 0.
func wholeMask(s *store.Sample) *image.Gray {
	whole := image.NewGray(image.Rect(0, 0, s.Width, s.Height))
	view := image.Rect(s.Mask.View[0], s.Mask.View[1], s.Mask.View[2], s.Mask.View[3])
	if view.Empty() {
		return whole
	}
	part := view.Intersect(whole.Rect)
	for y := part.Min.Y; y < part.Max.Y; y++ {
		from := (y - view.Min.Y) * s.Mask.Height / view.Dy() * s.Mask.Width
		for x := part.Min.X; x < part.Max.X; x++ {
			whole.Pix[y*whole.Stride+x] = s.MaskPixels[from+(x-view.Min.X)*s.Mask.Width/view.Dx()]
		}
	}
	return whole
}

// takeInUnseen keeps an imported sample without a net to look at it.
func takeInUnseen(ctx context.Context, samples *store.Samples, sample store.Sample) error {
	if _, err := admit(samples, &sample); err != nil {
		return err
	}
	_, err := samples.Put(ctx, sample)
	return err
}
