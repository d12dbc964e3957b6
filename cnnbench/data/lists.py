"""Photographs that are listed in CSV files."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from shlex import quote
from typing import Annotated
from unicodedata import normalize

from pydantic import Field

from cnnbench.data.decode import SUFFIXES
from cnnbench.data.folders import find_folder
from cnnbench.data.image_files import (
    MAX_NAMES,
    Cache,
    Fit,
    Folder,
    LabelledFiles,
    OnProblem,
    first_names,
    folders_in,
    image_data,
    lists_in,
    real_path,
)
from cnnbench.data.images import ImageData
from cnnbench.data.layout import as_folder
from cnnbench.data.split import TestFraction
from cnnbench.errors import UserError, counted, grouped, listed, quotable, shortened
from cnnbench.registry import DATASETS

SEPARATORS = ",;\t"


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
    suffix: str = "",
    classes: str | None = None,
    test_fraction: TestFraction,
    fit: Fit,
    on_problem: OnProblem = "error",
    follow_links: bool = False,
    cache: Cache = True,
) -> ImageData:
    """Photographs listed in CSV files; their paths, and those of the lists, are relative to `folder`.

    train, val, test: the lists; without `test`, `test_fraction` of every class of `train` is held out. Columns are
    separated by commas, semicolons or tabs. suffix: what the paths lack, such as `.jpg` where they are numbers.
    classes: a list of the columns id and class, where labels are numbers. follow_links: whether paths in the lists, and
    links, may lead out of the folder. Other settings as in image_folder.
    Raises UserError for lists without these columns, paths that lead elsewhere, labels that are not in `classes`, files
    that are not there, unless they are skipped, and files that are listed twice.
    """
    where, notes = folder_of_list(find_folder(root, folder), train)
    given = {"train": train, "val": val, "test": test, "classes": classes}
    for setting, name in given.items():
        if name is not None and not os.path.isfile(where / name):
            raise UserError(
                "\n  ".join([f"{where / name}: there is no such file.", *_lists_meant(where, setting, name)])
            )
    names = None if classes is None else _read_class_names(where / classes)
    lists = {part: name for part, name in given.items() if part != "classes" and name is not None}
    ends = f".{suffix.lstrip('.')}" if suffix else ""
    read = _Reading(where, (path_column, label_column), ends, names, follow_links, on_problem == "skip")
    parts = {part: read.files(name) for part, name in lists.items()}
    _refuse_repeated(where, [(name, parts[part]) for part, name in lists.items()])
    return image_data(where, parts, notes, test_fraction, fit, on_problem, cache)


@dataclass(frozen=True)
class _Reading:
    """How lists are read. columns: of paths and labels. names: of classes by label, None: labels are names."""

    where: Path
    columns: tuple[str, str]
    suffix: str
    names: dict[str, str] | None
    follow_links: bool
    skip: bool

    def files(self, name: str) -> LabelledFiles:
        """Return the files of a list with their classes."""
        listing = self.where / name
        table = _read_columns(listing, self.columns, "data.path_column and data.label_column name others")
        paths, labels = (table[column] for column in self.columns)
        if self.suffix:
            paths = [path if path.lower().endswith(self.suffix.lower()) else f"{path}{self.suffix}" for path in paths]
        problems = [_problem_of_path(self.where, path, self.follow_links) for path in paths]
        if any(problems):
            raise UserError(_by_line(f"{listing}: %s of its paths are not used:", paths, problems))
        files = [_in_any_form(self.where / path) for path in paths]
        is_there = [os.path.isfile(file) for file in files]  # false as well where no file can be
        if not (all(is_there) or (self.skip and any(is_there))):
            problems = ["" if there else "is not there" for there in is_there]
            heading = f"{listing}: %s of its {grouped(len(files))} files are not there:"
            raise UserError(_by_line(heading, paths, problems) + meant_by_paths(self.where, name, paths))
        if self.names is None:
            return list(zip(files, labels, strict=True))
        if unknown := sorted(set(labels) - self.names.keys()):
            raise UserError(f"{listing}: labels that data.classes does not name: {first_names(unknown)}")
        return [(file, self.names[label]) for file, label in zip(files, labels, strict=True)]


def _by_line(heading: str, paths: Sequence[str], problems: Sequence[str]) -> str:
    """Return a message: how many paths of a list have problems, and a line for each; an empty problem is none."""
    lines = [
        f"line {line}: {quotable(shortened(path))} {problem}"
        for line, (path, problem) in enumerate(zip(paths, problems, strict=True), 2)
        if problem
    ]
    return "\n  ".join([heading % grouped(len(lines)), *_first(lines)])


def _refuse_repeated(where: Path, lists: Sequence[tuple[str, LabelledFiles]]) -> None:
    """Raise UserError, which says where, for files that are listed twice, also as `a/0.png` and `b/../a/0.png`."""
    places: dict[Path, list[str]] = {}
    folders: dict[Path, Path] = {}
    for name, files in lists:
        for line, (file, label) in enumerate(files, 2):
            folder = folders.get(file.parent) or folders.setdefault(file.parent, real_path(file.parent))
            places.setdefault(folder / file.name, []).append(f"{name} line {line} ({shortened(quotable(label))})")
    twice = [f"{file}: {', '.join(found)}" for file, found in sorted(places.items()) if len(found) > 1]
    if twice:
        raise UserError("\n  ".join([f"{where}: {counted(len(twice), 'file')} listed more than once:", *_first(twice)]))


def folder_of_list(where: Path, name: str) -> tuple[Path, list[str]]:
    """Return the folder that a list is relative to: the one given, or the only folder in it that has the list; a note.

    Raises UserError, with what to type, where the list is in several folders of that one, or in the folder above.
    """
    is_typed_from_here = os.path.isfile(name) and real_path(Path(name)).is_relative_to(real_path(where))
    if os.path.isfile(where / name) or is_typed_from_here:
        return where, []
    inner = [folder for folder in folders_in(where) if os.path.isfile(folder / name)]
    if len(inner) == 1:
        return inner[0], [f"{name} and its images are in {inner[0]}, the only folder in {where} with such a list"]
    ways = [f"it is in {folder}: {as_folder(folder)}" for folder in inner[:3]]
    above = where.resolve().parent
    if os.path.isfile(above / name):
        ways.append(f"it is in {above}: {as_folder(above)}")
        ways.append(f"for paths in it from {where.name} on: {as_folder(where)} {quote(f'data.train=../{name}')}")
    if ways:
        raise UserError("\n  ".join([f"{where / name}: there is no such file.", *ways]))
    return where, []


def _lists_meant(where: Path, setting: str, name: str) -> list[str]:
    """Return what to type for a list that is not in the folder: it is in the current one, or another one is there."""
    if os.path.isfile(name):
        way = quote(f"data.{setting}={os.path.relpath(name, where)}")
        return [f"it is in the current folder, and lists are looked for in data.folder: {way}"]
    there = [file.name for file in lists_in(where)]
    return [f"lists there: {first_names(there)}"] if there else []


def meant_by_paths(where: Path, name: str, paths: Sequence[str]) -> str:
    """Return what to type where the files of a list are all in one folder of the one given, or in the one above it.

    They may lack a suffix, the same for all of them.
    """
    for folder in (where, *folders_in(where), where.resolve().parent):
        for suffix in ("", *SUFFIXES):
            if all(os.path.isfile(folder / f"{path}{suffix}") for path in paths):
                listing = quote(f"data.train={os.path.relpath(where / name, folder)}")
                ends = f" data.suffix={suffix}" if suffix else ""
                return f"\n  all are in {folder}: {as_folder(folder)} {listing}{ends}"
    return ""


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


def _in_any_form(path: Path) -> Path:
    """Return a path as the file is called, where only the form of its letters differs: `é` is one character or two."""
    others = () if str(path).isascii() else (Path(normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((one for one in (path, *others) if os.path.isfile(one)), path)


def _first(lines: list[str]) -> list[str]:
    more = [f"and {grouped(len(lines) - MAX_NAMES)} more"] if len(lines) > MAX_NAMES else []
    return [*lines[:MAX_NAMES], *more]


def _read_class_names(path: Path) -> dict[str, str]:
    table = _read_columns(path, ("id", "class"), "data.classes is a list of classes by number")
    twice = sorted(value for value, times in Counter(table["id"]).items() if times > 1)
    if twice:
        raise UserError(f"{path}: named more than once: {first_names(twice)}")
    return dict(zip(table["id"], table["class"], strict=True))


def _read_columns(path: Path, columns: tuple[str, str], hint: str) -> dict[str, list[str]]:
    """Return columns of a CSV file as text."""
    import pandas  # takes as long to import as a short training takes to run

    try:
        with path.open(encoding="utf-8-sig") as file:
            separator = _separator(file.readline(), columns)
        with warnings.catch_warnings(action="error", category=pandas.errors.ParserWarning):  # of too many fields
            table = pandas.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
            ).rename(columns=str.strip)
    except (OSError, ValueError, pandas.errors.ParserWarning) as error:
        way = "; save it as UTF-8" if isinstance(error, UnicodeError) else ""
        raise UserError(f"{path} cannot be read as CSV: {error}{way}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        found = f"it has {listed(map(str, table))}; {hint}."
        if any(column in table for column in columns):
            raise UserError(f"{path} has no column {listed(missing)}; {found}")
        header = separator.join(columns)
        raise UserError(
            f"{path} has no column {listed(missing)}; {found}\n"
            f"  if that is no header, but the first image, write this line above it: {header}"
        )
    texts: dict[str, list[str]] = {column: table[column].str.strip().tolist() for column in columns}
    empty = [str(line) for line, row in enumerate(zip(*texts.values(), strict=True), 2) if not all(row)]
    if empty:
        raise UserError(f"{path}: without a value in {listed(columns)}: lines {first_names(empty)}")
    return texts


def _separator(header: str, columns: Iterable[str]) -> str:
    """Return what separates the columns of a list: what makes these of its first line, or else what it has most of."""
    for separator in SEPARATORS:
        if {cell.strip(' "\n') for cell in header.split(separator)} >= set(columns):
            return separator
    return max(SEPARATORS, key=header.count)
