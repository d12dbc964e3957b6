"""What is said on the terminal: what was chosen, how far it is, what came out."""

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cnnbench.config.compose import TYPED
from cnnbench.config.schema import RunConfig
from cnnbench.config.values import flat
from cnnbench.errors import grouped
from cnnbench.training.loop import Progress

ETA_AFTER_STEPS = 20


def say(text: str = "") -> None:
    """Print a line at once, also into a file."""
    print(text, flush=True)


def header(config: RunConfig, choices: Mapping[str, str], origins: Mapping[str, str], facts: Mapping[str, str]) -> None:
    """Print what is trained, on what, and where each value came from."""
    model, data = choices.get("model", config.model.name), choices.get("data", config.data.name)
    say(f"{model} on {data}, seed {config.seed}")
    for name, value in facts.items():
        say(f"  {name:<14} {value}")
    say()
    values = config.to_dict()
    for fact in ("source", "parent"):  # no setting
        values.pop(fact, None)
    telling = flat(config.non_default_settings())
    rows = []
    for key, value in flat(values).items():
        origin = origins.get(key) or _origin_above(key, origins)
        if origin == TYPED or key in telling:
            rows.append((key, _shown(value), origin))
    table(("", "", ""), rows)
    say("  the rest is off, or cannot change the result; --cfg job shows it")
    say()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a head; columns of numbers to the right."""
    lines = [head, *rows] if any(head) else list(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    to_right = [all(row[column].replace(" ", "").isdigit() for row in rows) for column in range(len(head))]
    for line in lines:
        cells = (
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(line, widths, to_right, strict=True)
        )
        say(f"  {'  '.join(cells)}".rstrip())


def duration(seconds: float) -> str:
    """Return a duration as people say it: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class ProgressDisplay:
    """A bar on a terminal; elsewhere a line an epoch."""

    def __init__(self, config: RunConfig, num_steps: int, step: int, metrics: Collection[str]) -> None:
        """metrics: those of validation that are told after an epoch; all of them are in the rows."""
        self.config, self.num_steps, self.metrics = config, num_steps, metrics
        self.first_step, self.began, self.images = step, time.perf_counter(), 0
        self.announced = False
        self.val: str = ""
        self.bar: tqdm[Any] = tqdm(
            total=num_steps, initial=step, unit="step", disable=None, leave=False, dynamic_ncols=True, smoothing=0.05,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix} {remaining} left",
        )  # fmt: skip

    def step(self, row: Mapping[str, Any], progress: Progress) -> None:
        """Move on by one step."""
        self.images = progress.samples_trained if not self.images else self.images
        if not self.bar.disable:
            self.bar.set_description_str(f"epoch {row['epoch']}/{self.config.epochs}", refresh=False)
            self.bar.set_postfix_str(f"{_metrics(row, 'train')} {self.val}{self._speed(progress)}", refresh=False)
            self.bar.update(row["step"] - self.bar.n)
        elif not self.announced and row["step"] - self.first_step >= ETA_AFTER_STEPS:
            self.announced = True
            say(f"  {self._left(row['step'])} to go, after {ETA_AFTER_STEPS} steps{self._speed(progress)}")

    def validation(self, row: Mapping[str, Any], progress: Progress, is_best: bool) -> None:
        """Say what a validation in the midst of an epoch gave."""
        self.val = f"| val {_metrics(row, 'val')} "
        if self.bar.disable:
            say(f"  step {row['step']}/{self.num_steps}  {self.val}{'*' if is_best else ' '}{self._speed(progress)}")

    def epoch(self, row: Mapping[str, Any], progress: Progress, is_best: bool) -> None:
        """Say how an epoch ended."""
        shown = {key: value for key, value in row.items() if key.partition("/")[0] in self.metrics}
        self.val = f"| val {_metrics(shown, 'val')} " if _metrics(shown, "val") else ""
        if self.bar.disable:
            width = len(str(self.config.epochs))
            ends = "" if row["step"] >= self.num_steps else f", {self._left(row['step'])} left"
            best = "*" if is_best else " "
            say(
                f"  epoch {row['epoch']:>{width}}/{self.config.epochs}  {_metrics(row, 'train')} "
                f"{self.val}{best}{self._speed(progress)}{ends}"
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.close()

    def _left(self, step: int) -> str:
        """Return the time to the end, at the pace since this process began, validation included."""
        pace = (time.perf_counter() - self.began) / max(1, step - self.first_step)
        return f"about {duration(pace * (self.num_steps - step))}"

    def _speed(self, progress: Progress) -> str:
        seen = progress.samples_trained - self.images
        elapsed = time.perf_counter() - self.began
        return f" {grouped(seen / elapsed)} images/s" if seen and elapsed else ""


def summary(result: Mapping[str, Any], path: Path, note: str = "", page: Path | None = None) -> None:
    """Print what came out: metrics, on which checkpoint, how long it took, where it is, and the page to open."""
    say(note)
    splits = [split for split in ("train", "val", "test") if result.get(split)]
    names = [name for name in result["test"] if name != "samples"]
    say("  " + f"{'':<10}" + "".join(f"{name:>12}" for name in names) + f"{'images':>12}")
    for split in splits:
        values = result[split]
        cells = "".join(f"{values[name]:>12.4f}" if values.get(name) is not None else f"{'':>12}" for name in names)
        say(f"  {split:<10}{cells}{values['samples']:>12}")
    _published(result)
    chosen, seconds = result["checkpoint"], result["seconds"]
    speed = f"{grouped(result['images_per_second'])} images/s"
    say()
    say(f"  checkpoint  epoch {chosen['epoch']}, step {chosen['step']}: {chosen['chosen']}")
    spent = f"{duration(seconds['train'])}, {speed}; {duration(seconds['total'])} in all"
    epochs = "1 epoch" if result["epochs"] == 1 else f"{result['epochs']} epochs"
    say(f"  trained     {epochs} in {spent}")
    if result.get("reached"):
        say(f"  reached     {reached(result)}")
    for remark in result.get("notes", ()):
        say(f"  note        {remark}")
    say(f"  run         {shorter(path)}")
    if page is not None:
        say(f"  page        {shorter(page)}")


def reached(result: Mapping[str, Any]) -> str:
    """Say in which epoch validation came to what was asked for; nothing where nothing was."""
    goal = result.get("reached")
    if not goal:
        return ""
    when = "never" if goal["epoch"] is None else f"in epoch {goal['epoch']}"
    return f"{goal['metric']} {goal['value']:g} on validation {when}"


def _published(result: Mapping[str, Any]) -> None:
    """Print published figures beside ours, and what was done otherwise."""
    references = result.get("references") or ()
    if references:
        say()
    for reference in references:
        ours = "none" if reference["ours"] is None else f"{reference['ours']:.4f}"
        say(f"  published   {reference['metric']}/{reference['split']} {reference['value']:g}; ours {ours}")
        say("; ".join(filter(None, (f"              {reference['source']}", reference["remark"]))))
    if references and result.get("departures"):
        say(f"  not alike   {', '.join(result['departures'])}")


def shorter(path: Path) -> str:
    """Return a path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def tolerating(what: str) -> Iterator[None]:
    """Say that something could not be written, whatever the reason: it is no reason to lose a training."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        say(f"  note: {what} could not be written: {type(error).__name__}: {error}")


def error(text: object) -> None:
    """Print what went wrong, where errors are looked for."""
    print(f"cnnbench: {text}", file=sys.stderr, flush=True)


def _metrics(row: Mapping[str, Any], split: str) -> str:
    pairs = [(key.removesuffix(f"/{split}"), value) for key, value in row.items() if key.endswith(f"/{split}")]
    return "  ".join(f"{name} {'nan' if value is None else format(value, '.4f')}" for name, value in pairs)


def _origin_above(key: str, origins: Mapping[str, str]) -> str:
    """Return where a group of settings came from, for a setting that is not named itself."""
    while "." in key:
        key = key.rpartition(".")[0]
        if key in origins:
            return origins[key]
    return "code"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
