"""Which folders are the classes, which the parts of a data set, and what was meant by a folder a level off."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote

from cnnbench.data.decode import SUFFIXES
from cnnbench.data.image_files import LabelledFiles, Parts, first_names, folders_in, lists_in
from cnnbench.errors import UserError, counted, listed

PLAIN = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
KINDS = PLAIN | {
    "training": "train", "dev": "val", "testing": "test", "eval": "evaluation", "evaluation": "evaluation",
    "pred": "unlabelled", "prediction": "unlabelled", "predict": "unlabelled",
    "unlabeled": "unlabelled", "unlabelled": "unlabelled",
}  # fmt: skip
FILLERS = "set", "sets", "data", "dataset", "image", "images", "img", "imgs", "photos", "pictures", "split", "folder"
MAX_WAYS = 3  # of one kind, in a message


def parts_among(names: Iterable[str]) -> dict[str, str]:
    """Return which folders are parts of a data set, by name: `train`, `val`, `test`, or `unlabelled`.

    The plain names always are; `Training`, `test_set`, `seg_pred` and the like are where one is for training, another
    is not, and the other words of their names are the same. `evaluation` is test, or validation next to a test part.
    """
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        words = _words(name)
        kinds = [KINDS[word] for word in words if word in KINDS]
        if len(kinds) == 1:
            rest = tuple(word for word in words if word not in KINDS and word not in FILLERS)
            by_rest.setdefault(rest, {})[name] = kinds[0]
    found: dict[str, str] = {}
    for same in by_rest.values():
        is_whole = "train" in same.values() and len(set(same.values())) > 1
        if is_whole or any(name.lower() in PLAIN for name in same):
            found |= same
    meant = "val" if "test" in found.values() else "test"
    return {name: meant if kind == "evaluation" else kind for name, kind in found.items()}


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: `TestSet2` and `test_set` have `test` and `set`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W\d_]+", " ", name).lower()
    return re.sub(rf"\b({'|'.join(KINDS)})({'|'.join(FILLERS)})\b", r"\1 \2", spaced).split()


@dataclass(frozen=True)
class Layout:
    """How all images below a folder are laid out."""

    where: Path
    images: Sequence[Path]

    @cached_property
    def strays(self) -> list[Path]:
        """The images in the folder itself."""
        return [path for path in self.images if path.parent == self.where]

    @cached_property
    def folders(self) -> dict[str, "Layout"]:
        """The folders in this one that have images, by name."""
        found: dict[str, list[Path]] = {}
        depth = len(self.where.parts)
        for path in self.images:
            if path.parent != self.where:
                found.setdefault(path.parts[depth], []).append(path)
        return {name: Layout(self.where / name, images) for name, images in found.items()}

    @property
    def is_valid(self) -> bool:
        """Tell whether this is a folder of classes, or of the parts of a data set."""
        return not self.strays and (len(self.folders) > 1 or "train" in parts_among(self.folders).values())

    @cached_property
    def inner(self) -> dict[str, "Layout"]:
        """The folders that hold folders only."""
        return {name: layout for name, layout in self.folders.items() if not layout.strays}

    @property
    def only_inner(self) -> "Layout | None":
        """The one folder with classes, where there is nothing else in this one, and it has no two classes itself."""
        if self.strays or len(self.folders) != 1 or not self.inner:
            return None
        (layout,) = self.inner.values()
        return layout if layout.is_valid else layout.only_inner

    def below_wrappers(self, classes: Iterable[str] = ()) -> "Layout":
        """Return the folder of classes in that of a part: `seg_train/seg_train`; `classes` are none to look into."""
        if self.strays or len(self.folders) != 1 or not self.inner or set(self.folders) & set(classes):
            return self
        (layout,) = self.inner.values()
        return layout.below_wrappers(classes)

    @property
    def has_parts_in_each(self) -> bool:
        """Tell whether every folder is a class, and has folders of parts with images: `ants/train`, `ants/test`."""

        def is_divided(layout: Layout) -> bool:
            parts = parts_among(layout.folders)
            return "train" in parts.values() and len(parts) == len(layout.folders)

        parts = [part for layout in self.inner.values() for part in layout.folders.values()]
        return self.is_valid and all(map(is_divided, self.folders.values())) and not any(part.folders for part in parts)

    def check(self) -> None:
        """Raise UserError, with what was found and what to type, unless the folders in this one are the classes."""
        if self.strays and not self.folders:
            heading = f"{counted(len(self.strays), 'image')}, and no folder of a class, which is what labels them."
            raise UserError("\n  ".join([f"{self.where}: {heading}", *self._ways_with_images_only()]))
        inner = [layout.where for layout in self.inner.values() if layout.is_valid]
        of_parts = [f"{path.name} has folders of classes: {as_folder(path)}" for path in inner[:MAX_WAYS]]
        if self.strays:
            heading = f"not in the folder of a class: {first_names(map(str, self.strays))}"
            ways = of_parts or ["move them into one, or elsewhere"]
            raise UserError("\n  ".join([f"{self.where}: {heading}", *ways]))
        divided = {name: parts for name, one in self.folders.items() if (parts := parts_among(one.folders))}
        below = sorted({name for layout in self.inner.values() for name in layout.folders})
        is_asked = len(self.inner) == len(self.folders) > 1 and len(below) > 1
        if divided:
            name, parts = next(iter(divided.items()))
            heading = f"'{name}' has folders of parts in it: {listed(sorted(parts))}."
        elif is_asked and any(len(layout.folders) > 1 for layout in self.inner.values()):
            heading = f"the classes may be its folders or those in them, which hold all images: {listed(below[:10])}."
        else:
            return
        setting = f"data=image_folder {as_folder(self.where)} data.level"
        ways = [f"where the classes are {listed(sorted(self.folders)[:3])}, with all that is in them: {setting}=1"]
        if not divided:
            ways.append(f"where the classes are {listed(below[:3])}, in all of its folders: {setting}=2")
        raise UserError("\n  ".join([f"{self.where}: {heading}", *ways, *of_parts]))

    def _ways_with_images_only(self) -> list[str]:
        """Return what may have been meant by a folder without folders, and what to type."""
        here = Path(os.path.abspath(self.where))
        siblings = _folders_of_images(here.parent, here)
        if here.name in parts_among([here.name, *siblings]):
            siblings = []  # parts of a data set, not classes
        lists = [file for folder in (here, here.parent) for file in lists_in(folder)]
        named = [
            f"where {file.name} names their classes: data=csv {as_folder(here)} "
            + quote(f"data.train={os.path.relpath(file, here)}")
            for file in lists[:MAX_WAYS]
        ]
        others = f"{listed(siblings[:3])}{', …' if len(siblings) > 3 else ''}"
        one_of = f"where '{here.name}' is one of the classes, as {others}: {as_folder(here.parent)}"
        listing = f"data=csv {as_folder(here)} data.train=LIST.csv, a list in it with the header path,label"
        return [
            *([one_of] if siblings else []),
            *named,
            f"else move them into {here}/CLASS; or name their classes: {listing}",
        ]

    def notes(self) -> list[str]:
        """Return notes on images that are deeper than the folder of their class."""
        may_be_meant = [name for name, layout in self.inner.items() if layout.is_valid]
        deeper = [path for path in self.images if self.where not in (path.parent, path.parent.parent)]
        notes = []
        if len(may_be_meant) == 1:
            layout = self.inner[may_be_meant[0]]
            way = f"{as_folder(layout.where)} makes its folders the classes: {listed(list(layout.folders)[:3])}"
            notes.append(f"'{layout.where.name}' is a class; {way}")
            deeper = [path for path in deeper if not path.is_relative_to(layout.where)]
        if deeper:
            found = f"{counted(len(deeper), 'image')} in deeper folders, such as {deeper[0]}"
            notes.append(f"{found}: the class is the first folder below {self.where}")
        return notes


def refuse_a_wrapper(parts: Parts) -> None:
    """Raise UserError where the only class is a folder above the one that holds all images: what is in that one?"""
    files = parts["train"]
    holders = {path.parent for path, _ in files}
    if len({label for _, label in files}) == len(holders) == 1 and holders.pop().name != files[0][1]:
        Layout(files[0][0].parent, [path for path, _ in files]).check()


def read_folder(
    where: Path, images: Sequence[Path], level: int | None = None, in_names: bool = False
) -> tuple[Parts, list[str]]:
    """Return the files labelled by their folders, which may be below folders of parts, and notes.

    level: which folder names the class, 1: the first; None: the first, where no other one may be meant. in_names:
    whether images without folders are labelled by the first word of their names.
    A folder that has nothing but one folder with classes stands for that one.
    Raises UserError, with what was found and what to type, for any other layout.
    """
    layout, parts = Layout(where, images), parts_among(path.name for path in folders_in(where))
    if in_names and len({path.parent for path in images}) == 1:
        return {"train": _labelled_by_name(images[0].parent, images)}, []
    if level is not None and set(layout.folders) - set(parts):  # a class may have the name of a part
        parts = {}
    if parts:
        return _read_parts(layout, parts, level, in_names)
    inner = layout.only_inner if level is None else None
    if inner is not None:
        read, notes = read_folder(inner.where, images, in_names=in_names)
        return read, [f"the classes are those of {inner.where}, the only folder with images in {where}", *notes]
    if level is None and layout.has_parts_in_each:
        return _read_parts_in_each(layout)
    labelled = _labelled(layout, level, in_names)
    return {"train": labelled}, [*_without_images(layout), *([] if level else layout.notes())]


def _read_parts(layout: Layout, parts: dict[str, str], level: int | None, in_names: bool) -> tuple[Parts, list[str]]:
    """Return the files by part and class. parts: by the name of their folder."""
    where, of_part = layout.where, _by_part(layout.where, parts)
    others = sorted({path.relative_to(where).parts[0] for path in layout.images} - set(parts))
    problem = f"besides them there may be no {listed(others)}" if others else ""
    ways = [f"where all of them are classes: data=image_folder {as_folder(where)} data.level=1"] if others else []
    if "train" not in of_part:
        problem = "there is none called 'train'"
        ways += [f"for the classes in '{name}': {as_folder(where / name)}" for name in sorted(parts)[:MAX_WAYS]]
    if problem:
        raise UserError("\n  ".join([f"{where}: has folders of parts, {listed(sorted(parts))}; {problem}.", *ways]))
    read: Parts = {}
    notes: list[str] = []
    classes: set[str] = set()
    for part in ("train", "val", "test"):
        if part not in of_part:
            continue
        inside = layout.folders.get(of_part[part], Layout(where / of_part[part], ())).below_wrappers(classes)
        try:
            read[part] = _labelled(inside, level, in_names)
        except UserError as error:
            if part == "train" or inside.folders:
                raise
            alone = f"for those of '{of_part['train']}' alone: {as_folder(where / of_part['train'])}"
            raise UserError(f"{str(error).splitlines()[0]}\n  {alone}") from error
        classes |= {label for _, label in read[part]}
        notes += _without_images(inside)
        notes += [] if level else inside.notes()
    return read, [*_on_parts(parts), *notes]


def _read_parts_in_each(layout: Layout) -> tuple[Parts, list[str]]:
    """Return the files by part and class, where each class has the folders of the parts."""
    read: Parts = {}
    for label, inside in layout.folders.items():
        for part, name in _by_part(inside.where, parts_among(inside.folders)).items():
            read.setdefault(part, []).extend((path, label) for path in inside.folders[name].images)
    names = parts_among(sorted({name for inside in layout.folders.values() for name in inside.folders}))
    note = f"the classes are {listed(list(layout.folders)[:10])}; the folders in them are the parts, {listed(names)}"
    return read, [note, *_on_parts(names)]


def _by_part(where: Path, parts: dict[str, str]) -> dict[str, str]:
    """Return the folder of each part but the unlabelled one. Raises UserError for two of one part."""
    found: dict[str, str] = {}
    for name, part in sorted(parts.items()):
        if part in found and part != "unlabelled":
            both = f"'{found[part]}' and '{name}' may both be the part '{part}'"
            raise UserError(f"{where}: {both}; move one elsewhere, or the images of one into the other.")
        found[part] = name
    found.pop("unlabelled", None)
    return found


def _on_parts(parts: dict[str, str]) -> list[str]:
    """Return notes on parts that are known by less plain names."""
    used = {name: f"'{name}' is {part}" for name, part in sorted(parts.items()) if part != "unlabelled"}
    without = sorted(parts.keys() - used.keys())
    notes = [f"left out, without labels by their names: {listed(without)}"] if without else []
    if all(name.lower() in PLAIN for name in used):
        return notes
    return [f"parts by their names: {', '.join(used.values())}", *notes]


def _labelled(layout: Layout, level: int | None, in_names: bool) -> LabelledFiles:
    """Return the images of a folder with their classes. Raises UserError where they have none, or may have others."""
    if in_names and layout.strays and not layout.folders:
        return _labelled_by_name(layout.where, layout.images)
    if level is None:
        layout.check()
    depth, place = len(layout.where.parts), level or 1
    above = {path: path.parts[depth:-1] for path in layout.images}
    outside = [str(path) for path, names in above.items() if len(names) < place]
    if outside:
        at = f", at level {level}" if level else ""
        raise UserError(f"{layout.where}: not in the folder of a class{at}: {first_names(outside)}")
    return [(path, names[place - 1]) for path, names in above.items()]


def _labelled_by_name(where: Path, images: Sequence[Path]) -> LabelledFiles:
    """Return images with the first words of their names. Raises UserError where one begins with another character."""
    labelled = [(path, re.sub(r"[^A-Za-z].*", "", path.stem)) for path in images]
    without = [str(path) for path, label in labelled if not label]
    if without:
        raise UserError(f"{where}: no class, neither by a folder nor in the name: {first_names(without)}")
    return labelled


def _without_images(layout: Layout) -> list[str]:
    empty = [str(folder) for folder in folders_in(layout.where) if folder.name not in layout.folders]
    return [f"folders without images, left out: {first_names(empty)}"] if empty else []


def as_folder(path: Path) -> str:
    """Return the setting that names a folder, as it is typed here: below the current folder, or from the root."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    below = absolute.is_relative_to(here) and absolute != here
    return quote(f"data.folder={absolute.relative_to(here) if below else absolute}")


def _folders_of_images(folder: Path, excluded: Path) -> list[str]:
    """Return the names of the folders in a folder that have images in them."""
    try:
        others = [path for path in folders_in(folder) if path != excluded]
        return [path.name for path in others if any(one.suffix.lower() in SUFFIXES for one in path.iterdir())]
    except (OSError, UserError):  # of somebody else
        return []
