"""Every family at full size: logits of torchvision, timm and other packages beside archrepair's.

    python zoo.py PROGRAM [--only NAME ...]

Weights are drawn, norms have the statistics of images; PyTorch saves them as it does, safetensors or .pth.
PROGRAM is the built archrepair. Both get the same two pictures. The same networks in f64 tell how far off both are. Needs torchvision, timm,
efficientnet-lite-pytorch, pillow and safetensors.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet as Lite
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/data"))
from make_zoo import fill, scenes  # noqa: E402

TORCHVISION = [
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2",
    "densenet121", "densenet161", "densenet169", "densenet201",
    "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0",
]  # fmt: skip
TIMM = [
    "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "vgg16_bn", "mobilenetv2_100",
    "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0", "tf_efficientnet_b0",
    "efficientnet_lite0", "tf_efficientnet_lite0",
]  # fmt: skip
SIZE = 224
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def networks():
    """Name of the maker, name of the network, what makes it."""
    for name in TORCHVISION:
        yield "torchvision", name, lambda name=name: getattr(torchvision.models, name)(weights=None)
    for name in TIMM:
        yield "timm", name, lambda name=name: timm.create_model(name, pretrained=False)
    yield "efficientnet-lite-pytorch", "efficientnet-lite0", lambda: Lite.from_name("efficientnet-lite0")


def save(net, maker, name, directory):
    """The file of the weights: .pth from torchvision, in the old format from the package, else safetensors."""
    if maker == "timm":
        path = directory / "model.safetensors"
        save_file(net.state_dict(), path)
        (directory / "model.archrepair.json").write_text(json.dumps({"architecture": name}))
        return path
    path = directory / "model.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=maker == "torchvision")
    return path


def theirs(net, pictures):
    mean, std = (torch.tensor(of).view(1, 3, 1, 1) for of in IMAGENET)
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    x = (x - mean) / std
    with torch.no_grad():
        return net(x).numpy(), net.double()(x.double()).numpy()


def ours(program, model, files):
    mean, std = (",".join(map(str, of)) for of in IMAGENET)
    command = [program, "infer", "--json", "--logits", f"--mean={mean}", f"--std={std}", "--size", str(SIZE)]
    done = subprocess.run([*command, model, *files], check=True, capture_output=True, text=True)
    return np.array([image["logits"] for image in json.loads(done.stdout)["images"]], dtype=np.float32)


def compare(program, maker, name, make, pictures, files, directory):
    torch.manual_seed(1)
    net = fill(make(), (SIZE, SIZE), torch.Generator().manual_seed(1))
    model = save(net, maker, name, directory)
    (want, exact), got = theirs(net, pictures), ours(program, model, files)
    same = bool((want.argmax(1) == got.argmax(1)).all())
    return [np.abs(want).max(), *(np.abs(a - b).max() for a, b in ((got, want), (got, exact), (want, exact))), same]


def main():
    parser = argparse.ArgumentParser(description="Compare logits of every family at full size.")
    parser.add_argument("program", type=Path, help="the built archrepair")
    parser.add_argument("--only", nargs="+", help="names of networks")
    arguments = parser.parse_args()
    seen = scenes(2, (SIZE, SIZE), torch.Generator().manual_seed(2)) * 0.225 + 0.45
    pictures = list((seen.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy())
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}, f32 on the CPU")
    print(f"{'network':<24}{'made by':<26}{'max |logit|':>12}{'max |difference|':>18}{'ours, f64':>11}"
          f"{'PyTorch, f64':>14}{'same top-1':>12}{'s':>7}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.png" for i in range(len(pictures))]
        for picture, file in zip(pictures, files, strict=True):
            Image.fromarray(picture).save(file)
        for maker, name, make in networks():
            if arguments.only and name not in arguments.only:
                continue
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as directory:
                of = (maker, name, make, pictures, files, Path(directory))
                greatest, difference, ours_off, theirs_off, same = compare(arguments.program, *of)
            worst = max(worst, difference)
            took = time.monotonic() - start
            print(f"{name:<24}{maker:<26}{greatest:>12.3f}{difference:>18.2e}{ours_off:>11.2e}"
                  f"{theirs_off:>14.2e}{str(same):>12}{took:>7.1f}", flush=True)
    print(f"greatest difference of all: {worst:.2e}")
    sys.exit(int(worst > 1e-4))


if __name__ == "__main__":
    main()
