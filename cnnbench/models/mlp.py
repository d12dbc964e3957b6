"""Dense layers alone: what a network reaches that does not know what a neighbouring pixel is."""

from pydantic import PositiveInt

from cnnbench.data.images import DataSpec
from cnnbench.models.plain import Activation, Dropout, PlainNetwork, plain_network
from cnnbench.registry import MODELS


@MODELS.register("mlp")
def mlp(
    spec: DataSpec,
    *,
    units: list[PositiveInt],
    activation: Activation,
    dropout: Dropout = 0.0,
    batchnorm: bool = False,
    hidden_only: bool = False,
) -> PlainNetwork:
    """Multilayer perceptron: the pixels of an image in a row, then dense layers.

    units: of the dense layers before the last, from none (linear classification) to any number.
    hidden_only: dropout and batch norm between these only, neither before the first nor before the last layer.
    Source: Rumelhart, Hinton, Williams 1986, Learning representations by back-propagating errors; 300 and 100 units are
    a baseline of LeCun et al. 1998.
    """
    return plain_network(spec, [], units, activation, "max", dropout, batchnorm, hidden_only=hidden_only)
