"""How a network ends: in scores, as most do, or in whatever a task makes of a model."""

from abc import abstractmethod
from collections import OrderedDict
from typing import Any, Protocol

from torch import Tensor, nn

from cnnbench.data.images import DataSpec


class Encoder(nn.Module):
    """A model that ends in a code, not in scores; what comes after it is a task's affair.

    Its forward returns codes, float [B, D], of images [B, C, H, W].
    """

    dimensions: int
    """D: how many numbers an image becomes."""

    def decoder(self) -> nn.Module | None:
        """Return a network of its own that makes images out of codes, new; None: it has none."""
        return None


class OutputSpec(Protocol):
    """What is put around a model, and what is wanted of the network that this makes."""

    @abstractmethod
    def wrap_model(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the network that is trained, made of the model that was chosen."""

    @abstractmethod
    def validate_output(self, outputs: Any, spec: DataSpec) -> str | None:
        """Say what is wrong with the network's outputs for two images; None: nothing."""


class Scores:
    """Numbers by image, as many as the data ask for: the model as it is, or an encoder with a linear head."""

    def wrap_model(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the model, with a linear head where it is an encoder."""
        if not isinstance(model, Encoder):
            return model
        return nn.Sequential(OrderedDict(encoder=model, head=nn.Linear(model.dimensions, spec.num_outputs)))

    def validate_output(self, outputs: Any, spec: DataSpec) -> str | None:
        """Say what is wrong with the shape of the outputs for two images."""
        return shape_error(outputs, (2, spec.num_outputs), "scores")


def shape_error(outputs: Any, expected: tuple[int, ...], what: str) -> str | None:
    """Say how outputs for two images differ from the shape that is expected; None: not at all."""
    if isinstance(outputs, Tensor) and tuple(outputs.shape) == expected:
        return None
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    return f"it returns {shape} for two images, where {what} of shape {expected} are needed"


SCORES = Scores()
