"""`cnnbench-evaluate`: what a trained network is worth, by class, in its mistakes, and on other data."""

import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parse import CHECKPOINT_HELP, checkpoint_named, finish, split_key_values
from cnnbench.errors import UserError
from cnnbench.plugins import plugin_names

if TYPE_CHECKING:
    from cnnbench.tasks.evaluation import EvalReport

ABOUT = """\
Measures the network of a run again, and says what is behind the figure: by class, in its mistakes, in what it believes.

  cnnbench-evaluate outputs/RUN                              the test images, with the checkpoint that was tested
  cnnbench-evaluate outputs/RUN --split val                  ... validation; or train
  cnnbench-evaluate outputs/RUN --checkpoint last            ... the last one; or one that is kept, by its step
  cnnbench-evaluate outputs/RUN --data image_folder data.folder=my_photos      ... other images of the same classes

Tables (CSV) and pictures come into RUN/evaluation/, or where --out says. On the run's own test images and its own
checkpoint, the figures are those of result.json, to the last digit. Nothing is trained, and nothing else is changed.
"""
SHOWN = 20  # classes; of more, the worst ones


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit."""
    parser = ArgumentParser("cnnbench-evaluate", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    parser.add_argument("--checkpoint", default="tested", metavar="best|last|N", help=CHECKPOINT_HELP)
    parser.add_argument("--data", nargs="+", default=[], metavar="WORD", help="a data set, and settings data.KEY=VALUE")
    parser.add_argument("--out", metavar="FOLDER", help="where tables and pictures go")
    parser.add_argument("words", nargs="*", metavar="plugins=FILE", help="what the run was made with")
    flags = parser.parse_intermixed_args(arguments)
    others, given = split_key_values(flags.words, "plugins")
    if others:
        parser.error(f"unknown: {' '.join(others)}")

    def command() -> None:
        from cnnbench.analysis.evaluate import evaluate_run
        from cnnbench.analysis.run import load_run

        run = load_run(flags.run, plugin_names(given.get("plugins", "")))
        which = run.named(checkpoint_named(flags.checkpoint))
        checkpoint = "-".join([str(which), *(re.sub(r"[^A-Za-z0-9._=-]+", "_", word) for word in flags.data)])
        folder = Path(flags.out) if flags.out else run.folder.evaluation(flags.split, checkpoint)
        findings = evaluate_run(run, flags.split, which, flags.data, folder)
        try:
            findings.write(folder)
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error}; --out FOLDER names another place.") from error
        sys.stdout.write("\n".join([*told(findings), f"  tables and pictures: {folder}"]) + "\n")

    finish("cnnbench-evaluate", command)


def told(findings: "EvalReport") -> list[str]:
    """Return metrics, and the classes, the worst first, line by line."""
    lines = [f"  {name:<18} {value:.4f}" for name, value in findings.metrics.items()]
    if "classes" not in findings.tables:
        return lines
    classes = findings.tables["classes"]()
    worst = classes.sort_values(["top1", "class"]).head(SHOWN)
    head = f"  {'class':<20}{'images':>8}{'top1':>8}{'95 % interval':>18}{'precision':>11}{'f1':>8}"
    title = f"the {SHOWN} worst of {len(classes)} classes" if len(classes) > SHOWN else "classes, the worst first"
    return [*lines, "", f"  {title}:", head, *(_line(row) for row in worst.to_dict("records")), ""]


def _line(row: Mapping[Any, Any]) -> str:
    name = re.sub(r"\s", " ", str(row["class"]))
    name = name if len(name) < 20 else f"{name[:18]}…"
    interval = f"{row['top1_low']:.3f} to {row['top1_high']:.3f}"
    return f"  {name:<20}{row['images']:>8}{row['top1']:>8.4f}{interval:>18}{row['precision']:>11.4f}{row['f1']:>8.4f}"


if __name__ == "__main__":
    main()
