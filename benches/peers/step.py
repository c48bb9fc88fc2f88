"""One pretraining step of VideoMAE by PyTorch and `transformers`: random weights, synthetic clips, fused AdamW.

One process measures one configuration, so that its peak memory is its own:

    python step.py --size b --precision bf16 --ratio 0.9 --batch 4 --threads 2 [--compile]

Prints one line of JSON: seconds of every timed step, their median in clips/s, peak resident memory, losses.
With `--weights FILE` (safetensors, Hugging Face names), `--clips FILE` (`pixel_values` [B, T, C, H, W], `masked` [B, N]) the
same numbers are computed as elsewhere, so that losses can be compared.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

SIZES = {
    "s": dict(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536,
        decoder_hidden_size=192, decoder_num_hidden_layers=4, decoder_num_attention_heads=3, decoder_intermediate_size=768,
    ),
    "b": dict(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        decoder_hidden_size=384, decoder_num_hidden_layers=4, decoder_num_attention_heads=6, decoder_intermediate_size=1536,
    ),
}


def tube_mask(batch, ratio, generator):
    """One spatial mask per clip, repeated in all 8 temporal slots: `[B, 1568]`, True = masked."""
    hidden = round(196 * ratio)
    rows = []
    for _ in range(batch):
        row = torch.zeros(196, dtype=torch.bool)
        row[torch.randperm(196, generator=generator)[:hidden]] = True
        rows.append(row.repeat(8))
    return torch.stack(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="b")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--ratio", type=float, default=0.9)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--features", action="store_true", help="the encoder on all tubelets, without gradient")
    parser.add_argument("--weights")
    parser.add_argument("--clips")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = VideoMAEForPreTraining(VideoMAEConfig(**SIZES[args.size]))
    if args.weights:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(args.weights), strict=False)
    if args.clips:
        from safetensors.torch import load_file

        stored = load_file(args.clips)
        pixels, masked = stored["pixel_values"].float(), stored["masked"].bool()
    else:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(args.batch, 16, 3, 224, 224, generator=generator)
        masked = tube_mask(args.batch, args.ratio, generator)
    batch = pixels.shape[0]
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")
    losses = []

    if args.features:
        model.eval()
        run = torch.compile(model.videomae) if args.compile else model.videomae

        def step():
            with torch.inference_mode(), cast:
                run(pixels)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
        run = torch.compile(model) if args.compile else model

        def step():
            with cast:
                loss = run(pixels, bool_masked_pos=masked).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())

    for _ in range(args.warmup):
        step()
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "torch": torch.__version__,
        "clips_per_second": batch / statistics.median(seconds),
        "seconds": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": losses,
    }))


if __name__ == "__main__":
    main()
