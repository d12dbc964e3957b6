"""A self-contained page: sections of tables, figures and text as one HTML file, as Markdown, and for the terminal."""

import base64
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from textwrap import wrap
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, Template

from cnnbench.analysis.reports.sections import Grid, Plot, Strips
from cnnbench.errors import grouped, one_line
from cnnbench.store.files import make_folder, write_atomically
from cnnbench.store.tables import csv_of_frame

LARGE = 1e9  # is shown by its power of ten


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by any of its columns.

    marked: row to highlight. note: how to read it. is_brief: short enough for a terminal. decimals: of columns, if
    not four. pages: of each row, names and files that HTML links to, where they are there. is_folded: shown when it is
    opened.
    """

    kind: ClassVar = "table"
    title: str
    content: pd.DataFrame
    marked: int | None = None
    note: str = ""
    is_brief: bool = False
    decimals: Mapping[str, int] = field(default_factory=dict)
    pages: Sequence[Mapping[str, Path]] = ()
    is_folded: bool = False


@dataclass(frozen=True)
class Lines:
    """A list. leads: what comes before the first colon of a line is set in bold. is_small: half as wide as the page."""

    kind: ClassVar = "lines"
    title: str
    lines: Sequence[str]
    leads: bool = False
    is_small: bool = False


@dataclass(frozen=True)
class Picture:
    """An image as the bytes of a WebP file. is_small: two of them fit side by side. is_chart: ink on a white ground."""

    kind: ClassVar = "picture"
    title: str
    content: bytes
    is_small: bool = True
    is_chart: bool = False


@dataclass(frozen=True)
class Thumbnail:
    """A small image as the bytes of a WebP file, with lines under it."""

    content: bytes
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Small images in groups, each group under a line of its own."""

    kind: ClassVar = "gallery"
    title: str
    groups: Sequence[tuple[str, Sequence[Thumbnail]]]
    note: str = ""
    is_small: bool = False


@dataclass(frozen=True)
class Facts:
    """Facts by their names, and some images."""

    kind: ClassVar = "facts"
    is_small: ClassVar = True
    title: str
    facts: Mapping[str, str]
    images: Sequence[Thumbnail] = ()


@dataclass(frozen=True)
class Folded:
    """A preformatted text, folded until it is opened."""

    kind: ClassVar = "folded"
    title: str
    text: str


Section = Table | Lines | Plot | Picture | Gallery | Facts | Folded | Strips | Grid


@dataclass(frozen=True)
class Page:
    """A report: a title, the outcome in a sentence, sections, a table for programs (`report.csv`), one for LaTeX.

    reloads_every: seconds after which a browser loads it again; 0: never. command: in small type, what was typed.
    about: what tells a page that may be written again from that of something else, in a folder of the user's.
    """

    title: str
    summary: str
    sections: Sequence[Section]
    data: pd.DataFrame | None = None
    latex: str = ""
    reloads_every: int = 0
    command: str = ""
    about: str = ""

    def html(self, folder: Path) -> str:
        """Return the page as HTML; all text is escaped. folder: where it will be, for links to other pages."""
        return _template().render(
            title=self.title, summary=self.summary, sections=self.sections, cells=_cells, image=_image,
            reloads_every=self.reloads_every, command=self.command, about=self.about,
            address=lambda page: quote(Path(os.path.relpath(page, folder)).as_posix()),
        )  # fmt: skip

    def markdown(self) -> str:
        """Return summary, tables and lists as Markdown."""
        lines = [
            f"# {_markdown(self.title)}",
            "",
            _markdown(self.summary),
            *(["", _markdown(self.command)] * bool(self.command)),
        ]
        for section in self.sections:
            if isinstance(section, Table):
                lines += ["", f"## {_markdown(section.title)}", "", *_markdown_table(section)]
            elif isinstance(section, Lines | Strips):
                lines += ["", f"## {_markdown(section.title)}", "", *(f"- {_markdown(line)}" for line in section.lines)]
            elif isinstance(section, Facts):
                facts = (f"- {name}: {_markdown(fact)}" for name, fact in section.facts.items())
                lines += ["", f"## {_markdown(section.title)}", "", *facts]
            if isinstance(section, Table | Strips) and section.note:
                lines += ["", _markdown(section.note)]
        return "\n".join(lines) + "\n"

    def terminal(self, width: int | None = None) -> list[str]:
        """Return summary, brief tables and lists, line by line. width: of a terminal; sentences do not exceed it."""
        lines = _sentence(self.summary, "  ", width)
        for section in self.sections:
            if isinstance(section, Table) and section.is_brief:
                lines += ["", *_text_table(section)]
            elif isinstance(section, Lines | Strips):
                lines += ["", f"  {section.title}:"]
                lines += [part for line in section.lines for part in _sentence(line, "    ", width)]
        return lines

    def write(self, folder: Path) -> Path:
        """Write `report.html`, `report.md`, and `report.csv` and `report.tex` if there are any; return the first."""
        make_folder(folder)
        if self.data is not None:
            write_atomically(folder / "report.csv", csv_of_frame(self.data))
        if self.latex:
            write_atomically(folder / "report.tex", self.latex.encode())
        write_atomically(folder / "report.md", self.markdown().encode())
        write_atomically(folder / "report.html", self.html(folder).encode())
        return folder / "report.html"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    markup, style, script = (
        (files(__package__) / f"page.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "css", "js")
    )
    return environment.from_string(markup, {"style": style, "script": script})


def _image(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _markdown_table(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    head, *rows = [[_markdown(cell) for cell in row] for row in _texts(table)]
    return [line(head), line(["---"] * len(head)), *map(line, rows)]


def _markdown(text: str) -> str:
    """Return text that is nothing but text in Markdown: no code, no link, no picture, no HTML, no end of a cell."""
    return re.sub(r"[\\`*\[<|]", r"\\\g<0>", one_line(text))


def _sentence(text: str, indent: str, width: int | None) -> list[str]:
    line = f"{indent}{one_line(text)}"
    if width is None:
        return [line]
    return wrap(line, width, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False)


def _text_table(table: Table) -> list[str]:
    cells = [[one_line(cell)[:36] for cell in row] for row in _texts(table)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]


def _texts(table: Table) -> list[list[str]]:
    """Return the cells of a table as text, its head first."""
    names = [str(name) for name in table.content]
    rows = table.content.itertuples(index=False)
    return [
        names,
        *([_shown(value, table.decimals.get(name, 4)) for name, value in zip(names, row, strict=True)] for row in rows),
    ]


def _cells(table: Table) -> dict[str, Any]:
    """Return columns and rows of a table for the template: what is shown, and what is sorted by."""
    content = table.content
    pages = [{name: page for name, page in row.items() if page.is_file()} for row in table.pages]
    is_text = {name: not pd.api.types.is_numeric_dtype(content[name]) for name in content}
    return {
        "pages": pages if any(pages) else [],
        "columns": [{"name": name, "text": is_text[name]} for name in content],
        "rows": [
            [
                {"text": is_text[name], "shown": text, "value": f"{value:.7g}" if text and not is_text[name] else ""}
                for name, value, text in zip(content, row, texts, strict=True)
            ]
            for row, texts in zip(content.itertuples(index=False), _texts(table)[1:], strict=True)
        ],
    }


def _shown(value: Any, decimals: int = 4) -> str:
    """Return a value of a table as text: integers grouped, NaN empty, other numbers with a fixed number of decimals."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | np.integer):
        return grouped(int(value))
    if math.isnan(value):
        return ""
    if abs(value) >= LARGE:
        return f"{value:.3g}"
    return f"{value:.{decimals}f}" if abs(value) < 100 or value % 1 else grouped(value)
