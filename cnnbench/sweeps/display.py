"""What is shown of a sweep: on a terminal a line for each job and bars below, elsewhere plain lines."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from shutil import get_terminal_size
from typing import Any

from tqdm import tqdm

from cnnbench.errors import counted, duration, one_line
from cnnbench.store.files import last_row
from cnnbench.store.folder import RunFolder, shown
from cnnbench.sweeps.folder import Job, SweepFolder
from cnnbench.sweeps.live import LivePage
from cnnbench.sweeps.outcome import ENDED, Outcome
from cnnbench.sweeps.slots import Slot
from cnnbench.training import console
from cnnbench.training.plan import Plan
from cnnbench.training.terminal import green, is_dumb

MAX_BARS = 12  # jobs that have one
UPDATES_EVERY = 1.0  # seconds
WIDTH = 44  # of what names a job


class Display:
    """What is shown while a launcher works on a sweep."""

    def __init__(self, sweep: SweepFolder, page: LivePage | None = None) -> None:
        self.sweep, self.page = sweep, page
        self.total = len(sweep.jobs)
        self.overall: tqdm[Any] | None = None
        self.bars: dict[str, tqdm[Any]] = {}  # by the identity of the job
        self.updated = 0.0

    def begin(
        self, waiting: int, num_done: Callable[[], int], missing: Sequence[Job], unreadable: Mapping[Job, str]
    ) -> None:
        """Say how many jobs are finished already, whose runs are missing, and which cannot be read, and why.

        num_done: counts jobs from now on.
        """
        self.num_done, before = num_done, self.total - waiting
        self.num_said = before
        if finished := before - len(unreadable):
            console.say(f"{finished} of {counted(self.total, 'run')} finished before")
        for job, problem in [*unreadable.items()][:MAX_BARS]:
            console.say(f"note: {self._name(job)} is unreadable: {problem}")
        if unreadable:
            console.say(
                f"note: {counted(len(unreadable), 'run')} unreadable, left as before; mend what is named above, or "
                "move the folder away: the same command then trains it again"
            )
        for job in missing[:MAX_BARS]:
            console.say(f"note: {self._name(job)} was completed, but {shown(self.sweep.outputs / job.folder)} is gone")
        if missing:
            console.say(
                f"note: {counted(len(missing), 'run')} gone, trained again now; or stop, and move back what is gone"
            )
        mode = console.progress_mode()
        has_bars = sys.stderr is not None and sys.stderr.isatty() and not is_dumb()
        if waiting and ((mode == "auto" and has_bars) or mode == "bar"):
            self.overall = tqdm(
                total=self.total, initial=before, leave=False, dynamic_ncols=True, smoothing=0,
                bar_format="{n_fmt}/{total_fmt} runs |{bar}| {remaining} left",
            )  # fmt: skip

    def started(self, job: Job, plan: Plan, slot: Slot) -> None:
        """Show that a job begins."""
        if self.overall is None:
            console.say(f"  {'started':<12}  {self._name(job)}")
        elif slot.number < MAX_BARS:
            width = min(WIDTH, get_terminal_size().columns // 2)
            names = shortened_to(width, [self._name(one) for one in self.sweep.jobs])
            self.bars[job.identity] = tqdm(
                total=plan.config.epochs, position=slot.number + 1, leave=False, dynamic_ncols=True,
                desc=names[self.sweep.jobs.index(job)],
                bar_format="  {desc} |{bar}| epoch {n_fmt}/{total_fmt}{postfix}",
            )  # fmt: skip

    def ended(self, job: Job, outcome: Outcome, seconds: float | None) -> None:
        """Show how a job ended, and why where it failed."""
        if job.identity in self.bars:
            self.bars.pop(job.identity).close()
        if self.page is not None:
            self.page.changed()
        self.num_said += outcome.kind in ENDED
        word = f"{outcome.text:<12}"
        run = self.sweep.run_of(job)
        facts = [metrics_of(run) if outcome.kind == "completed" and run is not None else "", self._name(job)]
        facts += [] if seconds is None else [duration(seconds)]
        is_green = outcome.kind == "completed" and self.overall is not None
        word = green(word) if is_green else word
        self._say(f"[{self.num_said}/{self.total}]  {word}" + "  ".join(["", *filter(None, facts)]))
        if outcome.kind == "failed":
            self._say("".join(f"    {line}\n" for line in outcome.reason.splitlines()) + self._log(job))
        if self.overall is not None:
            self.overall.update(self.num_done() - self.overall.n)

    def update(self, running: Sequence[Job]) -> None:
        """Show how far the jobs are."""
        if self.page is not None:
            self.page.update()
        if self.overall is None or time.monotonic() - self.updated < UPDATES_EVERY:
            return
        self.updated = time.monotonic()
        self.overall.n = self.num_done()
        for job in running:
            bar, row = self.bars.get(job.identity), last_row(self.sweep.outputs / job.folder / "metrics.jsonl")
            if bar is not None and row is not None:
                bar.n = row["epoch"] - (row["row"] != "epoch")
                losses = [f"loss {value:.4f}" for name, value in row.items() if name == "loss/train" and value]
                bar.set_postfix_str("".join(losses), refresh=True)
        self.overall.refresh()

    def close(self) -> None:
        """Remove the bars, and write no more pages."""
        if self.page is not None:
            self.page.close()
        for bar in self.bars.values():
            bar.close()
        if self.overall is not None:
            self.overall.close()

    def _name(self, job: Job) -> str:
        return one_line(self.sweep.labels[job.identity])

    def _log(self, job: Job) -> str:
        log = self.sweep.log(job)
        return f"    all that it printed: {shown(log)}" if log.is_file() else ""

    def _say(self, line: str) -> None:
        if not line:
            return
        if self.overall is None:
            console.say(line)
        else:
            with self.overall.external_write_mode():
                console.say(line)


def shortened_to(width: int, names: Sequence[str]) -> list[str]:
    """Return names of at most that many characters: without their middle, or if that makes two alike, numbered."""
    half = width // 2
    short = [name if len(name) <= width else f"{name[: width - half - 1]}…{name[-half:]}" for name in names]
    if len(set(short)) < len(set(names)):
        short = [f"run {number} {name}"[:width] for number, name in enumerate(names, start=1)]
    return short


def metrics_of(run: RunFolder) -> str:
    """Return the metrics of a finished run on a line: those of the test images, where they were measured."""
    result = run.result()
    split, measured = next((one, result[one]) for one in ("test", "val", "train") if result.get(one))
    found = {name: value for name, value in measured.items() if name != "samples" and value is not None}
    of = "" if split == "test" else f"/{split}"
    words = [*(f"{name}{of} {value:.4f}" for name, value in found.items()), console.reached(result)]
    return "  ".join(filter(None, words))


def summarize(sweep: SweepFolder, outcomes: dict[str, Outcome], is_brief: bool = False) -> None:
    """Print a line per job: how it stands, its test metrics, its folder. is_brief: only of jobs without a result."""
    console.say()
    runs = sweep.runs()
    for job in sweep.jobs:
        outcome = outcomes[job.identity]
        if is_brief and outcome.kind == "completed":
            continue
        run = runs[job.identity]
        metrics = metrics_of(run) if outcome.kind == "completed" and run is not None else ""
        because = f": {outcome.reason.partition(chr(10))[0]}" if outcome.reason else ""
        shown = outcome.text + because if because else f"{outcome.text:<12}  {metrics:<40}"
        console.say(f"  {shown}  {sweep.where(job, run)}")
    kinds = Counter(outcome.kind for outcome in outcomes.values())
    done = f"{kinds.pop('completed', 0)} of {counted(len(sweep.jobs), 'run')} completed"
    console.say(f"  {', '.join([done, *(f'{number} {kind}' for kind, number in kinds.items())])}")
