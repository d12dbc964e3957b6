"""Image files with labels as a data set, and where in a folder they are found."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from unicodedata import normalize

import torch
from pydantic import Field
from torch import Tensor

from cnnbench.config.run_config import WithoutAugmentation
from cnnbench.config.schema import NO_EFFECT_ON_RESULT
from cnnbench.data.decode import SUFFIXES, UNREAD_SUFFIXES, deep_kind, worker_threads
from cnnbench.data.images import ImageData, Images, Photographs
from cnnbench.data.split import stratified_split
from cnnbench.errors import UserError, as_utf8, counted, grouped, listed, quotable
from cnnbench.store.folder import holds_runs, outputs_dir

# Types of the settings that all data sets of photographs share:
Folder = Annotated[
    str,
    Field(
        description="a folder of photographs: in the current one, below that of all data sets, or a whole path",
        examples=["my_photos"],
    ),
]
Fit = Annotated[Literal["whole", "crop", "stretch"], WithoutAugmentation("whole", same_as="crop")]
Cache = Annotated[bool, NO_EFFECT_ON_RESULT]
OnProblem = Literal["error", "skip"]

LabelledFiles = list[tuple[Path, str]]  # with the name of the class
Parts = dict[str, LabelledFiles]  # by `train`, `val`, `test`

TEST_SEED = 0  # of the test part, where it is drawn: it is the same for every run
MAX_NAMES = 20  # in a message
MAX_LEFT_OUT = 4  # files in a note on those left out, or kinds of them
SYSTEM = "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir"  # of disks, and of servers that keep files
MAX_VISITS = 100  # of one folder, by links


def image_data(
    where: Path, parts: Parts, notes: Sequence[str], test_fraction: float, fit: Fit, on_problem: OnProblem, cache: bool
) -> ImageData:
    """Return the data set of labelled files; classes are numbered in the order of their sorted names.

    Without a part `test`, `test_fraction` of every class of `train` is held out, always the same files. A fraction of 0
    stands for images to measure on, none to train: the part `test`, or all, of any number of classes.
    Raises UserError, which names the place `where`, for fewer than two classes, an empty part, and a class that only
    validation or test have.
    """
    empty = [name for name, files in parts.items() if not files]
    if empty:
        raise UserError(f"{where}: there is no image for {listed(empty)}.")
    parts = _with_names_in_one_form(where, parts)
    classes = tuple(sorted({label for _, label in parts["train"]}))
    untrained = sorted({label for files in parts.values() for _, label in files} - set(classes))
    if untrained:
        alike = {name.casefold(): name for name in classes}
        near = [alike[name.casefold()] for name in untrained if name.casefold() in alike]
        hint = f"; there is {listed(near)}, spelt otherwise" if near else ""
        raise UserError(f"{where}: no training image shows {listed(untrained)}; every class needs one{hint}.")
    if len(classes) < 2 and test_fraction:
        raise UserError(f"{where}: there is only the class {listed(classes)}; at least two classes are required.")
    notes = [*notes, *_note_on_near_names(classes)]
    numbers = {name: number for number, name in enumerate(classes)}

    def labels_of(files: LabelledFiles) -> Tensor:
        return torch.tensor([numbers[label] for _, label in files], dtype=torch.int64)

    def images_of(files: LabelledFiles) -> Images:
        paths = tuple(path for path, _ in files)
        with worker_threads() as pool:
            digests, depths = tuple(pool.map(content_digest, paths)), pool.map(deep_kind, paths)
            deep = {digest: kind for digest, kind in zip(digests, depths, strict=True) if kind is not None}
        photographs = Photographs(paths, digests, fit, cache, on_problem == "skip", deep=deep)
        return Images(photographs, labels_of(files))

    if not test_fraction:
        measured = parts.get("test") or [*parts["train"], *parts.get("val", ())]
        which = "those of its test part" if "test" in parts else "all, as there is no test part"
        notes = [f"{counted(len(measured), 'image')} of {where}: {which}", *notes]
        return ImageData(images_of([]), images_of(sorted(measured)), classes, notes=tuple(notes))
    train, val, test = (sorted(parts.get(name, ())) for name in ("train", "val", "test"))
    draws_test = not test
    if draws_test:
        split = stratified_split(labels_of(train), len(classes), test_fraction, TEST_SEED, "data.test_fraction")
        train, test = ([train[row] for row in rows.tolist()] for rows in (split.train, split.val))
    is_val = torch.arange(len(train) + len(val)) >= len(train) if val else None
    return ImageData(images_of([*train, *val]), images_of(test), classes, is_val, tuple(notes), draws_test=draws_test)


def _with_names_in_one_form(where: Path, parts: Parts) -> Parts:
    """Return the files with names of classes that are text, written as in training where Unicode has two ways to.

    Raises UserError where two classes in training have the same name.
    """
    trained: dict[str, str] = {}
    for label in sorted({label for _, label in parts["train"]}):
        name = as_utf8(label)
        if trained.setdefault(normalize("NFC", name), name) != name:
            raise UserError(f"{where}: two classes are called '{name}', in two Unicode forms (NFC, NFD); rename one.")
    found = {label: as_utf8(label) for files in parts.values() for _, label in files}
    written = {label: trained.get(normalize("NFC", name), name) for label, name in found.items()}
    return {part: [(path, written[label]) for path, label in files] for part, files in parts.items()}


def _note_on_near_names(classes: Sequence[str]) -> list[str]:
    """Return a note on classes whose names differ in nothing but case and spaces, as labels typed by hand do."""
    near: dict[str, list[str]] = {}
    for name in classes:
        near.setdefault("".join(name.split()).casefold(), []).append(name)
    same = [f"{listed(names[:-1])} and {listed(names[-1:])}" for names in near.values() if len(names) > 1]
    if not same:
        return []
    return [f"classes whose names differ in case or spaces only: {first_names(same)}; rename them if they are one"]


def content_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file's content, or of its path where it cannot be read: decoding reports why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256(f"unreadable {path}".encode()).hexdigest()


@dataclass(frozen=True)
class FolderContents:
    """The images below a folder, and the files whose names are not those of images."""

    images: tuple[Path, ...]
    others: tuple[Path, ...]

    def notes(self) -> list[str]:
        """Return notes on the other files, if there are any."""
        unread = [path for path in self.others if path.suffix.lower() in UNREAD_SUFFIXES]
        others = [path for path in self.others if path not in unread]
        notes = []
        if unread:
            number = "1 image is" if len(unread) == 1 else f"{grouped(len(unread))} images are"
            notes.append(f"{number} of a format that is not read, left out; PNG would be: {_by_kind(unread)}")
        if others:
            number = "1 file is" if len(others) == 1 else f"{grouped(len(others))} files are"
            notes.append(f"{number} no image by name, left out: {_by_kind(others)}")
        return notes


def _by_kind(paths: Sequence[Path]) -> str:
    """Return the names of a few files; of more, how many have which suffix, and the first."""
    if len(paths) <= MAX_LEFT_OUT:
        return first_names(map(str, paths))
    kinds = Counter(path.suffix.lower() or "without a suffix" for path in paths).most_common()
    shown = [f"{grouped(number)} {quotable(kind)}" for kind, number in kinds[:MAX_LEFT_OUT]]
    others = sum(number for _, number in kinds[MAX_LEFT_OUT:])
    more = [counted(others, "other")] if others else []
    return f"{', '.join([*shown, *more])}, such as {quotable(str(paths[0]))}"


def find_images(folder: Path, follow_links: bool = False) -> FolderContents:
    """Return all files below a folder, at any depth, without hidden ones, and without those of runs in that folder.

    Raises UserError where there is no image, and for links that lead out of the folder, unless they are to be followed.
    """
    files = sorted(_walk(folder, (), Counter()))
    runs, root = outputs_dir(), real_path(folder)
    if runs.is_relative_to(root) and runs != root and holds_runs(runs):  # pictures that trainings here have drawn
        files = [path for path in files if not real_path(path).is_relative_to(runs)]
    leaving = [] if follow_links else [path for path in files if not real_path(path).is_relative_to(root)]
    if leaving:
        raise UserError(
            f"{folder}: links lead out of it, to {counted(len(leaving), 'file')}: {first_names(map(str, leaving))}\n"
            f"  data=image_folder data.follow_links=true follows them"
        )
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        found = f", but {_by_kind(files)}" if files else ""
        raise UserError(f"{folder}: there is no image below it{found}; their names end in {', '.join(SUFFIXES)}.")
    return FolderContents(tuple(images), tuple(sorted(set(files) - set(images))))


def _walk(folder: Path, above: tuple[Path, ...], visits: Counter[Path]) -> Iterator[Path]:
    real = real_path(folder)
    if real in above:  # a link that leads back
        return
    visits[real] += 1
    if visits[real] > MAX_VISITS:  # links within a folder can double the ways with every level
        raise UserError(f"{folder}: links lead to {real} in more than {MAX_VISITS} ways; remove some of them.")
    for path in visible(folder):
        if os.path.isdir(path):
            yield from _walk(path, (*above, real), visits)
        elif os.path.isfile(path) or not os.path.exists(path):  # no pipe, which would block; a broken link is reported
            yield path


def real_path(path: Path) -> Path:
    """Return where a path leads, whether or not there is anything."""
    return Path(os.path.realpath(path))  # Path.resolve raises for a link to itself


def visible(folder: Path) -> list[Path]:
    """Return the folders and files in a folder that are not hidden, by name. Raises UserError if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in SYSTEM)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read: {error.strerror}; make it readable, or move it elsewhere."
        ) from error


def folders_in(where: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, by name."""
    return [path for path in visible(where) if os.path.isdir(path)]


def lists_in(folder: Path) -> list[Path]:
    """Return the CSV files in a folder, by name; none where it cannot be read."""
    try:
        return [path for path in visible(folder) if path.suffix.lower() == ".csv" and os.path.isfile(path)]
    except UserError:  # of somebody else
        return []


def first_names(names: Iterable[str]) -> str:
    """Return the first twenty names, and how many more there are."""
    every = list(names)
    more = f" and {grouped(len(every) - MAX_NAMES)} more" if len(every) > MAX_NAMES else ""
    return ", ".join(map(quotable, every[:MAX_NAMES])) + more
