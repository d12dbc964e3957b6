"""Photographs named in lists: CSV files with a column of paths and one of labels."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cnnbench.data.folders import located
from cnnbench.data.images import ImageData
from cnnbench.data.photographs import Cache, Fit, Folder, OnProblem, Opening, TestFraction, image_data, some
from cnnbench.errors import UserError, listed
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
    cache: Cache = True,
) -> ImageData:
    """Photographs listed in CSV files; their paths, and those of the lists, are relative to `folder`.

    train, val, test: the lists; where there is no `test`, `test_fraction` of every class of `train` is put aside.
    classes: a list of the columns id and class, where labels are numbers. Other settings as in image_folder.
    Raises UserError for lists without these columns, labels that are not in `classes`, files that are not there,
    and one that is listed twice.
    """
    where = located(root, folder)
    names = None if classes is None else _names(where / classes)
    lists = {part: name for part, name in (("train", train), ("val", val), ("test", test)) if name is not None}
    parts = {part: _read(where, name, path_column, label_column, names) for part, name in lists.items()}
    times = Counter(path for files in parts.values() for path, _ in files)
    twice = sorted(str(path) for path, number in times.items() if number > 1)
    if twice:
        raise UserError(f"{where}: listed more than once: {some(twice)}")
    return image_data(where, parts, (), Opening(fit, cache, on_problem, test_fraction))


def _read(
    where: Path, name: str, path_column: str, label_column: str, names: dict[str, str] | None
) -> list[tuple[Path, str]]:
    table = _table(where / name, (path_column, label_column), "data.path_column and data.label_column name others")
    found = [(where / path, label) for path, label in zip(table[path_column], table[label_column], strict=True)]
    lacking = [str(path) for path, _ in found if not path.is_file()]
    if lacking:
        raise UserError(f"{where / name}: {len(lacking)} of its files are not there: {some(lacking)}")
    if names is None:
        return found
    unknown = sorted({label for _, label in found} - names.keys())
    if unknown:
        raise UserError(f"{where / name}: labels that data.classes does not name: {some(unknown)}")
    return [(path, names[label]) for path, label in found]


def _names(path: Path) -> dict[str, str]:
    table = _table(path, ("id", "class"), "data.classes is a list of classes by number")
    twice = sorted(number for number, times in Counter(table["id"]).items() if times > 1)
    if twice:
        raise UserError(f"{path}: named more than once: {some(twice)}")
    return dict(zip(table["id"], table["class"], strict=True))


def _table(path: Path, columns: tuple[str, str], hint: str) -> dict[str, list[str]]:
    """Return columns of a CSV file as text."""
    import pandas  # as long to import as a short training

    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"{path} has no column {listed(missing)}; it has {listed(map(str, table))}; {hint}.")
    empty = [
        str(row + 2) for row in range(len(table)) if not all(table[column].iloc[row].strip() for column in columns)
    ]
    if empty:
        raise UserError(f"{path}: without a value in {listed(columns)}: lines {some(empty)}")
    return {column: table[column].str.strip().tolist() for column in columns}
