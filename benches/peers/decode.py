"""The peers' side of `tgm bench decode --peers`: the same clips of the same files, one thread, CPU time.

    python decode.py SPEC.json PEER

SPEC: {"clips": [{"path": …, "frames": [16 numbers], "crop": [x, y, width, height]}], "size": 224, "tubelets": bool}. For every line on standard
input all clips are made once and `{"clips": [{"cpu": seconds, "wall": seconds, "value": mean pixel}, …]}` is written. `value` lets the caller see that
the same frames were decoded. PEER: torchcodec, torchcodec-approximate, decord or pyav.
"""

import json
import sys
import time

import numpy as np
import torch

torch.set_num_threads(1)

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])


def torchcodec(path, frames, mode="exact"):
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=mode)
    return decoder.get_frames_at(frames).data  # [T, 3, H, W]


def torchcodec_approximate(path, frames):
    return torchcodec(path, frames, "approximate")


def decord(path, frames):
    import decord as library

    reader = library.VideoReader(path, num_threads=1)
    return torch.from_numpy(reader.get_batch(frames).asnumpy()).permute(0, 3, 1, 2)


def pyav(path, frames):
    """From the key frame before the first frame on, frames matched by time stamp; from the beginning where packets have none (AVI)."""
    import av

    wanted = set(frames)
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        times = [packet.pts for packet in container.demux(stream) if packet.size > 0]
        stamped = None not in times and "avi" not in container.format.name
        times = sorted(times) if stamped else []
        numbers = {pts: number for number, pts in enumerate(times)}
        container.seek(times[frames[0]] if stamped else 0, stream=stream, backward=True)
        found = {}
        for count, frame in enumerate(container.decode(stream)):
            number = numbers.get(frame.pts) if stamped else count
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if len(found) == len(wanted):
                break
    return torch.from_numpy(np.stack([found[number] for number in frames])).permute(0, 3, 1, 2)


def tubelets(video, crop, size):
    """torchvision's crop, antialiased resize and normalisation, then VideoMAE's tubelets `[N, 2·16·16·3]`."""
    from torchvision.transforms.v2 import functional as F

    x, y, width, height = crop
    video = F.resized_crop(video, y, x, height, width, [size, size], antialias=True)
    video = F.normalize(F.to_dtype(video, torch.float32, scale=True), MEAN.tolist(), STD.tolist())
    t, c, h, w = video.shape
    grid = video.reshape(t // 2, 2, c, h // 16, 16, w // 16, 16).permute(0, 3, 5, 1, 4, 6, 2)
    return grid.reshape(-1, 2 * 16 * 16 * c).contiguous()


PEERS = {
    "torchcodec": torchcodec,
    "torchcodec-approximate": torchcodec_approximate,
    "decord": decord,
    "pyav": pyav,
}


def main():
    spec = json.load(open(sys.argv[1]))
    read = PEERS[sys.argv[2]]
    for _ in sys.stdin:
        made = []
        for clip in spec["clips"]:
            begun = time.perf_counter(), time.process_time()
            video = read(clip["path"], clip["frames"])
            if spec["tubelets"]:
                tubelets(video, clip["crop"], spec["size"])
            wall = time.perf_counter() - begun[0]
            cpu = time.process_time() - begun[1]
            made.append({"cpu": cpu, "wall": wall, "value": video.float().mean().item()})
        print(json.dumps({"clips": made}), flush=True)


if __name__ == "__main__":
    main()
