"""Where `--out` writes: in a folder that is free, and can be written."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import unescape
from itertools import count
from pathlib import Path

from cnnbench.errors import UserError


@contextmanager
def writing(folder: Path, names: Iterable[str] = (), about: str = "") -> Iterator[None]:
    """Turn an error in writing to a folder into a UserError that names the option. names, about: see `check_free`."""
    check_free(folder, names, about)
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}; --out FOLDER names another place."
        ) from error


def check_free(folder: Path, names: Iterable[str], about: str = "") -> None:
    """Raise UserError where files that --out would write are there, unless next to a page `about` the same."""
    if folder.is_file():
        raise UserError(f"--out {folder}: is a file; give a folder, as --out {folder.stem}_page")
    there = [name for name in names if os.path.lexists(folder / name)]
    page, mark = folder / "report.html", f'<meta name="cnnbench" content="{about}">'
    if there and not (about and page.is_file() and mark in unescape(page.read_text("utf-8", "replace")[:2000])):
        begin = folder if folder.name.strip(".") else folder.resolve()
        free = next(name for n in count(2) if not os.path.lexists(name := f"{begin}_{n}"))
        raise UserError(
            f"--out {folder}: has {', '.join(there[:3])} of something else; give a free one, as --out {free}"
        )
