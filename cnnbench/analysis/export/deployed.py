"""A network as others use it: images go in as they are, and all that has to be known comes with it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench import __version__
from cnnbench.analysis.run import Checkpoint, Run
from cnnbench.config.transfer import HeadConfig
from cnnbench.data.images import DataSpec
from cnnbench.errors import UserError
from cnnbench.models.build import build_network
from cnnbench.registry import TASKS, Selection
from cnnbench.store.files import finite
from cnnbench.tasks.base import Task
from cnnbench.training.loop import map_images

MOST_IMAGES, FEWEST_IMAGES = 256, 16  # to compare on
MOST_VALUES = 2**23  # of these images together: large ones are slow
MEANINGS = {
    "probabilities": "of each class, in the order of `classes`",
    "images": "what the network makes of the window, normalised like it",
    "codes": "of the images; what is alike lies near each other",
    "outputs": "of the network, as they are",
}


class Deployed(nn.Module):
    """A network with what comes before it, and for a classifier what comes after it; in evaluation mode.

    Pixels are cut to the window in the middle and normalised, with the same arithmetic as `Batches`.
    size: channels, height, width of the pixels. window: height and width of what the network sees of them.
    mean, std: per channel, of pixels scaled to [0, 1]. scores: from outputs to a score a class, whose softmax are
    probabilities; None: outputs stay as they are.
    """

    _mean: Tensor
    _inverse_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        size: Sequence[int],
        window: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        scores: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.size = tuple(size)
        self._window = tuple(window)
        self._scores = scores
        self.register_buffer("_mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("_inverse_std", 1 / torch.tensor(std).view(1, -1, 1, 1) / 255, persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float32 [N, …] of pixels, uint8 [N, C, H, W]."""
        assert pixels.dtype == torch.uint8, f"pixels are whole numbers, uint8, not {pixels.dtype}"
        assert tuple(pixels.shape[1:]) == self.size, f"images are {self.size}, not {tuple(pixels.shape[1:])}"
        (height, width), (_, given_height, given_width) = self._window, self.size
        top, left = (given_height - height) // 2, (given_width - width) // 2
        seen = pixels[:, :, top : top + height, left : left + width].float()
        outputs: Tensor = self.network((seen - self._mean) * self._inverse_std).float()
        return outputs if self._scores is None else self._scores(outputs).softmax(1)


def deployed(network: nn.Module, task: Task, about: Mapping[str, Any]) -> Deployed:
    """Return a network for use. about: as `described` says it."""
    pixels = about["pixels"]
    size = (pixels["channels"], pixels["height"], pixels["width"])
    return Deployed(
        network, size, about["window"], about["mean"], about["std"], getattr(task, "scores", None)
    )  # fmt: skip


def rebuilt(about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Deployed:
    """Return the network that weights belong to, built anew from what is said about it.

    What it was made with has to be registered.
    """
    made, (height, width) = about["network"], about["window"]
    spec = DataSpec(about["pixels"]["channels"], height, width, tuple(about["classes"]), tuple(made["counts"]))
    task: Task = TASKS.build(_selection(made["task"]), spec)
    with torch.random.fork_rng(devices=()):
        network = build_network(
            _selection(made["model"]), replace(spec, outputs=task.num_outputs), HeadConfig(**made["head"]), task
        )
    network.load_state_dict(weights)
    return deployed(network, task, about)


def _selection(values: Mapping[str, Any]) -> Selection:
    settings = dict(values)
    return Selection(settings.pop("name"), settings)


def described(run: Run, which: Checkpoint, outputs: Tensor, verified: Mapping[str, Any]) -> dict[str, Any]:
    """Return what others have to know of a run's network, as JSON has it: how to feed it, whose it is, what it is.

    outputs: what it gives for some images, float32 [N, …]. verified: what it was compared on.
    """
    config, data, spec = run.config, run.record["data"], run.spec
    channels, height, width = run.size
    name = name_of(outputs, run.task, spec)
    about = {
        "cnnbench": __version__,
        "torch": torch.__version__,
        "run": {
            "identity": run.record["identity"],
            "name": run.path.name,
            "checkpoint": which,
            "epoch": run.epoch_of(which),
            "average": config.regularization.average.kind,
            "precision": config.precision,
        },
        "task": config.task.name,
        "classes": spec.classes,
        "pixels": {"dtype": "uint8", "channels": channels, "height": height, "width": width},
        "file": {
            "side": width,
            "fit": str(config.data.settings.get("fit", "crop")),
            "means": "how the file of an image becomes pixels: resized, bilinear with antialiasing; crop: the shorter "
            "side to `side`, and the square in the middle taken; stretch: both sides",
        } if height == width else None,
        "window": (spec.height, spec.width),
        "mean": data["mean"],
        "std": data["std"],
        "normalised": "the window in the middle of the pixels; (pixels / 255 - mean) / std, by channel",
        "output": {"name": name, "dtype": "float32", "shape": tuple(outputs.shape[1:]), "means": MEANINGS[name]},
        "verified": verified,
        "network": {
            "model": config.network().flat(),
            "head": config.head.model_dump(),
            "task": config.objective().flat(),
            "counts": spec.counts,
        },
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(finite(about)))
    return plain


def name_of(outputs: Tensor, task: Task, spec: DataSpec) -> str:
    """Return what the outputs of a deployed network are called, a key of MEANINGS: by what a task offers, and shape."""
    if hasattr(task, "scores"):
        return "probabilities"
    if tuple(outputs.shape[1:]) == (spec.channels, spec.height, spec.width):
        return "images"
    return "codes" if hasattr(task, "encode") and outputs.ndim == 2 else "outputs"


def sample(run: Run) -> tuple[Tensor, str, tuple[str, ...]]:
    """Return pixels to compare on, uint8 [N, C, H, W], what they are of, and what there is to say about that."""
    size = run.size
    number = min(MOST_IMAGES, max(FEWEST_IMAGES, MOST_VALUES // math.prod(size)))
    try:
        images = run.data("test")
        if not len(images):
            raise UserError("the run has no test images")
    except UserError as error:
        pixels = torch.randint(256, (number, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return pixels, "random pixels", (f"compared on random pixels, not on images: {str(error).splitlines()[0]}",)
    number = min(number, len(images))
    return images.take(torch.arange(number) * len(images) // number).contiguous(), "the test split", ()


def answers(run: Run, network: nn.Module, pixels: Tensor) -> Tensor:
    """Return what the network of a run gives for images, float32 [N, …], in fp32: probabilities, or its outputs."""
    exact = Run(run.folder, run.config.model_copy(update={"precision": "fp32"}))
    if hasattr(run.task, "scores"):
        return exact.predict(pixels, network)
    return map_images(network, run.batches_of(pixels), lambda network, batch: network(batch.images), exact.config)
