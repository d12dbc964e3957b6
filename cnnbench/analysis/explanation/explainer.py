"""The network to explain, and images as it sees them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnbench.analysis.checkpoints import Checkpoint
from cnnbench.analysis.explanation.layers import LISTED, NotPossible
from cnnbench.analysis.predict import InputImage, images_from_files, images_from_split
from cnnbench.analysis.run import Run
from cnnbench.data.loader import as_pixels
from cnnbench.data.prepare import require_images
from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.tasks.charts import plain

MAX_IMAGES = 40
MAX_CLASSES = 10  # one image of each is taken if none is named
SHORT_FILE = 60  # characters of an image's name in the name of a file


@dataclass(frozen=True)
class Explainer:
    """The network of a run, on the CPU, some images, and what to draw of them.

    which: checkpoint of the network. device: for what takes many images. split: where those come from. num_mapped:
    number of images whose maps are drawn. layer, filter, label: drawn in place of all layers, all maps, and the
    predicted class. notes: on files that were left out.
    """

    run: Run
    which: Checkpoint
    network: nn.Module
    device: torch.device
    inputs: Sequence[InputImage]
    split: str
    num_mapped: int = 1
    layer: str | None = None
    filter: int | None = None
    label: int | None = None
    notes: Sequence[str] = ()

    @cached_property
    def images(self) -> Tensor:
        """Return the images as the network sees them: cropped and normalised, float32 [N, C, H, W]."""
        batches = self.run.batches_of(torch.stack([image.pixels for image in self.inputs]))
        (batch,) = batches.epoch(torch.arange(len(batches)), len(batches))
        return batch.images

    def pixels(self, images: Tensor) -> Tensor:
        """Return images with the normalisation undone, float32 [B, C, H, W] in [0, 1]."""
        data = self.run.record["data"]
        return as_pixels(images, data["mean"], data["std"])

    @cached_property
    def score(self) -> Callable[[Tensor], Tensor]:
        """Return what computes the score of every class, float32 [B, K]. Raises NotPossible if there are no classes.

        Of two classes, the score is the margin over the other one: a network with one output scores only one of them.
        """
        scores = self.run.task.scores
        if scores is None:
            raise NotPossible(f"task {self.run.config.task.name} does not predict classes")

        def score(images: Tensor) -> Tensor:
            # A copy: the first layer may compute in place, which a leaf that requires a gradient does not allow.
            values = scores(self.network(images.clone()))
            return values - values.flip(1) if values.shape[1] == 2 else values

        return score

    @cached_property
    def probabilities(self) -> Tensor:
        """Return the probability of each class, float32 [N, K], as in evaluation."""
        return self.run.predict(torch.stack([image.pixels for image in self.inputs]), self.network)

    def caption(self, number: int) -> str:
        """Return the name of an image, and its class if that is known."""
        image = self.inputs[number]
        name = plain(Path(image.name).name)
        return name if image.true is None else f"{name} ({plain(image.true)})"

    def file_word(self, number: int) -> str:
        """Return the part of a file's name that stands for an image, different for each."""
        words = [re.sub(r"[^A-Za-z0-9._=-]+", "-", Path(image.name).stem)[:SHORT_FILE] for image in self.inputs]
        return words[number] if words.count(words[number]) == 1 else f"{words[number]}-{number}"


def explainer_of(
    run: Run, which: Checkpoint, words: Sequence[str], split: str, rows: Sequence[int] | None
) -> tuple[Explainer, list[str]]:
    """Return a run's network with images of files and folders, or of a split, and why some files cannot be used.

    rows: of the split; None: the first image of each of at most ten classes. Raises UserError if there is no image.
    """
    device = run.prepare_device()
    network = run.model(which)
    is_named = bool(words) or rows is not None
    if words:
        inputs, unusable, notes = images_from_files(words, run.decode)
    else:
        require_images(split, run.training.data, run.folder.shown_path)
        rows = _first_of_each_class(run.data(split).labels) if rows is None else rows
        inputs, unusable, notes = images_from_split(run, split, rows), [], []
    if len(inputs) > MAX_IMAGES:
        raise UserError(f"{len(inputs)} images are too many to look at; name at most {MAX_IMAGES}.")
    # Maps of images that were not named, in every layer, would be a flood of figures.
    maps = len(inputs) if is_named else 1
    return Explainer(run, which, network, device, inputs, split, maps, notes=notes), unusable


def _first_of_each_class(labels: Tensor) -> list[int]:
    """Return the row of the first image of each class, of at most ten."""
    return [int((labels == label).nonzero()[0]) for label in sorted(set(labels.tolist()))[:MAX_CLASSES]]


def label_of(name: str, classes: Sequence[str]) -> int:
    """Return the label of a class. Raises UserError if there is no such class."""
    if name not in classes:
        available = listed(classes[:LISTED]) + (" …" if len(classes) > LISTED else "")
        raise UserError(f"--class {name}: no such class{did_you_mean(name, classes)}; there are {available}.")
    return list(classes).index(name)
