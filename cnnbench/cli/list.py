"""`cnnbench list`: which runs there are, and how they ended."""

import json
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parse import JSON, Argument, Verb, path, say
from cnnbench.errors import UserError, sized

if TYPE_CHECKING:
    from cnnbench.store.query import RunSummary

ABOUT = """\
Lists runs: their status, when they ended, test metrics, size and folder.

  cnnbench list                               all in ./outputs
  cnnbench list data=mnist 'accuracy>0.98'    that meet all of the conditions
  cnnbench list 'model=lenet*' 'seed!=0' status=interrupted
  cnnbench list --in FOLDER --json            elsewhere; for programs
  cnnbench list --prune                       what could be removed
  cnnbench list data=mnist --prune --yes      remove it

Conditions are on any setting, test metric, or the status. What can be removed
are runs that were interrupted, and those superseded by a later one.
"""


def _run(flags: Namespace) -> None:
    if flags.yes and not flags.prune:
        raise UserError("--yes is for --prune")
    if flags.prune and flags.json:
        raise UserError("--prune and --json exclude each other")

    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.query import runs_below, runs_matching

    outputs: Path = flags.outputs.resolve() if flags.outputs else outputs_dir()
    if not outputs.is_dir():
        raise UserError(f"{outputs}: there is no such folder; --in FOLDER names another one.")
    everything = runs_below(outputs)
    matching = runs_matching(everything, flags.conditions)
    if flags.prune:
        say(*_prune(everything, matching, outputs, flags.yes))
    elif flags.json:
        say(json.dumps([_plain(run) for run in matching], indent=2))
    else:
        say(*_table(matching, outputs))


def _table(runs: "Sequence[RunSummary]", outputs: Path) -> list[str]:
    rows = [("status", "since", "test", "size", "where")]
    for run in runs:
        since = str(run.record.get("ended") or run.record.get("started") or "")[:16].replace("T", " ")
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in list(run.test_metrics.items())[:2])
        rows.append((run.status, since, metrics, sized(run.size), run.path.relative_to(outputs).as_posix()))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + f"  {row[4]}"
        for row in rows
    ]
    lines += [f"  {run.problem}" for run in runs if run.problem]
    number = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return [*lines, f"  {number}, {sized(sum(run.size for run in runs))}, in {outputs}"]


def _prune(
    everything: "Sequence[RunSummary]", matching: "Sequence[RunSummary]", outputs: Path, is_confirmed: bool
) -> list[str]:
    from cnnbench.store.query import is_within, prunable

    folders = {run.path for run in matching}
    reasons = [(run, reason) for run, reason in prunable(everything, outputs) if run.path in folders]
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
                shutil.rmtree(run.path)
    return [*lines, f"{total}, removed"]


def _plain(run: "RunSummary") -> dict[str, Any]:
    from cnnbench.store.files import finite

    plain: dict[str, Any] = finite(
        {
            "path": str(run.path),
            "status": run.status,
            "problem": run.problem or None,
            "started": run.record.get("started"),
            "ended": run.record.get("ended"),
            "command": run.record.get("command"),
            "test": run.test_metrics,
            "bytes": run.size,
        }
    )
    return plain


VERB = Verb(
    "list",
    ABOUT,
    (
        Argument(
            "conditions",
            nargs="*",
            metavar="CONDITION",
            help="key=value, key!=value, key>number, …; * stands for any text",
        ),
        Argument(
            "--in",
            dest="outputs",
            type=path,
            metavar="FOLDER",
            help="the folder of the runs; default: $CNNBENCH_OUTPUTS or ./outputs",
        ),
        JSON,
        Argument("--prune", action="store_true", help="show interrupted and superseded runs"),
        Argument("--yes", action="store_true", help="with --prune: remove them for good"),
    ),
    _run,
    takes_plugins=False,
)
