"""`cnnbench-explain`: what a network has learnt, and what it looks at, as pictures."""

import re
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.parse import CHECKPOINT_HELP, checkpoint_named, finish, split_key_values
from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.plugins import plugin_names

if TYPE_CHECKING:
    from cnnbench.analysis.explanation.pictures import Picture

ABOUT = """\
Draws what the network of a run has learnt, and what it looks at.

  cnnbench-explain outputs/RUN                                     the first test image of each class, ten at most
  cnnbench-explain outputs/RUN photo.jpg more_photos/              files and folders of images, converted as in training
  cnnbench-explain outputs/RUN --split test --index 13,43          images of the run's own data
  cnnbench-explain outputs/RUN --what gradcam --class cat          only that, and for a class that is not the answer
  cnnbench-explain outputs/RUN --layer features.relu2 --filter 5   one map of a layer

activations: what layers give for an image. kernels: the weights of the first layer. gradcam, saliency: what speaks for
the class, by layer and by pixel. gallery: the most certain mistakes and the least certain hits of a split. tsne: what
the last layer sees of it. augmentation: 24 looks at an image.
Pictures come into RUN/explanation/, or where --out says. Nothing is trained, and nothing else is changed.
"""
WHAT = ("activations", "kernels", "gradcam", "saliency", "gallery", "tsne", "augmentation")
CONCERNS = {"layer": ("activations", "gradcam"), "filter": ("activations",), "class": ("gradcam", "saliency")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit: 0 all drawn, 2 a mistake, or an image that cannot be used."""
    parser = ArgumentParser("cnnbench-explain", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files and folders of images; plugins=FILE")
    parser.add_argument("--what", metavar="KIND,…", help=f"of {', '.join(WHAT)}; else all that there can be")
    parser.add_argument("--split", choices=("test", "val", "train"), help="images of the run's own data, and of t-SNE")
    parser.add_argument("--index", metavar="N,N,…", help="which of the split, counted from 0")
    parser.add_argument("--layer", metavar="NAME", help="of activations and Grad-CAM")
    parser.add_argument("--filter", type=int, metavar="N", help="one map of --layer, large; counted from 0")
    parser.add_argument("--class", dest="class_", metavar="NAME", help="of Grad-CAM and saliency; else the answer")
    parser.add_argument("--checkpoint", default="tested", metavar="best|last|N", help=CHECKPOINT_HELP)
    parser.add_argument("--out", metavar="FOLDER", help="where pictures go; else RUN/explanation")
    flags = parser.parse_intermixed_args(arguments)
    words, given = split_key_values(flags.images, "plugins")
    if words and (flags.split or flags.index is not None):
        parser.error("give files or folders of images, or --split and --index")
    if flags.index is not None and not re.fullmatch(r"\d+(,\d+)*", flags.index):
        parser.error("--index takes numbers with commas between: 13,43,53")
    if flags.filter is not None and (flags.layer is None or flags.filter < 0):
        parser.error("--filter takes the number of a map of the layer that --layer names, counted from 0")

    def command() -> None:
        kinds = kinds_of(flags)
        explain(flags, words, plugin_names(given.get("plugins", "")), kinds)

    finish("cnnbench-explain", command)


def kinds_of(flags: Namespace) -> list[str]:
    """Return the kinds of pictures to draw. Raises UserError for one that there is not, and for what concerns none."""
    kinds = list(dict.fromkeys(word.strip() for word in flags.what.split(","))) if flags.what else list(WHAT)
    for kind in kinds:
        if kind not in WHAT:
            raise UserError(
                f"--what {kind}: there is no such picture{did_you_mean(kind, WHAT)}; there are {listed(WHAT)}."
            )
    for option, value in (("layer", flags.layer), ("filter", flags.filter), ("class", flags.class_)):
        if value is not None and not set(CONCERNS[option]) & set(kinds):
            raise UserError(f"--{option}: is of {listed(CONCERNS[option])}, and --what does not name them.")
    return sorted(kinds, key=WHAT.index)  # mistakes in names of layers come first, before anything is written


def explain(flags: Namespace, words: Sequence[str], plugins: Sequence[str], kinds: Sequence[str]) -> None:
    """Draw the pictures, and tell of each, one after another. Raises UserError for images that cannot be used."""
    from cnnbench.analysis.explanation.pictures import Request, not_shown, pictures
    from cnnbench.analysis.explanation.subject import NotPossible, subject_of
    from cnnbench.analysis.run import load_run

    run = load_run(flags.run, plugins)
    which = run.named(checkpoint_named(flags.checkpoint))
    subject, unusable = subject_of(run, which, words, flags.split or "test", flags.index)
    label = None if flags.class_ is None else subject.label_of(flags.class_)
    # Maps of images that nobody named, in every layer, would be a flood of pictures.
    number = len(subject.asked) if words or flags.index else 1
    request = Request(subject, number, flags.layer, flags.filter, label)
    folder = Path(flags.out) if flags.out else run.path / "explanation"
    left_out = []
    for kind in kinds:
        try:
            for picture in pictures(request, kind, bool(flags.what)):
                path = save(picture, folder)
                sys.stdout.write(f"  {path.name}: {picture.line}\n")
                sys.stdout.flush()
            if kind == "activations" and (more := not_shown(request)):
                left_out.append(f"  left out: activations {more}\n")
        except NotPossible as error:
            left_out.append(f"  left out: {kind}: {error}\n")
    sys.stdout.write("".join([*left_out, f"  pictures: {folder}\n"]))
    if unusable:
        raise UserError("\n".join(["not explained:", *(f"  {problem}" for problem in unusable)]))


def save(picture: "Picture", folder: Path) -> Path:
    """Write a picture into a folder, and return its path. Raises UserError where it cannot be written."""
    from cnnbench.tasks.figures import any_script

    path = folder / f"{picture.name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with any_script():
            picture.figure.savefig(path, dpi=120, bbox_inches="tight")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}; --out FOLDER names another place.") from error
    return path


if __name__ == "__main__":
    main()
