"""Reconstruction of images from embeddings."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.models.build import Encoder, shape_error
from cnnbench.models.encoders import upsampling_decoder
from cnnbench.registry import TASKS
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.embedding import Dimensions, EncodingTask, ShowEvery
from cnnbench.tasks.figures import reconstructions

SHOWN = 50  # images


@TASKS.register("autoencoder")
class Autoencoder(EncodingTask):
    """Mean squared error between images and their reconstructions from embeddings.

    An encoder with a decoder of its own gets that one, any other model one that upsamples its outputs.
    dimensions: of an embedding; null: the model's own, if it is an encoder, else 128. show_every: epochs between two
    figures of reconstructions.
    The error is of normalised pixels. With data.statistics=own it is the share of the pixels' variance that is not
    explained, 1 for a network that always returns the mean.
    """

    figure_titles: Mapping[str, str] = {
        "reconstructions-test": "Test images and their reconstructions",
        "reconstructions-val": "Validation images and their reconstructions",
        "reconstructions-train": "Training images and their reconstructions",
        **EncodingTask.figure_titles,
    }

    def __init__(self, spec: DataSpec, *, dimensions: Dimensions = None, show_every: ShowEvery = None) -> None:
        super().__init__(spec, dimensions, show_every)

    def wrap_model(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the model with a decoder. Raises SettingError for an encoder of another size than is set."""
        size = self.embedding_size(model)
        decoder = model.decoder() if isinstance(model, Encoder) else None
        return nn.Sequential(OrderedDict(encoder=model, decoder=decoder or upsampling_decoder(size, spec)))

    def validate_output(self, outputs: Any, spec: DataSpec) -> str | None:
        """Return what is wrong with the shape of two reconstructions; None: nothing."""
        return shape_error(outputs, (2, spec.channels, spec.height, spec.width), "images")

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: D102
        errors = squared_errors(network, batch)
        return errors.mean(), errors.detach().sum().unsqueeze(0)

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:  # noqa: D102
        return squared_errors(network, batch).unsqueeze(1)

    def encode(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the embeddings of images, float [B, D]."""
        embeddings: Tensor = network.get_submodule("encoder")(batch.images)
        return embeddings

    def log_progress(self, context: EvalContext) -> None:
        """Draw some images and their reconstructions, of the same images every time."""
        batches = context.splits[context.held_out]
        number = min(SHOWN, len(batches))
        order = torch.arange(number) * len(batches) // number
        (batch,) = batches.epoch(order, number)
        outputs = context.network(batch.images)
        error = float((outputs - batch.images).square().mean())
        size = self.encode(context.network, batch).shape[1]
        title = f"reconstructed from {size} numbers after epoch {context.epoch}; error {error:.4f}"
        figure = reconstructions(context.pixels(batch.images), context.pixels(outputs), title)
        context.save(f"reconstructions-{context.held_out}", figure)

    def final_evaluation(self, context: EvalContext) -> dict[str, float]:
        """Draw reconstructions of test images, and evaluate their embeddings."""
        self.log_progress(context)
        return super().final_evaluation(context)


def squared_errors(network: nn.Module, batch: Batch) -> Tensor:
    """Return the mean squared error of each image, float [B]."""
    outputs: Tensor = network(batch.images)
    return (outputs.float() - batch.images).square().flatten(1).mean(1)
