"""`cnnbench-predict`: what a network answers to images."""

import json
import re
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parse import CHECKPOINT_HELP, checkpoint_named, finish, split_key_values
from cnnbench.errors import UserError
from cnnbench.plugins import plugin_names

if TYPE_CHECKING:
    from cnnbench.analysis.predict import InputImage

ABOUT = """\
Says what a network answers to images: the likeliest classes, with their probabilities.

  cnnbench-predict outputs/RUN photo.jpg more_photos/              files and folders of images, converted as in training
  cnnbench-predict outputs/RUN --split test --index 13,43,53       images of the run's own data, with their true class
  cnnbench-predict torchvision/resnet50 photo.jpg --top-k 3        a published network, with ImageNet's class names
  cnnbench-predict outputs/RUN photo.jpg --picture answer.png      each image beside its answers; --json: for programs
"""
LONGEST = 28  # letters of a name in the table
TOGETHER = 64  # images that are answered at once


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit: 0 all answered, 2 a mistake, or an image that cannot be used."""
    parser = ArgumentParser("cnnbench-predict", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("network", metavar="RUN", help="folder of a run, or torchvision/NAME")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files and folders of images; plugins=FILE")
    parser.add_argument("--split", choices=("test", "val", "train"), help="images of the run's own data")
    parser.add_argument("--index", metavar="N,N,…", help="which of the split, counted from 0")
    parser.add_argument("--checkpoint", default="tested", metavar="best|last|N", help=CHECKPOINT_HELP)
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="how many answers")
    parser.add_argument("--json", action="store_true", help="print a list that programs can read")
    parser.add_argument("--picture", metavar="FILE", help="draw each image beside its answers")
    flags = parser.parse_intermixed_args(arguments)
    words, given = split_key_values(flags.images, "plugins")
    if bool(words) == bool(flags.split):
        parser.error("give files or folders of images, or --split and --index")
    if (flags.index is None) != (flags.split is None):
        parser.error("--split and --index belong together")
    if flags.top_k < 1:
        parser.error("--top-k must be at least 1")
    if flags.index is not None and not re.fullmatch(r"\d+(,\d+)*", flags.index):
        parser.error("--index takes numbers with commas between: 13,43,53")

    def command() -> None:
        plugins = plugin_names(given.get("plugins", ""))
        answers, unusable = answered(flags, words, plugins)
        sys.stdout.write(json.dumps(answers, indent=2) + "\n" if flags.json else "\n".join(table(answers)) + "\n")
        if unusable:
            raise UserError("\n".join(["not answered:", *(f"  {problem}" for problem in unusable)]))

    finish("cnnbench-predict", command)


def answered(flags: Namespace, words: Sequence[str], plugins: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what is answered to each image, and why some were not."""
    import torch

    from cnnbench.analysis.predict import from_files, from_split, of_run, of_torchvision

    kind, _, name = flags.network.partition("/")
    if kind == "torchvision" and not Path(flags.network).exists():
        if flags.split:
            raise UserError(f"{flags.network} has no data of its own; give files or folders of images.")
        answering = of_torchvision(name)
    else:
        which = checkpoint_named(flags.checkpoint)
        answering = of_run(flags.network, which, plugins)
    asked, unusable = from_files(answering, words) if words else (from_split(answering, flags.split, flags.index), [])
    if not asked:
        raise UserError("\n".join(["there is no image to answer to:", *(f"  {problem}" for problem in unusable)]))
    parts = torch.split(torch.stack([image.pixels for image in asked]), TOGETHER)
    probabilities = torch.cat([answering.answer(part) for part in parts])
    best = probabilities.topk(min(flags.top_k, len(answering.classes)), dim=1)
    answers = [
        {
            "image": image.name,
            **({} if image.true is None else {"class": image.true}),
            "answers": [
                {"class": answering.classes[label], "probability": probability}
                for label, probability in zip(labels, values, strict=True)
            ],
        }
        for image, labels, values in zip(asked, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    if flags.picture:
        draw(Path(flags.picture), asked, answers)
    return answers, unusable


def table(answers: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line an image: its name, its class where that is known, and the answers."""
    width = max(len(_short(answer["image"])) for answer in answers)
    lines = []
    for answer in answers:
        told = [f"{_short(one['class'])} {one['probability']:.4f}" for one in answer["answers"]]
        true = answer.get("class")
        mark = "" if true is None else f"{_short(true)} {'✓' if true == answer['answers'][0]['class'] else '✗'}  "
        lines.append(f"  {_short(answer['image']):<{width}}  {mark}{', '.join(told)}")
    return lines


def _short(name: str) -> str:
    name = re.sub(r"[^\x20-\x7e\u00a0-\uffff]", " ", name)  # nothing that moves a terminal's cursor
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def draw(path: Path, asked: "Sequence[InputImage]", answers: Sequence[dict[str, Any]]) -> None:
    """Save a picture: each image beside bars of its answers. Raises UserError where it cannot be written."""
    from cnnbench.tasks.figures import any_script, prediction_bars

    titles = [image.name if image.true is None else f"{image.name}: {image.true}" for image in asked]
    bars = [[(one["class"], one["probability"]) for one in answer["answers"]] for answer in answers]
    try:
        with any_script():
            prediction_bars([image.pixels for image in asked], titles, bars).savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UserError(f"--picture {path}: cannot be written: {error}") from error


if __name__ == "__main__":
    main()
