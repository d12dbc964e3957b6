"""Folders and lists of photographs: which file shows what, in which part."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from cnnbench.config.schema import NO_EFFECT_ON_RESULT
from cnnbench.data.decode import SUFFIXES
from cnnbench.data.images import ImageData, Images, Photographs
from cnnbench.data.split import stratified_split
from cnnbench.errors import UserError, grouped, listed

# What the settings of all sources of photographs have in common:
Folder = Annotated[str, Field(description="a folder of photographs, a whole path or below that of all data sets")]
TestFraction = Annotated[float, Field(gt=0, lt=1)]
Fit = Literal["crop", "stretch"]
Cache = Annotated[bool, NO_EFFECT_ON_RESULT]
OnProblem = Literal["error", "skip"]

SHOWN = 20


@dataclass(frozen=True)
class Opening:
    """How photographs will be opened; `test_fraction` of them are for testing where nothing else is said."""

    fit: str
    cache: bool
    on_problem: str
    test_fraction: float


def image_data(
    where: Path, parts: Mapping[str, Sequence[tuple[Path, str]]], notes: Sequence[str], opening: Opening
) -> ImageData:
    """Return a data set of files with the names of their classes; class numbers follow from the sorted names.

    parts: by `train`, `val`, `test`; where there is no `test`, a stratified part of `train`, the same always.
    Raises UserError, which names the place `where`, for fewer than two classes, an empty part, and a class that only
    validation or test have.
    """
    empty = [name for name, files in parts.items() if not files]
    if empty:
        raise UserError(f"{where}: there is no image for {listed(empty)}.")
    classes = tuple(sorted({label for _, label in parts["train"]}))
    strange = sorted({label for files in parts.values() for _, label in files} - set(classes))
    if strange:
        raise UserError(f"{where}: no image for training shows {listed(strange)}, as others do; every class needs one.")
    if len(classes) < 2:
        raise UserError(f"{where}: there is only the class {listed(classes)}, and two are the least.")
    found = {name: _images(files, classes, opening) for name, files in parts.items()}
    train, val, test = (found.get(name) for name in ("train", "val", "test"))
    assert train is not None
    if test is None:
        split = stratified_split(train.labels, len(classes), opening.test_fraction, 0, "data.test_fraction")
        train, test = train[split.train], train[split.val]
    if val is None:
        return ImageData(train, test, classes, notes=tuple(notes))
    validates = torch.cat([torch.zeros(len(train), dtype=torch.bool), torch.ones(len(val), dtype=torch.bool)])
    return ImageData(_joined(train, val), test, classes, validates, tuple(notes))


def _joined(first: Images, second: Images) -> Images:
    one, other = first.pixels, second.pixels
    assert isinstance(one, Photographs)
    assert isinstance(other, Photographs)
    pixels = Photographs(one.paths + other.paths, one.digests + other.digests, one.fit, one.cache, one.skip)
    return Images(pixels, torch.cat([first.labels, second.labels]))


def _images(files: Iterable[tuple[Path, str]], classes: Sequence[str], opening: Opening) -> Images:
    ordered = sorted(files)
    numbers = {name: number for number, name in enumerate(classes)}
    labels: Tensor = torch.tensor([numbers[label] for _, label in ordered])
    paths = tuple(path for path, _ in ordered)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = tuple(pool.map(_digest, paths))
    return Images(Photographs(paths, digests, opening.fit, opening.cache, opening.on_problem == "skip"), labels)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # decoding it will say why
        return hashlib.sha256(f"unreadable {path}".encode()).hexdigest()


@dataclass(frozen=True)
class Found:
    """What is in a folder: images, and files whose names are not those of images."""

    images: tuple[Path, ...]
    others: tuple[Path, ...]

    def note(self) -> list[str]:
        """Return a note on the other files, if there are any."""
        if not self.others:
            return []
        number = "1 file is" if len(self.others) == 1 else f"{grouped(len(self.others))} files are"
        return [f"{number} no image by name, left out: {some(map(str, self.others))}"]


def images_below(folder: Path, follow_links: bool) -> Found:
    """Return all files below a folder, in any depth; hidden ones are passed over.

    Raises UserError where there is no image, and for links that leave the folder, unless those shall be followed.
    """
    files = sorted(_walk(folder, ()))
    root = _real(folder)
    leaving = [] if follow_links else [path for path in files if not _real(path).is_relative_to(root)]
    if leaving:
        raise UserError(
            f"{folder}: links lead out of it, to {grouped(len(leaving))} files: {some(map(str, leaving))}\n"
            f"  data=image_folder data.follow_links=true follows them"
        )
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        raise UserError(f"{folder}: there is no image below it; their names end in {', '.join(SUFFIXES)}.")
    return Found(tuple(images), tuple(sorted(set(files) - set(images))))


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = _real(folder)
    if real in above:  # a link that leads back
        return
    for path in folders_and_files(folder):
        if path.is_dir():
            yield from _walk(path, (*above, real))
        elif path.is_file() or not path.exists():  # no pipe, which would be waited for; a broken link is reported
            yield path


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises for a link to itself


def folders_and_files(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden, by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def some(names: Iterable[str]) -> str:
    """Return the first twenty names, and how many more there are."""
    every = list(names)
    more = f" and {grouped(len(every) - SHOWN)} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
