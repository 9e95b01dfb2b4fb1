"""The convolution that `benches/operations` writes to a folder, by PyTorch, forward and backward.

    python convolution.py FOLDER [--seconds 0.3] [--threads 2]

Both passes run in both layouts of images, and of each the faster layout counts. The forward pass is one of
training: gradients are wanted. The backward pass gives those by the input and by the weight. The last line
printed is JSON: median seconds of both, and norms of output and gradients.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
# Runs that do not count, and those that do at least.
WARM, LEAST = 3, 5


def median_seconds(run, seconds):
    for _ in range(WARM):
        run()
    times, begun = [], time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long each pass is repeated")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    tensors = load_file(f"{arguments.folder}/tensors.safetensors")
    with open(f"{arguments.folder}/convolution.json") as file:
        conv = json.load(file)
    window = [conv.get("stride", 1), conv.get("padding", 0), conv.get("dilation", 1), conv.get("groups", 1)]
    found = {"forward": [], "backward": []}
    for layout, memory_format in LAYOUTS.items():
        x, w, dy = (tensors[name].contiguous(memory_format=memory_format) for name in ("x", "w", "dy"))
        x.requires_grad_()
        w.requires_grad_()

        def forward():
            return F.conv2d(x, w, None, *window)

        y = forward()

        def backward():
            return torch.autograd.grad(y, (x, w), dy, retain_graph=True)

        for name, run in (("forward", forward), ("backward", backward)):
            found[name].append({"seconds": median_seconds(run, arguments.seconds), "layout": layout})
        norms = [t.detach().double().norm().item() for t in (y, *backward())]
    fastest = {name: min(all_of, key=lambda of: of["seconds"]) for name, all_of in found.items()}
    print(json.dumps({**fastest, "norms": norms}))


if __name__ == "__main__":
    main()
