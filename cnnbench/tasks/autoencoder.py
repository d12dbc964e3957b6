"""To make an image again out of a short code of it."""

from collections import OrderedDict
from typing import Annotated, Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from cnnbench.config.schema import NO_EFFECT_ON_RESULT
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.models.build import Encoder, shape_error
from cnnbench.models.encoders import upsampling_decoder
from cnnbench.registry import TASKS
from cnnbench.tasks import exhibits
from cnnbench.tasks.coding import Coding
from cnnbench.tasks.context import EvalContext

SHOWN = 50  # images


@TASKS.register("autoencoder")
class Autoencoder(Coding):
    """Mean squared error between an image and what is made of its code.

    An encoder with a decoder of its own gets that one, any other model one that enlarges its outputs.
    dimensions: of the code; null: as the model has it, if it is an encoder, else 128. show_every: epochs between two
    pictures of reconstructions.
    The error is of normalised pixels. With data.statistics=own it is the share of the pixels' variance that is not
    explained, 1 for a network that always answers with the mean.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        dimensions: PositiveInt | None = None,
        show_every: Annotated[PositiveInt | None, NO_EFFECT_ON_RESULT] = None,
    ) -> None:
        super().__init__(spec, dimensions, show_every)

    def wrap_model(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the model with a decoder. Raises UserError for an encoder with a code of another size."""
        size = self.size_of_code(model)
        decoder = model.decoder() if isinstance(model, Encoder) else None
        return nn.Sequential(OrderedDict(encoder=model, decoder=decoder or upsampling_decoder(size, spec)))

    def validate_output(self, outputs: Any, spec: DataSpec) -> str | None:
        """Say what is wrong with what is made of two images."""
        return shape_error(outputs, (2, spec.channels, spec.height, spec.width), "images")

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: D102
        errors = squared_errors(network, batch)
        return errors.mean(), errors.detach().sum().unsqueeze(0)

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:  # noqa: D102
        return squared_errors(network, batch).unsqueeze(1)

    def encode(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the codes of images, float [B, D]."""
        codes: Tensor = network.get_submodule("encoder")(batch.images)
        return codes

    def log_progress(self, context: EvalContext) -> None:
        """Draw some images beside their reconstructions: the same ones every time."""
        batches = context.splits[context.held_out]
        number = min(SHOWN, len(batches))
        order = torch.arange(number) * len(batches) // number
        (batch,) = batches.epoch(order, number)
        made = context.network(batch.images)
        error = float((made - batch.images).square().mean())
        size = self.encode(context.network, batch).shape[1]
        title = f"made of {size} numbers after epoch {context.epoch}; error {error:.4f}"
        name = f"reconstructions-{context.held_out}"
        context.save(name, exhibits.reconstructions(context.pixels(batch.images), context.pixels(made), title))

    def final_evaluation(self, context: EvalContext) -> dict[str, float]:
        """Draw reconstructions and codes of test images, write all codes, and return how well they find their like."""
        self.log_progress(context)
        return super().final_evaluation(context)


def squared_errors(network: nn.Module, batch: Batch) -> Tensor:
    """Return the mean squared error of each image, float [B]."""
    made: Tensor = network(batch.images)
    return (made.float() - batch.images).square().flatten(1).mean(1)
