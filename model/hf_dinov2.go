package model

import (
	"strconv"
	"strings"
)

// hfDINOv2Layout reads facebook/dinov2-*, with or without registers, and what transformers saves as such.
func hfDINOv2Layout(text []byte, tensors map[string]tensor) (layout, error) {
	h, err := readHFConfig(text)
	if err != nil {
		return layout{}, err
	}
	prefix := "" // a bare backbone (Dinov2Model)
	for _, p := range []string{"dinov2.", "dinov2_with_registers."} {
		if _, have := tensors[p+"embeddings.cls_token"]; have {
			prefix = p
		}
	}
	c := h.shape(1e-6)
	c.Readout, c.LayerScale, c.SwiGLU = ReadClass, true, h.SwiGLU
	c.Hidden = int(float64(h.HiddenSize) * h.MLPRatio)
	if c.SwiGLU { // two thirds, rounded up to a multiple of 8, so that it costs what the plain MLP costs
		c.Hidden = (c.Hidden*2/3 + 7) / 8 * 8
	}
	if _, have := tensors[prefix+"embeddings.register_tokens"]; have {
		// Position embedding: transformers resizes this family with antialiasing, the one without registers without.
		c.Registers, c.PositionResize = or(h.Registers, 4), PositionAntialias
	}
	t, have := tensors["classifier.weight"]
	if have {
		c.Readout = ReadClassMean
	}
	if err := h.classes(&c, t, have); err != nil {
		return layout{}, err
	}
	return dinov2Layout(c, prefix), nil
}

// dinov2Layout gives the names of the family, those of the backbone behind prefix.
func dinov2Layout(c Config, prefix string) layout {
	names := map[string]string{
		"cls_token":               prefix + "embeddings.cls_token",
		"reg_token":               prefix + "embeddings.register_tokens",
		"pos_embed":               prefix + "embeddings.position_embeddings",
		"patch_embed.proj.weight": prefix + "embeddings.patch_embeddings.projection.weight",
		"patch_embed.proj.bias":   prefix + "embeddings.patch_embeddings.projection.bias",
		"norm.weight":             prefix + "layernorm.weight",
		"norm.bias":               prefix + "layernorm.bias",
		"head.weight":             "classifier.weight",
		"head.bias":               "classifier.bias",
	}
	block := strings.NewReplacer(
		"ls1.gamma", "layer_scale1.lambda1", "ls2.gamma", "layer_scale2.lambda1",
		"attn.q", "attention.attention.query", "attn.k", "attention.attention.key", "attn.v", "attention.attention.value",
		"attn.proj", "attention.output.dense")
	swiglu := strings.NewReplacer("mlp.gate", "mlp.weights_in", "mlp.fc1", "mlp.weights_in", "mlp.fc2", "mlp.weights_out")
	return layout{
		config:     c,
		preprocess: dinov2Preprocess,
		find: func(param string) part {
			i, rest, is := blockParam(param)
			if !is {
				return part{tensor: names[param]}
			}
			p := part{tensor: prefix + "encoder.layer." + strconv.Itoa(i) + "." + block.Replace(rest)}
			if c.SwiGLU && strings.HasPrefix(rest, "mlp.") {
				p.tensor = prefix + "encoder.layer." + strconv.Itoa(i) + "." + swiglu.Replace(rest)
				switch rest[:strings.LastIndexByte(rest, '.')] { // the gate's rows come first
				case "mlp.gate":
					p.of = 2 * c.Hidden
				case "mlp.fc1":
					p.row, p.of = c.Hidden, 2*c.Hidden
				}
			}
			return p
		},
		ignored: []string{".position_ids", ".mask_token"},
	}
}

// dinov2Preprocess is the preprocessor_config.json of facebook/dinov2-*.
var dinov2Preprocess = Preprocess{
	Height: 224, Width: 224, ResizeHeight: 256, ResizeWidth: 256, KeepAspect: true,
	Filter: Bicubic, Scale: 1. / 255, Mean: imageNetMean, Std: imageNetStd,
}
