"""From a selection to a network that is known to fit the data."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from cnnbench.config.schema import HeadConfig
from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError, UserError
from cnnbench.models.ending import SCORES, OutputSpec
from cnnbench.models.head import parts_of, replace_head
from cnnbench.models.pointwise import guard_pointwise
from cnnbench.registry import MODELS, Selection

LARGEST_SIDE = 512
AS_IT_IS = HeadConfig()


def build_network(
    selection: Selection, spec: DataSpec, head: HeadConfig = AS_IT_IS, ending: OutputSpec = SCORES
) -> nn.Module:
    """Return the network for this data, the selected model with its ending; weights come from torch's generator.

    Raises UserError for a head of its own where the network's cannot be found.
    """
    network = ending.wrap_model(MODELS.build(selection, spec=spec), spec)
    if head.units:
        outputs = parts_of(selection, spec, ending).outputs
        if not outputs:
            raise UserError("head.units: no Linear or Conv2d gives its outputs, so there is no head to replace")
        replace_head(network, outputs, head.units, head.dropout)
    return guard_pointwise(network)


def check_network(
    selection: Selection, spec: DataSpec, head: HeadConfig = AS_IT_IS, ending: OutputSpec = SCORES
) -> nn.Module:
    """Pass two empty images through the network, and return it.

    Raises UserError where images are too small, naming the smallest side that works, where the outputs are not what
    is needed, and where the network cannot be built at all.
    """
    try:
        return pass_through(selection, spec, "cpu", head, ending)
    except ConfigError:  # nothing that another size of images could mend
        raise
    except (UserError, RuntimeError, ValueError, IndexError) as error:
        side = smallest_side(lambda side: works(selection, replace(spec, height=side, width=side), ending))
        given = f"{spec.height}x{spec.width}"
        if side is None or side <= min(spec.height, spec.width):
            raise UserError(
                f"model '{selection.name}' does not work on {spec.channels}x{given} images: {error}"
            ) from error
        raise UserError(
            f"model '{selection.name}' needs images of at least {side}x{side}, and sees {given}; "
            f"enlarge data.image_size, or data.crop, until the window is that large."
        ) from error


def pass_through(
    selection: Selection, spec: DataSpec, device: str, head: HeadConfig = AS_IT_IS, ending: OutputSpec = SCORES
) -> nn.Module:
    """Pass two empty images through the network, and return it; on "meta" without weights, and nothing is computed.

    Raises UserError where the outputs are not what is needed, and whatever the network raises.
    """
    with torch.device(device), torch.no_grad():
        network = build_network(selection, spec, head, ending).eval()
        outputs = network(torch.zeros(2, spec.channels, spec.height, spec.width))
    problem = ending.validate_output(outputs, spec)
    if problem:
        raise UserError(problem)
    return network


def works(selection: Selection, spec: DataSpec, ending: OutputSpec = SCORES) -> bool:
    """Tell whether the network can be built for this data and take its images."""
    try:
        # Nothing is computed on this device, but the first use of it takes two seconds: not for the usual case.
        pass_through(selection, spec, "meta", ending=ending)
    except Exception:  # noqa: BLE001 - whatever a network of somebody's own may raise
        return False
    return True


def smallest_side(fits: Callable[[int], bool]) -> int | None:
    """Return the smallest side that fits, where every larger one fits too; None: none up to 512.

    Found in steps: twice as large until one fits, and then by halves between the last two.
    """
    high = 1
    while not fits(high):
        high *= 2
        if high > LARGEST_SIDE:
            return None
    low = high // 2  # does not fit, or is 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Return how many parameters the network has, and how many of them are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, trains in sizes if trains)}
