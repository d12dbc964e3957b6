"""`cnnbench evaluate`: a trained network by class, by its mistakes, and on other data."""

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.catalog import all_options
from cnnbench.cli.out import check_free, writing
from cnnbench.cli.parse import CHECKPOINT, RUN, SPLITS, Argument, Verb, path, refresh_page, say
from cnnbench.errors import one_line

if TYPE_CHECKING:
    from cnnbench.analysis.checkpoints import Checkpoint
    from cnnbench.analysis.run import Run
    from cnnbench.tasks.evaluation import EvalReport

ABOUT = """\
Evaluates the network of a run again: by class, with confusions and calibration.

  cnnbench evaluate outputs/RUN                     on the test images
  cnnbench evaluate outputs/RUN --split val         on validation; or train
  cnnbench evaluate outputs/RUN --checkpoint last   another checkpoint
  cnnbench evaluate outputs/RUN --data image_folder data.folder=my_photos
                                                    on other images: all, or
                                                    their test part
  cnnbench evaluate outputs/RUN --calibrate         also calibrated

Other images that the run, or one that it started from, was trained or validated
on are left out.

Tables (CSV) and a page with charts are written to RUN/evaluation/, which the
page of the run links to, or to --out. On the test images of the run and the
checkpoint that was tested, the metrics are those of result.json, to the last
digit; a run with test=false gets them now. run.json counts how often the test
images were measured. Nothing else is changed. Code that changed since the
training is used as it is now, and a note says where metrics differ by that;
images or a split that changed are refused (--data measures other images).

--calibrate divides the class scores by a temperature, fitted on validation
images: probabilities come closer to how often predictions are right, and no
prediction changes.
"""
SHOWN = 20  # classes in the terminal: the worst


def _run(flags: Namespace) -> None:
    from cnnbench.analysis.evaluate import deviations, evaluate_run
    from cnnbench.analysis.loading import load_run
    from cnnbench.analysis.reports.evaluated import page_of
    from cnnbench.training.terminal import linked

    opened = load_run(flags.run, flags.plugins)
    which = opened.resolve(flags.checkpoint)
    name = "-".join([str(which), *(re.sub(r"[^A-Za-z0-9._=-]+", "_", word) for word in flags.data)])
    folder: Path = flags.out or opened.folder.evaluation(flags.split, name)
    title = f"cnnbench: {opened.folder.shown_path}, {flags.split}, {name}"
    if flags.out:  # before anything is measured, which is counted; what the tables are called is not known yet
        there = [file.name for file in folder.glob("*.*") if file.suffix in (".csv", ".png", ".json", ".md", ".html")]
        check_free(folder, there, title)
    report = evaluate_run(opened, flags.split, which, flags.data, folder, flags.calibrate)
    with writing(folder):
        report.write(folder)
        page = replace(page_of(folder, flags.split, title), about=title).write(folder)
    different = [] if flags.data else deviations(opened, flags.split, which, report)
    say(f"  {opened.folder.shown_path}, checkpoint {which}", *(f"  note: {note}" for note in different))
    say(*_lines_of(report))
    if report.calibrated is not None:
        images = len(opened.data("val"))
        say(f"  calibrated with a temperature, fitted on {images} validation images:", *_metrics(report.calibrated), "")
    say(*(f"  note: {note}" for note in report.notes), "  tables and page: " + linked(page))
    if flags.split == "test" and not flags.data:
        _say_looks(opened, which, report)
    if flags.out is None:
        refresh_page(opened)


def _say_looks(opened: "Run", which: "Checkpoint", report: "EvalReport") -> None:
    """Add the figures to a result that has none on test, or say how often test was measured."""
    from cnnbench.analysis.evaluate import record_test

    if record_test(opened, which, report):
        say("  measured on the test images for the first time; result.json has it from now on")
    elif (times := opened.record.get("test_measured", 1)) > 1:
        say(
            f"  the test images were measured {times} times: what you choose by them needs other images for a fair test"
        )


def _lines_of(report: "EvalReport") -> list[str]:
    lines = _metrics(report)
    if "classes" not in report.tables:
        return lines
    classes = report.tables["classes"]
    worst = classes.sort_values(["top1", "class"]).head(SHOWN)
    head = f"  {'class':<20}{'images':>8}{'top1':>8}{'95 % interval':>18}{'precision':>11}{'f1':>8}"
    title = f"the {SHOWN} worst of {len(classes)} classes" if len(classes) > SHOWN else "classes, the worst first"
    return [*lines, "", f"  {title}:", head, *(_line(row) for row in worst.to_dict("records")), ""]


def _metrics(report: "EvalReport") -> list[str]:
    intervals = {}
    if "metrics" in report.tables:
        rows = report.tables["metrics"].dropna().to_dict("records")
        intervals = {row["metric"]: f"   95 %: {row['low']:.4f} to {row['high']:.4f}" for row in rows}
    return [f"  {name:<18} {value:.4f}{intervals.get(name, '')}" for name, value in report.metrics.items()]


def _line(row: Mapping[Any, Any]) -> str:
    name = one_line(str(row["class"]))
    name = name if len(name) < 20 else f"{name[:18]}…"
    interval = f"{row['top1_low']:.3f} to {row['top1_high']:.3f}"
    return f"  {name:<20}{row['images']:>8}{row['top1']:>8.4f}{interval:>18}{row['precision']:>11.4f}{row['f1']:>8.4f}"


VERB = Verb(
    "evaluate",
    ABOUT,
    (
        RUN,
        Argument("--split", choices=SPLITS, default="test", metavar="SPLIT", help="test, val or train; default: test"),
        CHECKPOINT,
        Argument(
            "--data",
            nargs="+",
            default=[],
            metavar="NAME",
            complete=lambda: all_options()["data"],
            help="another data set, and data.KEY=VALUE …",
        ),
        Argument("--calibrate", action="store_true", help="with a temperature, fitted on validation"),
        Argument("--out", type=path, metavar="FOLDER", help="where to write; default: RUN/evaluation"),
    ),
    _run,
    why_not={
        "accept_stale": "; there is nothing to accept: changed code is used, and a note says what differs; "
        "changed images or another split are refused, and measured with --data."
    },
)
