"""Writes resize.safetensors: pictures resized and cut by torchvision on Pillow's images.

    pip install numpy==2.4.6 pillow==12.0.0 safetensors==0.8.0 torch==2.9.1 torchvision==0.24.1
    python make_resize.py resize.safetensors

The metadata `cases` is a JSON list. Each case has a `picture`, `filter`, `resize` and
`crop` (height and width): `Resize(resize, filter)`, then `CenterCrop(crop)`, as they are used before a
network. Tensors are `PICTURE/from` and `PICTURE/FILTER`, bytes, [channels, height, width].
"""

import json
import sys

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

# Channels, height, width, resize, crop.
SIZES = [
    (3, 40, 53, 32, (28, 28)),
    (3, 61, 37, 32, (27, 28)),
    (1, 33, 33, 16, (9, 16)),
    (1, 12, 19, 25, (24, 21)),
    (3, 30, 47, 30, (24, 25)),
    (1, 90, 31, 8, (7, 8)),
]


def main():
    draws = np.random.default_rng(0)
    cases, tensors = [], {}
    for i, (channels, height, width, resize, crop) in enumerate(SIZES):
        # Waves with noise: neither smooth nor all edges.
        y, x, c = np.mgrid[:height, :width, :channels]
        waves = 128 + 90 * np.sin(x / 3.1 + c) * np.cos(y / 4.3 - c) + draws.normal(0, 30, x.shape)
        pixels = waves.clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
        tensors[f"{i}/from"] = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        for filter in ["bilinear", "bicubic"]:
            made = Compose([Resize(resize, InterpolationMode(filter)), CenterCrop(crop)])(picture)
            to = np.asarray(made).reshape(*crop, channels)
            cases.append({"picture": str(i), "filter": filter, "resize": resize, "crop": crop})
            tensors[f"{i}/{filter}"] = np.ascontiguousarray(to.transpose(2, 0, 1))
    save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})


if __name__ == "__main__":
    main()
