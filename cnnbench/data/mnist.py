"""MNIST, and the data sets that come in its format."""

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from cnnbench.data.files import Source, read_verified
from cnnbench.data.images import ImageData, Images
from cnnbench.errors import UserError
from cnnbench.registry import DATASETS

UINT8 = 8  # in the header of an IDX file


def _idx_source(title: str, folder: str, url: str, md5s: dict[str, tuple[str, str]]) -> Source:
    """md5s: by file name, of the content and of the .gz."""
    return Source(
        title=title,
        folder=folder,
        files={name: md5 for name, (md5, _) in md5s.items()},
        archives={f"{url}/{name}.gz": md5_of_gz for name, (_, md5_of_gz) in md5s.items()},
        begin=bytes([0, 0, UINT8]),
    )


MNIST = _idx_source(
    "MNIST",
    "MNIST/raw",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    {
        "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    },
)

FASHION_MNIST = _idx_source(
    "Fashion-MNIST",
    "FashionMNIST/raw",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    {
        "train-images-idx3-ubyte": ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        "train-labels-idx1-ubyte": ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
        "t10k-images-idx3-ubyte": ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
        "t10k-labels-idx1-ubyte": ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
    },
)

CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@DATASETS.register(
    "mnist",
    breaks_labels=("flip", "vertical_flip", "trivial"),  # a 6 rotated is a 9
    source=MNIST,
    licence="CC BY-SA 3.0 (as Keras states it)",
    citation="LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition",
)
def mnist(root: Path, *, verify: bool = True) -> ImageData:
    """60 000 + 10 000 handwritten digits, 28x28, gray."""
    return _read(MNIST, root, verify, tuple("0123456789"))


@DATASETS.register(
    "fashion_mnist",
    breaks_labels=("vertical_flip",),
    source=FASHION_MNIST,
    licence="MIT",
    citation="Xiao, Rasul, Vollgraf 2017, Fashion-MNIST, arXiv:1708.07747",
)
def fashion_mnist(root: Path, *, verify: bool = True) -> ImageData:
    """60 000 + 10 000 pieces of clothing in 10 classes, 28x28, gray."""
    return _read(FASHION_MNIST, root, verify, CLOTHES)


def _read(source: Source, root: Path, verify: bool, classes: tuple[str, ...]) -> ImageData:
    contents = read_verified(source, root, verify)
    tensors = {name: _parse_idx(name, content, 3 if "images" in name else 1) for name, content in contents.items()}
    parts = []
    for prefix in ("train", "t10k"):
        pixels, labels = tensors[f"{prefix}-images-idx3-ubyte"], tensors[f"{prefix}-labels-idx1-ubyte"].long()
        if len(pixels) != len(labels) or (len(labels) and int(labels.max()) >= len(classes)):
            raise UserError(
                f"{source.folder}/{prefix}-*: labels do not fit the images; one of the files is not the original"
            )
        parts.append(Images(pixels.unsqueeze(1), labels))
    return ImageData(parts[0], parts[1], classes)


def _parse_idx(name: str, content: bytes, num_axes: int) -> Tensor:
    header = 4 + 4 * num_axes
    if content[:4] != bytes([0, 0, UINT8, num_axes]):
        raise UserError(f"{name} is no IDX file of bytes with {num_axes} axes")
    if len(content) < header:
        raise UserError(f"{name} is cut short, in its header")
    shape = struct.unpack(f">{num_axes}I", content[4:header])
    if math.prod(shape) != len(content) - header or not all(shape):
        raise UserError(f"{name} is cut short, too long or empty: its header says {shape}")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).view(shape)
