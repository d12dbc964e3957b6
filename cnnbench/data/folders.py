"""Photographs in folders: one folder a class, or classes in the names of files."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from cnnbench.data.images import ImageData
from cnnbench.data.photographs import (
    Cache,
    Fit,
    Folder,
    Found,
    OnProblem,
    Opening,
    TestFraction,
    folders_and_files,
    image_data,
    images_below,
    some,
)
from cnnbench.errors import UserError, listed
from cnnbench.registry import DATASETS

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
BACKGROUND = "BACKGROUND_Google"


@DATASETS.register("image_folder", photographs=True)
def image_folder(
    root: Path,
    *,
    folder: Folder,
    test_fraction: TestFraction,
    fit: Fit,
    on_problem: OnProblem = "error",
    follow_links: bool = False,
    cache: Cache = True,
) -> ImageData:
    """Photographs, one folder a class; `train`, `val` (or `valid`) and `test` above them where they are there.

    folder: below the folder of all data sets, or anywhere. test_fraction: of every class, where there is no `test`.
    fit: `crop` resizes the shorter side to data.image_size and takes the square in the middle, `stretch` both sides.
    on_problem: `error`, or `skip`: train without images that cannot be used; validation and test never do.
    Raises UserError for a folder that is not there, has no images, or has links that lead out of it.
    """
    where = located(root, folder)
    opening = Opening(fit, cache, on_problem, test_fraction)
    return image_data(where, *_by_folder(where, images_below(where, follow_links)), opening)


@DATASETS.register("caltech101", breaks_labels=("vertical_flip",), photographs=True)
def caltech101(
    root: Path,
    *,
    folder: Folder,
    background: bool,
    test_fraction: TestFraction,
    fit: Fit,
    on_problem: OnProblem = "error",
    cache: Cache = True,
) -> ImageData:
    """9 144 photographs of objects in 101 classes, and one of anything else, about 300x200, mostly colour.

    background: whether that class, BACKGROUND_Google, is one of them. The other settings are those of image_folder.
    Source: Fei-Fei, Fergus, Perona 2004, Learning generative visual models from few training examples.
    """
    where = located(root, folder, "101_ObjectCategories.tar.gz of https://data.caltech.edu/records/mzrjq-6wc02")
    parts, notes = _by_folder(where, images_below(where, follow_links=False))
    if not background:
        parts = {name: [(path, label) for path, label in files if label != BACKGROUND] for name, files in parts.items()}
        notes = [*notes, f"the class '{BACKGROUND}' is left out"]
    return image_data(where, parts, notes, Opening(fit, cache, on_problem, test_fraction))


@DATASETS.register("eight_scenes", breaks_labels=("vertical_flip",), photographs=True)
def eight_scenes(
    root: Path,
    *,
    folder: Folder,
    test_fraction: TestFraction,
    fit: Fit,
    on_problem: OnProblem = "error",
    cache: Cache = True,
) -> ImageData:
    """2 688 photographs of coasts, forests, highways, … in 8 classes, 256x256, colour.

    The class is the folder, or the first word of the file's name (coast_art1130.jpg). Settings as in image_folder.
    Source: Oliva and Torralba 2001, Modeling the shape of the scene.
    """
    where = located(root, folder, "spatial_envelope_256x256_static_8outdoorcategories.zip, whose source is named above")
    found = images_below(where, follow_links=False)
    return image_data(where, *_by_folder_or_name(where, found), Opening(fit, cache, on_problem, test_fraction))


@DATASETS.register("cats_dogs", breaks_labels=("vertical_flip",), photographs=True)
def cats_dogs(
    root: Path,
    *,
    folder: Folder,
    test_fraction: TestFraction,
    fit: Fit,
    on_problem: OnProblem = "error",
    cache: Cache = True,
) -> ImageData:
    """25 000 photographs of cats and dogs, of any size, colour.

    The class is the folder (PetImages/Cat/1.jpg), or the first word of the file's name (train/cat.1.jpg). The usual
    archive has a few files that are damaged or no images, to be removed, or on_problem=skip where all of them fall to
    training. Other settings as in image_folder.
    Source: Elson, Douceur, Howell, Saul 2007, Asirra.
    """
    where = located(root, folder, "the archive of Kaggle's competition Dogs vs. Cats, or Microsoft's PetImages")
    found = images_below(where, follow_links=False)
    return image_data(where, *_by_folder_or_name(where, found), Opening(fit, cache, on_problem, test_fraction))


def located(root: Path, folder: str, archive: str = "") -> Path:
    """Return a folder, relative to that of all data sets. Raises UserError where it is not there."""
    path = root / Path(folder).expanduser()
    if not path.is_dir():
        brought = f"\n  to bring by hand: unpack {archive}, into {path.parent}" if archive else ""
        raise UserError(
            f"{path}: there is no such folder.{brought}\n"
            f"  another place: data.folder=FOLDER, a whole path (/…) or one below {root} (data.root, CNNBENCH_DATA)"
        )
    return path


Parts = dict[str, list[tuple[Path, str]]]


def _by_folder(where: Path, found: Found) -> tuple[Parts, list[str]]:
    """Return what the folders say: the parts, if any of the outermost ones is called so, and the classes."""
    named = {path.name: PARTS[path.name.lower()] for path in _folders(where) if path.name.lower() in PARTS}
    if not named:
        return {"train": _labelled(found.images, where, _folder_in(where))}, _notes(found, _folders(where))
    others = sorted({path.relative_to(where).parts[0] for path in found.images} - named.keys())
    lacks_train = "train" not in named.values()
    if others or lacks_train:
        problem = "there is none called 'train'" if lacks_train else f"besides them there may be no {listed(others)}"
        raise UserError(f"{where}: has folders of parts, {listed(named)}; {problem}.")
    parts: Parts = {}
    for name, part in named.items():
        inside = [path for path in found.images if path.relative_to(where).parts[0] == name]
        parts.setdefault(part, []).extend(_labelled(inside, where / name, _folder_in(where / name)))
    return parts, _notes(found, [folder for name in named for folder in _folders(where / name)])


def _folders(where: Path) -> list[Path]:
    return [path for path in folders_and_files(where) if path.is_dir()]


def _by_folder_or_name(where: Path, found: Found) -> tuple[Parts, list[str]]:
    """Return classes by folder where there are several folders of images, else by the names of files."""
    folders = {path.parent for path in found.images}
    if len(folders) > 1:
        return _by_folder(where, found)
    return {"train": _labelled(found.images, where, _first_word)}, found.note()


def _labelled(paths: Iterable[Path], where: Path, label_of: Callable[[Path], str | None]) -> list[tuple[Path, str]]:
    labels = [(path, label_of(path)) for path in paths]
    without = [path for path, label in labels if label is None]
    if without:
        raise UserError(f"{where}: not in the folder of a class: {some(map(str, without))}")
    return [(path, label) for path, label in labels if label is not None]


def _folder_in(where: Path) -> Callable[[Path], str | None]:
    def label(path: Path) -> str | None:
        first, *rest = path.relative_to(where).parts
        return first if rest else None

    return label


def _first_word(path: Path) -> str | None:
    found = re.match(r"[A-Za-z]+", path.stem)
    return found[0] if found else None


def _notes(found: Found, folders: Iterable[Path]) -> list[str]:
    """Return notes on what was left out: files that are no images, and those of the folders that have none."""
    with_images = {folder for path in found.images for folder in path.parents}
    empty = [str(folder) for folder in folders if folder not in with_images]
    return [*found.note(), *([f"folders without images, left out: {some(empty)}"] if empty else [])]
