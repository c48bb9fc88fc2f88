"""The peers' side of `tgm bench mask --peers`: the same masks by NumPy and PyTorch, on one thread.

    python mask.py SPEC.json numpy|torch

`numpy` draws clip by clip, as VideoMAE's loader does (a row of zeros and ones, shuffled); `torch` draws a whole batch at once, as MAE's model
does (noise, sorted). Both choose the best scores where a text guides. A mask is a row of booleans, true where hidden.

Speaks the lines that `crates/tgm-cli/src/commands/bench/turns.rs` describes, but the last. `value` is the mean index of what is hidden where scores
decide, and else how many tubelets are: both sides must agree on it.
"""

import json
import sys
import time

import numpy as np


def say(**line):
    print(json.dumps(line), flush=True)


def numpy_masks(spec, scores):
    slots, cells, hidden = spec["slots"], spec["cells"], spec["hidden"]
    rng = np.random.default_rng(0)

    def shuffled():
        row = np.hstack([np.zeros(cells - hidden, dtype=bool), np.ones(hidden, dtype=bool)])
        rng.shuffle(row)
        return row

    def best():
        masked = np.zeros((slots, cells), dtype=bool)
        chosen = np.argpartition(-scores, hidden, axis=1)[:, :hidden]
        np.put_along_axis(masked, chosen, True, axis=1)
        return masked.reshape(-1)

    draw = {
        "random": lambda: np.concatenate([shuffled() for _ in range(slots)]),
        "tube": lambda: np.tile(shuffled(), slots),
        "text": best,
    }[spec["strategy"]]
    return lambda: [draw() for _ in range(spec["clips"])]


def torch_masks(spec, scores):
    import torch

    torch.set_num_threads(1)
    clips, slots, cells, hidden = spec["clips"], spec["slots"], spec["cells"], spec["hidden"]
    scores = torch.from_numpy(scores).expand(clips, slots, cells)

    def hide(keys):
        chosen = keys.topk(hidden, dim=-1, sorted=False).indices
        return torch.zeros(keys.shape, dtype=torch.bool).scatter_(-1, chosen, True)

    draw = {
        "random": lambda: hide(torch.rand(clips, slots, cells)),
        "tube": lambda: hide(torch.rand(clips, cells)).unsqueeze(1).repeat(1, slots, 1),
        "text": lambda: hide(scores),
    }[spec["strategy"]]
    return lambda: draw().reshape(clips, -1)


def value(spec, masks):
    masked = np.flatnonzero(np.asarray(masks[0]))
    return float(masked.mean() if spec["strategy"] == "text" else len(masked))


def main():
    spec = json.load(open(sys.argv[1]))
    scores = np.array(spec["scores"], dtype=np.float32).reshape(spec["slots"], spec["cells"])
    draw = {"numpy": numpy_masks, "torch": torch_masks}[sys.argv[2]](spec, scores)
    say(value=value(spec, draw()))
    for _ in sys.stdin:
        start = time.perf_counter()
        draw()
        say(seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
