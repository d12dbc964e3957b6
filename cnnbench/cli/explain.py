"""`cnnbench explain`: what a network has learnt and what it looks at, as figures."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.out import writing
from cnnbench.cli.parse import CHECKPOINT, IMAGES, INDEX, RUN, SPLITS, Argument, Verb, path, refresh_page, say
from cnnbench.errors import UserError, did_you_mean, listed

if TYPE_CHECKING:
    from cnnbench.analysis.explanation.pictures import Picture

ABOUT = """\
Draws what the network of a run has learnt, and what it looks at.

  cnnbench explain outputs/RUN              one test image per class (max. ten)
  cnnbench explain outputs/RUN photo.jpg    image files, and folders of them
  cnnbench explain outputs/RUN --split test --index 13,43
  cnnbench explain outputs/RUN --what gradcam --class cat
  cnnbench explain outputs/RUN --layer features.relu2 --filter 5

activations    the feature maps of layers for an image
kernels        the weights of the first layer
gradcam        the evidence for a class, by place in a layer
saliency       the evidence for a class, by pixel
tsne           the features of a split in two dimensions

Figures are written to RUN/explanation/, and shown on the page of the run;
--out writes them elsewhere. Nothing else in the run folder is changed. gradcam
and saliency need pip install 'cnnbench[explain]'.
"""
KINDS = ("activations", "kernels", "gradcam", "saliency", "tsne")
KINDS_WITH = {"layer": ("activations", "gradcam"), "filter": ("activations",), "class": ("gradcam", "saliency")}


def _run(flags: Namespace) -> None:
    """Draw figures, and print a line for each. Raises UserError in the end for images that could not be used."""
    if flags.words and (flags.split or flags.index is not None):
        raise UserError("give files or folders of images, or --split and --index")
    if flags.filter is not None and (flags.layer is None or flags.filter < 0):
        raise UserError("--filter is the number of a map of the layer that --layer names, counted from 0")
    for word in flags.words:
        if word in KINDS and not Path(word).exists():
            raise UserError(f"{word}: no such file or folder; type --what {word}")
    kinds = _kinds_of(flags)

    from cnnbench.analysis.explanation.explainer import explainer_of, label_of
    from cnnbench.analysis.explanation.layers import NotPossible
    from cnnbench.analysis.explanation.pictures import KINDS as DRAW
    from cnnbench.analysis.explanation.pictures import not_drawn
    from cnnbench.analysis.loading import load_run
    from cnnbench.training.terminal import linked

    opened = load_run(flags.run, flags.plugins)
    which = opened.resolve(flags.checkpoint)
    explainer, problems = explainer_of(opened, which, flags.words, flags.split or "test", flags.index)
    label = None if flags.class_ is None else label_of(flags.class_, opened.classes)
    explainer = replace(explainer, layer=flags.layer, filter=flags.filter, label=label)
    folder: Path = flags.out or opened.path / "explanation"
    say(f"  {opened.folder.shown_path}, checkpoint {which}")
    left_out, unusable = [], list(problems)
    for kind in kinds:
        try:
            for picture in DRAW[kind](explainer):
                saved = _save(picture, folder, is_new=bool(flags.out))
                say("  " + linked(saved, saved.name) + f": {picture.line}")
            if kind == "activations" and (more := not_drawn(explainer)):
                left_out.append(f"  left out: activations {more}")
        except NotPossible as error:
            if flags.what:
                unusable.append(f"--what {kind}: {error}; without --what, all that is possible is drawn")
            else:
                left_out.append(f"  left out: {kind}: {error}")
    say(*(f"  note: {note}" for note in explainer.notes), *left_out, "  figures: " + linked(folder))
    if flags.out is None:
        refresh_page(opened)
    if unusable:
        raise UserError("\n".join(["not explained:", *(f"  {problem}" for problem in unusable)]))


def _kinds_of(flags: Namespace) -> Sequence[str]:
    kinds = [word.strip() for word in flags.what.split(",")] if flags.what else KINDS
    for kind in kinds:
        if kind not in KINDS:
            hint = did_you_mean(kind, KINDS) or f"; there are {listed(KINDS)}."
            raise UserError(f"--what {kind}: no such kind{hint}")
    for option, value in (("layer", flags.layer), ("filter", flags.filter), ("class", flags.class_)):
        if value is not None and not set(KINDS_WITH[option]) & set(kinds):
            raise UserError(f"--{option}: is for {listed(KINDS_WITH[option])}, which --what does not name.")
    # In this order a misspelt layer is refused before anything is written.
    return [kind for kind in KINDS if kind in kinds]


def _save(picture: "Picture", folder: Path, is_new: bool) -> Path:
    from cnnbench.store.files import make_folder, write_atomically
    from cnnbench.tasks.charts import any_script

    path, content = folder / f"{picture.name}.png", BytesIO()
    with any_script():
        picture.figure.savefig(content, format="png", dpi=120, bbox_inches="tight")
    with writing(folder, [path.name] * is_new):
        make_folder(folder)
        write_atomically(path, content.getvalue())
    return path


VERB = Verb(
    "explain",
    ABOUT,
    (
        RUN,
        IMAGES,
        Argument("--what", metavar="KIND,…", help="figures of these kinds; default: all possible"),
        Argument("--split", choices=SPLITS, metavar="SPLIT", help="test, val or train; also for tsne"),
        INDEX,
        Argument("--layer", metavar="NAME", help="of activations and gradcam; default: several"),
        Argument("--filter", type=int, metavar="N", help="one feature map of --layer, counted from 0"),
        Argument("--class", dest="class_", metavar="NAME", help="of gradcam and saliency; default: the predicted one"),
        CHECKPOINT,
        Argument("--out", type=path, metavar="FOLDER", help="where to write; default: RUN/explanation"),
    ),
    _run,
)
