"""The features of images: embeddings, or what the last layer computes its scores from."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.explanation.layers import NotPossible, run_with_hook
from cnnbench.analysis.run import Run, Step
from cnnbench.data.loader import Batch
from cnnbench.errors import UserError
from cnnbench.models.head import trace_head
from cnnbench.tasks.figures import TSNE_POINTS


@dataclass(frozen=True)
class Features:
    """values: float32 [N, D]. labels: int64 [N]. source: what computes them. total: images in the split."""

    values: Tensor
    labels: Tensor
    source: str
    total: int


def features_of(run: Run, network: nn.Module, split: str, device: torch.device, seed: int = 0) -> Features:
    """Return the features of at most 2 000 images of a split, sampled without replacement by the seed."""
    step, source = penultimate_features(run, network)
    try:
        images = run.data(split)
    except UserError as error:  # files can be explained without the data
        raise NotPossible(str(error).removesuffix(".")) from error
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:TSNE_POINTS].sort().values
    network.to(device)
    try:
        values = run.map(network, run.batches_of(images[rows], device), step)
    finally:
        network.cpu()
    return Features(values, images.labels[rows], source, len(images))


def penultimate_features(run: Run, network: nn.Module) -> tuple[Step, str]:
    """Return what computes the features of a batch, float [B, D], and what that is, for a title.

    Raises NotPossible if the layer that computes the scores cannot be found.
    """
    encode = run.task.encode
    if encode is not None:
        return encode, "embeddings"
    outputs = trace_head(network, run.spec).output_layers
    if not outputs:
        raise NotPossible("no Linear or Conv2d layer computes the outputs of the network, so its features are unknown")
    names = tuple(_last_of(network, name) for name in outputs)

    def step(network: nn.Module, batch: Batch) -> Tensor:
        return inputs_of(network, names, batch.images)

    is_averaged = any(isinstance(layer, nn.Conv2d) for layer in map(network.get_submodule, names))
    return step, f"{'the averaged ' if is_averaged else ''}inputs of {' and '.join(names)}"


def inputs_of(network: nn.Module, names: tuple[str, ...], images: Tensor) -> Tensor:
    """Return the inputs of layers for images, concatenated, float [B, D]; maps are averaged over their pixels."""
    features: dict[str, Tensor] = {}

    def hook(name: str, _module: nn.Module, inputs: Any, _output: Any) -> None:
        features[name] = inputs[0].mean((2, 3)) if inputs[0].ndim == 4 else inputs[0].flatten(1).clone()

    run_with_hook(network, images, names, hook)
    return torch.cat([features[name] for name in names], dim=1)


def _last_of(network: nn.Module, name: str) -> str:
    """Return the layer itself, or the last of the layers of a head that replaced it."""
    module = network.get_submodule(name)
    return f"{name}.{list(dict(module.named_children()))[-1]}" if isinstance(module, nn.Sequential) else name
