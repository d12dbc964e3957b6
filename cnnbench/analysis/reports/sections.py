"""Parts of a page on which several things are side by side: rows on one scale, and a grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cnnbench.analysis.reports.plots import Axis


@dataclass(frozen=True)
class Strip:
    """A row of `Strips`. What lies beyond the scale is an arrow at its edge.

    text: all of it in numbers. dots: values, what each is, and a page that it leads to where that is there. look:
    `marked` for the best, `open` for what may be chance. remark: what else there is to say of it.
    """

    label: str
    text: str
    dots: Sequence[tuple[float, str, Path | None]] = ()
    mean: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    look: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Strips:
    """Values of many things on one scale, a row for each: text stays text, and wraps, at any width.

    heads: of the label, the strip and the text. line: the value at which a line is drawn through all rows.
    """

    kind: ClassVar = "strips"
    title: str
    heads: tuple[str, str, str]
    rows: Sequence[Strip]
    axis: Axis
    line: float | None = None
    note: str = ""
    is_small: bool = False


@dataclass(frozen=True)
class Grid:
    """A number for each pair of two things. cells: shade from 0 to 1, text, small text; None: no such pair.

    A shade below 0 is none. look: `mistakes` where shades are bad, and such a cell is one of correct predictions.
    """

    kind: ClassVar = "grid"
    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[float, str, str] | None]]]
    note: str = ""
    look: str = ""
    is_small: bool = False
