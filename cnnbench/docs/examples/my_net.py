# my_net.py
from torch import nn

from cnnbench.registry import MODELS


@MODELS.register("my_net")
def my_net(spec, *, width: int = 32):
    """One convolution, one dense layer."""
    return nn.Sequential(
        nn.Conv2d(spec.channels, width, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(16 * width, spec.num_outputs),
    )
