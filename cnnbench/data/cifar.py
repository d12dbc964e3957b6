"""CIFAR-10 and CIFAR-100."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnbench.data.files import Source, read_verified
from cnnbench.data.images import ImageData, Images
from cnnbench.errors import UserError
from cnnbench.registry import DATASETS

CIFAR10 = Source(
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    files={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    archives={"https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
)

CIFAR100 = Source(
    title="CIFAR-100",
    folder="cifar-100-python",
    files={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    archives={"https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
)


LICENCE = "none stated by the authors"
CITATION = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"


@DATASETS.register("cifar10", breaks_labels=("vertical_flip",), source=CIFAR10, licence=LICENCE, citation=CITATION)
def cifar10(root: Path, *, verify: bool = True) -> ImageData:
    """50 000 + 10 000 photographs in 10 classes, 32x32, colour."""
    return _read(CIFAR10, root, verify, "labels", "label_names")


@DATASETS.register("cifar100", breaks_labels=("vertical_flip",), source=CIFAR100, licence=LICENCE, citation=CITATION)
def cifar100(root: Path, *, verify: bool = True) -> ImageData:
    """50 000 + 10 000 photographs in 100 classes, 32x32, colour."""
    return _read(CIFAR100, root, verify, "fine_labels", "fine_label_names")


def _read(source: Source, root: Path, verify: bool, label_key: str, name_key: str) -> ImageData:
    contents = read_verified(source, root, verify)
    meta, test = (next(name for name in source.files if word in name) for word in ("meta", "test"))
    train = [name for name in source.files if name not in (meta, test)]
    names = _unpickle(source, meta, contents[meta], [name_key])[name_key]
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    parts = []
    for files in (train, [test]):
        batches = [_unpickle(source, name, contents[name], ["data", label_key]) for name in files]
        where = f"{source.folder}: {', '.join(files)}"
        try:
            pixels = torch.from_numpy(np.concatenate([np.asarray(batch["data"], dtype=np.uint8) for batch in batches]))
            labels = torch.tensor([label for batch in batches for label in batch[label_key]], dtype=torch.int64)
            if pixels.shape != (len(labels), 3 * 32 * 32):
                raise ValueError(f"they hold {tuple(pixels.shape)} bytes and {len(labels)} labels")
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: must hold one row of 3072 bytes and one label per image: {error}") from error
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise UserError(f"{where} has labels beyond the {len(classes)} classes of {meta}")
        parts.append(Images(pixels.view(-1, 3, 32, 32), labels))
    return ImageData(parts[0], parts[1], classes)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles what a CIFAR file consists of, and nothing that could run code."""

    ALLOWED = frozenset({
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it would run {module}.{name}, which no image file needs")
        return super().find_class(module, name)


def _unpickle(source: Source, name: str, content: bytes, keys: list[str]) -> dict[str, Any]:
    """Return a file's dictionary with text keys; the originals were pickled by Python 2, with byte strings."""
    try:
        loaded = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
        plain = {key.decode() if isinstance(key, bytes) else key: value for key, value in loaded.items()}
        return {key: plain[key] for key in keys}
    except KeyError as error:
        raise UserError(f"{source.folder}/{name} has no entry {error}: it is not a file of {source.title}") from error
    except Exception as error:
        raise UserError(f"{source.folder}/{name} cannot be read as a file of {source.title}: {error}") from error
