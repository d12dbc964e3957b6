"""From a selection to a network that fits the data and the task."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.config.schema import HeadConfig
from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError, SettingError, UserError, quoted, raised_at
from cnnbench.models.head import replace_head, trace_head
from cnnbench.registry import MODELS, ContractError, Selection

LARGEST_SIDE = 512
ORIGINAL_HEAD = HeadConfig()
MIN_SAFE_CHANNELS = 16  # of strided 1x1 convolutions; see avoid_onednn_bug


class Encoder(nn.Module):
    """A model that ends in an embedding instead of scores; what follows is up to the task.

    Its forward returns embeddings, float [B, D], of images [B, C, H, W].
    """

    dimensions: int
    """D, the size of an embedding."""

    def decoder(self) -> nn.Module | None:
        """Return a new network from embeddings back to images; None: the encoder has none of its own."""
        return None


class OutputSpec:
    """What is added to a model, and what the network then has to return: by default as many scores as the data ask for.

    Tasks that need something else override it.
    """

    def wrap_model(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the network to train, made of the selected model: by default with a linear head on an encoder."""
        if not isinstance(model, Encoder):
            return model
        return nn.Sequential(OrderedDict(encoder=model, head=nn.Linear(model.dimensions, spec.num_outputs)))

    def validate_output(self, outputs: Any, spec: DataSpec) -> str | None:
        """Return what is wrong with the network's outputs for two images; None: nothing."""
        return shape_error(outputs, (2, spec.num_outputs), "scores (`spec.num_outputs`)")


SCORES = OutputSpec()


def shape_error(outputs: Any, expected: tuple[int, ...], what: str) -> str | None:
    """Return how outputs for two images differ from the expected shape; None: they do not."""
    if isinstance(outputs, Tensor) and tuple(outputs.shape) == expected:
        return None
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    return f"it returns {shape} for two images; {what} of shape {expected} are needed"


def build_network(
    selection: Selection, spec: DataSpec, head: HeadConfig = ORIGINAL_HEAD, output: OutputSpec = SCORES
) -> nn.Module:
    """Return the network of the selected model for this data and output; its weights come from torch's generator.

    Raises SettingError for a new head where the network's own cannot be found.
    """
    network = output.wrap_model(MODELS.build(selection, spec=spec), spec)
    if head.units:
        layers = trace_head(network, spec).output_layers
        if not layers:
            problem = "no Linear or Conv2d gives the network's outputs, so there is no head to replace"
            raise SettingError(f"head.units={head.units}", problem)
        replace_head(network, layers, head.units, head.dropout)
    for name in trace_head(network, spec).head if head.init == "torch" else ():
        for layer in network.get_submodule(name).modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()
    return avoid_onednn_bug(network)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], strict: bool = True) -> None:
    """Put weights and buffers into a network, all of them or, where not `strict`, some.

    Some layers ask which version of themselves wrote them, which plain tensors do not say: this one, by their names.
    """
    state = OrderedDict(weights)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, strict=strict)


def check_network(
    selection: Selection, spec: DataSpec, head: HeadConfig = ORIGINAL_HEAD, output: OutputSpec = SCORES
) -> nn.Module:
    """Pass two empty images through the network, and return it.

    Raises UserError for images that are too small, naming the smallest side that works, for outputs of another shape
    than `output` asks for, and for a network that cannot be built; of a plugin's, with the line of its file.
    """
    try:
        return pass_through(selection, spec, "cpu", head, output)
    except (ConfigError, ContractError):  # images of another size would not help
        raise
    except Exception as error:
        component = MODELS[selection.name]
        line = raised_at(error, component.file) if component.is_from_plugin else ""
        is_about_shapes = isinstance(error, (UserError, RuntimeError, ValueError, IndexError))
        if not (line or is_about_shapes):
            raise
        said = " ".join(str(error).split()) if is_about_shapes else quoted(error)
        side = smallest_side(lambda side: works(selection, replace(spec, height=side, width=side), output))
        given = f"{spec.height}x{spec.width}"
        if side is None or side <= min(spec.height, spec.width):
            problem = f"does not work on {spec.channels}x{given} images: {line}{said}"
            if component.is_from_plugin and not line and spec.num_outputs != spec.num_classes:
                outputs = f"{spec.num_outputs} numbers per image (spec.num_outputs, or a parameter num_outputs)"
                problem += f"; for this task it returns {outputs}, not the {spec.num_classes} of spec.num_classes"
        else:
            problem = f"needs images of at least {side}x{side}, and sees {given}; increase data.image_size or data.crop"
        where = f"{component}" if component.is_from_plugin and not line else f"model '{selection.name}'"
        raise UserError(f"{where} {problem}") from error


def pass_through(
    selection: Selection, spec: DataSpec, device: str, head: HeadConfig = ORIGINAL_HEAD, output: OutputSpec = SCORES
) -> nn.Module:
    """Pass two empty images through the network, and return it; on "meta" without weights, and nothing is computed.

    Raises UserError for outputs of another shape than `output` asks for, and whatever the network raises.
    """
    with torch.device(device), torch.no_grad():
        network = build_network(selection, spec, head, output).eval()
        outputs = network(torch.zeros(2, spec.channels, spec.height, spec.width))
    problem = output.validate_output(outputs, spec)
    if problem:
        raise UserError(problem)
    return network


def works(selection: Selection, spec: DataSpec, output: OutputSpec = SCORES) -> bool:
    """Return whether the network can be built for this data and takes its images."""
    try:
        # Nothing is computed on this device, but its first use takes two seconds: not for the common case.
        pass_through(selection, spec, "meta", output=output)
    except Exception:  # noqa: BLE001 - the network of a plugin may raise anything
        return False
    return True


def smallest_side(fits: Callable[[int], bool]) -> int | None:
    """Return the smallest side that fits, where every larger one fits too; None: none up to 512.

    Doubles until one fits, then bisects.
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
    """Return the number of all parameters of a network, and of the trainable ones."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, trains in sizes if trains)}


class SubsampledConv2d(nn.Conv2d):
    """A strided 1x1 convolution, computed as one without a stride on every n-th pixel."""

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, O, H', W'] of [B, C, H, W]."""
        down, right = self.stride
        return functional.conv2d(images[:, :, ::down, ::right], self.weight, self.bias, groups=self.groups)


def avoid_onednn_bug(network: nn.Module) -> nn.Module:
    """Replace how strided 1x1 convolutions of few channels compute; weights and names stay.

    For images with channels last, oneDNN writes past its workspace while it computes the gradient of their weights:
    the process dies, or the gradient is silently wrong (oneDNN issue 6035; seen with torch 2.15).
    """
    for layer in network.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.kernel_size == (1, 1)
            and layer.stride != (1, 1)
            and layer.padding == (0, 0)
            and layer.in_channels // layer.groups < MIN_SAFE_CHANNELS
        ):
            layer.__class__ = SubsampledConv2d
    return network
