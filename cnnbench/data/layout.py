"""Which folders are the classes, and what was meant by a folder that is a level too high or too low."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote

from cnnbench.data.decode import SUFFIXES
from cnnbench.data.image_files import first_names, visible
from cnnbench.errors import UserError, grouped, listed

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Layout:
    """How all images below a folder are laid out, if not in folders of train, val and test."""

    where: Path
    images: Sequence[Path]

    @cached_property
    def strays(self) -> list[Path]:
        """The images in the folder itself."""
        return [path for path in self.images if path.parent == self.where]

    @cached_property
    def folders(self) -> dict[str, list[Path]]:
        """The images by the folder that they are in, or below."""
        found: dict[str, list[Path]] = {}
        depth = len(self.where.parts)
        for path in self.images:
            if path.parent != self.where:
                found.setdefault(path.parts[depth], []).append(path)
        return found

    @property
    def is_valid(self) -> bool:
        """Tell whether this is a folder of classes, or of the parts of a data set."""
        return not self.strays and (len(self.folders) > 1 or any(name.lower() == "train" for name in self.folders))

    @cached_property
    def inner(self) -> dict[str, "Layout"]:
        """The layouts of the folders that hold folders only."""
        layouts = {name: Layout(self.where / name, images) for name, images in self.folders.items()}
        return {name: layout for name, layout in layouts.items() if not layout.strays}

    @property
    def only_inner(self) -> Path | None:
        """The one folder with classes, where there is nothing else in this one, and it has no two classes itself."""
        if self.strays or len(self.folders) != 1 or not self.inner:
            return None
        (layout,) = self.inner.values()
        return layout.where if layout.is_valid else layout.only_inner

    def check(self) -> None:
        """Raise UserError, with what was found and what to type, where this is no folder of two or more classes."""
        if self.is_valid:
            return
        if self.strays and not self.folders:
            heading = f"{grouped(len(self.strays))} images, and no folder of a class, which is what labels them."
        elif self.strays:
            heading = f"not in the folder of a class: {first_names(map(str, self.strays))}"
        else:
            heading = f"there is only the class {listed(self.folders)}; at least two classes are required."
        raise UserError("\n  ".join([f"{self.where}: {heading}", *self._ways()]))

    def _ways(self) -> list[str]:
        """Return what may have been meant, and what to type."""
        inner = [layout.where for layout in self.inner.values() if layout.is_valid]
        if inner:
            return [f"{path.name} has folders of classes: {as_folder(path)}" for path in inner[:3]]
        if self.folders:
            return ["move them into one, or elsewhere"] if self.strays else []
        here = Path(os.path.abspath(self.where))
        beside = _folders_of_images(here.parent, here)
        others = f"{listed(beside[:3])}{', …' if len(beside) > 3 else ''}"
        one_of = f"where '{here.name}' is one of the classes, as {others}: {as_folder(here.parent)}"
        listing = f"data=csv {as_folder(here)} data.train=LIST.csv, a list in it with the header path,label"
        return [*([one_of] if beside else []), f"else move them into {here}/CLASS; or name their classes: {listing}"]

    def notes(self) -> list[str]:
        """Return a note where one class alone holds folders only, which may be the classes that were meant."""
        names = [name for name, layout in self.inner.items() if layout.is_valid]
        if len(names) != 1:
            return []
        within = listed(list(self.inner[names[0]].folders)[:3])
        return [f"'{names[0]}' is a class; {as_folder(self.where / names[0])} makes its folders the classes: {within}"]


def folder_of_list(where: Path, name: str) -> tuple[Path, list[str]]:
    """Return the folder that a list is relative to: the one given, or the only folder in it that has the list; a note.

    Raises UserError, with what to type, where the list is in several folders of that one, or in the folder above.
    """
    if (where / name).is_file():
        return where, []
    inner = [folder for folder in folders_in(where) if (folder / name).is_file()]
    if len(inner) == 1:
        return inner[0], [f"{name} and its images are in {inner[0]}, the only folder in {where} with such a list"]
    ways = [f"it is in {folder}: {as_folder(folder)}" for folder in inner[:3]]
    above = where.resolve().parent
    if (above / name).is_file():
        ways.append(f"it is in {above}: {as_folder(above)}")
        ways.append(f"for paths in it from {where.name} on: {as_folder(where)} {quote(f'data.train=../{name}')}")
    if ways:
        raise UserError("\n  ".join([f"{where / name}: there is no such file.", *ways]))
    return where, []


def meant_by_paths(where: Path, name: str, paths: Sequence[str]) -> str:
    """Return what to type where the files of a list are all in one folder of the one given, or in the one above it."""
    for folder in (*folders_in(where), where.resolve().parent):
        if all(os.path.isfile(folder / path) for path in paths):
            listing = os.path.relpath(where / name, folder)
            return f"\n  all are in {folder}: {as_folder(folder)} {quote(f'data.train={listing}')}"
    return ""


def folders_in(where: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, by name."""
    return [path for path in visible(where) if path.is_dir()]


def as_folder(path: Path) -> str:
    """Return the setting that names a folder, as it is typed here: below the current folder, or from the root."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    below = absolute.is_relative_to(here) and absolute != here
    return quote(f"data.folder={absolute.relative_to(here) if below else absolute}")


def _folders_of_images(folder: Path, besides: Path) -> list[str]:
    """Return the names of the folders in a folder that have images in them."""
    try:
        others = [path for path in folders_in(folder) if path != besides]
        return [path.name for path in others if any(one.suffix.lower() in SUFFIXES for one in path.iterdir())]
    except OSError:  # of somebody else
        return []
