"""Writers of tiny photographs, in the layouts of the originals."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnbench.config.schema import DataConfig
from cnnbench.data import prepare as preparing
from cnnbench.data.folders import BACKGROUND
from cnnbench.data.images import DataSpec, ImageData, Images, counts_per_class
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.registry import DATASETS, Selection

SETTINGS = {"test_fraction": 0.25, "fit": "crop"}
SCENES = ("coast", "forest", "highway", "insidecity", "mountain", "opencountry", "street", "tallbuilding")


def pixels_of(seed: int, width: int = 30, height: int = 24, channels: int = 3) -> np.ndarray:
    """Return uint8 [height, width, channels], different noise for every seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def photograph(path: Path, seed: int, width: int = 30, height: int = 24) -> Path:
    """Write a different picture for every seed, in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(seed, width, height)).save(path)
    return path


def write_classes(folder: Path, counts: Mapping[str, int], first: int = 0, suffix: str = ".png") -> Path:
    """Write a number of photographs per class, each class in a folder, no two alike."""
    seed = first
    for name, count in counts.items():
        for index in range(count):
            photograph(folder / name / f"{index:04}{suffix}", seed, 24 + seed % 7, 24 + seed % 5)
            seed += 1
    return folder


def write_parts(folder: Path, parts: Mapping[str, Mapping[str, int]]) -> Path:
    """Write folders of classes below folders of parts, no two photographs alike."""
    first = 0
    for name, counts in parts.items():
        write_classes(folder / name, counts, first)
        first += 1000
    return folder


def write_caltech(root: Path) -> list[str]:
    folder = root / "caltech101" / "101_ObjectCategories"
    write_classes(folder, {"accordion": 12, "ant": 12, BACKGROUND: 12, "Faces": 12}, suffix=".jpg")
    (folder / BACKGROUND / "tmp").write_text("")
    return ["data=caltech101"]


def write_scenes(root: Path) -> list[str]:
    folder = root / "spatial_envelope_256x256_static_8outdoorcategories"
    for number, name in enumerate(SCENES):
        for index in range(5):
            photograph(folder / f"{name}_art{index}.jpg", 10 * number + index, 32, 32)
    (folder / "Thumbs.db").write_bytes(b"no image")
    return ["data=eight_scenes"]


def write_pets(root: Path) -> list[str]:
    for number, name in enumerate(("Cat", "Dog")):
        for index in range(20):
            photograph(root / "PetImages" / name / f"{index}.jpg", 100 * number + index)
        (root / "PetImages" / name / "Thumbs.db").write_bytes(b"no image")
    return ["data=cats_dogs"]


def write_own(root: Path) -> list[str]:
    write_parts(root / "own", {"train": {"b": 12, "a": 12}, "valid": {"a": 4, "b": 4}, "test": {"a": 5, "b": 4}})
    return ["data=image_folder", "data.folder=own"]


def write_listed(root: Path) -> list[str]:
    write_classes(root / "listed" / "all", {"x": 20, "y": 20})
    lines = [f"all/{name}/{index:04}.png,{name}" for name in "xy" for index in range(20)]
    (root / "listed" / "list.csv").write_text("\n".join(["path,label", *lines]))
    return ["data=csv", "data.folder=listed", "data.train=list.csv"]


# By data set: writes it below the root of all data sets, and returns the words that select it.
WRITERS: dict[str, Callable[[Path], list[str]]] = {
    "image_folder": write_own,
    "csv": write_listed,
    "caltech101": write_caltech,
    "eight_scenes": write_scenes,
    "cats_dogs": write_pets,
}

# A small network, trained for five steps or less on crops smaller than the cached images.
TINY_TRAINING = (
    "model=lenet", "model.maps=[2,3]", "model.units=[8]", "data.image_size=20", "data.crop=16", "batch_size=8",
    "epochs=1", "threads=1", "device=cpu", "report=false", "augmentation=crop_flip_jitter", "optimizer.lr=0.01",
)  # fmt: skip


def read(name: str, root: Path, **settings: Any) -> ImageData:
    """Return what a data set's factory reads from the files as they are now."""
    if name == "caltech101":
        settings = {"background": True, **settings}
    return DATASETS[name].factory(root, **(SETTINGS | settings))


def prepared(name: str, root: Path, shared: Mapping[str, Any] | None = None, **settings: Any) -> PreparedData:
    """Prepare a data set from the files as they are now. shared: settings that all data sets have."""
    preparing._load.cache_clear()
    part = Selection(name, SETTINGS | settings)
    given = {"root": str(root), "image_size": 20, "crop": 16, "val_fraction": 0.2, **(shared or {})}
    return prepare(DataConfig(part=part, **given))


def labels_by_file(data: ImageData) -> dict[str, str]:
    """Return the name of the class by the last two parts of the path, of all files."""
    labels = {}
    for part in (data.train, data.test):
        for path, label in zip(part.pixels.paths, part.labels.tolist(), strict=True):
            labels["/".join(path.parts[-2:])] = data.classes[label]
    return labels


def counts(part: Images, data: ImageData | DataSpec) -> list[int]:
    """Return how many images of each class a part has."""
    return list(counts_per_class(part.labels, len(data.classes)))
