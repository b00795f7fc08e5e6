package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// hfConfig is what a config.json of Hugging Face says about a ViT, DeiT or DINOv2.
type hfConfig struct {
	HiddenSize   int            `json:"hidden_size"`
	Depth        int            `json:"num_hidden_layers"`
	Heads        int            `json:"num_attention_heads"`
	HeadDim      *int           `json:"head_dim"`
	Intermediate int            `json:"intermediate_size"` // ViT, DeiT
	MLPRatio     float64        `json:"mlp_ratio"`         // DINOv2
	ImageSize    hfSize         `json:"image_size"`
	PatchSize    hfSize         `json:"patch_size"`
	Channels     *int           `json:"num_channels"`
	Activation   *string        `json:"hidden_act"`
	QKVBias      *bool          `json:"qkv_bias"`
	Epsilon      *float64       `json:"layer_norm_eps"`
	SwiGLU       bool           `json:"use_swiglu_ffn"`
	Registers    *int           `json:"num_register_tokens"`
	Labels       map[int]string `json:"id2label"`
}

// hfSize is a length in pixels, or two: height, width.
type hfSize struct{ height, width int }

func (s *hfSize) UnmarshalJSON(text []byte) error {
	var two []int
	if json.Unmarshal(text, &two) == nil && len(two) == 2 {
		*s = hfSize{two[0], two[1]}
		return nil
	}
	var one int
	if err := json.Unmarshal(text, &one); err != nil {
		return fmt.Errorf("%s is no size: want a number or [height, width]", text)
	}
	*s = hfSize{one, one}
	return nil
}

// readHFConfig decodes config.json over the defaults of transformers: ViT's without anything written.
func readHFConfig(text []byte) (hfConfig, error) {
	h := hfConfig{
		HiddenSize: 768, Depth: 12, Heads: 12, Intermediate: 3072, MLPRatio: 4,
		ImageSize: hfSize{224, 224}, PatchSize: hfSize{16, 16},
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, err
	}
	switch {
	case h.Channels != nil && *h.Channels != 3:
		return h, fmt.Errorf("num_channels is %d, want 3 (RGB)", *h.Channels)
	case h.Activation != nil && *h.Activation != "gelu":
		return h, fmt.Errorf("hidden_act is %q, want \"gelu\"", *h.Activation)
	case h.PatchSize.height != h.PatchSize.width:
		return h, fmt.Errorf("patch_size is %d x %d, want a square", h.PatchSize.height, h.PatchSize.width)
	case h.PatchSize.height < 1:
		return h, fmt.Errorf("patch_size is %d", h.PatchSize.height)
	case h.HeadDim != nil && *h.HeadDim*h.Heads != h.HiddenSize:
		return h, fmt.Errorf("head_dim %d x %d heads is not hidden_size, %d", *h.HeadDim, h.Heads, h.HiddenSize)
	}
	return h, nil
}

// shape is the Config that all families of Hugging Face have in common. The convolution of the authors'
// patch embedding leaves out what does not fill a patch, and so does the grid here.
func (h hfConfig) shape(epsilon float64) Config {
	patch := h.PatchSize.height
	return Config{
		ImageHeight: h.ImageSize.height / patch * patch, ImageWidth: h.ImageSize.width / patch * patch, Patch: patch,
		Dim: h.HiddenSize, Depth: h.Depth, Heads: h.Heads, Hidden: h.Intermediate,
		PrefixPosition: true, QKVBias: h.QKVBias == nil || *h.QKVBias,
		Epsilon: or(h.Epsilon, epsilon), PositionResize: PositionBicubic,
	}
}

// or is the value that p points to, or the default of the authors' code where the file says nothing.
func or[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

// classes completes c with the head: as many classes as the tensor has rows, none without it.
func (h hfConfig) classes(c *Config, head tensor, have bool) error {
	if !have || len(head.shape) == 0 {
		return nil
	}
	c.Classes = head.shape[0]
	if len(h.Labels) == 0 {
		return nil
	}
	if len(h.Labels) != c.Classes {
		return fmt.Errorf("id2label names %d classes, the head has %d", len(h.Labels), c.Classes)
	}
	c.Labels = make([]string, c.Classes)
	for i := range c.Labels {
		name, have := h.Labels[i]
		if !have {
			return fmt.Errorf("id2label has no class %d", i)
		}
		c.Labels[i] = name
	}
	return nil
}

// hfViTLayout reads google/vit-*, facebook/deit-* and what transformers saves as ViT or DeiT.
func hfViTLayout(text []byte, tensors map[string]tensor) (layout, error) {
	h, err := readHFConfig(text)
	if err != nil {
		return layout{}, err
	}
	prefix := "" // a bare backbone (ViTModel)
	for _, p := range []string{"vit.", "deit."} {
		if _, have := tensors[p+"embeddings.cls_token"]; have {
			prefix = p
		}
	}
	c := h.shape(1e-12)
	c.Readout = ReadClass
	_, c.Distilled = tensors[prefix+"embeddings.distillation_token"]
	head := "classifier"
	if _, both := tensors["distillation_classifier.weight"]; both { // DeiTForImageClassificationWithTeacher
		if !c.Distilled {
			return layout{}, errors.New("distillation_classifier without a distillation token")
		}
		c.Readout, head = ReadDistilled, "cls_classifier"
	}
	t, have := tensors[head+".weight"]
	if err := h.classes(&c, t, have); err != nil {
		return layout{}, err
	}
	names := map[string]string{
		"cls_token":               prefix + "embeddings.cls_token",
		"dist_token":              prefix + "embeddings.distillation_token",
		"pos_embed":               prefix + "embeddings.position_embeddings",
		"patch_embed.proj.weight": prefix + "embeddings.patch_embeddings.projection.weight",
		"patch_embed.proj.bias":   prefix + "embeddings.patch_embeddings.projection.bias",
		"norm.weight":             prefix + "layernorm.weight",
		"norm.bias":               prefix + "layernorm.bias",
		"head.weight":             head + ".weight",
		"head.bias":               head + ".bias",
		"head_dist.weight":        "distillation_classifier.weight",
		"head_dist.bias":          "distillation_classifier.bias",
	}
	block := strings.NewReplacer(
		"norm1", "layernorm_before", "norm2", "layernorm_after",
		"attn.q", "attention.attention.query", "attn.k", "attention.attention.key", "attn.v", "attention.attention.value",
		"attn.proj", "attention.output.dense", "mlp.fc1", "intermediate.dense", "mlp.fc2", "output.dense")
	return layout{
		config: c,
		// ViTImageProcessor and DeiTImageProcessor without a file: squeezed, no crop, one half for mean and std.
		preprocess: Preprocess{
			Height: c.ImageHeight, Width: c.ImageWidth, ResizeHeight: c.ImageHeight, ResizeWidth: c.ImageWidth,
			Filter: Bilinear, Scale: 1. / 255, Mean: half, Std: half,
		},
		find: func(param string) part {
			if i, rest, is := blockParam(param); is {
				return part{tensor: prefix + "encoder.layer." + strconv.Itoa(i) + "." + block.Replace(rest)}
			}
			return part{tensor: names[param]}
		},
		ignored: []string{".position_ids", ".mask_token", ".pooler.dense.weight", ".pooler.dense.bias"},
	}, nil
}

// blockParam splits "blocks.3.norm1.weight" into 3 and "norm1.weight".
func blockParam(param string) (block int, rest string, is bool) {
	after, is := strings.CutPrefix(param, "blocks.")
	if !is {
		return 0, "", false
	}
	number, rest, _ := strings.Cut(after, ".")
	block, _ = strconv.Atoi(number) // Params.Each has written it
	return block, rest, true
}
