"""What the last layer sees of images: codes, or the features that scores are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.explanation.subject import NotPossible, Subject
from cnnbench.data.loader import Batch, Batches
from cnnbench.errors import UserError
from cnnbench.models.head import trace_head
from cnnbench.tasks.figures import TSNE_POINTS
from cnnbench.training.loop import map_images

Step = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Features:
    """values: float32 [N, D]. labels: int64 [N]. what: where they come from. total: images that there are."""

    values: Tensor
    labels: Tensor
    what: str
    total: int


def features_of(subject: Subject, seed: int = 0) -> Features:
    """Return the features of images of the subject's split: of 2 000 at most, chosen by the seed, each at most once."""
    step, what = penultimate_features(subject)
    try:
        data = subject.run.ready.data
    except UserError as error:  # files can be explained without the data
        raise NotPossible(str(error).removesuffix(".")) from error
    images = getattr(data, subject.split)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:TSNE_POINTS].sort().values
    batches = Batches(images[rows], data.spec, data.mean, data.std, subject.device)
    subject.network.to(subject.device)
    try:
        values = map_images(subject.network, batches, step, subject.run.config)
    finally:
        subject.network.cpu()
    return Features(values, images.labels[rows], what, len(images))


def penultimate_features(subject: Subject) -> tuple[Step, str]:
    """Return what gives the features of a batch, float [B, D], and where they come from.

    Raises NotPossible where no layer is known to give the scores.
    """
    run = subject.run
    if run.task.encode is not None:
        return run.task.encode, "codes"
    names = trace_head(subject.network, run.spec).output_layers
    if not names:
        raise NotPossible("no Linear or Conv2d of the network gives its outputs, so what that layer sees is not known")
    names = tuple(_last_of(subject.network, name) for name in names)

    def step(network: nn.Module, batch: Batch) -> Tensor:
        return inputs_of(network, names, batch.images)

    averaged = any(isinstance(layer, nn.Conv2d) for layer in map(subject.network.get_submodule, names))
    return step, f"{'the means of ' if averaged else ''}what {' and '.join(names)} sees"


def inputs_of(network: nn.Module, names: tuple[str, ...], images: Tensor) -> Tensor:
    """Return what some layers are given for images, side by side, float [B, D]; of maps their means."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, inputs: Any) -> None:
            seen[name] = inputs[0].mean((2, 3)) if inputs[0].ndim == 4 else inputs[0].flatten(1).clone()

        return hook

    handles = [network.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([seen[name] for name in names], dim=1)


def _last_of(network: nn.Module, name: str) -> str:
    """Return the layer itself, or the last of those that were put in its place as a head of several."""
    module = network.get_submodule(name)
    return f"{name}.{list(dict(module.named_children()))[-1]}" if isinstance(module, nn.Sequential) else name
