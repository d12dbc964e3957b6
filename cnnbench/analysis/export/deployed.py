"""A network with what comes before and after it, from pixels to probabilities, and its description for others."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench import __version__
from cnnbench.analysis.checkpoints import Checkpoint
from cnnbench.analysis.run import Run
from cnnbench.config.schema import HeadConfig
from cnnbench.data.images import DataSpec
from cnnbench.models.build import build_network, load_weights
from cnnbench.registry import TASKS, Selection
from cnnbench.store.files import finite
from cnnbench.tasks.base import Task

MEANINGS = {
    "probabilities": "of each class, in the order of `classes`",
    "images": "what the network reconstructs of the cropped image, normalised like it",
    "codes": "embeddings of the images; similar images are close to each other",
    "outputs": "of the network, as they are",
}


class Deployed(nn.Module):
    """A network with what comes before it, and for a classifier what comes after it; in evaluation mode.

    Pixels are cropped in the middle and normalised, with the same arithmetic as in `Batches`.
    size: channels, height, width of the pixels. crop: height and width that the network sees of them.
    mean, std: per channel, of pixels scaled to [0, 1]. scores: from outputs to a score per class, whose softmax gives
    probabilities; None: outputs stay as they are.
    """

    _mean: Tensor
    _inverse_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        size: Sequence[int],
        crop: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        scores: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.size = tuple(size)
        self._crop = tuple(crop)
        self._scores = scores
        self.register_buffer("_mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("_inverse_std", 1 / torch.tensor(std).view(1, -1, 1, 1) / 255, persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return float32 [N, …] of pixels, uint8 [N, C, H, W]."""
        assert pixels.dtype == torch.uint8, f"pixels must be uint8, not {pixels.dtype}"
        assert tuple(pixels.shape[1:]) == self.size, f"images must be {self.size}, not {tuple(pixels.shape[1:])}"
        (height, width), (_, full_height, full_width) = self._crop, self.size
        top, left = (full_height - height) // 2, (full_width - width) // 2
        cropped = pixels[:, :, top : top + height, left : left + width].float()
        outputs: Tensor = self.network((cropped - self._mean) * self._inverse_std).float()
        return outputs if self._scores is None else self._scores(outputs).softmax(1)


def deployed(network: nn.Module, task: Task, about: Mapping[str, Any]) -> Deployed:
    """Return a deployed network. about: as from `described`."""
    pixels = about["pixels"]
    size = (pixels["channels"], pixels["height"], pixels["width"])
    return Deployed(network, size, about["window"], about["mean"], about["std"], task.scores)


def rebuilt(about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Deployed:
    """Return the network built from its description, with these weights. Its plugins have to be registered."""
    network, (height, width) = about["network"], about["window"]
    spec = DataSpec(about["pixels"]["channels"], height, width, tuple(about["classes"]), tuple(network["counts"]))
    task: Task = TASKS.build(_selection(network["task"]), spec=spec)
    with torch.random.fork_rng(devices=()):
        built = build_network(
            _selection(network["model"]), replace(spec, outputs=task.num_outputs), HeadConfig(**network["head"]), task
        )
    load_weights(built, weights)
    return deployed(built, task, about)


def _selection(values: Mapping[str, Any]) -> Selection:
    settings = dict(values)
    return Selection(settings.pop("name"), settings)


def described(run: Run, which: Checkpoint, outputs: Tensor, verified: Mapping[str, Any]) -> dict[str, Any]:
    """Return what others need to know to use a run's network: its input, its output, where it comes from; as JSON.

    outputs: of the network for some images, float32 [N, …]. verified: what it was compared on.
    """
    config, data, spec = run.config, run.record["data"], run.spec
    channels, height, width = run.size
    name = _name_of(outputs, run.task, spec)
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
            "fit": run.fit,
            "bits": config.data.bits,
            "interpolation": config.data.interpolation,
            "means": f"how an image file becomes pixels: resized, {config.data.interpolation} with antialiasing; crop: "
            "the shorter side to `side`, then the central square is cropped; stretch: both sides; bits: how many a "
            "file with 16 per channel uses, 2^bits - 1 is white",
        } if height == width else None,
        "window": (spec.height, spec.width),
        "mean": data["mean"],
        "std": data["std"],
        "normalised": "the central crop of the pixels, of the size `window`; (pixels / 255 - mean) / std, by channel",
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


def _name_of(outputs: Tensor, task: Task, spec: DataSpec) -> str:
    if task.scores is not None:
        return "probabilities"
    if tuple(outputs.shape[1:]) == (spec.channels, spec.height, spec.width):
        return "images"
    return "codes" if task.encode is not None and outputs.ndim == 2 else "outputs"
