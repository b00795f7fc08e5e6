package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// timmConfig is the config.json that timm writes for a hub.
type timmConfig struct {
	Architecture string                     `json:"architecture"`
	GlobalPool   string                     `json:"global_pool"`
	LabelNames   []string                   `json:"label_names"`
	Descriptions map[string]string          `json:"label_descriptions"`
	ModelArgs    map[string]json.RawMessage `json:"model_args"`
	Pretrained   struct {
		InputSize     []int     `json:"input_size"` // channels, height, width
		Interpolation string    `json:"interpolation"`
		CropPct       float64   `json:"crop_pct"`
		CropMode      string    `json:"crop_mode"`
		Mean          []float64 `json:"mean"`
		Std           []float64 `json:"std"`
		LabelNames    []string  `json:"label_names"`
		License       string    `json:"license"`
	} `json:"pretrained_cfg"`
}

// timmHeads gives the number of heads by the width: no tensor tells it, and timm has one answer a width
// among the architectures with a class token.
var timmHeads = map[int]int{
	64: 2, 192: 3, 384: 6, 512: 8, 640: 10, 768: 12, 896: 14, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16,
}

// timmArgs are the model_args that change nothing here, or that the tensors show by themselves.
var timmArgs = []string{
	"img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "init_values",
	"class_token", "no_embed_class", "reg_tokens", "global_pool", "dynamic_img_size", "dynamic_img_pad",
	"drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init",
}

// timmLayout reads timm's vit_*, deit_* and deit3_* with a class token, DINOv2 with and without registers
// among them. Shapes come from the tensors: config.json of timm names an architecture and not its numbers.
func timmLayout(text []byte, tensors map[string]tensor) (layout, error) {
	var t timmConfig
	if err := json.Unmarshal(text, &t); err != nil {
		return layout{}, err
	}
	if !slices.ContainsFunc([]string{"vit_", "deit_", "deit3_", "test_vit"}, func(p string) bool { return strings.HasPrefix(t.Architecture, p) }) {
		return layout{}, fmt.Errorf("timm architecture %q is none that Fovea reads; it reads vit_*, deit_* and deit3_*", t.Architecture)
	}
	if t.GlobalPool != "" && t.GlobalPool != "token" {
		return layout{}, fmt.Errorf("global_pool is %q, want \"token\": Fovea reads the class token", t.GlobalPool)
	}
	for name := range t.ModelArgs {
		if !slices.Contains(timmArgs, name) {
			return layout{}, fmt.Errorf("model_args.%s changes the network in a way that Fovea does not know", name)
		}
	}
	c, err := t.shape(tensors)
	if err != nil {
		return layout{}, err
	}
	p, err := t.preprocess(c)
	if err != nil {
		return layout{}, fmt.Errorf("pretrained_cfg: %w", err)
	}
	source := "timm " + t.Architecture
	if t.Pretrained.License != "" {
		source += ", " + t.Pretrained.License
	}
	return layout{config: c, preprocess: p, find: timmFind(c), ignored: []string{"mask_token"}, source: source}, nil
}

// shape reads the numbers of the network off its tensors.
func (t timmConfig) shape(tensors map[string]tensor) (Config, error) {
	c := Config{Readout: ReadClass, Epsilon: 1e-6, PositionResize: PositionAntialias}
	length := func(name string, axis int) (int, error) {
		t, have := tensors[name]
		if !have {
			return 0, fmt.Errorf("tensor %q is missing", name)
		}
		if axis >= len(t.shape) {
			return 0, fmt.Errorf("tensor %q has shape %v, want more axes", name, t.shape)
		}
		return t.shape[axis], nil
	}
	has := func(name string) bool { _, have := tensors[name]; return have }
	var position int
	for _, n := range []struct {
		into *int
		name string
		axis int
	}{
		{&c.Dim, "patch_embed.proj.weight", 0},
		{&c.Patch, "patch_embed.proj.weight", 3},
		{&position, "pos_embed", 1},
		{&c.Hidden, "blocks.0.mlp.fc2.weight", 1},
	} {
		var err error
		if *n.into, err = length(n.name, n.axis); err != nil {
			return c, err
		}
	}
	if c.Patch < 1 {
		return c, fmt.Errorf("tensor %q has no width", "patch_embed.proj.weight")
	}
	for has(fmt.Sprintf("blocks.%d.norm1.weight", c.Depth)) {
		c.Depth++
	}
	c.Distilled = has("dist_token")
	c.QKVBias = has("blocks.0.attn.qkv.bias")
	c.LayerScale = has("blocks.0.ls1.gamma")
	if has("reg_token") {
		c.Registers, _ = length("reg_token", 1)
	}
	if rows, err := length("blocks.0.mlp.fc1.weight", 0); err != nil {
		return c, err
	} else if rows == 2*c.Hidden && c.Hidden > 0 { // gate and value in one matrix (SwiGLUPacked)
		c.SwiGLU = true
	}
	if has("head.weight") {
		c.Classes, _ = length("head.weight", 0)
	}
	if has("head_dist.weight") {
		c.Readout = ReadDistilled
	}

	c.Heads = timmHeads[c.Dim]
	if raw, given := t.ModelArgs["num_heads"]; given {
		if err := json.Unmarshal(raw, &c.Heads); err != nil {
			return c, fmt.Errorf("model_args.num_heads: %w", err)
		}
	}
	if c.Heads == 0 {
		return c, fmt.Errorf("the number of heads of a network %d wide is not known: give model_args.num_heads", c.Dim)
	}

	size := hfSize{224, 224}
	if n := t.Pretrained.InputSize; len(n) == 3 {
		size = hfSize{n[1], n[2]}
	}
	if raw, given := t.ModelArgs["img_size"]; given {
		if err := json.Unmarshal(raw, &size); err != nil {
			return c, fmt.Errorf("model_args.img_size: %w", err)
		}
	}
	c.ImageHeight, c.ImageWidth = size.height/c.Patch*c.Patch, size.width/c.Patch*c.Patch
	c.PrefixPosition = position != c.Patches() // else no_embed_class: the patches alone have positions

	labels := t.Pretrained.LabelNames
	if len(t.LabelNames) > 0 {
		labels = t.LabelNames
	}
	if len(labels) > 0 && c.Classes > 0 {
		c.Labels = slices.Clone(labels)
		for i, l := range c.Labels {
			if described := t.Descriptions[l]; described != "" { // a WordNet id has its words there
				c.Labels[i] = described
			}
		}
	}
	return c, nil
}

// timmFind gives timm's place of a parameter; Fovea's own folder has the same. Query, key and value are the
// rows of one matrix, and so are gate and value of SwiGLU.
func timmFind(c Config) func(param string) part {
	return func(param string) part {
		i, rest, is := blockParam(param)
		if !is {
			return part{tensor: param}
		}
		name := "blocks." + strconv.Itoa(i) + "."
		kind := rest[strings.LastIndexByte(rest, '.'):]
		switch strings.TrimSuffix(rest, kind) {
		case "attn.q":
			return part{tensor: name + "attn.qkv" + kind, of: 3 * c.Dim}
		case "attn.k":
			return part{tensor: name + "attn.qkv" + kind, row: c.Dim, of: 3 * c.Dim}
		case "attn.v":
			return part{tensor: name + "attn.qkv" + kind, row: 2 * c.Dim, of: 3 * c.Dim}
		case "mlp.gate":
			return part{tensor: name + "mlp.fc1" + kind, of: 2 * c.Hidden}
		case "mlp.fc1":
			if c.SwiGLU {
				return part{tensor: name + "mlp.fc1" + kind, row: c.Hidden, of: 2 * c.Hidden}
			}
		}
		return part{tensor: param}
	}
}

// preprocess follows timm's transforms_imagenet_eval.
func (t timmConfig) preprocess(c Config) (Preprocess, error) {
	p := Preprocess{
		Height: c.ImageHeight, Width: c.ImageWidth, KeepAspect: true,
		Filter: Bicubic, Scale: 1. / 255, Mean: imageNetMean, Std: imageNetStd,
	}
	cfg := t.Pretrained
	if len(cfg.InputSize) == 3 {
		p.Height, p.Width = cfg.InputSize[1], cfg.InputSize[2]
	}
	pct := cfg.CropPct
	if pct == 0 {
		pct = 0.875
	}
	if !(pct > 0 && pct <= 1) {
		return p, fmt.Errorf("crop_pct is %g, want above 0 and at most 1", pct)
	}
	p.ResizeHeight, p.ResizeWidth = int(math.Floor(float64(p.Height)/pct)), int(math.Floor(float64(p.Width)/pct))
	switch cfg.CropMode {
	case "", "center":
	case "squash":
		p.KeepAspect = false
	default:
		return p, fmt.Errorf("crop_mode is %q, want \"center\" or \"squash\"", cfg.CropMode)
	}
	if cfg.Interpolation != "" {
		p.Filter = Filter(cfg.Interpolation)
	}
	if err := errors.Join(threeOf("mean", cfg.Mean, &p.Mean), threeOf("std", cfg.Std, &p.Std)); err != nil {
		return p, err
	}
	return p, p.validate()
}
