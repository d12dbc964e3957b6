"""What is explained: a network, and the images that it is asked about, as it sees them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnbench.analysis.predict import InputImage, answering, from_files, from_split
from cnnbench.analysis.run import Checkpoint, Run
from cnnbench.data.loader import as_pixels
from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.tasks.figures import plain

MOST_IMAGES = 40  # at once: more is nothing that a person looks at
MOST_CLASSES = 10  # of which an image is taken where none is named
SHORT_FILE = 60  # letters of an image's name in that of a file
LISTED = 20  # names in a message


class NotPossible(UserError):  # noqa: N818 - nothing went wrong, unless it was asked for by its name
    """What this network, task or run cannot give; the message says why."""


@dataclass(frozen=True)
class Subject:
    """A network, on the processor, and some images.

    which: checkpoint of the network. device: for what takes many images. split: from which those are. row: of the
    first image among those that train, where it is one of them.
    """

    run: Run
    which: Checkpoint
    network: nn.Module
    device: torch.device
    asked: Sequence[InputImage]
    split: str
    row: int | None = None

    @cached_property
    def images(self) -> Tensor:
        """Return the images as the network sees them: float32 [N, C, H, W], normalised."""
        batches = self.run.batches_of(torch.stack([image.pixels for image in self.asked]))
        (batch,) = batches.epoch(torch.arange(len(batches)), len(batches))
        return batch.images

    def pixels(self, images: Tensor) -> Tensor:
        """Return images as they were before they were normalised, float32 [B, C, H, W] in [0, 1]."""
        data = self.run.record["data"]
        return as_pixels(images, data["mean"], data["std"])

    @cached_property
    def score(self) -> Callable[[Tensor], Tensor]:
        """Return what gives the score of every class, float32 [B, K]. Raises NotPossible where there are no classes.

        Of two classes it is by how much the score is above the other one: a network with one output scores but one.
        """
        scores = self.run.task.scores
        if scores is None:
            raise NotPossible(f"task {self.run.config.task.name} does not tell classes")

        def score(images: Tensor) -> Tensor:
            # A copy: the first layer may compute in place, which an image that wants a gradient does not bear.
            found: Tensor = scores(self.network(images.clone()))
            return found - found.flip(1) if found.shape[1] == 2 else found

        return score

    @cached_property
    def probabilities(self) -> Tensor:
        """Return the probability of each class, float32 [N, K], as in measuring."""
        return self.run.predict(torch.stack([image.pixels for image in self.asked]), self.network)

    def caption(self, number: int) -> str:
        """Return the name of an image, and its class where that is known."""
        image = self.asked[number]
        name = plain(Path(image.name).name)
        return name if image.true is None else f"{name} ({plain(image.true)})"

    def word(self, number: int) -> str:
        """Return what an image is called in the names of files, where no two images are called the same."""
        words = [re.sub(r"[^A-Za-z0-9._=-]+", "-", Path(image.name).stem)[:SHORT_FILE] for image in self.asked]
        return words[number] if words.count(words[number]) == 1 else f"{words[number]}-{number}"

    def label_of(self, name: str) -> int:
        """Return the label of a class. Raises UserError where there is no such class."""
        classes = self.run.classes
        if name not in classes:
            there = listed(classes[:LISTED]) + (" …" if len(classes) > LISTED else "")
            raise UserError(f"--class {name}: no such class{did_you_mean(name, classes)}; there are {there}.")
        return classes.index(name)


def subject_of(
    run: Run, which: Checkpoint, words: Sequence[str], split: str, indices: str | None
) -> tuple[Subject, list[str]]:
    """Return a run's network with the images of files and folders, or of its own data, and why some cannot be used.

    indices: numbers with commas between; None: the first image of each class, of ten at most.
    Raises UserError where there is no image.
    """
    device = run.set_up()
    network = run.model(which)
    answers = answering(run, network)
    if words:
        asked, unusable = from_files(answers, words)
    else:
        indices = indices or first_of_each_class(run.data(split).labels, split)
        asked, unusable = from_split(answers, split, indices), []
    if not asked:
        raise UserError("\n".join(["there is no image to explain:", *(f"  {problem}" for problem in unusable)]))
    if len(asked) > MOST_IMAGES:
        raise UserError(f"{len(asked)} images are more than anybody looks at; name {MOST_IMAGES} at most.")
    row = int(indices.split(",")[0]) if indices and split == "train" else None
    return Subject(run, which, network, device, asked, split, row), unusable


def first_of_each_class(labels: Tensor, split: str) -> str:
    """Return the rows of the first image of each class, of ten at most, with commas between."""
    if not len(labels):
        raise UserError(f"{split}: there are no such images; the splits are train, val and test.")
    classes = sorted(set(labels.tolist()))[:MOST_CLASSES]
    return ",".join(str(int((labels == label).nonzero()[0])) for label in classes)
