"""`cnnbench-list`: which runs there are, and what they hold."""

import json
import shutil
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parse import finish
from cnnbench.errors import UserError, sized

if TYPE_CHECKING:
    from cnnbench.store.query import RunSummary

ABOUT = """\
Says which runs there are: how they stand, since when, what came out, how large they are, where they lie.

  cnnbench-list                                        all of ./outputs, or $CNNBENCH_OUTPUTS
  cnnbench-list data=mnist 'model=lenet*' 'accuracy>0.98'      those for which all of it holds
  cnnbench-list status=interrupted                     ... any setting or test metric: optimizer.lr=0.1, seed!=0
  cnnbench-list --in FOLDER --json                     another folder; for programs
  cnnbench-list --prune                                what interrupted and superseded runs hold
  cnnbench-list data=mnist --prune --yes               ... removed for good, of the runs that fit
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit."""
    parser = ArgumentParser("cnnbench-list", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("conditions", nargs="*", metavar="CONDITION", help="key=value, key>number, …")
    parser.add_argument("--in", dest="outputs", metavar="FOLDER", help="where runs are looked for")
    parser.add_argument("--json", action="store_true", help="print a list that programs can read")
    parser.add_argument("--prune", action="store_true", help="show what could be removed")
    parser.add_argument("--yes", action="store_true", help="with --prune: remove it")
    flags = parser.parse_intermixed_args(arguments)
    if flags.yes and not flags.prune:
        parser.error("--yes is for --prune")
    if flags.prune and flags.json:
        parser.error("--prune and --json exclude each other")

    def command() -> None:
        from cnnbench.store.folder import outputs_dir
        from cnnbench.store.query import chosen, entries

        outputs = Path(flags.outputs).expanduser().resolve() if flags.outputs else outputs_dir()
        if not outputs.is_dir():
            raise UserError(f"{outputs}: there is no such folder; --in FOLDER names another one.")
        everything = entries(outputs)
        found = chosen(everything, flags.conditions)
        if flags.prune:
            lines = pruned(everything, found, outputs, flags.yes)
        elif flags.json:
            lines = [json.dumps([_plain(entry) for entry in found], indent=2)]
        else:
            lines = table(found, outputs)
        sys.stdout.write("\n".join(lines) + "\n")

    finish("cnnbench-list", command)


def table(found: Sequence["RunSummary"], outputs: Path) -> list[str]:
    """Return a line a run, the newest last, and a line on all of them."""
    rows = [("status", "since", "test", "size", "where")]
    for entry in found:
        since = str(entry.record.get("ended") or entry.record.get("started") or "")[:16].replace("T", " ")
        measured = list(entry.measured().items())
        told = "  ".join(f"{name} {value:.4f}" for name, value in measured[:2])
        where = entry.folder.path.relative_to(outputs).as_posix()
        rows.append((entry.status, since, told, sized(entry.size), where))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + f"  {row[4]}"
        for row in rows
    ]
    lines += [f"  {entry.problem}" for entry in found if entry.problem]
    return [*lines, f"  {len(found)} runs, {sized(sum(entry.size for entry in found))}, in {outputs}"]


def pruned(
    everything: Sequence["RunSummary"], found: Sequence["RunSummary"], outputs: Path, is_meant: bool
) -> list[str]:
    """Return what could be removed of the runs found, line by line; remove it, where that is meant."""
    from cnnbench.store.query import prunable

    folders = {entry.folder.path for entry in found}
    reasons = [(entry, reason) for entry, reason in prunable(everything) if entry.folder.path in folders]
    size = sized(sum(entry.size for entry, _ in reasons))
    lines = [
        f"  {sized(entry.size):>9}  {reason:<26}  {entry.folder.path.relative_to(outputs).as_posix()}"
        for entry, reason in reasons
    ]
    if not reasons:
        return ["  there is nothing to remove"]
    if not is_meant:
        return [*lines, f"  {len(reasons)} runs, {size}; nothing was removed: --yes removes them for good"]
    for entry, _ in reasons:
        with entry.folder.lock():  # nobody takes it up again meanwhile
            shutil.rmtree(entry.folder.path)
    return [*lines, f"  {len(reasons)} runs, {size}, removed"]


def _plain(entry: "RunSummary") -> dict[str, Any]:
    from cnnbench.store.files import finite

    record = entry.record
    plain: dict[str, Any] = finite(
        {
            "path": str(entry.folder.path),
            "status": entry.status,
            "problem": entry.problem or None,
            "started": record.get("started"),
            "ended": record.get("ended"),
            "command": record.get("command"),
            "test": entry.measured(),
            "bytes": entry.size,
        }
    )
    return plain


if __name__ == "__main__":
    main()
