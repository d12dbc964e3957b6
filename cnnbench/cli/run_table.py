"""Runs as a table: in what they differ, how they stand, what came out; as many columns as a terminal has room for."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from cnnbench.analysis.reports.columns import GROUPS, Configuration, distinguishing_keys, with_overrides_applied
from cnnbench.config.run_config import has_no_effect_on_result
from cnnbench.errors import one_line, sized
from cnnbench.store.folder import LABELS
from cnnbench.store.matching import KeyNames, Order, as_shown, keys_that_differ
from cnnbench.store.query import PRINCIPAL, RunSummary
from cnnbench.store.tables import csv_of_rows

NOT_COMPARED = (*LABELS, "references", "source", "parent")
ASKED, STATUS, FIRST, PROGRESS, CHOSEN, SECOND, SIZE, SINCE, OTHER = range(9)  # how soon a column is shown
GAP = "  "
MANY = 2000  # runs; the sizes of more are counted where they are asked for: that looks at some 20 files each
LEAST = 45  # characters next to the words that name the runs, however long these are


@dataclass(frozen=True)
class Column:
    """A heading, and a text for each run. rank: where room is short, a column of a lower one is shown rather."""

    heading: str
    cells: Sequence[str]
    rank: int
    to_right: bool = False

    @property
    def is_telling(self) -> bool:
        """Tell whether it shows what a user chose, and runs differ in."""
        return self.rank == CHOSEN

    @cached_property
    def width(self) -> int:
        """Return how many characters it takes."""
        return max(map(len, (self.heading, *self.cells)))

    def lines(self) -> list[str]:
        """Return the heading and the cells, all of the same width."""
        return [f"{text:{'>' if self.to_right else '<'}{self.width}}" for text in (self.heading, *self.cells)]


def table(
    runs: Sequence[RunSummary],
    words: Callable[[], Mapping[Path, str]],
    outputs: Path,
    width: int | None = None,
    order: Order | None = None,
) -> list[str]:
    """Return runs as lines under a head, and below them why some failed or cannot be read.

    words: returns what names each run in a command, where its path is too long. width: of the terminal; None: nothing
    is shortened or left out. order: what they are ordered by, which is shown.
    """
    if not runs:
        return []
    columns = _columns(runs, width, order)
    named = Column("run", [run.path.relative_to(outputs).as_posix() for run in runs], ASKED)
    left_out: list[str] = []
    if width is not None and _width([*columns, named]) > width:
        names = words()
        named = Column("run", [names[run.path] for run in runs], ASKED)
        fitting = _fitting(columns, max(width - _width([named]), LEAST))
        left_out = [column.heading for column in columns if column.is_telling and column not in fitting]
        columns = [column for column in columns if column in fitting]
    rows = zip(*(column.lines() for column in (*columns, named)), strict=True)
    lines = [f"  {GAP.join(row)}".rstrip() for row in rows]
    for name, run in zip(named.cells, runs, strict=True):
        why = _in_a_line(run.error)
        if run.problem:  # names the file, and says in the end what is wrong with it
            lines.append(cut(f"  {why}", width))
        elif why:
            lines.append(begun(f"  {name}: {why}", width))
    if left_out:
        lines.append(begun(f"  no room for {', '.join(left_out)}; --csv has everything", width))
    return lines


def shows_sizes(runs: Sequence[RunSummary], order: Order | None) -> bool:
    """Tell whether the table has the sizes of these runs."""
    return len(runs) <= MANY or (order is not None and order.name == "size")


def _columns(runs: Sequence[RunSummary], width: int | None, order: Order | None) -> list[Column]:
    """Return the columns that are not empty, in the order of their display."""
    longest = None if width is None else max(16, width // 5)

    def column(heading: str, rank: int, read: Callable[[RunSummary], str], to_right: bool = False) -> Column:
        return Column(heading, [cut(_in_a_line(read(run)), longest) for run in runs], rank, to_right)

    names, ranks = KeyNames(runs), chain((FIRST, SECOND), repeat(OTHER))
    columns = [
        column("name", CHOSEN, _name),
        *(
            column(names.short(key), CHOSEN, partial(_short_setting, key))
            for key in differing_keys(_configurations(runs))
        ),
        column("tags", CHOSEN, lambda run: ",".join(run.labels.get("tags") or ())),
        column("status", STATUS, lambda run: run.status),
        column("epoch", PROGRESS, _progress, to_right=True),
        *(
            column(name, rank, partial(_measured, name), to_right=True)
            for name, rank in zip(_metrics(runs), ranks, strict=False)
        ),
        column("since", SINCE, lambda run: _minute(run.record.get("ended") or run.record.get("started"))),
    ]
    if shows_sizes(runs, order):
        columns.append(column("size", SIZE, lambda run: sized(run.size), to_right=True))
    if order is not None and order.name not in [one.heading for one in columns]:
        columns.append(column(order.name, ASKED, lambda run: _ordered_by(order.read(run))))
    asked = "" if order is None else order.name
    return [replace(one, rank=ASKED) if one.heading == asked else one for one in columns if any(one.cells)]


def _fitting(columns: Sequence[Column], room: int) -> list[Column]:
    """Return the columns that there is room for, beginning with how a run stands and its first metric.

    Then comes what tells most of the runs apart, and each time most of those that look alike so far.
    """
    fitting = _added([], [column for column in columns if column.rank < PROGRESS], room)
    shown: list[Column] = []
    telling = [column for column in columns if column.is_telling and column not in fitting]
    while telling := [column for column in telling if _width([*fitting, *shown, column]) <= room]:
        best = max(telling, key=lambda column: _distinct([*shown, column]))
        if _distinct([*shown, best]) == _distinct(shown):
            break
        shown.append(best)
        telling.remove(best)
    others = [column for column in columns if column not in (*fitting, *shown)]
    return _added([*fitting, *shown], sorted(others, key=lambda column: column.rank), room)


def _added(fitting: list[Column], columns: Sequence[Column], room: int) -> list[Column]:
    for column in columns:
        fitting += [column] if _width([*fitting, column]) <= room else []
    return fitting


def _distinct(columns: Sequence[Column]) -> int:
    """Return how many different rows the columns show."""
    return len(set(zip(*(column.cells for column in columns), strict=True)))


def _configurations(runs: Sequence[RunSummary]) -> list[Configuration]:
    """Return the settings of the runs that can be read, but for those that are newer than some of the runs.

    A run of before lacks them, and was trained as their defaults say.
    """
    readable = [run for run in runs if not run.problem]
    applied = with_overrides_applied([run.settings for run in readable])
    differs = keys_that_differ(applied)
    configurations = [Configuration.of(*one) for one in zip(applied, (run.record for run in readable), strict=True)]
    typed = {key for one in configurations for key in one.typed}
    kept = [key for key in differs if key.partition(".")[0] not in NOT_COMPARED and (differs[key] or key in typed)]
    return [
        replace(one, settings={key: one.settings[key] for key in kept if key in one.settings}) for one in configurations
    ]


def differing_keys(configurations: Sequence[Configuration]) -> list[str]:
    """Return the groups and settings that tell runs apart, those that someone typed first, and `seed` after them.

    Not what follows from others, as a preset brings it, nor what changes no result.
    """
    typed = {key for one in configurations for key in one.typed}
    keys = [key for key in distinguishing_keys(configurations) if not has_no_effect_on_result(key)]
    return sorted(keys, key=lambda key: (key not in GROUPS, key not in typed, key == "seed"))


def as_csv(runs: Sequence[RunSummary]) -> str:
    """Return a row for each run: how it stands, every setting in which runs differ, every metric.

    No text is one that a spreadsheet would execute.
    """
    configurations = _configurations(runs)
    keys = dict.fromkeys([*GROUPS, *(key for one in configurations for key in one.settings)])
    differing = [key for key in keys if len({one.text(key) for one in configurations}) > 1]
    measured = dict.fromkeys(name for run in runs for name in run.metrics if "/" in name)
    rows = [
        {
            "path": str(run.path),
            "status": run.status,
            "error": run.error,
            "started": run.record.get("started"),
            "ended": run.record.get("ended"),
            "epoch": None if run.problem else run.epochs_done,
            "bytes": run.size,
            **{label: run.labels.get(label) for label in ("name", "notes")},
            "tags": ",".join(run.labels.get("tags") or ()),
            **{key: _setting(key, run) for key in differing},
            **{name: run.metrics.get(name) for name in measured},
        }
        for run in runs
    ]
    return csv_of_rows([list(rows[0]), *(list(row.values()) for row in rows)]) if rows else ""


def as_plain(runs: Sequence[RunSummary], words: Mapping[Path, str]) -> list[dict[str, Any]]:
    """Return what the table shows as plain values, settings by their whole keys. words: what names each run."""
    differing = differing_keys(_configurations(runs))
    return [
        {
            "run": words[run.path],
            "path": str(run.path),
            "status": run.status,
            "problem": run.problem or None,
            "error": run.error or None,
            "started": run.record.get("started"),
            "ended": run.record.get("ended"),
            "epoch": None if run.problem else run.epochs_done,
            "epochs": run.settings.get("epochs"),
            "command": run.record.get("command"),
            "name": run.labels.get("name"),
            "notes": run.labels.get("notes"),
            "tags": run.labels.get("tags") or [],
            "settings": {key: run.values[key] for key in differing if key in run.values},
            "test": run.test_metrics,
            "bytes": run.size,
        }
        for run in runs
    ]


def in_common(runs: Sequence[RunSummary]) -> str:
    """Return the model and the data of runs that have the same, as `lenet on digits`; empty for others."""
    trained = {(run.values.get("model"), run.values.get("data")) for run in runs}
    model, data = next(iter(trained)) if len(trained) == 1 else (None, None)
    return f"{model} on {data}" if model and data else ""


def cut(text: str, longest: int | None) -> str:
    """Return a text that takes no more characters than that: what is in its middle goes. None: all of it."""
    if longest is None or len(text) <= longest:
        return text
    behind = (longest - 1) // 2
    return f"{text[: longest - 1 - behind]}…{text[len(text) - behind :]}"


def begun(text: str, longest: int | None) -> str:
    """Return a text that takes no more characters than that: what is at its end goes. None: all of it."""
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def _width(columns: Sequence[Column]) -> int:
    return sum(len(GAP) + column.width for column in columns)


def _metrics(runs: Sequence[RunSummary]) -> list[str]:
    """Return the names of test metrics: first what all choose the best epoch by, or else what tells most."""
    watched = dict.fromkeys(name for run in runs for name, _ in run.result.get("watched", ())[:1])
    measured = [name for run in runs for name in run.test_metrics]
    telling = [*watched, *PRINCIPAL] if len(watched) == 1 else [*PRINCIPAL, *watched]
    return [name for name in dict.fromkeys([*telling, *measured]) if name in measured]


def _setting(key: str, run: RunSummary) -> str:
    return as_shown(run.values[key]) if key in run.values else ""


def _short_setting(key: str, run: RunSummary) -> str:
    """Return a setting as it would be typed, numbers as short as they can be: 0.5, 0, 1e-05."""
    value = run.values.get(key)
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else _setting(key, run)


def _name(run: RunSummary) -> str:
    """Return what a run is called, and whether that came later: a sweep gives its name to runs that it finds."""
    name = run.labels.get("name") or ""
    return f"{name} (later)" if name and name != run.settings.get("name") else name


def _measured(metric: str, run: RunSummary) -> str:
    value = run.test_metrics.get(metric)
    return "" if value is None else f"{value:.4f}"


def _progress(run: RunSummary) -> str:
    """Return how far a run came that has not its result; empty for others."""
    return "" if run.is_finished or run.problem else f"{run.epochs_done}/{run.settings.get('epochs')}"


def _minute(time: Any) -> str:
    return str(time or "")[:16].replace("T", " ")


def _ordered_by(value: Any) -> str:
    """Return a value that no other column shows: a metric of another split, a time, a setting."""
    if isinstance(value, float):
        return f"{value:.4f}"
    is_time = isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value)
    return "" if value is None else _minute(value) if is_time else as_shown(value)


def _in_a_line(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text:  # as most cells of thousands of runs
        return text
    return one_line(" ".join(text.split()))
