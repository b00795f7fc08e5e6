"""One of the peers of `go run ./bench/compare`: the same weights in PyTorch (timm) or ONNX Runtime.

Reads a specification as a line of JSON, then does one forward pass for each further line.
"""

import json
import os
import sys
import time

import torch


def timm_model(spec):
    import timm
    from safetensors.torch import load_file

    c = spec["model"]
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=(c["image_height"], c["image_width"]), patch_size=c["patch"], embed_dim=c["dim"], depth=c["depth"],
        num_heads=c["heads"], mlp_ratio=c["hidden"] / c["dim"], num_classes=c["classes"]).eval()
    model.load_state_dict(load_file(spec["dir"] + "/model/model.safetensors"))
    return model


def load(spec):
    c = spec["model"]
    n = spec["batch"] * 3 * c["image_height"] * c["image_width"]
    image = torch.from_file(spec["dir"] + "/batch", size=n).reshape(spec["batch"], 3, c["image_height"], c["image_width"]).clone()
    model = timm_model(spec)
    if spec["peer"] == "torch":
        torch.set_num_threads(spec["threads"])
        return lambda: model(image)
    import onnxruntime

    file = spec["dir"] + "/model.onnx"
    torch.onnx.export(model, (image,), file, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {"x": image.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    spec = json.loads(sys.stdin.readline())
    with torch.inference_mode():
        forward = load(spec)
        print(json.dumps({"seconds": 0}), file=out, flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            logits = forward()
            seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds, "values": logits.flatten()[:8].tolist()}), file=out, flush=True)


if __name__ == "__main__":
    main()
