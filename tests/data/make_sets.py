"""Writes sets/: small data sets, byte for byte in the formats that archrepair reads.

    pip install numpy==2.4.6 pillow==13.0.0 safetensors==0.8.0
    python make_sets.py sets

Pixel (y, x) of channel c of image i is (40 i + 70 c + 3 y + 5 x) modulo 256, in pictures that JPEG stores
(40 i + 30 c + y + x) modulo 256, which is smooth there.
"""

import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

CIFAR_10 = "airplane automobile bird cat deer dog frog horse ship truck".split()


def pixels(n, side, channels=3, steps=(40, 70, 3, 5)):
    """[n, side, side, channels], from image number 0."""
    i, y, x, c = np.mgrid[:n, :side, :side, :channels]
    return ((steps[0] * i + steps[1] * c + steps[2] * y + steps[3] * x) % 256).astype(np.uint8)


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def planes(image):
    return image.transpose(2, 0, 1).tobytes()


def npy(array):
    """By hand, so that nothing of NumPy's own writer is taken for granted."""
    sizes = ", ".join(map(str, array.shape)) + ("," if array.ndim == 1 else "")
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': ({sizes}), }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + array.tobytes()


def jpeg(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95, subsampling=0)


def cifar(folder):
    """Class first: 3 and 9 | 0 | 6 in the order of the files; then superclass and class: 4, 99 | 1, 7."""
    images = pixels(4, 32)
    records = [bytes([label]) + planes(image) for label, image in zip([3, 9, 0, 6], images)]
    put(folder / "cifar-10/data_batch_1.bin", b"".join(records[:2]))
    put(folder / "cifar-10/data_batch_2.bin", records[2])
    put(folder / "cifar-10/test_batch.bin", records[3])
    put(folder / "cifar-10/batches.meta.txt", "\n".join(CIFAR_10) + "\n\n")
    put(folder / "cifar-100/train.bin", bytes([4, 99]) + planes(images[0]))
    put(folder / "cifar-100/test.bin", bytes([1, 7]) + planes(images[1]))
    put(folder / "cifar-100/fine_label_names.txt", "".join(f"class {i}\n" for i in range(100)))


def cifar_c(folder):
    """Five severities of two images; labels 1 and 8."""
    put(folder / "cifar-10-c/fog.npy", npy(pixels(10, 32)))
    put(folder / "cifar-10-c/labels.npy", npy(np.array([1, 8] * 5, dtype="<i8")))


def tiny_imagenet(folder):
    """Classes not in order; words for two of three."""
    root = folder / "tiny-imagenet"
    classes = ["n02", "n01", "n03"]
    images = pixels(6, 64, steps=(40, 30, 1, 1))
    put(root / "wnids.txt", "".join(f"{name}\n" for name in classes))
    put(root / "words.txt", "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tEgyptian cat\nn03\tteapot\n")
    for name, image in zip(["n01", "n02", "n03"], images):
        jpeg(root / f"train/{name}/images/{name}_0.JPEG", image)
        put(root / f"train/{name}/{name}_boxes.txt", f"{name}_0.JPEG\t0\t0\t62\t62\n")
    rows = [("val_0.JPEG", "n03"), ("val_1.JPEG", "n01")]
    for (name, _), image in zip(rows, images[3:]):
        jpeg(root / "val/images" / name, image)
    put(root / "val/val_annotations.txt", "".join(f"{name}\t{of}\t0\t32\t44\t62\n" for name, of in rows))
    jpeg(folder / "tiny-imagenet-c/fog/3/n02/val_7.JPEG", images[5])


def tensors(folder):
    """Four images of 5 x 5: bytes with channels last, and floats with planes; a grey one with both."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = pixels(4, 5), np.array([2, 0, 1, 2])
    save_file({"images": images, "labels": labels.astype(np.uint8)}, folder / "bytes.safetensors")
    floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255
    save_file({"images": floats, "labels": labels.astype(np.int64)}, folder / "floats.safetensors")


def table(folder):
    """Pictures of 4 x 4 in a sub-folder, by name and by number."""
    for i, image in enumerate(pixels(3, 4)):
        path = folder / f"table/pictures/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    put(folder / "table/labels.csv", 'file,label\npictures/2.png,"car, red"\npictures/0.png,bus\npictures/1.png,bus\n')
    put(folder / "table/numbers.csv", "pictures/1.png,7\npictures/2.png,0\n")


if __name__ == "__main__":
    for make in [cifar, cifar_c, tiny_imagenet, lambda folder: tensors(folder / "tensors"), table]:
        make(Path(sys.argv[1]))
