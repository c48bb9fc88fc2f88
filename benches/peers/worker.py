"""The peers' side of `tgm bench step|score --peers`: the same work by PyTorch and `transformers`.

    python worker.py SPEC.json [--compile]

Speaks the lines that `crates/tgm-cli/src/commands/bench/turns.rs` describes: `{"value": …}` once it is warm, `{"seconds": …}`
for every line on standard input, `{"peak_mb": …}` at the end. `value` is computed before anything is trained; both sides must agree on it.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection, VideoMAEForPreTraining, VideoMAEModel
from transformers.utils import logging

WARM_UP = 3


def say(**line):
    print(json.dumps(line), flush=True)


def autocast(spec):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=spec["precision"] == "bf16")


def compiled(module, wanted):
    return torch.compile(module) if wanted else module


def info_nce(pooled, texts, projection, log_scale):
    """The symmetric contrastive loss of `tgm-contrastive`, whose captions here all differ."""
    videos = F.normalize(F.linear(pooled, projection).float(), dim=-1)
    logits = videos @ F.normalize(texts, dim=-1).T * log_scale.exp()
    own = torch.arange(len(texts))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class Joint(torch.nn.Module):
    """VideoMAE's loss, and the contrastive one on the same encoder pass."""

    def __init__(self, model, tensors):
        super().__init__()
        self.model = model
        self.texts = tensors["texts"]
        self.projection = torch.nn.Parameter(tensors["head.projection"])
        self.log_scale = torch.nn.Parameter(tensors["head.log_scale"])
        self.encoded = None
        model.videomae.register_forward_hook(self.keep)

    def keep(self, module, args, output):
        self.encoded = output[0]

    def forward(self, pixels, masked):
        loss = self.model(pixels, bool_masked_pos=masked).loss
        return loss + info_nce(self.encoded.mean(1), self.texts, self.projection, self.log_scale)


class Alone(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels, masked):
        return self.model(pixels, bool_masked_pos=masked).loss


def step(spec, tensors, compile):
    """A pretraining step with fused AdamW. The value is the loss."""
    model = VideoMAEForPreTraining.from_pretrained(spec["model"]).train()
    module = Joint(model, tensors) if spec["contrastive"] else Alone(model)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    run = compiled(module, compile)
    pixels, masked = tensors["pixel_values"], tensors["bool_masked_pos"].bool()

    def work():
        with autocast(spec):
            loss = run(pixels, masked)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1e9)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return work


def rms(tensor):
    return tensor.float().square().mean().sqrt().item()


def features(spec, tensors, compile):
    """The encoder on all tubelets, mean-pooled. The value is the features' root mean square."""
    dtype = torch.bfloat16 if spec["precision"] == "bf16" else torch.float32
    model = compiled(VideoMAEModel.from_pretrained(spec["model"], dtype=dtype).eval(), compile)
    pixels = tensors["pixel_values"].to(dtype)

    def work():
        with torch.inference_mode():
            return rms(model(pixels).last_hidden_state.mean(1))

    return work


def score(spec, tensors, compile):
    """CLIP's projected patch features `[F, P, E]`. The value is their root mean square."""
    dtype = torch.bfloat16 if spec["precision"] == "bf16" else torch.float32
    model = CLIPVisionModelWithProjection.from_pretrained(spec["model"], dtype=dtype).eval()
    tower = compiled(model.vision_model, compile)
    pixels = tensors["pixel_values"].to(dtype)

    def work():
        with torch.inference_mode():
            tokens = tower(pixels).last_hidden_state[:, 1:]
            return rms(model.visual_projection(model.vision_model.post_layernorm(tokens)))

    return work


def main():
    # Weights of towers that are not measured are left over; that is no news.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    spec = json.load(open(sys.argv[1]))
    torch.set_num_threads(spec["threads"])
    tensors = load_file(spec["input"])
    work = {"step": step, "features": features, "score": score}[spec["work"]](spec, tensors, "--compile" in sys.argv)
    value = work()
    for _ in range(WARM_UP - 1):
        work()
    say(value=value)
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        say(seconds=time.perf_counter() - start)
    say(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
