package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// hfPreprocess is a preprocessor_config.json of Hugging Face. A field that is absent keeps the default of
// the image processor; keep_aspect is Fovea's own, for a size that is no square.
type hfPreprocess struct {
	Type        string          `json:"image_processor_type,omitempty"`
	LegacyType  string          `json:"feature_extractor_type,omitempty"`
	DoResize    *bool           `json:"do_resize,omitempty"`
	Size        json.RawMessage `json:"size,omitempty"`
	KeepAspect  *bool           `json:"keep_aspect,omitempty"`
	Resample    *int            `json:"resample,omitempty"`
	DoCrop      *bool           `json:"do_center_crop,omitempty"`
	CropSize    json.RawMessage `json:"crop_size,omitempty"`
	DoRescale   *bool           `json:"do_rescale,omitempty"`
	Rescale     *float64        `json:"rescale_factor,omitempty"`
	DoNormalize *bool           `json:"do_normalize,omitempty"`
	Mean        []float64       `json:"image_mean,omitempty"`
	Std         []float64       `json:"image_std,omitempty"`
}

// resamples are Pillow's numbers of its filters.
var resamples = map[int]Filter{1: Lanczos, 2: Bilinear, 3: Bicubic}

// readPreprocess decodes a preprocessor_config.json over the family's defaults.
func readPreprocess(text []byte, p Preprocess) (Preprocess, error) {
	h := hfPreprocess{}
	if err := json.Unmarshal(text, &h); err != nil {
		return p, err
	}
	kind := h.Type + h.LegacyType
	crop := p.ResizeHeight != p.Height || p.ResizeWidth != p.Width // as the family does
	for _, off := range []struct {
		name string
		v    *bool
	}{{"do_resize", h.DoResize}, {"do_rescale", h.DoRescale}, {"do_normalize", h.DoNormalize}} {
		if off.v != nil && !*off.v {
			return p, fmt.Errorf("%s is false: Fovea always resizes, rescales and normalises", off.name)
		}
	}
	// A bare number is a square, save for the processor of BiT, which DINOv2 uses.
	shortest := strings.HasPrefix(kind, "Bit")
	if h.Size != nil {
		size, aspect, err := readSize(h.Size, shortest)
		if err != nil {
			return p, fmt.Errorf("size: %w", err)
		}
		p.ResizeHeight, p.ResizeWidth, p.KeepAspect = size.height, size.width, aspect
	}
	if h.KeepAspect != nil {
		p.KeepAspect = *h.KeepAspect
	}
	if h.DoCrop != nil {
		crop = *h.DoCrop
	}
	switch {
	case !crop: // a shortest edge without a crop has no fixed size: the square in the middle is taken
		p.Height, p.Width = p.ResizeHeight, p.ResizeWidth
	case h.CropSize != nil:
		size, _, err := readSize(h.CropSize, false)
		if err != nil {
			return p, fmt.Errorf("crop_size: %w", err)
		}
		p.Height, p.Width = size.height, size.width
	}
	if h.Resample != nil {
		filter, known := resamples[*h.Resample]
		if !known {
			return p, fmt.Errorf("resample is %d, want 1 (lanczos), 2 (bilinear) or 3 (bicubic)", *h.Resample)
		}
		p.Filter = filter
	}
	if h.Rescale != nil {
		p.Scale = *h.Rescale
	}
	if err := errors.Join(threeOf("image_mean", h.Mean, &p.Mean), threeOf("image_std", h.Std, &p.Std)); err != nil {
		return p, err
	}
	return p, p.validate()
}

// threeOf takes the value of a key that has one for each colour; an absent one leaves what is there.
func threeOf(key string, from []float64, into *[3]float64) error {
	switch len(from) {
	case 0:
	case 3:
		*into = [3]float64(from)
	default:
		return fmt.Errorf("%s has %d values, want 3", key, len(from))
	}
	return nil
}

// readSize decodes {"height", "width"}, {"shortest_edge"} or a number, in pixels.
func readSize(text json.RawMessage, shortest bool) (size hfSize, keepAspect bool, err error) {
	var side int
	if json.Unmarshal(text, &side) == nil {
		return hfSize{side, side}, shortest, nil
	}
	var s struct {
		Height   int `json:"height"`
		Width    int `json:"width"`
		Shortest int `json:"shortest_edge"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return size, false, err
	}
	if s.Shortest != 0 {
		return hfSize{s.Shortest, s.Shortest}, true, nil
	}
	if s.Height == 0 || s.Width == 0 {
		return size, false, fmt.Errorf(`%s, want "height" and "width", or "shortest_edge"`, text)
	}
	return hfSize{s.Height, s.Width}, false, nil
}

// writePreprocess is the inverse of readPreprocess. Of the processors of transformers BiT's is the one that
// can do all of it.
func writePreprocess(p Preprocess) ([]byte, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	yes := true
	h := hfPreprocess{
		Type: "BitImageProcessor", DoResize: &yes, DoCrop: &yes, DoRescale: &yes, DoNormalize: &yes,
		Rescale: &p.Scale, Mean: p.Mean[:], Std: p.Std[:],
		Size:     json.RawMessage(fmt.Sprintf(`{"height":%d,"width":%d}`, p.ResizeHeight, p.ResizeWidth)),
		CropSize: json.RawMessage(fmt.Sprintf(`{"height":%d,"width":%d}`, p.Height, p.Width)),
	}
	if p.KeepAspect && p.ResizeHeight == p.ResizeWidth {
		h.Size = json.RawMessage(fmt.Sprintf(`{"shortest_edge":%d}`, p.ResizeHeight))
	} else if p.KeepAspect {
		h.KeepAspect = &yes
	}
	for number, filter := range resamples {
		if filter == p.Filter {
			h.Resample = &number
		}
	}
	return json.MarshalIndent(h, "", "  ")
}
