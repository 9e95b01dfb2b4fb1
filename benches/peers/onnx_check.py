"""Exported networks in ONNX Runtime and PyTorch, beside the program's own logits.

    python onnx_check.py PROGRAM MODEL... [--torchvision resnet18,resnet50] [--operations] [--images 4]

MODEL is a model file, or a model file and a patch as MODEL:PATCH. With `--torchvision`, networks of that
package are made, too: random weights, batch norms that have seen noise; with `--operations`, one that holds
every operation that a search may leave in a block. Each network is exported as ONNX
(dynamic batch, batch of 1, with normalization inside, halves) and for PyTorch. Every graph must pass
`onnx.checker` with its shapes inferred. All then see the same images of noise, which the program gets as
PNG files. Printed is the greatest difference of a logit from the program's in `f32`, over the greatest
logit where that is above 1, and beside them what PyTorch's own half precision does to the same network;
the last column is the bound that was broken, and the exit status 1 if there is one.
"""

import argparse
import importlib.util
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file

BOUNDS = {"dynamic": 1e-4, "batch 1": 1e-4, "pixels": 1e-4, "f16": 1e-2, "pytorch": 1e-4}
# PyTorch in halves, too: where that is off by more than half of the bound, the graph may be off twice as far.
FORMS = (*BOUNDS, "halves")
FLAGS = {
    "dynamic": [],
    "batch 1": ["--batch", "1"],
    "pixels": ["--normalize"],
    "f16": ["--precision", "f16"],
}


def png(path, image):
    """Writes an image [c, h, w] of 1 or 3 channels, by the format's specification."""
    c, h, w = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image.transpose(1, 2, 0))
    header = struct.pack(">IIBBBBB", w, h, 8, {1: 0, 3: 2}[c], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def made(name, folder):
    """A network of torchvision as a model file."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.2)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(4, 3, 224, 224))
    path = folder / f"{name}.safetensors"
    tensors = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    save_file(tensors, path)
    return str(path)


def every_operation(folder):
    """A network that holds every operation that a finished network may hold, as a model file."""
    tensors, rng = {}, torch.Generator().manual_seed(0)

    def node(name, op, *of, **fields):
        part.append({"name": name, "do": {"op": op, **fields}, "of": list(of)})
        return len(part)

    def tensor(name, *shape, low=-0.3, high=0.3):
        tensors[name] = low + (high - low) * torch.rand(shape, generator=rng)

    def conv(name, c, outputs, k, x, **fields):
        tensor(f"{name}.weight", outputs, c // fields.get("groups", 1), k, k)
        if fields.get("bias"):
            tensor(f"{name}.bias", outputs)
        return node(name, "conv2d", x, outputs=outputs, k=k, **fields)

    def norm(name, c, x):
        for suffix in ("weight", "running_var"):
            tensor(f"{name}.{suffix}", c, low=0.5, high=1.5)
        for suffix in ("bias", "running_mean"):
            tensor(f"{name}.{suffix}", c)
        return node(name, "batch_norm", x, eps=1e-5)

    part = []
    x = conv("stem", 3, 8, 3, 0, padding=1, stride=2)
    x = node("stem.relu6", "activation", norm("stem.norm", 8, x), kind="relu6")
    parts = [{"name": "stem", "graph": part}]
    for at, kind in enumerate(("hard_swish", "relu", "sigmoid", "silu")):
        part = []
        block = f"block.{at}"
        tensor(f"{block}.instance.weight", 8, low=0.5, high=1.5)
        tensor(f"{block}.instance.bias", 8)
        y = node(f"{block}.instance", "instance_norm", 0, eps=1e-5)
        tensor(f"{block}.open.gate", 8)
        y = node(f"{block}.open", "gate", 0, y)
        deep = conv(f"{block}.deep", 8, 8, 3, y, padding=2, dilation=2, groups=8, bias=True)
        deep = node(f"{block}.act", "activation", norm(f"{block}.norm", 8, deep), kind=kind)
        pools = [
            node(f"{block}.{op}", op, y, k=3, stride=1, padding=1) for op in ("avg_pool", "max_pool")
        ]
        nothing = node(f"{block}.zero", "zero", y, outputs=8, stride=1)
        joined = node(f"{block}.joined", "concat", deep, *pools, nothing)
        joined = node(f"{block}.same", "identity", norm(f"{block}.joined_norm", 32, joined))
        z = conv(f"{block}.mixed", 32, 8, 1, joined)
        z = node(f"{block}.add", "add", z, y)
        seen = node(f"{block}.seen", "add", node(f"{block}.mean", "global_avg_pool", z),
                    node(f"{block}.std", "global_std_pool", z, eps=1e-5))
        gate = node(f"{block}.kind", "activation", seen, kind=kind)
        node(f"{block}.mul", "mul", z, gate)
        parts.append({"name": block, "graph": part})
    part = []
    x = node("flat", "flatten", node("pool", "avg_pool", 0, k=4, stride=4))
    tensor("fc.weight", 10, 8 * 4 * 4)
    tensor("fc.bias", 10)
    node("fc", "linear", x, outputs=10, bias=True)
    parts.append({"name": "head", "graph": part})
    given = {"shape": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    network = {"version": 1, "architecture": "operations", "input": given, "classes": 10, "parts": parts}
    path = folder / "every_operation.safetensors"
    save_file(tensors, path, {"archrepair": json.dumps(network)})
    return str(path)


def program(arguments):
    ran = subprocess.run(arguments, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {ran.stderr}")
    return json.loads(ran.stdout)


def in_onnx_runtime(path, x):
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    n = session.get_inputs()[0].shape[0]
    batches = np.split(x, len(x) // n) if isinstance(n, int) else [x]
    return np.concatenate([session.run(["logits"], {"input": batch})[0] for batch in batches])


def in_pytorch(folder, pixels, dtype):
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load(folder / "model.safetensors", dtype)
    with torch.no_grad():
        return network(network.normalize(torch.from_numpy(pixels)).to(dtype)).float().numpy()


def check(path, model, images, folder):
    """Differences by form, and the number of nodes."""
    model, _, patch = model.partition(":")
    patched = [model, *(["--patch", patch] if patch else [])]
    given = program([path, "inspect", model, "--json"])["input"]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (images, *given["shape"]), dtype=np.uint8)
    files = [folder / f"{i}.png" for i in range(images)]
    for file, image in zip(files, noise):
        png(file, image)
    said = program([path, "infer", *patched, "--logits", "--json", *files])["images"]
    want = np.array([image["logits"] for image in said], dtype=np.float32)
    pixels = noise.astype(np.float32) / 255
    mean, std = (np.array(given[key], dtype=np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    scale = max(1.0, float(np.abs(want).max()))

    apart = {}
    for form, flags in FLAGS.items():
        out = folder / f"{form}.onnx"
        program([path, "export", *patched, "--format", "onnx", "--out", out, "--json", *flags])
        got = in_onnx_runtime(out, pixels if form == "pixels" else (pixels - mean) / std)
        apart[form] = float(np.abs(got - want).max()) / scale
    nodes = len(onnx.load(folder / "dynamic.onnx").graph.node)
    out = folder / "pytorch"
    program([path, "export", *patched, "--format", "pytorch", "--store", "f32", "--out", out, "--json"])
    for form, dtype in (("pytorch", torch.float32), ("halves", torch.float16)):
        apart[form] = float(np.abs(in_pytorch(out, pixels, dtype) - want).max()) / scale
    return apart, nodes, float(np.abs(want).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", nargs="*")
    parser.add_argument("--torchvision", default="", metavar="NAME,...")
    parser.add_argument("--operations", action="store_true", help="add a network of every operation")
    parser.add_argument("--images", type=int, default=4)
    asked = parser.parse_args()
    failed = False
    width = 34
    print("network".ljust(width), "nodes", "logit", *(form.rjust(8) for form in FORMS), "broken")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        models = asked.model + [made(name, folder) for name in asked.torchvision.split(",") if name]
        models += [every_operation(folder)] if asked.operations else []
        for i, model in enumerate(models):
            own = folder / str(i)
            own.mkdir()
            apart, nodes, largest = check(asked.program, model, asked.images, own)
            # Written so that NaN breaks its bound.
            bounds = {**BOUNDS, "f16": max(BOUNDS["f16"], 2 * apart["halves"])}
            broken = [form for form, bound in bounds.items() if not apart[form] <= bound]
            failed |= bool(broken)
            short = "/".join(model.split("/")[-2:])
            numbers = (f"{apart[form]:8.1e}" for form in FORMS)
            print(short[-width:].ljust(width), f"{nodes:5}", f"{largest:5.1f}", *numbers, ", ".join(broken) or "-")
    sys.exit(failed)


if __name__ == "__main__":
    main()
