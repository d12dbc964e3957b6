"""Networks that answer to images, of runs and published ones; and the images: files, or those of a run's data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnbench.analysis.run import Checkpoint, Run, load_run
from cnnbench.data.decode import Undecodable, decode
from cnnbench.data.image_files import find_images
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batches
from cnnbench.errors import UserError, listed


@dataclass(frozen=True)
class Predictor:
    """A network that tells classes. answer: from uint8 [N, C, side, side] to probabilities, float32 [N, K].

    side, channels, fit: how a file is converted. run: where its data are known.
    """

    classes: tuple[str, ...]
    answer: Callable[[Tensor], Tensor]
    side: int
    channels: int
    fit: str = "crop"
    run: Run | None = None

    def convert(self, path: Path) -> Tensor:
        """Return the pixels of a file, uint8 [C, side, side]. Raises Undecodable."""
        return decode(path, self.side, self.channels, self.fit).permute(2, 0, 1)


@dataclass(frozen=True)
class InputImage:
    """An image that was asked about. name: its file, or its place in a split. true: its class, where that is known."""

    name: str
    pixels: Tensor  # uint8 [C, H, W]
    true: str | None = None


def of_run(path: str, which: Checkpoint = "tested", plugins: Sequence[str] = ()) -> Predictor:
    """Return the network of a run. Raises UserError for one that does not tell classes."""
    run = load_run(path, plugins)
    run.set_up()
    return answering(run, run.model(which))


def answering(run: Run, network: nn.Module) -> Predictor:
    """Return a network of a run, with how files become what it takes."""
    channels, _, side = run.size
    fit = str(run.config.data.settings.get("fit", "crop"))
    return Predictor(run.classes, partial(run.predict, which=network), side, channels, fit, run)


def of_torchvision(name: str) -> Predictor:
    """Return one of torchvision's networks with its default weights. Raises UserError where they cannot be fetched."""
    import torchvision.models as zoo

    from cnnbench.models.torchvision import pretrained

    source = pretrained({"architecture": name})
    network = zoo.get_model(name)
    network.load_state_dict(source.load())
    network.eval()
    weights = zoo.get_model_weights(name).DEFAULT
    seen = weights.transforms()
    crop, side = int(seen.crop_size[0]), int(seen.resize_size[0])
    spec = DataSpec(3, crop, crop, tuple(weights.meta["categories"]))

    def answer(images: Tensor) -> Tensor:
        labels = torch.zeros(len(images), dtype=torch.int64)
        batches = Batches(Images(images, labels), spec, tuple(seen.mean), tuple(seen.std), torch.device("cpu"))
        (batch,) = batches.epoch(torch.arange(len(images)), len(images))
        with torch.inference_mode():
            return network(batch.images).softmax(1)  # type: ignore[no-any-return]

    if not spec.classes:
        raise UserError(f"torchvision/{name} says no names of classes.")
    return Predictor(spec.classes, answer, side, 3)


def from_files(answering: Predictor, words: Sequence[str]) -> tuple[list[InputImage], list[str]]:
    """Return the images of files and folders, converted as in training, and what is wrong with the others."""
    files: list[Path] = []
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            files += find_images(path).images
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{word}: no such file or folder.")
    asked, unusable = [], []
    for path in files:
        try:
            asked.append(InputImage(str(path), answering.convert(path)))
        except Undecodable as error:
            unusable.append(f"{path} {error}")
    return asked, unusable


def from_split(answering: Predictor, split: str, indices: str) -> list[InputImage]:
    """Return images of the run's own data. Raises UserError for numbers beyond their end."""
    assert answering.run is not None
    images = answering.run.data(split)
    rows = [int(number) for number in indices.split(",")]
    beyond = [row for row in rows if row >= len(images)]
    if beyond:
        raise UserError(f"--index {listed(map(str, beyond))}: {split} has {len(images)} images, counted from 0.")
    pixels = images.take(torch.tensor(rows))
    return [
        InputImage(f"{split} {row}", image, answering.classes[int(images.labels[row])])
        for row, image in zip(rows, pixels, strict=True)
    ]
