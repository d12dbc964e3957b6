"""`cnnbench list`: which runs there are, in what they differ, and how they ended."""

import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.catalog import all_keys, all_options, sweeps
from cnnbench.cli.parse import JSON, Argument, Verb, number, path, say, say_json
from cnnbench.config.hints import closest_path, meant_by_word
from cnnbench.errors import UserError, counted, sized, writing_to

if TYPE_CHECKING:
    from cnnbench.store.matching import Order
    from cnnbench.store.query import RunSummary

ABOUT = """\
Lists runs: in which settings they differ, their status, test metrics and size.

  cnnbench list                               all in ./outputs
  cnnbench list data=mnist 'accuracy>0.98'    those that meet both conditions
  cnnbench list 'model=lenet*' 'seed!=0' 'status!=completed'
  cnnbench list --sort accuracy               the best first
  cnnbench list --csv > runs.csv              for a spreadsheet, or pandas
  cnnbench list --in FOLDER --json            in another folder, for programs
  cnnbench list outputs/sweeps/1a2b3c4d       how a sweep stands, job by job
  cnnbench list 1a2b3c4d --sort accuracy      its runs
  cnnbench list sweeps                        all sweeps
  cnnbench list --prune                       what could be removed
  cnnbench list data=mnist --prune --yes      remove it for good
  cnnbench list status=failed --prune         failed runs, which stay otherwise
  cnnbench list 1a2b3c4d --prune-checkpoints 3
                                              checkpoints of all but the best 3

Conditions and --sort take any setting, by its whole key or a unique end of it
(dropout), any metric (accuracy, of the test images; accuracy/val), and
status. A terminal shows as many columns as fit; the last one is what other
commands take for the run: cnnbench resume 1a2b3c4d. A pipe or a file gets all
columns. --prune removes stopped and superseded runs; failed ones, which say
why they failed, only with status=failed. --prune-checkpoints removes the
checkpoints of finished runs, unless others start from them. Both only show what
they would remove, until --yes is given.
"""


def _run(flags: Namespace) -> None:
    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.sweep_files import outputs_of, sweep_named

    _check(flags)
    outputs: Path = flags.outputs.resolve() if flags.outputs else outputs_dir()
    if not outputs.is_dir():
        meant = closest_path(outputs)
        hint = f"; did you mean '{meant}'?" if meant else "; --in FOLDER names another one."
        raise UserError(f"{outputs}: there is no such folder{hint}")
    home = outputs_dir() if outputs.is_relative_to(outputs_dir()) else outputs
    files = {word: file for word in flags.conditions if (file := sweep_named(word, home)) is not None}
    if len(files) > 1:
        raise UserError(f"{' and '.join(files)} are several sweeps; give one of them")
    sweep = next(iter(files.values()), None)
    conditions = [word for word in flags.conditions if word not in files]
    if flags.conditions == ["sweeps"] or [Path(word).resolve() for word in flags.conditions] == [home / "sweeps"]:
        _list_sweeps(home, flags)
    elif sweep is not None and not (conditions or flags.sort or flags.prune or flags.prune_checkpoints is not None):
        _list_jobs(sweep, flags)
    else:
        _list_runs(flags, conditions, outputs, home if sweep is None else outputs_of(sweep), sweep)


def _check(flags: Namespace) -> None:
    """Raise UserError for flags that contradict each other."""
    prunes = flags.prune or flags.prune_checkpoints is not None
    if flags.yes and not prunes:
        raise UserError("--yes is for --prune and --prune-checkpoints")
    given = {
        "prune": flags.prune, "prune-checkpoints": flags.prune_checkpoints is not None, "json": flags.json,
        "csv": flags.csv,
    }  # fmt: skip
    ways = [f"--{name}" for name, is_given in given.items() if is_given]
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} exclude each other")


def _list_runs(flags: Namespace, conditions: Sequence[str], outputs: Path, home: Path, sweep: Path | None) -> None:
    """Print the runs in a folder, or those of a sweep. home: the folder of all runs."""
    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.index import listed, without_collection
    from cnnbench.store.matching import runs_matching, unchecked, unmet
    from cnnbench.store.query import folders_below, shortest_words
    from cnnbench.store.sweep_files import sweep_folders

    outputs = outputs if sweep is None else home
    everything = listed(folders_below(outputs) if sweep is None else sweep_folders(sweep), home)
    for word in conditions:
        if not {*word} & {*"<>="}:
            raise UserError(_no_condition(word, everything))
    matching = runs_matching(everything, conditions)
    order = _order(matching, flags.sort)
    if order is not None:
        matching = order.applied_to(matching, flags.reverse)
    elif flags.reverse:
        matching.reverse()
    if flags.prune:
        say(*_prune(everything, matching, outputs, flags))
        return
    if flags.prune_checkpoints is not None:
        everything = listed(folders_below(home), home)  # other runs may begin with these
        say(*_prune_checkpoints(everything, matching, home, flags))
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
        with without_collection():
            say(*_table(matching, words, outputs, order))
        if unreadable := unchecked(everything, conditions):
            what = "condition" if len(conditions) == 1 else "conditions"
            say(f"  {counted(len(unreadable), 'unreadable run')} could not be checked against the {what}")
        if not matching:
            say(*(f"  {line}" for line in unmet(everything, conditions)))
        if matching and home != outputs_dir():
            say(f"  other commands find them with CNNBENCH_OUTPUTS={shlex.quote(str(home))}")


def _no_condition(word: str, runs: "Sequence[RunSummary]") -> str:
    """Return what to type for a word that is neither a condition nor a sweep."""
    from cnnbench.store.matching import EXAMPLES

    hint = meant_by_word(word, "", all_options(), all_keys())
    try:
        _order(runs, word)
    except UserError:
        sorts = "accuracy"
    else:
        sorts, hint = word, ""
    if Path(word).is_dir():
        hint = f"; --in {word} lists the runs in this folder."
    hint = hint or f"; conditions are like {EXAMPLES}; --sort {sorts} orders runs."
    return f"{word}: there is no such sweep (cnnbench list sweeps){hint}"


def _list_jobs(sweep: Path, flags: Namespace) -> None:
    """Print how a sweep stands."""
    from cnnbench.cli.sweep_table import as_plain, lines, rows_as_csv
    from cnnbench.store.sweep_files import outputs_of
    from cnnbench.sweeps.standing import standings
    from cnnbench.training.terminal import width

    (standing,) = standings([sweep], outputs_of(sweep))
    if flags.json:
        say_json(as_plain(standing))
    else:
        say(*(rows_as_csv(as_plain(standing)["jobs"]) if flags.csv else lines(standing, width())))


def _list_sweeps(home: Path, flags: Namespace) -> None:
    """Print a line for each sweep, the oldest first."""
    from cnnbench.cli.sweep_table import counted_by_state, overview, rows_as_csv
    from cnnbench.store.sweep_files import sweep_files
    from cnnbench.sweeps.standing import standings
    from cnnbench.training.terminal import width

    sweeps = sorted(standings(sweep_files(home), home), key=lambda one: one.started)
    if flags.json:
        say_json(counted_by_state(sweeps))
    else:
        say(*(rows_as_csv(counted_by_state(sweeps)) if flags.csv else overview(sweeps, width())))


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
    everything: "Sequence[RunSummary]", matching: "Sequence[RunSummary]", outputs: Path, flags: Namespace
) -> list[str]:
    from cnnbench.store.pruning import is_within, prunable
    from cnnbench.store.query import read_run

    with_failed = any(word.startswith("status=f") for word in flags.conditions)
    found = {run.path: reason for run, reason in prunable(everything, outputs, with_failed)}
    reasons = [(run, found[run.path]) for run in matching if run.path in found]
    failed = sum(run.status == "failed" and run.path not in found for run in matching)
    kept = f"; {counted(failed, 'failed run')} kept, status=failed names them" if failed else ""
    if not reasons:
        return [f"  there is nothing to remove{kept}"]
    lines = [
        f"  {sized(run.size):>9}  {reason:<26}  {run.path.relative_to(outputs).as_posix()}" for run, reason in reasons
    ]
    total = f"  {counted(len(reasons), 'run')}, {sized(sum(run.size for run, _ in reasons))}"
    if not flags.yes:
        return [*lines, f"{total}; nothing was removed: --yes removes them for good{kept}"]
    for run, _ in reasons:
        with run.folder.lock():  # no process may continue it while it is removed
            if is_within(run.path, outputs) and read_run(run.path).is_finished == run.is_finished:  # also now
                with writing_to(run.path):
                    shutil.rmtree(run.path)
    return [*lines, f"{total}, removed{kept}"]


def _prune_checkpoints(
    everything: "Sequence[RunSummary]", matching: "Sequence[RunSummary]", home: Path, flags: Namespace
) -> list[str]:
    """Remove, where that is confirmed, the checkpoints of runs that are not among the best; return which."""
    from cnnbench.store.pruning import (
        is_within,
        ranked_on_validation,
        remove_checkpoints,
        runs_begun_with,
        size_of_checkpoints,
    )

    lines, total, number = [], 0, 0
    for one in ranked_on_validation(matching, runs_begun_with(everything, home)):
        run, size = one.run, size_of_checkpoints(one.run)
        is_ours = is_within(run.folder.checkpoints, home) and not run.folder.is_held()
        if one.place <= flags.prune_checkpoints or not size or not is_ours:
            continue
        place = f"{one.place} of {one.of} by {one.metric}/val"
        if one.begun:
            place += f", kept: {counted(one.begun, 'run')} {'begins' if one.begun == 1 else 'begin'} with it"
        lines.append(f"  {sized(size):>9}  {place:<26}  {run.path.relative_to(home).as_posix()}")
        if one.begun:
            continue
        number, total = number + 1, total + size
        if flags.yes:
            remove_checkpoints(run.folder)
    if not number:
        return [*lines, "  there are no checkpoints to remove"]
    said = f"  checkpoints of {counted(number, 'run')}, {sized(total)}"
    if flags.yes:
        return [*lines, f"{said}, removed; results and pages stay"]
    kept = "results and pages would stay, but the runs could not be evaluated, exported or trained for longer"
    return [*lines, f"{said}; nothing was removed: --yes removes them for good", f"  ({kept})"]


def _sort_keys() -> list[str]:
    return ["accuracy", "loss", "started", "ended", "epoch", "size", "status", *all_keys()]


VERB = Verb(
    "list",
    ABOUT,
    (
        Argument(
            "conditions", nargs="*", metavar="CONDITION", complete=sweeps,
            help="key=value, key!=value, key>number, …; * stands for any text; a sweep, or sweeps",
        ),
        Argument(
            "--in", dest="outputs", type=path, metavar="FOLDER",
            help="the folder of the runs; default: $CNNBENCH_OUTPUTS or ./outputs",
        ),
        Argument(
            "--sort", metavar="KEY", complete=_sort_keys,
            help="a setting or metric, started, ended, epoch or size; of metrics the best first",
        ),
        Argument("--reverse", action="store_true", help="the other way round"),
        Argument("--csv", action="store_true", help="print CSV: every setting in which runs differ, every metric"),
        JSON,
        Argument("--prune", action="store_true", help="show stopped and superseded runs"),
        Argument(
            "--prune-checkpoints", type=number, metavar="N",
            help="show the checkpoints of finished runs, but for the N best on validation",
        ),
        Argument("--yes", action="store_true", help="with --prune or --prune-checkpoints: remove them for good"),
    ),
    _run,
    takes_plugins=False,
)  # fmt: skip
