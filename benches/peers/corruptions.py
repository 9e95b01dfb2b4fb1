"""Compares `archrepair corrupt` with the Python package imagecorruptions: statistics and time.

    pip install imagecorruptions==1.1.2 numpy==2.4.6 opencv-python==5.0.0.93 pillow==13.0.0 \
        scikit-image==0.26.0 scipy==1.17.1 setuptools==65.5.0
    cargo build --release
    python benches/peers/corruptions.py target/release/archrepair

Both corrupt the same pictures of 224 x 224 with the constants of ImageNet-C: crops of photographs
that scikit-image brings along. A row a corruption and severity: mean, deviation and mean distance
from the clean picture, of 255, of both, and times of one thread. `--cifar` compares crops reduced to
32 x 32 with the constants of CIFAR-10-C, which are read from the published script (`make_cifar_c.py`
of github.com/hendrycks/robustness) and put into the package's functions.

`--sheet FILE` draws the first picture, clean and under all corruptions, a row each.

The package's elastic transform is not the published one: the published formula stands below for it.
Its frost cuts pieces from photographs, the program generates ice. On grey pictures it turns grey to
red where saturation is added, the program leaves one channel as it is.
"""

import argparse
import ast
import inspect
import json
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import cv2
import numpy as np
import scipy.ndimage
import skimage.data
import skimage.filters
from PIL import Image

cv2.setNumThreads(1)


def load_package():
    """Imports the package, whose names for NumPy, SciPy and scikit-image are of 2019."""
    np.float_ = np.float64
    old = types.ModuleType("scipy.ndimage.interpolation")
    old.map_coordinates = scipy.ndimage.map_coordinates
    sys.modules[old.__name__] = old
    gaussian = skimage.filters.gaussian

    def renamed(image, sigma, multichannel=False, **rest):
        return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **rest)

    skimage.filters.gaussian = renamed
    import imagecorruptions.corruptions as package

    package.gaussian = renamed
    return package


def elastic(constants):
    """The published elastic transform: a random affine map, then a smooth random field."""

    def transform(image, severity):
        alpha, sigma, affine = constants[severity - 1]
        image = np.array(image, dtype=np.float32) / 255
        side = np.array(image.shape[:2])
        middle, reach = np.float32(side) // 2, min(side) // 3
        before = np.float32([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach])
        after = before + np.random.uniform(-affine, affine, size=before.shape).astype(np.float32)
        matrix = cv2.getAffineTransform(before, after)
        image = cv2.warpAffine(image, matrix, tuple(side[::-1]), borderMode=cv2.BORDER_REFLECT_101)

        def field():
            draws = np.random.uniform(-1, 1, size=tuple(side))
            return skimage.filters.gaussian(draws, sigma, mode="reflect", truncate=3) * alpha

        x, y = np.meshgrid(np.arange(side[1]), np.arange(side[0]))
        dx, dy = field(), field()
        planes = [scipy.ndimage.map_coordinates(image[..., c], (y + dy, x + dx), order=1, mode="reflect") for c in range(3)]
        return np.clip(np.stack(planes, axis=-1), 0, 1) * 255

    return transform


def with_constants(package, script):
    """Puts the tables `c = [...][severity - 1]` of the published script into the package's functions."""
    def table(function):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "c":
                return node
        return None

    published = {f.name: table(f) for f in ast.parse(script).body if isinstance(f, ast.FunctionDef)}
    functions = {}
    for name in NAMES:
        if name == "elastic_transform":
            continue
        tree = ast.parse(inspect.getsource(getattr(package, name)))
        table(tree.body[0]).value = published[name].value
        space = dict(vars(package))
        if name == "frost":
            # The published script reduces the pictures of ice to a fifth; so does this reader.
            space["cv2"] = types.SimpleNamespace(**{**vars(cv2), "imread": lambda f: cv2.resize(cv2.imread(f), (0, 0), fx=0.2, fy=0.2)})
        exec(compile(ast.fix_missing_locations(tree), name, "exec"), space)
        functions[name] = space[name]
    return functions


NAMES = (
    "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness "
    "contrast elastic_transform pixelate jpeg_compression speckle_noise gaussian_blur spatter saturate"
).split()


def pictures(n, side):
    """Crops of photographs in colour, 224 x 224, reduced where smaller ones are asked for."""
    sources = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    draws = np.random.default_rng(0)
    crops = []
    for i in range(n):
        source = sources[i % len(sources)]
        top, left = (draws.integers(0, size - 224 + 1) for size in source.shape[:2])
        crop = Image.fromarray(source[top : top + 224, left : left + 224])
        crops.append(np.array(crop.resize((side, side), Image.BOX)))
    return np.stack(crops)


def ours(program, images, constants, gray):
    """What the program makes of the pictures, and its images a second with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "in/0").mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image[..., 0] if gray else image).save(folder / f"in/0/{i:04}.png")
        every = f"all:{constants}"
        run = [program, "corrupt", folder / "in", "--corruption", every, "--format", "npy", "--out", folder / "out"]
        done = subprocess.run(run + ["--threads", "1", "--json"], check=True, capture_output=True)
        rows = json.loads(done.stdout)["corruptions"]
        rates = {tuple(row["name"].split(":")[:2]): row["images_per_second"] for row in rows}
        return {name: np.load(folder / f"out/{name}.npy") for name in NAMES}, rates


def statistics(images, clean):
    images, clean = images.astype(float), clean.astype(float)
    return images.mean(), images.std(), np.abs(images - clean).mean()


def draw_sheet(path, clean, made):
    """One picture: a row for each corruption, clean first, then severities 1 to 5."""
    blocks = [[np.broadcast_to(block[0], clean[0].shape) for block in np.split(made[name], 5)] for name in NAMES]
    Image.fromarray(np.vstack([np.hstack([clean[0], *row]) for row in blocks])).save(path)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program")
    arguments.add_argument("--cifar", metavar="make_cifar_c.py", type=Path)
    arguments.add_argument("--gray", action="store_true", help="one channel for the program, three equal ones for the package")
    arguments.add_argument("--sheet", metavar="FILE", help="where to draw all of them")
    arguments.add_argument("--images", type=int, default=20)
    arguments = arguments.parse_args()

    package = load_package()
    side = 32 if arguments.cifar else 224
    clean = pictures(arguments.images, side)
    if arguments.gray:
        clean = np.repeat(np.stack([np.array(Image.fromarray(image).convert("L")) for image in clean])[..., None], 3, axis=-1)
    if arguments.cifar:
        theirs = with_constants(package, arguments.cifar.read_text())
        shares = [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)]
        scale = 32
    else:
        theirs = {name: getattr(package, name) for name in NAMES}
        shares = [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)]
        scale = 244
    theirs["elastic_transform"] = elastic([tuple(scale * share for share in row) for row in shares])
    made, rates = ours(arguments.program, clean, "cifar" if arguments.cifar else "imagenet", arguments.gray)

    if arguments.sheet:
        draw_sheet(arguments.sheet, clean, made)

    np.random.seed(0)
    print(f"{'corruption':<22}{'mean':>8}{'package':>9}{'dev':>8}{'package':>9}{'error':>8}{'package':>9}{'ms':>9}{'package':>9}{'times':>7}")
    total, without_glass = np.zeros(2), np.zeros(2)
    for name in NAMES:
        blocks = np.split(made[name], 5)
        for severity in range(1, 6):
            start = time.perf_counter()
            their = np.stack([np.uint8(theirs[name](Image.fromarray(image), severity)) for image in clean])
            package_ms = (time.perf_counter() - start) / len(clean) * 1e3
            own_ms = 1e3 / rates[name, str(severity)]
            total += own_ms, package_ms
            if name != "glass_blur":
                without_glass += own_ms, package_ms
            pairs = zip(statistics(blocks[severity - 1], clean), statistics(their, clean))
            numbers = "".join(f"{own:>8.2f}{other:>9.2f}" for own, other in pairs)
            print(f"{name + ':' + str(severity):<22}{numbers}{own_ms:>9.3f}{package_ms:>9.3f}{package_ms / own_ms:>7.1f}", flush=True)
    for what, (own, other) in [("all 95", total), ("90, without glass blur", without_glass)]:
        print(f"an image under {what}: {own:.1f} ms, package {other:.1f} ms, {other / own:.1f} times")


if __name__ == "__main__":
    main()
