"""Parts of a page on which configurations are side by side: rows on one scale, and a grid of two settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Strip:
    """A row of `Strips`. Places are shares of its width in percent; what lies outside is drawn at its edge.

    text: all of it in numbers. dots: places, what each is, and a page that it leads to where that is there. interval:
    two places. look: `marked` for the best, `open` for what may be chance. remark: what else there is to say of it.
    """

    label: str
    text: str
    dots: Sequence[tuple[float, str, Path | None]] = ()
    mean: float | None = None
    interval: tuple[float, float] | None = None
    look: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Strips:
    """Values of many configurations on one scale, a row for each: text stays text, and wraps, at any width.

    heads: of the label, the strip and the text. ticks: places and what is written there. line: where a line is drawn
    through all rows.
    """

    kind: ClassVar = "strips"
    title: str
    heads: tuple[str, str, str]
    rows: Sequence[Strip]
    ticks: Sequence[tuple[float, str]]
    line: float | None = None
    note: str = ""

    @property
    def lines(self) -> list[str]:
        """Return the rows as text."""
        return ["; ".join(filter(None, [f"{row.label}: {row.text or 'no result'}", row.remark])) for row in self.rows]


@dataclass(frozen=True)
class Grid:
    """A number for each pair of two settings. cells: shade from 0 to 1, text, small text; None: no such pair."""

    kind: ClassVar = "grid"
    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[float, str, str] | None]]]
    note: str = ""
