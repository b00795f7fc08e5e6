"""Writes testdata/parity and testdata/preprocess: what the authors' own code computes, for the tests of package model.

    pip install torch==2.15.0 transformers==5.24.0 timm==1.0.31 pillow safetensors numpy
    python make_parity.py            # beside this file

Each folder of parity/ is a small checkpoint as save_pretrained or timm's save_for_hf writes it, with random
weights far from their initial values (so that a forgotten bias, scale or position shows), and io.safetensors:
pixel_values [B,3,H,W], logits [B,C] where there is a head, and features [B,patches,D], the patch tokens after
the last LayerNorm. The test of the package reads any folder of such folders.
"""

import math
import os
import shutil
import sys

import numpy as np
import timm
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf

HERE = os.path.dirname(os.path.abspath(__file__))


def randomise(model, seed):
    """Gives every parameter a value that matters to the output."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            n = torch.randn(p.shape, generator=g)
            if p.dim() > 1 and name.endswith("weight"):
                p.copy_(n * 1.4 / math.sqrt(p[0].numel()))
            elif "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.3 * n)
            elif "lambda1" in name or "gamma" in name:
                p.copy_(0.6 + 0.4 * n)
            elif "bias" in name:
                p.copy_(0.4 * n)
            else:  # tokens, positions
                p.copy_(0.8 * n)
    return model.float().eval()


def pixels(batch, height, width, seed):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def write(case, io):
    save_file({k: v.detach().float().contiguous() for k, v in io.items()}, os.path.join(case, "io.safetensors"))


def transformers_case(name, cls, config, size, seed, dtype=None, processor=None, **save):
    case = os.path.join(HERE, "parity", name)
    model = randomise(cls(config), seed)
    if dtype is not None:  # the stored numbers are the rounded ones; the reference computes with them in float32
        model = model.to(dtype)
    model.save_pretrained(case, **save)
    model = model.float()
    if processor is not None:
        processor.save_pretrained(case)
    x = pixels(2, *size, seed)
    forward = {"interpolate_pos_encoding": True} if config.model_type in ("vit", "deit") else {}
    if config.model_type == "vit" and not isinstance(config.image_size, int):
        forward = {}  # transformers interpolates square grids alone
    with torch.no_grad():
        out = model(x, output_hidden_states=True, **forward)
        body = getattr(model, model.base_model_prefix, model)
        tokens = body.layernorm(out.hidden_states[-1])
        if hasattr(out, "last_hidden_state"):
            tokens = out.last_hidden_state
    patches = (size[0] // config.patch_size) * (size[1] // config.patch_size)
    io = {"pixel_values": x, "features": tokens[:, -patches:]}
    if hasattr(out, "logits"):
        io["logits"] = out.logits
    write(case, io)


def timm_case(name, architecture, size, seed, **args):
    case = os.path.join(HERE, "parity", name)
    model = randomise(timm.create_model(architecture, **args), seed)
    save_for_hf(model, case, model_args=args, safe_serialization=True)
    x = pixels(2, *size, seed)
    with torch.no_grad():
        tokens = model.forward_features(x)
        io = {"pixel_values": x, "logits": model(x)}
    patches = (size[0] // args["patch_size"]) * (size[1] // args["patch_size"])
    io["features"] = tokens[:, -patches:]
    write(case, io)


def parity():
    shutil.rmtree(os.path.join(HERE, "parity"), ignore_errors=True)
    vit = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, patch_size=8)
    named = dict(id2label={0: "bird", 1: "beetle", 2: "spade", 3: "car", 4: "pear"})
    transformers_case("hf-vit", hf.ViTForImageClassification, hf.ViTConfig(**vit, image_size=32, **named), (32, 32), 1,
                      processor=hf.ViTImageProcessor(size={"height": 32, "width": 32}))
    transformers_case("hf-vit-without-qkv-bias-wide", hf.ViTForImageClassification,
                      hf.ViTConfig(**vit, image_size=[24, 40], qkv_bias=False, num_labels=4), (24, 40), 2)
    transformers_case("hf-vit-other-grid", hf.ViTForImageClassification, hf.ViTConfig(**vit, image_size=32, num_labels=4), (24, 56), 3)
    transformers_case("hf-vit-backbone-f16", hf.ViTModel, hf.ViTConfig(**vit, image_size=32), (32, 32), 4, dtype=torch.float16)
    transformers_case("hf-deit-distilled-sharded", hf.DeiTForImageClassificationWithTeacher,
                      hf.DeiTConfig(**vit, image_size=32, num_labels=5), (32, 32), 5, max_shard_size="30KB",
                      processor=hf.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}))
    transformers_case("hf-deit-class-token-other-grid", hf.DeiTForImageClassification,
                      hf.DeiTConfig(**vit, image_size=32, num_labels=5), (40, 24), 6)
    dino = {k: v for k, v in vit.items() if k != "intermediate_size"} | dict(mlp_ratio=2)
    bit = hf.BitImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 40, "width": 40},
                               image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    transformers_case("hf-dinov2", hf.Dinov2ForImageClassification, hf.Dinov2Config(**dino, image_size=40, num_labels=5), (40, 40), 7, processor=bit)
    transformers_case("hf-dinov2-other-grid-bf16", hf.Dinov2ForImageClassification,
                      hf.Dinov2Config(**dino, image_size=56, num_labels=5), (32, 32), 8, dtype=torch.bfloat16)
    transformers_case("hf-dinov2-backbone-swiglu-wide", hf.Dinov2Model, hf.Dinov2Config(**dino, image_size=40, use_swiglu_ffn=True), (24, 48), 9)
    transformers_case("hf-dinov2-registers", hf.Dinov2WithRegistersForImageClassification,
                      hf.Dinov2WithRegistersConfig(**dino, image_size=40, num_labels=5, num_register_tokens=3), (40, 40), 10)
    transformers_case("hf-dinov2-registers-other-grid", hf.Dinov2WithRegistersForImageClassification,
                      hf.Dinov2WithRegistersConfig(**dino, image_size=56, num_labels=5), (24, 32), 11)

    small = dict(embed_dim=24, depth=2, num_heads=3, num_classes=5, mlp_ratio=2, patch_size=8)
    timm_case("timm-vit", "vit_small_patch16_224", (32, 32), 21, **small, img_size=32)
    timm_case("timm-vit-other-grid", "vit_base_patch16_224", (24, 40), 22, **small, img_size=48, dynamic_img_size=True)
    timm_case("timm-deit-distilled", "deit_small_distilled_patch16_224", (32, 32), 23, **small, img_size=32)
    timm_case("timm-deit3", "deit3_small_patch16_224", (32, 48), 24, **small, img_size=32, dynamic_img_size=True)
    timm_case("timm-dinov2", "vit_small_patch14_dinov2", (32, 32), 25, **small, img_size=56, dynamic_img_size=True)
    timm_case("timm-dinov2-reg4", "vit_small_patch14_reg4_dinov2", (40, 40), 26, **small, img_size=40)
    timm_case("timm-dinov2-reg4-other-grid", "vit_small_patch14_reg4_dinov2", (24, 32), 27, **small, img_size=56, dynamic_img_size=True)
    timm_case("timm-dinov2-giant-swiglu", "vit_giant_patch14_reg4_dinov2", (32, 32), 28, **small, img_size=32)


def scene(width, height, seed):
    """A picture with edges, gradients and noise."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    p = np.stack([127 + 120 * np.sin(x / 7.0 + c) * np.cos(y / (5.0 + c)) for c in range(3)], -1)
    p[height // 3: height // 2, width // 4: width // 2] = r.integers(0, 256, 3)
    return Image.fromarray(np.clip(p + r.normal(0, 12, p.shape), 0, 255).astype(np.uint8))


def preprocess():
    """Pillow's resize and crop of a few pictures, as bytes, and the whole of one processor, as numbers."""
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
    tensors = {}
    for i, (w, h, rw, rh, crop, name) in enumerate([
        (64, 36, 71, 40, 32, "bicubic"),     # shortest edge, enlarged
        (160, 90, 56, 32, 28, "bicubic"),    # shrunk: antialiased
        (45, 80, 32, 56, 32, "bilinear"),    # upright
        (50, 50, 32, 32, 32, "bilinear"),    # squeezed square
        (90, 31, 28, 28, 28, "lanczos"),     # squeezed, aspect ignored
        (32, 32, 32, 32, 32, "bicubic"),     # nothing to do
    ]):
        picture = scene(w, h, i)
        x, y = (rw - crop) // 2, (rh - crop) // 2
        resized = picture.resize((rw, rh), filters[name]).crop((x, y, x + crop, y + crop))
        tensors[f"{i}.{name}.{rw}x{rh}.in"] = torch.from_numpy(np.array(picture))
        tensors[f"{i}.{name}.{rw}x{rh}.out"] = torch.from_numpy(np.array(resized))
    picture = scene(80, 45, 9)
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    processor = BitImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32},
                                     image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    tensors["processor.in"] = torch.from_numpy(np.array(picture))
    tensors["processor.out"] = torch.from_numpy(np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]))
    save_file(tensors, os.path.join(HERE, "preprocess.safetensors"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    parity()
    preprocess()
    sizes = {d: sum(os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(os.path.join(HERE, "parity", d)) for f in fs)
             for d in sorted(os.listdir(os.path.join(HERE, "parity")))}
    for d, n in sizes.items():
        print(f"{n:8d} {d}")
    print(f"{sum(sizes.values()):8d}", file=sys.stderr)
