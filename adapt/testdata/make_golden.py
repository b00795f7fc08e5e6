"""Writes golden2/vit_step.{safetensors,json}: a second golden step of another shape, a non-square grid and T = .65.

The numbers come from bench/step/published.py, which is first checked against the golden file of the authors' own
program. Run from the root of the repository: python3 adapt/testdata/make_golden.py (needs torch and safetensors)
"""

import json
import sys

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, "bench/step")
from published import ViT, loss_terms, normalised, optimizer, relevance

HYPER = dict(lambda_seg=0.8, lambda_acc=0.2, lambda_background=2.0, lambda_foreground=0.3, temperature=0.65,
             optimizer="AdamW", lr=1e-4, betas=[0.9, 0.999], eps=1e-8, weight_decay=1e-4, decay_on="all parameters")
CONFIG = dict(img_h=16, img_w=24, patch=4, grid_h=4, grid_w=6, embed_dim=24, depth=4, num_heads=2, head_dim=12,
              mlp_hidden=60, num_classes=5, qkv_bias=True, ln_eps=1e-6, gelu="exact erf", batch=3)


def run(model, images, masks, labels, hyper, steps):
    out, record, scalars = {}, [], []
    low, logits = relevance(model, images, labels, record)
    up, norm = normalised(low, model.c["patch"])
    out.update({"io.logits": logits, "relevance.lowres": low, "relevance.upsampled_raw": up, "relevance.normalized": norm})
    for i, (a, g, c) in enumerate(record):
        out.update({f"attn.blocks.{i}": a, f"attn_grad.blocks.{i}": g, f"cam.blocks.{i}": c})
    step = optimizer(model, hyper)
    for n in range(steps + 1):
        terms = loss_terms(model, images, masks, labels, hyper)
        scalars.append({"step": n, **{k: v.item() for k, v in terms.items()}})
        step.zero_grad()
        terms["total"].backward()
        if n == 0:
            out.update({"grad." + k: p.grad.clone() for k, p in model.named_parameters()})
        if n < steps:
            step.step()
            if n + 1 in (1, 5):
                out.update({f"step{n + 1}.{k}": p.clone() for k, p in model.named_parameters()})
    return {k: v.detach().clone().contiguous() for k, v in out.items()}, scalars


def check(folder):
    """The published step must reproduce the authors' file before it may write one."""
    want, spec = load_file(folder + "/vit_step.safetensors"), json.load(open(folder + "/vit_step.json"))
    model = ViT(spec["config"])
    model.load_state_dict({k: want[k] for k in model.state_dict()})
    got, scalars = run(model, want["io.image"], want["io.mask"], want["io.label"], spec["hyper"], 5)
    worst = {}
    for k, v in got.items():
        if k.endswith("qkv.bias"):
            d = v.shape[0] // 3
            v, w = torch.cat([v[:d], v[2 * d:]]), torch.cat([want[k][:d], want[k][2 * d:]])
        else:
            w = want[k]
        kind = k.split(".")[0]
        worst[kind] = max(worst.get(kind, 0), (v - w).abs().max().item())
    losses = max(abs(a[k] - b[k]) for a, b in zip(scalars, spec["scalars_fp32"]) for k in ("background", "foreground", "classification", "total"))
    print("against the authors' file:", {k: f"{v:.1e}" for k, v in worst.items()}, f"losses {losses:.1e}")
    assert losses < 2e-6 and worst["grad"] < 5e-6 and worst["step5"] < 1e-3, "not the published step"


def main():
    check("adapt/testdata/golden")
    torch.manual_seed(20261124)
    model = ViT(CONFIG)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * (0.3 if p.ndim == 1 or "token" in name or "pos" in name else 1.1 / p[0].numel() ** 0.5))
            if "norm" in name and name.endswith("weight"):
                p.add_(1)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    h, w, b = CONFIG["img_h"], CONFIG["img_w"], CONFIG["batch"]
    images = torch.rand(b, 3, h, w) * 2 - 1
    masks = torch.zeros(b, 1, h, w)
    masks[0, 0, 4:12, 4:16] = 1
    masks[1, 0, 0:8, 10:24] = 1
    masks[2, 0, 5:11, 6:18] = 1
    masks[2, 0, 4, 6:18] = torch.rand(12)  # soft edges
    masks[2, 0, 11, 6:18] = torch.rand(12)
    labels = torch.tensor([1, 4, 2])
    out, scalars = run(model, images, masks, labels, HYPER, 5)
    save_file({**start, "io.image": images, "io.mask": masks, "io.label": labels, **out}, "adapt/testdata/golden2/vit_step.safetensors")
    spec = dict(seed=20261124, config=CONFIG, hyper=HYPER, label=labels.tolist(), scalars_fp32=scalars)
    json.dump(spec, open("adapt/testdata/golden2/vit_step.json", "w"), indent=1)
    print("argmax", out["io.logits"].argmax(-1).tolist(), "losses", [round(s["total"], 4) for s in scalars])


if __name__ == "__main__":
    main()
