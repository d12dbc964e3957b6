"""The terminal: what was configured, how far the training is, what came out."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, TextIO, get_args

from tqdm import tqdm

from cnnbench.config.run_config import RunConfig
from cnnbench.config.schema import GROUPS
from cnnbench.config.values import TYPED, as_text, flat
from cnnbench.errors import UserError, counted, duration, grouped, listed, one_line, printable, quoted
from cnnbench.registry import AUGMENTATIONS
from cnnbench.store.folder import RunFolder, shown
from cnnbench.training.loop import Progress
from cnnbench.training.plan import Plan
from cnnbench.training.setup import TrainingSetup
from cnnbench.training.terminal import green, is_dumb, linked, opened_in_browser, width

ETA_AFTER_STEPS = 20
ERRORS = ("error_percent", "our_error_percent")  # of published references and ours, where a source has it
LARGE = 1e6  # is shown by its power of ten

ProgressMode = Literal["auto", "bar", "lines", "quiet"]
"""What is printed of a training: a bar, lines, or nothing at all; auto: a bar on a terminal, elsewhere lines."""
_mode: ContextVar[ProgressMode] = ContextVar("_mode", default="auto")


@contextmanager
def showing(mode: ProgressMode) -> Iterator[None]:
    """Set how much is printed, in this thread, within the context. Raises UserError for an unknown mode."""
    if mode not in get_args(ProgressMode):
        raise UserError(f"progress={mode!r}: must be one of {listed(get_args(ProgressMode))}.")
    before = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(before)


def progress_mode() -> ProgressMode:
    """Return what is printed of a training, to be passed on to another process."""
    return _mode.get()


def say(text: str = "") -> None:
    """Print a line at once, also into a file; what the terminal cannot show is escaped.

    Nothing is raised where the reader is gone (`| head`, a closed pager) or the disk is full: no training ends for
    that.
    """
    if _mode.get() != "quiet":
        _print(text, sys.stdout)


def warn(text: str) -> None:
    """Print a line in every mode: where nothing else is printed, to stderr."""
    _print(text, sys.stderr if _mode.get() == "quiet" else sys.stdout)


def announce(plan: Plan, training: TrainingSetup, folder: RunFolder, threads: int, progress: Progress) -> None:
    """Print what is about to be trained; of a job in a sweep, only where."""
    config, data, spec = training.config, training.data, training.data.spec
    if plan.brief:
        say(f"  {folder.shown_path}")
        return
    total, trained = training.parameters["total"], training.parameters["trainable"]
    later = f", all after epoch {config.freeze.epochs}" if config.freeze.epochs else ""
    counts = f"{len(data.train)} train, {len(data.val)} validation, {len(data.test)} test images"
    facts = {
        "network": counted(total, "parameter") + (f", {grouped(trained)} trained{later}" if trained < total else ""),
        "data": f"{counts}; {counted(spec.num_classes, 'class')}; {spec.channels}x{spec.height}x{spec.width}",
        "device": f"{training.device}, {counted(threads, 'thread')}, {config.precision}",
        "folder": folder.shown_path,
    }
    if progress.step:
        facts["resuming"] = f"from step {progress.step} of {training.horizon.num_steps}"
    if config.parent is not None:
        facts["parent"] = shown(Path(folder.record()["parent"]["folder"]))
    header(plan, facts)


def header(plan: Plan, facts: Mapping[str, str]) -> None:
    """Print what is trained, on what, and where each value came from."""
    config, choices, origins = plan.config, plan.choices, plan.origins
    model, data = choices.get("model", config.model.name), choices.get("data", config.data.name)
    say(f"{model} on {data}, seed {config.seed}")
    for name, value in facts.items():
        say(f"  {name:<8}  {value}")
    say()
    values = config.to_dict()
    for fact in ("source", "parent"):  # no setting
        values.pop(fact, None)
    deviating = flat(config.non_default_settings())
    unfamiliar = _prefixes_of_plugins(config)
    rows = []
    for key, value in flat(values).items():
        origin = origins.get(key) or _origin_above(key, origins)
        if origin == TYPED or key in deviating or key.startswith(unfamiliar):
            rows.append((key, as_text(value), origin))
    table(("", "", ""), rows)
    say("  not shown: what is at its default, or cannot change the result; see --cfg job")
    say()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a head; columns of numbers to the right."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    lines = [head, *rows] if any(head) else rows
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    to_right = [all(row[column].replace(" ", "").isdigit() for row in rows) for column in range(len(head))]
    for line in lines:
        cells = (
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(line, widths, to_right, strict=True)
        )
        say(f"  {'  '.join(cells)}".rstrip())


class ProgressDisplay:
    """A line per epoch: a table on a terminal, with a bar below it, and text in a file or a pipe."""

    def __init__(self, epochs: int, num_steps: int, step: int, columns: Sequence[str]) -> None:
        """step: where this process starts. columns: what is shown of the rows: `loss/train`, `accuracy/val`, …"""
        self.epochs, self.num_steps, self.columns = epochs, num_steps, columns
        self.first_step, self.began, self.images = step, time.perf_counter(), 0
        self.announced = False  # that it takes so long
        self.is_table = sys.stdout is not None and sys.stdout.isatty()
        # None: not where there is no terminal; a dumb one would show every state of the bar
        would_be_dumb = sys.stderr is not None and sys.stderr.isatty() and is_dumb()
        has_no_bar = {"auto": True if would_be_dumb else None, "bar": False}.get(_mode.get(), True)
        self.bar: tqdm[Any] = tqdm(
            total=num_steps, initial=step, disable=has_no_bar if sys.stderr else True, leave=False, dynamic_ncols=True,
            smoothing=0.05, bar_format="{desc} |{bar}| {percentage:3.0f}%  {remaining} left",
        )  # fmt: skip
        if self.is_table:
            self._write(self._table_line("epoch", [_heading(column) for column in columns]))

    def step(self, row: Mapping[str, Any], progress: Progress) -> None:
        """Advance by one step."""
        self.images = progress.samples_trained if not self.images else self.images
        if not self.bar.disable:
            loss = next((f"  {_heading(key)} {_number(row[key])}" for key in self.columns if key in row), "")
            text = f"epoch {row['epoch']}/{self.epochs}{loss}  {self._speed(progress)}"
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(row["step"] - self.bar.n)
        elif not self.announced and row["step"] - self.first_step >= ETA_AFTER_STEPS:
            self.announced = True
            say(f"  {self._left(row['step'])} to go, after {ETA_AFTER_STEPS} steps  {self._speed(progress)}")

    def validation(self, row: Mapping[str, Any], progress: Progress, is_best: bool) -> None:
        """Show the metrics of a validation within an epoch."""
        self._line(f"step {row['step']}", row, progress, is_best)

    def epoch(self, row: Mapping[str, Any], progress: Progress, is_best: bool) -> None:
        """Show the metrics of an epoch."""
        width = len(str(self.epochs))
        self._line(f"epoch {row['epoch']:>{width}}/{self.epochs}", row, progress, is_best)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def _line(self, when: str, row: Mapping[str, Any], progress: Progress, is_best: bool) -> None:
        self.announced = True
        if self.is_table:
            cells = [_number(row[column]) if column in row else "" for column in self.columns]
            self._write(
                self._table_line(when.removeprefix("epoch "), cells) + ("  " + green("best") if is_best else "")
            )
            return
        self.announced = True  # each line has the time that is left
        metrics = "  ".join(f"{_heading(column)} {_number(row[column])}" for column in self.columns if column in row)
        left = "" if row["step"] >= self.num_steps else f"{self._left(row['step'])} left"
        pace = ", ".join(filter(None, (self._speed(progress), left)))
        self._write(f"  {when}  {metrics}  {'best' if is_best else '    '}  {pace}")

    def _table_line(self, first: str, cells: Sequence[str]) -> str:
        width = max(len(f"step {self.num_steps}"), len(f"{self.epochs}/{self.epochs}"))
        columns = (f"{cell:>{max(8, len(_heading(column)))}}" for cell, column in zip(cells, self.columns, strict=True))
        return f"  {first:>{width}}  {'  '.join(columns)}".rstrip()

    def _write(self, line: str) -> None:
        with self.bar.external_write_mode():
            say(line)

    def _left(self, step: int) -> str:
        """Return the time to the end, at the pace since this process started, validation included."""
        pace = (time.perf_counter() - self.began) / max(1, step - self.first_step)
        return f"about {duration(pace * (self.num_steps - step))}"

    def _speed(self, progress: Progress) -> str:
        seen = progress.samples_trained - self.images if self.images else 0  # else this process has made no step yet
        elapsed = time.perf_counter() - self.began
        return f"{grouped(seen / elapsed)} images/s" if seen and elapsed else ""


def summary(result: Mapping[str, Any], folder: RunFolder, page: Path | None = None, opens: bool = False) -> None:
    """Print the outcome: metrics, of which checkpoint, how long it took, where it is, and the page, which it opens."""
    say()
    splits = [split for split in ("train", "val", "test") if result.get(split)]
    last = {name: value for name, value in result[splits[-1]].items() if name != "samples"}
    names = [name for name in last if all(name in result[split] for split in splits)]
    columns = [*((name, max(12, len(name) + 2)) for name in names), ("images", 12)]
    say(f"  {'':<10}" + "".join(f"{name:>{wide}}" for name, wide in columns))
    for split in splits:
        values = {name: _number(result[split][name]) for name in names} | {"images": result[split]["samples"]}
        say(f"  {split:<10}" + "".join(f"{values[name]:>{wide}}" for name, wide in columns))
    others = [f"{name} {_number(value)}" for name, value in last.items() if name not in names]
    if others:  # measured at the end only
        say(f"  {'':<10}  {splits[-1]} also: {', '.join(others)}")
    if "test" not in splits:
        way = f"not measured; to measure it: cnnbench evaluate {folder.shown_path}"
        say(f"  {'test':<10}  {way if folder.has_test else 'there are no test images'}")
    _published(result)
    chosen, seconds = result["checkpoint"], result["seconds"]
    speed = f"{grouped(result['images_per_second'])} images/s"
    say()
    say(f"  checkpoint  epoch {chosen['epoch']}, step {chosen['step']}: {chosen['chosen']}")
    spent = f"{duration(seconds['train'])}, {speed}; {duration(seconds['total'])} in all"
    say(f"  trained     {counted(result['epochs'], 'epoch')} in {spent}")
    if result.get("reached"):
        say(f"  reached     {reached(result)}")
    room = width()
    for note in (*result.get("notes", ()), *(remark["text"] for remark in result.get("remarks", ()))):
        first, *others = wrap(note, max(20, room - 14)) if room else [note]
        say("\n".join([f"  note        {first}", *(f"{'':14}{line}" for line in others)]))
    say(f"  run         {folder.shown_path}")
    if page is not None:
        show_page(page, opens)
    elif opens:
        say(f"  note: there is no page to open; cnnbench report {folder.shown_path} writes it")


def show_page(page: Path, opens: bool = False) -> None:
    """Print where a page lies, and open it in the browser where that was asked for."""
    say("  page        " + linked(page))
    if opens and (note := opened_in_browser(page)):
        say(f"  {note}")


def reached(result: Mapping[str, Any]) -> str:
    """Return in which epoch validation reached the goal; empty where there was none."""
    goal = result.get("reached")
    if not goal:
        return ""
    when = "never" if goal["epoch"] is None else f"in epoch {goal['epoch']}"
    return f"{goal['metric']} {goal['value']:g} on validation {when}"


def _published(result: Mapping[str, Any]) -> None:
    """Print published figures next to ours, and where the run deviates from the experiment."""
    references = result.get("references") or ()
    if references:
        say()
    for reference in references:
        ours = "none" if reference["ours"] is None else f"{reference['ours']:.4f}"
        error, own = (f" (error {reference[key]:.2f} %)" if key in reference else "" for key in ERRORS)
        say(f"  published   {reference['metric']}/{reference['split']} {reference['value']:g}{error}; ours {ours}{own}")
        say("; ".join(filter(None, (f"              {reference['source']}", reference["remark"]))))
    if references and result.get("departures"):
        say(f"  deviates    {', '.join(result['departures'])}")


@contextmanager
def tolerating(what: str) -> Iterator[None]:
    """Print that something could not be written, for any reason: no training should be lost for it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        say(f"  note: could not write {what}: {quoted(error)}")


def error(text: object) -> None:
    """Print an error to stderr."""
    _print(f"cnnbench: {text}", sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    if stream is None:  # closed by the shell: `>&-`
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        with suppress(OSError, ValueError):  # what is buffered would fail once more when Python exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _heading(column: str) -> str:
    name, _, split = column.partition("/")
    return name if split == "train" else f"{split} {name}"


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}" if abs(value) < LARGE else f"{value:.3g}"


def _prefixes_of_plugins(config: RunConfig) -> tuple[str, ...]:
    """Return the key prefixes of parts that plugins registered, whose defaults are not generally known."""
    components = {f"augmentation.{part.name}.": AUGMENTATIONS[part.name] for part in config.augmentation}
    for group, registry in GROUPS.items():
        if group != "augmentation":
            components[f"{group}."] = registry[getattr(config, group).name]
    return tuple(prefix for prefix, component in components.items() if component.is_from_plugin)


def _origin_above(key: str, origins: Mapping[str, str]) -> str:
    """Return where a setting came from that was set as part of a mapping, such as `{}`; else it is a default."""
    while "." in key:
        key = key.rpartition(".")[0]
        if key in origins:
            return origins[key]
    return "default"
