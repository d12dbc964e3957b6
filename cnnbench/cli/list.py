"""`cnnbench list`: which runs there are, in what they differ, and how they ended."""

import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.catalog import all_keys, sweeps
from cnnbench.cli.parse import JSON, Argument, Verb, path, say, say_json
from cnnbench.errors import UserError, counted, sized, writing_to

if TYPE_CHECKING:
    from cnnbench.store.matching import Order
    from cnnbench.store.query import RunSummary

ABOUT = """\
Lists runs: in which settings they differ, their status, test metrics and size.

  cnnbench list                               all in ./outputs
  cnnbench list data=mnist 'accuracy>0.98'    that meet all of the conditions
  cnnbench list 'model=lenet*' 'seed!=0' 'status!=completed'
  cnnbench list --sort accuracy               the best first
  cnnbench list --csv > runs.csv              for a spreadsheet, or pandas
  cnnbench list --in FOLDER --json            elsewhere; for programs
  cnnbench list outputs/sweeps/1a2b3c4d       how a sweep stands, job by job
  cnnbench list 1a2b3c4d --sort accuracy      its runs
  cnnbench list sweeps                        all sweeps
  cnnbench list --prune                       what could be removed
  cnnbench list data=mnist --prune --yes      remove it

Conditions and --sort take any setting, by its whole key or the end that tells
it apart (dropout), any metric (accuracy, of the test images; accuracy/val), and
status. A terminal shows as many columns as fit; the last one is what other
commands take for the run: cnnbench resume 1a2b3c4d. Into a pipe or a file
everything is written. What can be removed are runs that were interrupted, and
those superseded by a later one.
"""


def _run(flags: Namespace) -> None:
    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.sweep_files import outputs_of, sweep_named

    _check(flags)
    outputs: Path = flags.outputs.resolve() if flags.outputs else outputs_dir()
    if not outputs.is_dir():
        raise UserError(f"{outputs}: there is no such folder; --in FOLDER names another one.")
    home = outputs_dir() if outputs.is_relative_to(outputs_dir()) else outputs
    files = {word: file for word in flags.conditions if (file := sweep_named(word, home)) is not None}
    if len(files) > 1:
        raise UserError(f"{' and '.join(files)} are several sweeps; give one of them")
    sweep = next(iter(files.values()), None)
    conditions = [word for word in flags.conditions if word not in files]
    if conditions == ["sweeps"]:
        _list_sweeps(home, flags)
    elif sweep is not None and not conditions and flags.sort is None and not flags.prune:
        _list_jobs(sweep, flags)
    else:
        _list_runs(flags, conditions, outputs, home if sweep is None else outputs_of(sweep), sweep)


def _check(flags: Namespace) -> None:
    """Raise UserError for flags that contradict each other."""
    if flags.yes and not flags.prune:
        raise UserError("--yes is for --prune")
    ways = [f"--{name}" for name in ("prune", "json", "csv") if getattr(flags, name)]
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} exclude each other")


def _list_runs(flags: Namespace, conditions: Sequence[str], outputs: Path, home: Path, sweep: Path | None) -> None:
    """Print the runs in a folder, or those of a sweep. home: the folder of all runs."""
    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.index import listed
    from cnnbench.store.matching import runs_matching
    from cnnbench.store.query import folders_below, shortest_words
    from cnnbench.store.sweep_files import sweep_folders

    outputs = outputs if sweep is None else home
    everything = listed(folders_below(outputs) if sweep is None else sweep_folders(sweep), home)
    matching = runs_matching(everything, conditions)
    order = _order(matching, flags.sort)
    if order is not None:
        matching = order.applied_to(matching, flags.reverse)
    elif flags.reverse:
        matching.reverse()
    if flags.prune:
        say(*_prune(everything, matching, outputs, flags.yes))
        return

    from cnnbench.cli.run_table import as_csv, as_plain

    if flags.csv:
        say(*as_csv(matching).split("\n")[:-1])
        return
    words = partial(shortest_words, matching, home)
    if flags.json:
        from cnnbench.store.files import finite

        say_json(finite(as_plain(matching, words())))
    else:
        say(*_table(matching, words, outputs, order))
        if matching and home != outputs_dir():
            say(f"  other commands find them with CNNBENCH_OUTPUTS={shlex.quote(str(home))}")


def _list_jobs(sweep: Path, flags: Namespace) -> None:
    """Print how a sweep stands."""
    from cnnbench.cli.sweep_table import as_csv, as_plain, lines
    from cnnbench.store.sweep_files import outputs_of
    from cnnbench.sweeps.standing import standings
    from cnnbench.training.terminal import width

    (standing,) = standings([sweep], outputs_of(sweep))
    if flags.json:
        say_json(as_plain(standing))
    else:
        say(*(as_csv(standing) if flags.csv else lines(standing, width())))


def _list_sweeps(home: Path, flags: Namespace) -> None:
    """Print a line for each sweep, the oldest first."""
    from cnnbench.cli.sweep_table import overview
    from cnnbench.store.sweep_files import sweep_files
    from cnnbench.sweeps.standing import standings
    from cnnbench.training.terminal import width

    sweeps = sorted(standings(sweep_files(home), home), key=lambda one: one.started)
    if flags.json:
        say_json([{"sweep": str(one.file), "command": one.command, **one.counts} for one in sweeps])
    else:
        say(*overview(sweeps, width()))


def _order(runs: "Sequence[RunSummary]", word: str | None) -> "Order | None":
    from cnnbench.store.matching import Order

    if word is None or not runs:
        return None
    try:
        return Order.by(word, runs)
    except UserError as error:
        raise UserError(f"--sort {word}: {error}") from error


def _table(
    runs: "Sequence[RunSummary]", words: Callable[[], Mapping[Path, str]], outputs: Path, order: "Order | None"
) -> list[str]:
    from cnnbench.cli.run_table import in_common, shows_sizes, table
    from cnnbench.training.terminal import width

    size = sized(sum(run.size for run in runs)) if shows_sizes(runs, order) else "--sort size counts their sizes"
    facts = [counted(len(runs), "run"), in_common(runs), size, f"in {outputs}"]
    return [*table(runs, words, outputs, width(), order), f"  {', '.join(filter(None, facts))}"]


def _prune(
    everything: "Sequence[RunSummary]", matching: "Sequence[RunSummary]", outputs: Path, is_confirmed: bool
) -> list[str]:
    from cnnbench.store.pruning import is_within, prunable

    found = {run.path: reason for run, reason in prunable(everything, outputs)}
    reasons = [(run, found[run.path]) for run in matching if run.path in found]
    if not reasons:
        return ["  there is nothing to remove"]
    lines = [
        f"  {sized(run.size):>9}  {reason:<26}  {run.path.relative_to(outputs).as_posix()}" for run, reason in reasons
    ]
    total = f"  {len(reasons)} runs, {sized(sum(run.size for run, _ in reasons))}"
    if not is_confirmed:
        return [*lines, f"{total}; nothing was removed: --yes removes them for good"]
    for run, _ in reasons:
        with run.folder.lock():  # no process may continue it while it is removed
            if is_within(run.path, outputs):  # also now
                with writing_to(run.path):
                    shutil.rmtree(run.path)
    return [*lines, f"{total}, removed"]


def _sort_keys() -> list[str]:
    return ["accuracy", "loss", "started", "ended", "epoch", "size", "status", *all_keys()]


VERB = Verb(
    "list",
    ABOUT,
    (
        Argument(
            "conditions",
            nargs="*",
            metavar="CONDITION",
            complete=sweeps,
            help="key=value, key!=value, key>number, …; * stands for any text; a sweep, or sweeps",
        ),
        Argument(
            "--in",
            dest="outputs",
            type=path,
            metavar="FOLDER",
            help="the folder of the runs; default: $CNNBENCH_OUTPUTS or ./outputs",
        ),
        Argument(
            "--sort",
            metavar="KEY",
            complete=_sort_keys,
            help="a setting or metric, started, ended, epoch or size; of metrics the best first",
        ),
        Argument("--reverse", action="store_true", help="the other way round"),
        Argument("--csv", action="store_true", help="print CSV: every setting in which runs differ, every metric"),
        JSON,
        Argument("--prune", action="store_true", help="show interrupted and superseded runs"),
        Argument("--yes", action="store_true", help="with --prune: remove them for good"),
    ),
    _run,
    takes_plugins=False,
)
