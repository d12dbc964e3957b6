"""Class probabilities of images: by the network of a run or a published one, of files or of a split."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnbench.analysis.checkpoints import Checkpoint
from cnnbench.analysis.run import CPU, Run
from cnnbench.data.checks import SIXTEENTH
from cnnbench.data.decode import Undecodable, decode, deep_kind
from cnnbench.data.image_files import find_images, first_names
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batches
from cnnbench.data.prepare import require_images
from cnnbench.errors import UserError, counted, described, listed

Pictures = Tensor | Images | str | Path | Sequence[str | Path]
"""Pixels before cropping, uint8 [N, C, H, W], or files and folders of images."""


@dataclass(frozen=True)
class Predictor:
    """A network that predicts classes.

    predict: from uint8 [N, C, H, W] to probabilities, float32 [N, K]. decode: from an image file to uint8 [C, H, W].
    """

    classes: tuple[str, ...]
    predict: Callable[[Tensor], Tensor]
    decode: Callable[[Path], Tensor]

    @classmethod
    def of_run(cls, run: Run, which: Checkpoint = "tested") -> "Predictor":
        """Return the network of a run. Its arithmetic is set up as in the training."""
        run.prepare_device()
        return cls(run.classes, partial(run.predict, which=run.model(which)), run.decode)

    @classmethod
    def of_torchvision(cls, name: str) -> "Predictor":
        """Return a network of torchvision with its default weights. Raises UserError if they cannot be downloaded."""
        import torchvision.models as zoo

        from cnnbench.models.torchvision import published_network

        network = published_network(name)
        weights = zoo.get_model_weights(name).DEFAULT
        transforms = weights.transforms()
        crop, side = int(transforms.crop_size[0]), int(transforms.resize_size[0])
        interpolation = transforms.interpolation.value
        spec = DataSpec(3, crop, crop, tuple(weights.meta["categories"]))
        if not spec.classes:
            raise UserError(f"torchvision/{name} does not name its classes.")

        def predict(images: Tensor) -> Tensor:
            unlabelled = Images(images, torch.zeros(len(images), dtype=torch.int64))
            batches = Batches(unlabelled, spec, tuple(transforms.mean), tuple(transforms.std), CPU)
            (batch,) = batches.epoch(torch.arange(len(images)), len(images))
            with torch.inference_mode():
                return network(batch.images).softmax(1)  # type: ignore[no-any-return]

        return cls(
            spec.classes, predict,
            lambda path: decode(path, side, 3, "crop", interpolation=interpolation, window=crop).permute(2, 0, 1),
        )  # fmt: skip


@dataclass(frozen=True)
class InputImage:
    """An image to predict or explain. name: its file, or split and row. true: its class, if that is known."""

    name: str
    pixels: Tensor  # uint8 [C, H, W]
    true: str | None = None


def images_from_files(
    words: Sequence[str], decode: Callable[[Path], Tensor]
) -> tuple[list[InputImage], list[str], list[str]]:
    """Return the images of files and folders, for each file that cannot be used the reason, and notes.

    decode: see `Predictor`. Raises UserError for a path that does not exist, and if no file can be used.
    """
    files: list[Path] = []
    notes: list[str] = []
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            contents = find_images(path)
            files += contents.images
            notes += contents.notes()
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{word}: no such file or folder.")
    images, unusable, dark, colored = [], [], [], []
    for path in files:
        try:
            images.append(InputImage(str(path), decode(path)))
        except Undecodable as error:
            unusable.append(f"{path} {error}")
            continue
        if images[-1].pixels.max() <= SIXTEENTH and deep_kind(path):
            dark.append(str(path))
        if len(images[-1].pixels) == 1 and is_colored(path):
            colored.append(str(path))
    if not images:
        raise UserError("\n".join(["there is no image that can be used:", *(f"  {problem}" for problem in unusable)]))
    if dark:
        number = counted(len(dark), "image")
        notes.append(f"{number} of 16 bits per channel, seen as black: at most 1/16 of the range: {first_names(dark)}")
    if colored:
        size = "x".join(map(str, images[0].pixels.shape[1:]))
        notes.append(f"{counted(len(colored), 'image')} in colour, seen in gray, {size}, as the network was trained")
    return images, unusable, notes


def files_in(images: Any, way: str) -> list[str]:
    """Return the files and folders of a call. Raises UserError for anything else. way: what to do with pixels."""
    is_one = isinstance(images, str | Path) or not isinstance(images, Iterable)
    found = [images] if is_one else list(images)
    if not all(isinstance(one, str | Path) for one in found):
        raise UserError(f"images are files and folders, and these are {described(images)}; {way}.")
    return [str(one) for one in found]


def is_colored(path: Path) -> bool:
    """Return whether an image file shows colours, which one in RGB may not."""
    with Image.open(path) as image:
        return bool(np.ptp(np.array(image.convert("RGB").resize((32, 32))), axis=2).max() > 32)  # JPEG adds a few


def pixels_of(run: Run, images: Pictures) -> Tensor | Images:
    """Return the pixels of images, as a run has them before cropping. Raises UserError for what cannot be used."""
    if isinstance(images, Images):
        return images
    if not isinstance(images, Tensor):
        way = "torch.as_tensor makes one tensor of an array, torch.stack of a list of tensors"
        found, unusable, _ = images_from_files(files_in(images, way), run.decode)
        if unusable:
            raise UserError("\n".join(["images that cannot be used:", *(f"  {problem}" for problem in unusable)]))
        return torch.stack([image.pixels for image in found])
    if images.dtype != torch.uint8 or images.shape[1:] != run.size:
        channels, height, width = run.size
        raise UserError(
            f"images must be uint8 [N, {channels}, {height}, {width}], and are {images.dtype} {list(images.shape)}."
        )
    return images


def images_from_split(run: Run, split: str, rows: Sequence[int]) -> list[InputImage]:
    """Return images of the run's own data. Raises UserError for rows that there are not."""
    require_images(split, run.training.data, str(run.path))
    images = run.data(split)
    missing = [row for row in rows if row >= len(images)]
    if missing:
        raise UserError(
            f"--index {listed(map(str, missing))}: {split} has {counted(len(images), 'image')}, counted from 0."
        )
    pixels = images.take(torch.tensor(rows))
    return [
        InputImage(f"{split} {row}", image, run.classes[int(images.labels[row])])
        for row, image in zip(rows, pixels, strict=True)
    ]
