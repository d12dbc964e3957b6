"""Tiny archives of data sets in the layouts of the originals; a pickle that runs code, and other hostile files."""

import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from cnnbench.data.cifar import CIFAR10, CIFAR100
from cnnbench.data.mnist import FASHION_MNIST, MNIST

NUM_TRAIN, NUM_TEST = 20, 10
IDX_SETS = {"mnist": MNIST, "fashion_mnist": FASHION_MNIST}
CIFAR_SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
SOURCES = IDX_SETS | CIFAR_SETS


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx_set(folder: Path, packed: bool = False) -> dict[str, np.ndarray]:
    """Write a set in the layout of MNIST; return its arrays by file."""
    draws = np.random.default_rng(1)
    arrays = {}
    for prefix, number in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        arrays[f"{prefix}-images-idx3-ubyte"] = draws.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = (np.arange(number) % 10).astype(np.uint8)
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        content = idx(array)
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return arrays


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike as Python 2 wrote its byte strings."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(pickle._Pickler.dispatch)
    write: Callable[[bytes], object]
    memoize: Callable[[object], None]

    def save_byte_string(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        head = b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + len(raw).to_bytes(4, "little")
        self.write(head + raw)
        self.memoize(value)

    dispatch[str] = save_byte_string
    dispatch[bytes] = save_byte_string


def pickled_by_python2(value: object, path: Path) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(value)
    # NumPy called its core so until version 2.
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def pickled_by_python3_with_bytes(value: dict[str, object], path: Path) -> None:
    path.write_bytes(pickle.dumps({key.encode(): part for key, part in value.items()}, protocol=2))


def cifar_contents(name: str) -> dict[str, dict[str, object]]:
    """Return what is in each file of CIFAR-10 or CIFAR-100."""
    draws = np.random.default_rng(2)
    fine = name == "cifar100"
    label_key, name_key = ("fine_labels", "fine_label_names") if fine else ("labels", "label_names")
    num_classes = 100 if fine else 10
    contents: dict[str, dict[str, object]] = {}
    for file in CIFAR_SETS[name].files:
        if "meta" in file:
            contents[file] = {name_key: [f"class {index}" for index in range(num_classes)]}
        else:
            number = NUM_TEST if "test" in file else NUM_TRAIN // (1 if fine else 5)
            pixels = draws.integers(0, 256, (number, 3072), dtype=np.uint8)
            contents[file] = {
                "data": pixels,
                label_key: [int(label) for label in draws.integers(0, num_classes, number)],
            }
    return contents


def write_cifar(
    root: Path, name: str, write: Callable[[dict[str, object], Path], None] = pickled_by_python2
) -> dict[str, dict[str, object]]:
    folder = root / CIFAR_SETS[name].folder
    folder.mkdir(parents=True)
    contents = cifar_contents(name)
    for file, content in contents.items():
        write(content, folder / file)
    return contents


def write_set(root: Path, name: str) -> Path:
    """Write any of the sets; return the folder of its files."""
    if name in IDX_SETS:
        write_idx_set(root / IDX_SETS[name].folder)
    else:
        write_cifar(root, name)
    return root / SOURCES[name].folder


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.canary),)


def code_for(canary: Path) -> str:
    """Return a command of a shell that leaves a file there."""
    return f"touch {canary}"


def laughs(times: int) -> list[str]:
    """Return lines of YAML of which each is twice as long as the one above, once its aliases are filled in."""
    lines = ["a0: &a0 [ha, ha]"]
    return [*lines, *(f"a{number}: &a{number} [*a{number - 1}, *a{number - 1}]" for number in range(1, times))]


def put(contents: dict[str, bytes], folder: Path, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def everything_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_another_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])
