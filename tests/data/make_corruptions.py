"""Writes corruptions.safetensors: statistics of the Python package imagecorruptions at 32 x 32.

    pip install imagecorruptions==1.1.2 numpy==2.4.6 opencv-python==5.0.0.93 pillow==13.0.0 \
        safetensors==0.8.0 scikit-image==0.26.0 scipy==1.17.1 setuptools==65.5.0
    python make_corruptions.py corruptions.safetensors

`clean` holds 8 crops of photographs that scikit-image brings along (public domain or CC0), as
[n, 3, 32, 32] bytes. `statistics` is [19, 5, 7]: for each corruption in the order of the metadata
`names`, under severities 1 to 5, of 25 draws of all images: mean, deviation and mean distance from the
clean images, of 255; and the mean power of the luma's spectrum in the rings of radius 1 to 4, 4 to 8,
8 to 12 and beyond (a plain 32 x 32 transform, squared and divided by 1024).

The functions are the package's, the constants below those of CIFAR-10-C, from `make_cifar_c.py` of
github.com/hendrycks/robustness. `benches/peers/corruptions.py` puts both together and has the published
elastic transform.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches/peers"))
import corruptions  # noqa: E402

DRAWS = 25
CONSTANTS = {
    "gaussian_noise": "[0.04, 0.06, 0.08, 0.09, 0.10]",
    "shot_noise": "[500, 250, 100, 75, 50]",
    "impulse_noise": "[0.01, 0.02, 0.03, 0.05, 0.07]",
    "defocus_blur": "[(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)]",
    "glass_blur": "[(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)]",
    "motion_blur": "[(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]",
    "zoom_blur": "[np.arange(1, most, 0.01) for most in (1.06, 1.11, 1.16, 1.21, 1.26)]",
    "snow": "[(0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),"
    " (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)]",
    "frost": "[(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]",
    "fog": "[(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]",
    "brightness": "[0.05, 0.1, 0.15, 0.2, 0.3]",
    "contrast": "[0.75, 0.5, 0.4, 0.3, 0.15]",
    "pixelate": "[0.95, 0.9, 0.85, 0.75, 0.65]",
    "jpeg_compression": "[80, 65, 58, 50, 40]",
    "speckle_noise": "[0.06, 0.1, 0.12, 0.16, 0.2]",
    "gaussian_blur": "[0.4, 0.6, 0.7, 0.8, 1]",
    "spatter": "[(0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 1, 0.69, 0.5, 0),"
    " (0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.1, 0.5, 0.68, 0.6, 1)]",
    "saturate": "[(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)]",
}
SHARES = [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)]


def bands(images):
    luma = images.astype(float) @ [0.299, 0.587, 0.114]
    power = (np.abs(np.fft.fft2(luma)) ** 2).mean(axis=0) / 1024
    at = np.fft.fftfreq(32, 1 / 32)
    radius = np.hypot(*np.meshgrid(at, at))
    edges = [1, 4, 8, 12, 99]
    return [power[(radius >= low) & (radius < high)].mean() for low, high in zip(edges, edges[1:])]


def main():
    np.random.seed(0)
    package, clean = corruptions.load_package(), corruptions.pictures(8, 32)
    script = "\n".join(f"def {name}(x, severity):\n    c = {table}[severity - 1]" for name, table in CONSTANTS.items())
    functions = corruptions.with_constants(package, script)
    functions["elastic_transform"] = corruptions.elastic([tuple(32 * share for share in row) for row in SHARES])
    many = np.concatenate([clean] * DRAWS)
    rows = []
    for name in corruptions.NAMES:
        for severity in range(1, 6):
            made = np.stack([np.uint8(functions[name](Image.fromarray(image), severity)) for image in many])
            rows.append([*corruptions.statistics(made, many), *bands(made)])
            print(f"{name}:{severity}", *(f"{value:.3f}" for value in rows[-1]))
    tensors = {
        "clean": np.ascontiguousarray(clean.transpose(0, 3, 1, 2)),
        "statistics": np.array(rows, dtype=np.float32).reshape(len(corruptions.NAMES), 5, 7),
    }
    save_file(tensors, sys.argv[1], metadata={"names": ",".join(corruptions.NAMES)})


if __name__ == "__main__":
    main()
