"""Data sets of photographs: one folder per class, classes in the names of files, or labels in CSV files."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from shlex import quote
from typing import Annotated

from pydantic import Field

from cnnbench.data.files import data_root
from cnnbench.data.image_files import (
    MAX_NAMES,
    Cache,
    Fit,
    Folder,
    FolderContents,
    LabelledFiles,
    OnProblem,
    Parts,
    find_images,
    first_names,
    image_data,
    real_path,
)
from cnnbench.data.images import ImageData
from cnnbench.data.layout import PARTS, Layout, folder_of_list, folders_in, meant_by_paths
from cnnbench.data.published import CALTECH101, CATS_DOGS, EIGHT_SCENES, published_of
from cnnbench.data.split import TestFraction
from cnnbench.errors import UserError, grouped, listed, quotable, shortened
from cnnbench.registry import DATASETS

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
    """Photographs, one folder per class; optionally below folders `train`, `val` (or `valid`) and `test`.

    folder: relative to the folder of all data sets, or absolute. test_fraction: of every class, where there is no
    `test`. fit: `whole` and `crop` resize the shorter side to data.image_size and test the central square; in training
    random crops are of the whole image, or of that square; `stretch` resizes both sides. on_problem: `error`, or
    `skip`: train without images that cannot be used; validation and test never do.
    Raises UserError for a folder that is not there, has no images, or has links that lead out of it.
    """
    where = find_folder(root, folder)
    parts, notes = _by_folder(where, find_images(where, follow_links))
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


@DATASETS.register("caltech101", breaks_labels=("vertical_flip",), photographs=True, published=CALTECH101)
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
    Source: Fei-Fei, Fergus, Perona 2004, Learning generative visual models from few training examples.
    """
    where = find_folder(root, folder, "caltech101")
    parts, notes = _by_folder(where, find_images(where))
    if not background:
        parts = {name: [(path, label) for path, label in files if label != BACKGROUND] for name, files in parts.items()}
        notes = [*notes, f"the class '{BACKGROUND}' is left out"]
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


@DATASETS.register("eight_scenes", breaks_labels=("vertical_flip",), photographs=True, published=EIGHT_SCENES)
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
    where = find_folder(root, folder, "eight_scenes")
    parts, notes = _by_folder_or_name(where, find_images(where))
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


@DATASETS.register("cats_dogs", breaks_labels=("vertical_flip",), photographs=True, published=CATS_DOGS)
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
    Source: Elson, Douceur, Howell, Saul 2007, Asirra.
    """
    where = find_folder(root, folder, "cats_dogs")
    parts, notes = _by_folder_or_name(where, find_images(where))
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


@DATASETS.register("csv", photographs=True)
def csv(
    root: Path,
    *,
    folder: Folder,
    train: Annotated[str, Field(description="a CSV file in that folder")],
    val: str | None = None,
    test: str | None = None,
    path_column: str = "path",
    label_column: str = "label",
    classes: str | None = None,
    test_fraction: TestFraction,
    fit: Fit,
    on_problem: OnProblem = "error",
    follow_links: bool = False,
    cache: Cache = True,
) -> ImageData:
    """Photographs listed in CSV files; their paths, and those of the lists, are relative to `folder`.

    train, val, test: the lists; without `test`, `test_fraction` of every class of `train` is held out.
    classes: a list of the columns id and class, where labels are numbers. follow_links: whether paths in the lists, and
    links, may lead out of the folder. Other settings as in image_folder.
    Raises UserError for lists without these columns, paths that lead elsewhere, labels that are not in `classes`, files
    that are not there, and files that are listed twice.
    """
    where, notes = folder_of_list(find_folder(root, folder), train)
    names = None if classes is None else _read_class_names(where / classes)
    lists = {part: name for part, name in (("train", train), ("val", val), ("test", test)) if name is not None}
    parts = {
        part: _read_list(where, name, path_column, label_column, names, follow_links) for part, name in lists.items()
    }
    twice = _repeated(str(path) for files in parts.values() for path, _ in files)
    if twice:
        raise UserError(f"{where}: listed more than once: {first_names(twice)}")
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


def find_folder(root: Path, folder: str, name: str = "") -> Path:
    """Return a folder, relative to that of all data sets. Raises UserError where it is not there.

    name: of a published set; the message says how to import it.
    """
    path = root / Path(folder).expanduser()
    if path.is_dir():
        return path
    published = published_of(name) if name else None
    lines = []
    if published is not None and folder == published.folder:
        elsewhere = "" if root == data_root(None) else f" {quote(f'data.root={root}')}"
        lines = [
            f"to get it: {published.source}",
            f"to import it: cnnbench data prepare {name} --from FOLDER{elsewhere}; the archive or its folder in it",
        ]
    here = "" if Path(folder).expanduser().is_absolute() else f", nor {Path(folder)} in {Path.cwd()}"
    lines.append(f"another place: data.folder=FOLDER, here, below {root} (data.root, CNNBENCH_DATA), or a whole path")
    raise UserError("\n  ".join([f"{path}: there is no such folder{here}.", *lines]))


# Labels in the names of folders and files -----------------------------------------------------------------------------


def _by_folder(where: Path, contents: FolderContents) -> tuple[Parts, list[str]]:
    """Return the files labelled by their folders, which may be below folders named like parts; and notes.

    A folder that has nothing but one folder with classes stands for that one.
    """
    top = {folder: PARTS[folder.name.lower()] for folder in folders_in(where) if folder.name.lower() in PARTS}
    layout = Layout(where, contents.images)
    if not top and layout.only_inner is not None:
        parts, notes = _by_folder(layout.only_inner, contents)
        return parts, [f"the classes are those of {layout.only_inner}, the only folder with images in {where}", *notes]
    if top:
        names = {folder.name for folder in top}
        others = sorted({path.relative_to(where).parts[0] for path in contents.images} - names)
        problem = f"besides them there may be no {listed(others)}" if others else ""
        if "train" not in top.values():
            problem = "there is none called 'train'"
        if problem:
            raise UserError(f"{where}: has folders of parts, {listed(sorted(names))}; {problem}.")
    else:
        layout.check()
    parts = {}
    empty: list[str] = []
    with_images = {folder for path in contents.images for folder in path.parents}
    for above, part in (top or {where: "train"}).items():
        inside = [path for path in contents.images if path.is_relative_to(above)]
        labelled = [(path, path.relative_to(above).parts[0] if path.parent != above else "") for path in inside]
        parts.setdefault(part, []).extend(_all_labelled(labelled, above))
        empty += [str(folder) for folder in folders_in(above) if folder not in with_images]
    notes = [f"folders without images, left out: {first_names(empty)}"] if empty else []
    return parts, [*contents.notes(), *notes, *([] if top else layout.notes())]


def _by_folder_or_name(where: Path, contents: FolderContents) -> tuple[Parts, list[str]]:
    """Label by folder where there are several folders of images, else by the first word of the file's name."""
    if len({path.parent for path in contents.images}) > 1:
        return _by_folder(where, contents)
    labelled = [(path, re.sub(r"[^A-Za-z].*", "", path.stem)) for path in contents.images]
    return {"train": _all_labelled(labelled, where)}, contents.notes()


def _all_labelled(files: LabelledFiles, where: Path) -> LabelledFiles:
    unlabelled = [str(path) for path, label in files if not label]
    if unlabelled:
        raise UserError(f"{where}: not in the folder of a class: {first_names(unlabelled)}")
    return files


# Labels in CSV files --------------------------------------------------------------------------------------------------


def _read_list(
    where: Path, name: str, path_column: str, label_column: str, names: dict[str, str] | None, follow_links: bool
) -> LabelledFiles:
    table = _read_columns(
        where / name, (path_column, label_column), "data.path_column and data.label_column name others"
    )
    problems = [
        f"line {line}: {quotable(shortened(path))} {problem}"
        for line, path in enumerate(table[path_column], 2)
        if (problem := _problem_of_path(where, path, follow_links))
    ]
    if problems:
        raise UserError("\n  ".join([f"{where / name}: {len(problems)} of its paths are not used:", *_first(problems)]))
    files = [(where / path, label) for path, label in zip(table[path_column], table[label_column], strict=True)]
    missing = [shortened(str(path)) for path, _ in files if not os.path.isfile(path)]  # nor where no file can be
    if missing:
        hint = meant_by_paths(where, name, table[path_column])
        raise UserError(f"{where / name}: {len(missing)} of its files are not there: {first_names(missing)}{hint}")
    if names is None:
        return files
    unknown = sorted({label for _, label in files} - names.keys())
    if unknown:
        raise UserError(f"{where / name}: labels that data.classes does not name: {first_names(unknown)}")
    return [(path, names[label]) for path, label in files]


def _problem_of_path(where: Path, path: str, follow_links: bool) -> str:
    """Return what is wrong with a path in a list, but that nothing is there; empty: nothing."""
    if "\0" in path:
        return "is no path"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        return "is an address; nothing is downloaded: save the files, and list their paths"
    if ("\\" in path or PureWindowsPath(path).drive) and not (where / path).exists():
        return "is a path of Windows: write it with / between folders, relative to the folder"
    if follow_links or real_path(where / path).is_relative_to(real_path(where)):
        return ""
    return "leads out of the folder; data.follow_links=true accepts that"


def _first(lines: list[str]) -> list[str]:
    more = [f"and {grouped(len(lines) - MAX_NAMES)} more"] if len(lines) > MAX_NAMES else []
    return [*lines[:MAX_NAMES], *more]


def _read_class_names(path: Path) -> dict[str, str]:
    table = _read_columns(path, ("id", "class"), "data.classes is a list of classes by number")
    twice = _repeated(table["id"])
    if twice:
        raise UserError(f"{path}: named more than once: {first_names(twice)}")
    return dict(zip(table["id"], table["class"], strict=True))


def _repeated(values: Iterable[str]) -> list[str]:
    return sorted(value for value, times in Counter(values).items() if times > 1)


def _read_columns(path: Path, columns: tuple[str, str], hint: str) -> dict[str, list[str]]:
    """Return columns of a CSV file as text."""
    import pandas  # takes as long to import as a short training takes to run

    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"{path} has no column {listed(missing)}; it has {listed(map(str, table))}; {hint}.")
    texts: dict[str, list[str]] = {column: table[column].str.strip().tolist() for column in columns}
    empty = [str(line) for line, row in enumerate(zip(*texts.values(), strict=True), 2) if not all(row)]
    if empty:
        raise UserError(f"{path}: without a value in {listed(columns)}: lines {first_names(empty)}")
    return texts
