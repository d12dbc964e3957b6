"""`cnnbench-report`: a run, all of it; or runs side by side: which is better, by how much, and how sure that is."""

import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.parse import finish, split_key_values
from cnnbench.errors import UserError
from cnnbench.plugins import plugin_names

if TYPE_CHECKING:
    from cnnbench.analysis.reports.page import Page
    from cnnbench.store.query import RunSummary

ABOUT = """\
Makes a page of a run, or puts runs side by side: grouped by configuration over their seeds, with intervals, and
differences paired by seed.

  cnnbench-report outputs/RUN                              all about a run; its page comes into its folder
  cnnbench-report outputs/sweeps/1a2b3c4d.json             the runs of a sweep
  cnnbench-report outputs/mnist 'outputs/digits/lenet*'    all runs below folders
  cnnbench-report outputs/mnist --baseline regularization.dropout=0.0 --metric loss
  cnnbench-report outputs/mnist --out my_report            report.html, report.md and report.csv come there

Several runs answer: which is best, is that chance, which learns first, which overfits, what does each setting change?
The page needs no network and no other file. Runs that are not finished, or cannot be read, are named and passed over.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit."""
    parser = ArgumentParser("cnnbench-report", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN|SWEEP|FOLDER", help="runs, sweeps, folders with runs, patterns")
    parser.add_argument("--baseline", metavar="KEY=VALUE", help="the configuration to compare with; else the first")
    parser.add_argument("--metric", help="of the test images; else accuracy, recall@1 or loss")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the report goes; else into the run, or outputs/reports/NAME"
    )
    flags = parser.parse_intermixed_args(arguments)
    words, given = split_key_values(flags.runs, "plugins")

    def command() -> None:
        from cnnbench.plugins import register_everything
        from cnnbench.store.query import found

        register_everything(plugin_names(given.get("plugins", "")))
        out = Path(flags.out).expanduser() if flags.out else None
        entries = found(words)
        is_one = len(entries) == 1 and not entries[0].problem
        page, folder = of_one(entries[0]) if is_one else of_several(entries, words, flags.metric, flags.baseline)
        try:
            path = page.write(out or folder)
        except OSError as error:
            raise UserError(f"{out or folder} cannot be written: {error}; --out FOLDER names another place.") from error
        sys.stdout.write("\n".join([*page.terminal(), "", f"  page: {path}"]) + "\n")

    finish("cnnbench-report", command)


def of_one(entry: "RunSummary") -> "tuple[Page, Path]":
    """Return the page of a run, and where it belongs."""
    from cnnbench.analysis.reports.single import page_of

    return page_of(entry.folder), entry.folder.path


def of_several(
    entries: "Sequence[RunSummary]", words: Sequence[str], metric: str | None, baseline: str | None
) -> "tuple[Page, Path]":
    """Return the page of runs side by side, and where it belongs."""
    from cnnbench.analysis.reports.compared import page_of
    from cnnbench.analysis.reports.comparison import compare
    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.query import title

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(Path(word.removesuffix(".json")).name for word in words))
    name = name.strip("-")[:60]
    return page_of(compare(entries, metric, baseline), title(words)), outputs_dir() / "reports" / (name or "runs")


if __name__ == "__main__":
    main()
