"""Photographs that are listed in CSV files."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from shlex import quote
from typing import Annotated

from pydantic import Field

from cnnbench.data.folders import find_folder
from cnnbench.data.image_files import (
    MAX_NAMES,
    Cache,
    Fit,
    Folder,
    LabelledFiles,
    OnProblem,
    first_names,
    image_data,
    real_path,
)
from cnnbench.data.images import ImageData
from cnnbench.data.layout import as_folder, folders_in
from cnnbench.data.split import TestFraction
from cnnbench.errors import UserError, grouped, listed, quotable, shortened
from cnnbench.registry import DATASETS


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
