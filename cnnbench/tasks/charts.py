"""How every chart looks, and charts as SVG whose colours are those of the page: light, dark or printed.

Colours are named here and in `page.css`, which has the dark ones as well. The series are those of Okabe and Ito (Color
universal design, 2008), darkened until each is at least 3 to 1 against its ground.
"""

import io
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

P = ParamSpec("P")
R = TypeVar("R")

INK, FAINT, LINE, GROUND = "#1d2329", "#5b6570", "#d9dee3", "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#00805e", "#b4508c", "#a86f00", "#2a8fd0", "#7a6a00", "#6b5bb5")
COLOURS = {
    "ink": INK, "faint": FAINT, "line": LINE, "ground": GROUND,
    **{f"series-{number}": colour for number, colour in enumerate(SERIES, 1)},
}  # fmt: skip
MARKERS = "os^Dv<P>X*hp"  # one per series, so that it is known without its colour
WIDTH = 4.8  # inches of a chart: as wide as a phone at its own size, so that its text stays readable
SHORT = 18  # characters of a name
FONT = "DejaVu Sans"  # that text is measured with; a page shows its own, which is narrower
THEME: dict[str, Any] = {
    "font.family": FONT, "font.size": 8.5, "axes.titlesize": 8.5, "axes.titlelocation": "left", "text.color": INK,
    "axes.edgecolor": LINE, "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelsize": 8,
    "ytick.labelsize": 8, "axes.titlecolor": INK, "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6, "svg.fonttype": "none",
    "svg.hashsalt": "cnnbench",
}  # fmt: skip
_TEXTS: "WeakKeyDictionary[Line2D, Sequence[str]]" = WeakKeyDictionary()


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


def colour(index: int) -> str:
    """Return the colour of a series, again from the first after the last."""
    return SERIES[index % len(SERIES)]


def marker(index: int) -> str:
    """Return the marker of a series, which with its colour is repeated after 24 at the soonest."""
    return MARKERS[index % len(MARKERS)]


def say(line: "Line2D", texts: Sequence[str]) -> None:
    """Set what a page shows under the pointer at each point of a line, or of markers without a line."""
    _TEXTS[line] = texts


def forget(line: "Line2D") -> None:
    """Let a page show nothing of a line under the pointer."""
    _TEXTS.pop(line, None)


def plain(name: str, longest: int = SHORT) -> str:
    """Return a name as one printable line of at most `longest` characters."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def plain_math(text: str) -> str:
    """Return text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


@contextmanager
def any_script() -> Iterator[None]:
    """Draw letters that the font lacks as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@themed
def svg(figure: "Figure") -> str:
    """Return a figure as an `<svg>` element for a page, always the same for the same figure.

    Its text stays text, its colours are variables of the page, and what lines say at their points (see `say`; else
    their values, where they have a label) is shown under the pointer.
    """
    buffer = io.StringIO()
    figure.set_dpi(72)  # the backend's: what is laid out is what is drawn
    engine = figure.get_layout_engine()
    with any_script():
        if engine is not None:  # once, and by texts alone: `savefig` does it twice, which is half of its time
            for axis in figure.axes:
                for artist in (*axis.lines, *axis.patches, *axis.collections):
                    artist.set_in_layout(False)
            engine.execute(figure)
            figure.set_layout_engine(None)
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", facecolor="none", metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(f"'{FONT}'", "system-ui, sans-serif")
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[a-z0-9]+(?:_[0-9]+)+"', "<g", text)  # the same in every figure of the page
    names = {"#000000": "ink"} | {value: name for name, value in COLOURS.items()}
    text = re.sub(
        r"(fill|stroke): (#[0-9a-f]{6})(?=[;\"])",
        lambda found: f"{found[1]}: var(--{names[found[2]]})" if found[2] in names else found[0],
        text,
    )
    hover = [shown for axis in figure.axes if (shown := _hover(figure, axis))["series"]]
    return text.replace("<svg", f'<svg data-hover="{escape(json.dumps(hover))}"', 1) if hover else text


def _hover(figure: "Figure", axis: "Axes") -> dict[str, Any]:
    """Return where an axis is, and its points with what they say; places as shares of the figure, from the top left."""
    to_share = figure.transFigure.inverted()

    def places(points: Any) -> list[list[float]]:
        return [[round(float(x), 4), round(1 - float(y), 4)] for x, y in to_share.transform(points)]

    series = []
    for line in axis.lines:
        label = str(line.get_label())
        if line not in _TEXTS and label.startswith("_"):
            continue
        data: Any = line.get_xydata()
        texts = _TEXTS.get(line) or [f"{axis.get_xlabel()} {x:g}\n{y:.4g}" for x, y in data]
        name = "" if line in _TEXTS else label.replace(r"\$", "$")
        points = zip(places(axis.transData.transform(data)), texts, strict=True)
        finite = [[x, y, text] for (x, y), text in points if math.isfinite(x + y)]
        series.append({"name": name, "points": finite})
    box = places(axis.bbox.corners()[[0, 3]])
    along = all(line.get_linestyle() != "None" for line in axis.lines if line in _TEXTS)
    return {"box": [*box[0], *box[1]], "along": along, "series": series}
