"""`cnnbench-report`: runs side by side: which is better, by how much, and how sure that is."""

import json
import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.errors import UserError
from cnnbench.small_command import finish, plugin_files, sorted_out

if TYPE_CHECKING:
    import pandas as pd

    from cnnbench.reports.comparison import Comparison
    from cnnbench.shelf import Entry

ABOUT = """\
Puts runs side by side: grouped by configuration over their seeds, with intervals, and differences paired by seed.

  cnnbench-report outputs/sweeps/1a2b3c4d.json             the runs of a sweep
  cnnbench-report outputs/mnist 'outputs/digits/lenet*'    all runs below folders
  cnnbench-report outputs/mnist --baseline regularization.dropout=0.0 --metric loss
  cnnbench-report outputs/mnist --out my_report            report.html, report.md and report.csv come there

The page needs no network and no other file. Runs that are not finished, or cannot be read, are named and passed over.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit."""
    parser = ArgumentParser("cnnbench-report", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN|SWEEP|FOLDER", help="runs, sweeps, folders with runs, patterns")
    parser.add_argument("--baseline", metavar="KEY=VALUE", help="the configuration to compare with; else the first")
    parser.add_argument("--metric", help="of the test images; else accuracy, recall@1 or loss")
    parser.add_argument("--out", metavar="FOLDER", help="where the report goes; else outputs/reports/NAME")
    flags = parser.parse_intermixed_args(arguments)
    words, given = sorted_out(flags.runs, "plugins")

    def command() -> None:
        from cnnbench.registry import register_everything
        from cnnbench.reports.comparison import compare
        from cnnbench.rundir import outputs_dir

        register_everything(plugin_files(given.get("plugins", "")))
        comparison = compare(found(words), flags.metric, flags.baseline)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(Path(word).name for word in words)).strip("-")[:60]
        folder = Path(flags.out) if flags.out else outputs_dir() / "reports" / (name or "runs")
        write(comparison, folder, " ".join(words))
        lines = [*text_table(comparison.table()), *(f"  {line}" for line in comparison.remarks())]
        lines += [f"  passed over: {line}" for line in comparison.skipped]
        sys.stdout.write("\n".join([*lines, f"  page: {folder / 'report.html'}"]) + "\n")

    finish("cnnbench-report", command)


def found(words: Sequence[str]) -> "list[Entry]":
    """Return the runs that words name, each once. Raises UserError for a word that names none."""
    from cnnbench.shelf import entries

    runs: dict[Path, Entry] = {}
    for word in words:
        paths = [Path(path) for path in sorted(glob(str(Path(word).expanduser()), recursive=True))]
        if not paths:
            raise UserError(f"{word}: there is no such run, sweep or folder.")
        for path in paths:
            if path.suffix == ".json" and path.is_file():
                folders = _of_sweep(path)
            elif path.is_dir():
                folders = [path]
            else:
                continue
            runs |= {entry.folder.path.resolve(): entry for folder in folders for entry in entries(folder)}
    if not runs:
        raise UserError(f"{' '.join(words)}: there are no runs.")
    return list(runs.values())


def _of_sweep(path: Path) -> list[Path]:
    try:
        jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        places = [job["folder"] for job in jobs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no sweep: {error}") from error
    outputs = path.resolve().parents[1]
    return [outputs / place for place in places if place is not None]


def write(comparison: "Comparison", folder: Path, what: str) -> None:
    """Write a comparison as a page, as Markdown and as CSV. Raises UserError where that cannot be done."""
    from cnnbench.reports.curves import overlaid
    from cnnbench.reports.page import Lines, Table, page

    table, best = comparison.table(), comparison.best()
    references = comparison.references()
    curves = [overlaid(comparison.rows, metric) for metric in dict.fromkeys((comparison.metric, "loss"))]
    html = page(
        f"cnnbench: {what}",
        f"{len(table)} configurations, {int(table['n'].sum())} runs; {comparison.metric} of the test images. "
        f"{'Highest' if comparison.higher else 'Lowest'}: {best.label}.",
        [curve for curve in curves if curve is not None],
        [Table("Configurations", table), *([Table("Published", references)] if len(references) else [])],
        [Lines("What can be said", comparison.remarks()), Lines("Passed over", comparison.skipped)],
    )  # fmt: skip
    remarks = [f"- {line}" for line in comparison.remarks()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(html, encoding="utf-8")
        (folder / "report.md").write_text("\n".join([*markdown(table), "", *remarks]) + "\n", encoding="utf-8")
        table.to_csv(folder / "report.csv", index=False)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}; --out FOLDER names another place.") from error


def markdown(table: "pd.DataFrame") -> list[str]:
    """Return a table in Markdown."""
    from cnnbench.reports.page import shown

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(re.sub(r"\s", " ", cell).replace("|", r"\|") for cell in cells) + " |"

    rows = [line([shown(value) for value in row]) for row in table.itertuples(index=False)]
    return [line(list(table.columns)), line(["---"] * len(table.columns)), *rows]


def text_table(table: "pd.DataFrame") -> list[str]:
    """Return a table for the terminal."""
    from cnnbench.reports.page import shown

    cells = [list(table.columns), *([shown(value) for value in row] for row in table.itertuples(index=False))]
    cells = [[re.sub(r"\s", " ", cell)[:30] for cell in row] for row in cells]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]


if __name__ == "__main__":
    main()
