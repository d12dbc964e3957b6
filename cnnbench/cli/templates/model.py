"""A network: parameters after `*` are settings, checked against their types. Try: dry_run=true, or debug=overfit."""

from pydantic import PositiveInt
from torch import nn

from cnnbench.data.images import DataSpec
from cnnbench.registry import MODELS


@MODELS.register("my_model")
def my_model(spec: DataSpec, *, width: PositiveInt = 32) -> nn.Module:
    """Two convolutions and a dense layer, for images of any size.

    spec: of the data and the task: channels, height, width, num_outputs. width: maps of the first convolution.
    """
    return nn.Sequential(
        nn.Conv2d(spec.channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(2 * width * 4 * 4, spec.num_outputs),
    )
