"""Cuts the sample sets out of Fashion-MNIST: python3 make.py FASHION_MNIST_FOLDER OUT_FOLDER

Replay comes from the training images; pool, guard and held-out images from the test images. No
image is in two sets. The same Python and zlib give the same bytes.
"""

import gzip
import random
import struct
import sys
import zlib
from pathlib import Path

SIZE = 28 * 28
TRAINING = {"replay": 2400}
TEST = {"pool": 1500, "guard": 1000, "heldout": 2000}


def read(folder, name):
    images = gzip.open(folder / f"{name}-images-idx3-ubyte.gz").read()
    labels = gzip.open(folder / f"{name}-labels-idx1-ubyte.gz").read()
    count = struct.unpack(">IIII", images[:16])[1]
    assert len(images) == 16 + count * SIZE and len(labels) == 8 + count
    return [(images[16 + i * SIZE :][:SIZE], labels[8 + i]) for i in range(count)]


def write(path, data):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # gzip without name and time
    path.write_bytes(packer.compress(data) + packer.flush())


def main(source, out):
    out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for name, sets in (("train", TRAINING), ("t10k", TEST)):
        items = read(source, name)
        draw.shuffle(items)
        for role, count in sets.items():
            chosen, items = items[:count], items[count:]
            header = struct.pack(">IIII", 2051, count, 28, 28)
            (out / role).mkdir(exist_ok=True)
            write(out / role / "images-idx3-ubyte.gz", header + b"".join(pixels for pixels, _ in chosen))
            header = struct.pack(">II", 2049, count)
            write(out / role / "labels-idx1-ubyte.gz", header + bytes(label for _, label in chosen))


main(Path(sys.argv[1]), Path(sys.argv[2]))
