"""`cnnbench predict`: the classes that a network predicts for images."""

from argparse import Namespace
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.catalog import run_folders
from cnnbench.cli.parse import CHECKPOINT, IMAGES, INDEX, JSON, SPLITS, Argument, Verb, path, run_name, say, say_json
from cnnbench.errors import UserError, one_line

if TYPE_CHECKING:
    from cnnbench.analysis.predict import InputImage

ABOUT = """\
Predicts the classes of images: the most probable ones, with probabilities.

  cnnbench predict outputs/RUN photo.jpg folder/       image files and folders
  cnnbench predict outputs/RUN --split test --index 13,43
                                                       images of its own data
  cnnbench predict torchvision/resnet50 photo.jpg      a published network
  cnnbench predict outputs/RUN photo.jpg --picture figure.png

Image files are converted as in training. With --picture, each image is drawn
next to its predictions.
"""
LONGEST_NAME = 28  # characters, in the table
BATCH_SIZE = 64


def _run(flags: Namespace) -> None:
    """Print a line for each image. Raises UserError in the end for those that could not be used."""
    if flags.split and not flags.words and flags.index is None:
        raise UserError(f"--index N,N,… says which images of {flags.split}")
    if bool(flags.words) == bool(flags.split or flags.index is not None):
        both = ", not both" * bool(flags.words)
        raise UserError(f"give files or folders of images, or --index N,N,… for images of the run's own data{both}")
    if flags.top_k < 1:
        raise UserError("--top-k must be at least 1")
    if flags.picture and flags.picture.exists():
        raise UserError(f"--picture {flags.picture}: there is such a file, which is not overwritten; give another name")
    images, predictions, unusable, notes = _predict(flags)
    if flags.picture:
        _draw(flags.picture, images, predictions)
    say_json(predictions) if flags.json else say(*_table(predictions), *(f"  note: {note}" for note in notes))
    if unusable:
        raise UserError("\n".join(["no prediction for:", *(f"  {problem}" for problem in unusable)]))


def _predict(flags: Namespace) -> "tuple[list[InputImage], list[dict[str, Any]], list[str], list[str]]":
    import torch

    from cnnbench.analysis.loading import load_run
    from cnnbench.analysis.predict import Predictor, images_from_files, images_from_split

    library, _, name = flags.run.partition("/")
    images: list[InputImage] = []
    unusable: list[str] = []
    notes: list[str] = []
    if library == "torchvision" and not Path(flags.run).exists():
        if flags.index is not None:
            raise UserError(f"{flags.run} has no data of its own; give files or folders of images.")
        predictor = Predictor.of_torchvision(name)
    else:
        opened = load_run(flags.run, flags.plugins)
        if not flags.json and not Path(flags.run).exists():  # `last`, or a part of a path
            say(f"  {opened.folder.shown_path}")
        predictor = Predictor.of_run(opened, flags.checkpoint)
        if flags.index is not None:
            images = images_from_split(opened, flags.split or "test", flags.index)
    if flags.words:
        images, unusable, notes = images_from_files(flags.words, predictor.decode)
    batches = torch.split(torch.stack([image.pixels for image in images]), BATCH_SIZE)
    probabilities = torch.cat([predictor.predict(batch) for batch in batches])
    best = probabilities.topk(min(flags.top_k, len(predictor.classes)), dim=1)
    predictions = [
        {
            "image": image.name,
            **({} if image.true is None else {"class": image.true}),
            "answers": [
                {"class": predictor.classes[label], "probability": probability}
                for label, probability in zip(labels, values, strict=True)
            ],
        }
        for image, labels, values in zip(images, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return images, predictions, unusable, notes


def _table(predictions: Sequence[dict[str, Any]]) -> list[str]:
    width = max(len(_short(one["image"])) for one in predictions)
    lines = []
    for one in predictions:
        answers = ", ".join(f"{_short(answer['class'])} {answer['probability']:.4f}" for answer in one["answers"])
        true = one.get("class")
        mark = "" if true is None else f"{_short(true)} {'✓' if true == one['answers'][0]['class'] else '✗'}  "
        lines.append(f"  {_short(one['image']):<{width}}  {mark}{answers}")
    return lines


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def _draw(path: Path, images: "Sequence[InputImage]", predictions: Sequence[dict[str, Any]]) -> None:
    from cnnbench.store.files import write_atomically
    from cnnbench.tasks.charts import any_script
    from cnnbench.tasks.classifier_figures import prediction_bars

    titles = [image.name if image.true is None else f"{image.name}: {image.true}" for image in images]
    bars = [[(answer["class"], answer["probability"]) for answer in one["answers"]] for one in predictions]
    content = BytesIO()
    try:
        with any_script():
            panel = prediction_bars([image.pixels for image in images], titles, bars)
            panel.savefig(content, format=path.suffix.lstrip(".") or "png", dpi=120)
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise UserError(f"--picture {path}: cannot be written: {error.strerror or error}.") from error
    except ValueError as error:  # of formats that are not known
        raise UserError(f"--picture {path}: cannot be written: {error}") from error


VERB = Verb(
    "predict",
    ABOUT,
    (
        Argument(
            "run",
            metavar="RUN",
            type=run_name,
            complete=run_folders,
            help="folder of a run, its name, part of its path, last; torchvision/NAME",
        ),
        IMAGES,
        Argument(
            "--split", choices=SPLITS, metavar="SPLIT", help="of the run's own data: test, val or train; default: test"
        ),
        INDEX,
        CHECKPOINT,
        Argument("--top-k", type=int, default=5, metavar="K", help="classes shown for each image; default: 5"),
        JSON,
        Argument("--picture", type=path, metavar="FILE", help="draw the images with their predictions"),
    ),
    _run,
)
