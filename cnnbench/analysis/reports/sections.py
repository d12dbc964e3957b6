"""Charts of a page: curves, rows on one scale, and grids, as plain values that the template draws.

Paths are the values themselves, which a browser scales, and shows under the pointer. So a curve takes no more room than
its numbers, colours are those of the page, and text is as large on a phone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from cnnbench.errors import grouped

LARGE, SMALL = 1e6, 1e-4  # beyond them, all numbers of an axis are written by their powers of ten
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ROOM = 56  # characters of ticks next to each other; the style sheet hides every other one where it is narrow


@dataclass(frozen=True)
class Axis:
    """A scale with a name. low, high: its ends. is_log: equal ratios are equally long. most: ticks, about."""

    name: str
    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False
    most: int = 5

    def at(self, value: float) -> float:
        """Return a value in the units of paths."""
        return math.log10(value) if self.is_log else value

    def place(self, value: float) -> float:
        """Return where a value is, in percent of the length."""
        low, high = self.at(self.low), self.at(self.high)
        return round(100 * (self.at(value) - low) / (high - low), 2)

    @classmethod
    def of_ratios(cls, name: str, low: float, high: float) -> "Axis":
        """Return a logarithmic scale that has these values, and begins and ends at a tick."""
        digits = (1, 2, 5, 10) if high <= 300 * low else (1, 10)
        least, highest = (10.0 ** math.floor(math.log10(value)) for value in (low, high))
        low = max(digit * least for digit in digits if digit * least <= low * (1 + 1e-9))
        return cls(name, low, min(digit * highest for digit in digits if digit * highest >= high), True)

    @property
    def title(self) -> str:
        """Return the name, with the kind of scale where equal distances are no equal differences."""
        return f"{self.name} (log)" if self.is_log and self.name else self.name

    @property
    def along(self) -> list[tuple[float, str, str]]:
        """Return ticks that fit next to each other, and of those that are hidden where it is narrow a class."""
        several = [replace(self, most=most).ticks for most in range(self.most, 1, -1)]
        taken = [(ticks, sum(len(text) + 2 for _, text in ticks)) for ticks in several]
        shown, room = next((one for one in taken if one[1] <= ROOM), taken[-1])
        look = "spare" if room > ROOM / 2 else "scarce" if room > ROOM / 4 else ""
        return [(value, text, look * (place % 2)) for place, (value, text) in enumerate(shown)]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return values, and what is written there."""
        if self.is_log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            several = [digit * 10.0**power for power in range(powers.start - 1, powers.stop) for digit in (1, 2, 5)]
            inside = [value for value in several if self.low <= value <= self.high]
            if len(inside) > 2 * self.most:
                inside = [10.0**power for power in powers[:: math.ceil(len(powers) / (self.most + 2))]]
            if len(inside) > 1:
                is_written = inside[0] >= SMALL and inside[-1] < LARGE
                written = [grouped(value) if value >= 1 else f"{value:g}" for value in inside]
                return list(zip(inside, written if is_written else map(_by_power, inside), strict=True))
        about = (self.high - self.low) / self.most
        power = 10.0 ** math.floor(math.log10(about))
        step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= about / 1.5)
        step = max(step, 1.0) if self.is_whole else step
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [(step * n, grouped(step * n) if step >= 1 else f"{step * n:.{decimals}f}") for n in numbers]


@dataclass(frozen=True)
class Curve:
    """A line, an area or dots of a panel. look: classes of the style sheet. name: under the pointer, if any.

    path: as the functions below return it. key: by which other panels draw it again; again: the key of such a one.
    """

    look: str
    path: str = ""
    name: str = ""
    key: str = ""
    again: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes. guide: where a vertical line is, and what it means. look: `low` or `narrow`.

    pins: numbers at points, x and y, each with what it stands for. words: at places, in percent from the lower left.
    """

    x: Axis
    y: Axis
    curves: Sequence[Curve]
    title: str = ""
    guide: tuple[float, str] | None = None
    pins: Sequence[tuple[float, float, str, str]] = ()
    words: Sequence[tuple[float, float, str]] = ()
    look: str = ""

    @property
    def view(self) -> str:
        """Return what of the units of paths is seen, as `viewBox` has it: from the upper left, y downwards."""
        (left, right), (low, high) = ((axis.at(axis.low), axis.at(axis.high)) for axis in (self.x, self.y))
        return " ".join(f"{number:.8g}" for number in (left, -high, right - left, high - low))

    @property
    def grid(self) -> str:
        """Return the path of the lines at the ticks."""
        left, right = (_short(self.x.at(edge), 7) for edge in (self.x.low, self.x.high))
        return "".join(f"M{left} {_short(self.y.at(value))}H{right}" for value, _ in self.y.ticks)

    @property
    def gutter(self) -> int:
        """Return how many characters the ticks of the vertical axis take."""
        return max((len(text) for _, text in self.y.ticks), default=0)


@dataclass(frozen=True)
class Plot:
    """Panels with one legend: looks, each with what it means. note: how to read it. alt: what it shows, in words.

    columns: panels next to each other where there is room. key: what the numbers of pins stand for.
    """

    kind: ClassVar = "plot"
    title: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    alt: str = ""
    columns: int = 1
    is_small: bool = True
    key: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Strip:
    """A row of `Strips`. What lies beyond the scale is an arrow at its edge.

    text: all of it in numbers. dots: values, what each is, and a page that it leads to where that is there. look:
    `marked` for the best, `open` for what may be chance, `below` for what comes below a rule. remark: what else there
    is to say of it.
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

    heads: of the label, the text. line: the value at which a line is drawn through all rows.
    """

    kind: ClassVar = "strips"
    title: str
    heads: tuple[str, str]
    rows: Sequence[Strip]
    axis: Axis
    line: float | None = None
    note: str = ""
    is_small: bool = False

    @property
    def lines(self) -> list[str]:
        """Return the rows as text."""
        return ["; ".join(filter(None, [f"{row.label}: {row.text or 'no result'}", row.remark])) for row in self.rows]


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


def line(x: Axis, y: Axis, points: Iterable[tuple[float, float]]) -> str:
    """Return the path of a line through points, in the units of both axes; with gaps where a number is missing."""
    parts, is_open = [], False
    for along, up in points:
        is_known = math.isfinite(along) and math.isfinite(up) and not (y.is_log and up <= 0)
        if is_known:
            parts.append(f"{' ' if is_open else 'M'}{_short(x.at(along), 7)} {_short(y.at(up))}")
        is_open = is_known
    return "".join(parts) + "h0" * (len(parts) == 1)


def area(x: Axis, y: Axis, edges: Sequence[tuple[float, float, float]]) -> str:
    """Return the path of what is between two lines: x, lower and upper y of each point."""
    back = [(along, high) for along, _, high in reversed(edges)]
    return line(x, y, [(along, low) for along, low, _ in edges] + back)


def dots(x: Axis, y: Axis, points: Iterable[tuple[float, float]]) -> str:
    """Return the path of dots, which a round end of a line of no length is."""
    return "".join(line(x, y, [point]) for point in points)


def ranges(x: Axis, y: Axis, edges: Iterable[tuple[float, float, float]]) -> str:
    """Return the path of vertical lines: x, lower and upper y of each."""
    return "".join(line(x, y, [(along, low), (along, high)]) for along, low, high in edges if low < high)


def _by_power(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10.0**power)
    return f"{digit}×" * (digit > 1) + "10" + str(power).translate(RAISED)


def _short(value: float, digits: int = 5) -> str:
    text = f"{value:.{digits}g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
