"""How figures in files and TensorBoard look: the charts of pages are those of `analysis/reports/sections.py`.

The series are those of Okabe and Ito (Color universal design, 2008), darkened until each is at least 3 to 1 against
white; `page.css` has the same, and those of a dark page.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

INK, FAINT, LINE = "#1d2329", "#5b6570", "#d9dee3"
SERIES = ("#0072b2", "#d55e00", "#00805e", "#b4508c", "#a86f00", "#2a8fd0", "#7a6a00", "#6b5bb5")
DISTINCT = (*SERIES[:5], "#16a0c0", INK, SERIES[7], "#8a9099", "#b80c2c")  # of many dots side by side
MARKERS = "os^Dv<P>X*hp"  # each is known without its colour, and with it repeated after 24 at the soonest
WIDTH = 4.8  # inches of a chart: as wide as a phone at its own size, so that its text stays readable
SHORT = 18  # characters of a name
THEME: dict[str, Any] = {
    "font.size": 8.5, "axes.titlesize": 8.5, "axes.titlelocation": "left", "text.color": INK,
    "axes.edgecolor": LINE, "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelsize": 8,
    "ytick.labelsize": 8, "axes.titlecolor": INK, "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6,
}  # fmt: skip


def themed(draw: Callable[P, R]) -> Callable[P, R]:
    """Return a function that draws in the look of all charts."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        from cycler import cycler
        from matplotlib import rc_context

        theme: Any = {**THEME, "axes.prop_cycle": cycler(color=SERIES)}
        with rc_context(theme):
            return draw(*args, **kwargs)

    return drawn


@themed
def chart(width: float = WIDTH, height: float = 2.9, **subplots: Any) -> "tuple[Figure, Any]":
    """Return a figure and its axes. width, height: in inches. subplots: as matplotlib's `Figure.subplots` has them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**subplots)


def plain(name: str, longest: int = SHORT) -> str:
    """Return a name as one printable line of at most `longest` characters."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


@contextmanager
def any_script() -> Iterator[None]:
    """Draw letters that the font lacks as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
