"""The fine-tuning step of Chefer et al. 2022 (arXiv 2206.01161) as its authors' program runs it, in plain PyTorch.

Written from the paper and the description in docs/method.md; no line of the original is here. What makes it the
published program and not a rewrite: three forward passes a step (target, relevance, cross-entropy), one gradient
call a block for the attention gradients, a rollout of full N x N matrices, AdamW over every parameter.

As a program it is the peer of `go run ./bench/step`: it reads weights and a batch, then a command a line on stdin.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        self.map = ((q @ k.transpose(-2, -1)) / math.sqrt(d // self.heads)).softmax(-1)
        return self.proj((self.map @ v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, hidden, eps):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Names follow timm, so that its state dict is a checkpoint."""

    def __init__(self, c):
        super().__init__()
        self.c, dim = c, c["embed_dim"]
        self.grid = (c["img_h"] // c["patch"], c["img_w"] // c["patch"])
        self.patch_embed = PatchEmbed(dim, c["patch"])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], dim))
        self.blocks = nn.ModuleList(Block(dim, c["num_heads"], c["mlp_hidden"], c["ln_eps"]) for _ in range(c["depth"]))
        self.norm = nn.LayerNorm(dim, c["ln_eps"])
        self.head = nn.Linear(dim, c["num_classes"])

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def relevance(model, images, classes, record=None):
    """R_L's class row on the patch grid, [B, h, w]; record receives A, G and C of each block."""
    logits = model(images)
    score = logits.gather(1, classes[:, None]).sum()
    n = 1 + model.grid[0] * model.grid[1]
    r = torch.eye(n).expand(len(images), n, n)
    for block in model.blocks:
        a = block.attn.map
        g = torch.autograd.grad(score, a, retain_graph=True)[0]
        cam = (g * a).clamp(min=0).mean(1)
        r = r + cam @ r
        if record is not None:
            record.append((a.detach(), g, cam.detach()))
    return r[:, 0, 1:].reshape(-1, *model.grid), logits


def normalised(low, patch):
    up = F.interpolate(low[:, None], scale_factor=patch, mode="bilinear", align_corners=False)
    return up, torch.stack([(x - x.min()) / (x.max() - x.min()) for x in up])


def loss_terms(model, images, masks, classes, hyper):
    """One step's loss as the published program computes it; masks are [B, 1, H, W]."""
    with torch.no_grad():
        target = model(images).argmax(-1)
    low, _ = relevance(model, images, classes)
    _, r = normalised(low, model.c["patch"])
    inverse = masks.clone()
    inverse[masks == 0], inverse[masks == 1] = 1, 0
    background = F.mse_loss(r * inverse, torch.zeros_like(r))
    foreground = F.mse_loss(r * masks, masks)
    classification = F.cross_entropy(model(images) / hyper["temperature"], target)
    segmentation = hyper["lambda_background"] * background + hyper["lambda_foreground"] * foreground
    total = hyper["lambda_seg"] * segmentation + hyper["lambda_acc"] * classification
    return dict(background=background, foreground=foreground, segmentation=segmentation, classification=classification, total=total)


def optimizer(model, hyper):
    return torch.optim.AdamW(model.parameters(), lr=hyper["lr"], betas=tuple(hyper["betas"]), eps=hyper["eps"], weight_decay=hyper["weight_decay"])


def memory():
    """Resident and peak resident memory of this process, in KiB."""
    lines = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("VmRSS", "VmHWM")))
    return {k: int(v.split()[0]) for k, v in lines.items()}


def serve():
    from safetensors.torch import load_file

    spec = json.loads(sys.stdin.readline())
    torch.set_num_threads(spec["threads"])
    c, labels = spec["config"], torch.tensor(spec["labels"])
    model = ViT(c)
    model.load_state_dict(load_file(spec["dir"] + "/model/model.safetensors"))
    values = torch.from_file(spec["dir"] + "/batch", size=len(labels) * 4 * c["img_h"] * c["img_w"])
    images, masks = values.reshape(-1, c["img_h"], c["img_w"]).clone().split([3 * len(labels), len(labels)])
    batch = [images.reshape(-1, 3, c["img_h"], c["img_w"]), masks[:, None], labels]
    step = optimizer(model, spec["hyper"])
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts here
    print(json.dumps({"memory": memory()["VmRSS"]}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        terms = loss_terms(model, *batch, spec["hyper"])
        step.zero_grad()
        terms["total"].backward()
        step.step()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "value": terms["total"].item(), "memory": memory()["VmHWM"]}), flush=True)


if __name__ == "__main__":
    serve()
