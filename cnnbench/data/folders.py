"""Data sets of photographs: one folder per class, or classes in the names of files."""

import os
from pathlib import Path
from shlex import quote
from typing import Annotated

from pydantic import Field

from cnnbench.config.hints import closest_path
from cnnbench.data.files import data_root
from cnnbench.data.image_files import Cache, Fit, Folder, OnProblem, Parts, find_images, image_data
from cnnbench.data.images import ImageData
from cnnbench.data.layout import read_folder, refuse_a_wrapper
from cnnbench.data.published import CALTECH101, CATS_DOGS, EIGHT_SCENES, published_of
from cnnbench.data.split import TestFraction
from cnnbench.errors import UserError
from cnnbench.registry import DATASETS

BACKGROUND = "BACKGROUND_Google"

Level = Annotated[int, Field(ge=1)]  # of folders below that of the data set, or below those of its parts


@DATASETS.register("image_folder", photographs=True)
def image_folder(
    root: Path,
    *,
    folder: Folder,
    test_fraction: TestFraction,
    fit: Fit,
    on_problem: OnProblem = "error",
    follow_links: bool = False,
    level: Level | None = None,
    cache: Cache = True,
) -> ImageData:
    """Photographs, one folder per class; optionally below folders `train`, `val` (or `valid`) and `test`.

    folder: relative to the folder of all data sets, or absolute. test_fraction: of every class, where there is no
    `test`. fit: `whole` and `crop` resize the shorter side to data.image_size and test the central square; in training
    random crops are of the whole image, or of that square; `stretch` resizes both sides. on_problem: `error`, or
    `skip`: train without images that cannot be used; validation and test never do. level: which folder is the class: 1,
    the first (below `train`, if there is one), 2, the one in it, and so on; null: the first, unless others may be
    meant, which is an error.
    Raises UserError for a folder that is not there, has no images, or has links that lead out of it.
    """
    where = find_folder(root, folder)
    parts, notes = _read(where, level=level, follow_links=follow_links)
    if test_fraction and level is None:
        refuse_a_wrapper(parts)
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


@DATASETS.register(
    "caltech101", breaks_labels=("vertical_flip",), photographs=True, published=CALTECH101, **CALTECH101.terms
)
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
    """8 677 photographs of objects in 101 classes, about 300x200, mostly colour; 9 144 in 102 with the background.

    background: whether to include that class, BACKGROUND_Google. The other settings are those of image_folder.
    """
    where = find_folder(root, folder, "caltech101")
    parts, notes = _read(where)
    if not background:
        parts = {name: [(path, label) for path, label in files if label != BACKGROUND] for name, files in parts.items()}
        notes = [*notes, f"the class '{BACKGROUND}' is left out"]
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


@DATASETS.register(
    "eight_scenes", breaks_labels=("vertical_flip",), photographs=True, published=EIGHT_SCENES, **EIGHT_SCENES.terms
)
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
    """
    where = find_folder(root, folder, "eight_scenes")
    return image_data(where, *_read(where, in_names=True), test_fraction, fit, on_problem, cache)


@DATASETS.register(
    "cats_dogs", breaks_labels=("vertical_flip",), photographs=True, published=CATS_DOGS, **CATS_DOGS.terms
)
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
    archive has a few files that are damaged or no images: remove them, or set on_problem=skip where all of them are in
    the training part. Other settings as in image_folder.
    """
    where = find_folder(root, folder, "cats_dogs")
    return image_data(where, *_read(where, in_names=True), test_fraction, fit, on_problem, cache)


def _read(
    where: Path, level: int | None = None, in_names: bool = False, follow_links: bool = False
) -> tuple[Parts, list[str]]:
    contents = find_images(where, follow_links)
    parts, notes = read_folder(where, contents.images, level, in_names)
    return parts, [*notes, *contents.notes()]


def find_folder(root: Path, folder: str, name: str = "") -> Path:
    """Return a folder, relative to that of all data sets. Raises UserError where it is not there.

    name: of a published set; the message says how to import it.
    """
    path = root / Path(folder).expanduser()
    if os.path.isdir(path):
        return path
    published = published_of(name) if name else None
    lines = []
    if published is not None and folder == published.folder:
        elsewhere = "" if root == data_root(None) else f" {quote(f'data.root={root}')}"
        lines = [
            f"to get it: {published.source}",
            f"to import it: cnnbench data prepare {name} --from FOLDER{elsewhere}; the archive or its folder in it",
        ]
    if meant := closest_path(folder) or closest_path(path):
        lines.append(f"did you mean data.folder={quote(meant)}?")
    here = "" if Path(folder).expanduser().is_absolute() else f", nor {Path(folder)} in {Path.cwd()}"
    lines.append(f"another place: data.folder=FOLDER, here, below {root} (data.root, CNNBENCH_DATA), or a whole path")
    raise UserError("\n  ".join([f"{path}: there is no such folder{here}.", *lines]))
