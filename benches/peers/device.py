"""Inference on a CUDA device: archrepair beside PyTorch, in one run.

    python device.py PROGRAM [--networks resnet18,resnet50,...] [--batches 1,8,32] [--rounds 3]

PROGRAM is archrepair built with the feature `cuda`. Networks are torchvision's at 224 x 224 with drawn weights. A pass
goes from values on the device to logits on the CPU; `ms` is the median of a second of passes, of these the median of
all rounds, in which programs take turns; `x` is archrepair's time over PyTorch's fastest form, round by round. PyTorch runs
eagerly and as a CUDA graph, channels first and last, with norms folded by torch.fx; its products of f32 are of f32, as
archrepair's are. Needs torch and torchvision for CUDA, and safetensors.
"""

import argparse
import copy
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch.fx.experimental.optimization import fuse

SECONDS = 1.0
SIZE = 224


def milliseconds(run):
    """The median of a second of passes, after some that count for nothing."""
    for _ in range(5):
        run()
    times, begun = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def graphed(net, x):
    """What runs `net` as one CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            net(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = net(x)

    def run():
        graph.replay()
        return y.cpu()

    return run


def theirs(net, dtype, batch):
    """Milliseconds of each form of PyTorch."""
    found = {}
    for layout in torch.contiguous_format, torch.channels_last:
        of = copy.deepcopy(net).cuda().to(dtype).to(memory_format=layout)
        x = torch.randn(batch, 3, SIZE, SIZE, device="cuda").to(dtype).to(memory_format=layout)
        name = "channels last" if layout == torch.channels_last else "channels first"
        found[f"eager, {name}"] = milliseconds(lambda of=of, x=x: of(x).cpu())
        found[f"graph, {name}"] = milliseconds(graphed(of, x))
    return found


def ours(program, model, precision, batch):
    """Milliseconds, and MiB of tensors."""
    task = [program, "bench", "speed", model, "--batch", str(batch), "--device", "cuda", "--precision", precision]
    task += ["--size", str(SIZE), "--seconds", str(SECONDS), "--json"]
    row = json.loads(subprocess.run(task, check=True, capture_output=True, text=True).stdout)["rows"][0]
    return 1e3 * row["seconds"], row["peak_bytes"] / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--networks", default="resnet18,resnet50,mobilenet_v2")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, rounds {arguments.rounds}", flush=True)
    print("network, precision, batch: ms, MiB of tensors; PyTorch's ms, form; x", flush=True)
    for name in arguments.networks.split(","):
        net = getattr(torchvision.models, name)(weights=None).eval()
        with tempfile.TemporaryDirectory() as directory, torch.no_grad():
            model = Path(directory) / "model.safetensors"
            save_file(net.state_dict(), model)
            fused = fuse(net)
            for precision, dtype in ("f32", torch.float32), ("f16", torch.float16):
                for batch in map(int, arguments.batches.split(",")):
                    rounds = []
                    for _ in range(arguments.rounds):
                        own, mib = ours(arguments.program, model, precision, batch)
                        form, least = min(theirs(fused, dtype, batch).items(), key=lambda of: of[1])
                        rounds.append((own, least, form, mib))
                    own, least = (statistics.median(of[i] for of in rounds) for i in (0, 1))
                    ratios = sorted(of[0] / of[1] for of in rounds)
                    x = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})"
                    form, mib = rounds[-1][2:]
                    print(f"{name}, {precision}, {batch}: {own:.3f}, {mib:.0f}; {least:.3f}, {form}; {x}", flush=True)


if __name__ == "__main__":
    main()
