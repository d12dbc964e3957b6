"""Which layers of a network make up its head and its features, found by tracing it; and heads of other sizes."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate, takewhile
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.errors import UserError


@dataclass(frozen=True)
class NamedParts:
    """The roles of a network's layers, by their names.

    output_layers: those that give the outputs; none where they cannot be found. aux_output_layers: those that give the
    outputs of auxiliary classifiers. dense_and_aux: all that work on features, not on maps: dense layers, auxiliary
    classifiers.
    """

    output_layers: tuple[str, ...] = ()
    aux_output_layers: tuple[str, ...] = ()
    dense_and_aux: tuple[str, ...] = ()

    @property
    def head(self) -> tuple[str, ...]:
        """The layers that are built for the classes."""
        return self.output_layers + self.aux_output_layers

    def select(self, word: str, names: Iterable[str]) -> set[str]:
        """Return those names of weights and buffers that a word stands for.

        word: `head`, `all_but_head`, `features`, or the name or pattern of modules, which includes all below them.
        Raises UserError for `head` and `all_but_head` where there is no head.
        """
        if word in ("head", "all_but_head") and not self.head:
            raise UserError(
                f"'{word}': no Linear or Conv2d of this network gives its outputs, so its head cannot be found; "
                "name modules instead."
            )
        if word == "head":
            return {name for name in names if is_below(name, self.head)}
        if word == "all_but_head":
            return {name for name in names if not is_below(name, self.head)}
        if word == "features":
            return {name for name in names if not is_below(name, self.head + self.dense_and_aux)}
        return {name for name in names if any(fnmatchcase(above, word) for above in _with_modules_above(name))}


def is_below(name: str, modules: Iterable[str]) -> bool:
    """Return whether a weight or a module of this name belongs to one of the modules."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _with_modules_above(name: str) -> Iterable[str]:
    return accumulate(name.split("."), lambda above, own: f"{above}.{own}")


class Head(nn.Sequential):
    """Dense layers in the place of a network's output layer, which `trace_head` reports as one layer."""


def replace_head(network: nn.Module, layers: Iterable[str], units: Sequence[int], dropout: float) -> nn.Module:
    """Put dense layers of these sizes, each followed by ReLU and dropout, before each of the output layers."""
    for name in layers:
        last: Any = network.get_submodule(name)
        is_dense = isinstance(last, nn.Linear)
        size, num_outputs = (last.in_features, last.out_features) if is_dense else (last.in_channels, last.out_channels)
        shape = {} if is_dense else {"kernel_size": last.kernel_size, "stride": last.stride, "padding": last.padding}
        head: dict[str, nn.Module] = {}
        for number, num_units in enumerate(units, start=1):
            head |= {f"linear{number}": type(last)(size, num_units, **shape), f"relu{number}": nn.ReLU()}
            if dropout:
                head[f"dropout{number}"] = nn.Dropout(dropout)
            size, shape = num_units, shape and {"kernel_size": 1}
        head["linear"] = type(last)(size, num_outputs, **shape)
        network.set_submodule(name, Head(OrderedDict(head)))
    return network


def trace_head(network: nn.Module, spec: DataSpec) -> NamedParts:
    """Return the parts of a network, found by following its outputs back to the layers that gave them.

    A copy of it runs, without values ("meta"), or on the CPU where its forward looks at values. Neither the network nor
    torch's generator changes.
    """
    with torch.random.fork_rng(devices=()), torch.enable_grad():
        try:
            return _trace(_copy_without_values(network), spec, "meta")
        except Exception:  # noqa: BLE001 - the network of a plugin may raise anything on "meta"
            return _trace(copy.deepcopy(network).cpu(), spec, "cpu")


def _copy_without_values(network: nn.Module) -> nn.Module:
    # What deepcopy finds by its id in here it takes instead of copying it: no weight is copied.
    stand_ins: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    for weight in network.parameters():
        stand_ins[id(weight)] = nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
    return copy.deepcopy(network, stand_ins)


def _trace(network: nn.Module, spec: DataSpec, device: str) -> NamedParts:
    with torch.device(device):
        images = torch.zeros(2, spec.channels, spec.height, spec.width, requires_grad=True)
        ran, outputs = _run(network.eval(), images)
        ran_in_training, all_outputs = _run(network.train(), images)
    # The dense part comes last, and has no maps any more; features of squeeze-and-excitation blocks come before maps.
    dense = [name for name, _ in takewhile(lambda layer: layer[1] == 2, reversed(ran.items()))]
    aux = [name for name in ran_in_training if name not in ran]
    return NamedParts(tuple(outputs), tuple(name for name in all_outputs if name not in outputs), (*dense, *aux))


def _run(network: nn.Module, images: Tensor) -> tuple[dict[str, int], list[str]]:
    """Return the layers with weights or buffers in the order in which they last ran, with the number of axes of what
    they returned, and those Linear and Conv2d between which and the network's outputs no other such layer lies. Those
    of a replaced head go by its name.
    """
    ran: dict[str, int] = {}
    layer_of: dict[Any, str] = {}  # by the node of the autograd graph

    def record(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                ran.pop(name, None)
                ran[name] = output.ndim
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer_of[output.grad_fn] = name

        return hook

    heads = [name for name, module in network.named_modules() if isinstance(module, Head)]
    layers = [
        (next((head for head in heads if is_below(name, (head,))), name), layer)
        for name, layer in network.named_modules()
        if not list(layer.children())
    ]
    handles = [layer.register_forward_hook(record(name)) for name, layer in layers if layer.state_dict()]
    outputs = network(images)
    for handle in handles:
        handle.remove()
    queue = [output.grad_fn for output in (outputs if isinstance(outputs, tuple) else (outputs,)) if output is not None]
    output_layers, seen = set(), set()
    while queue:
        node = queue.pop()
        if node in layer_of:
            output_layers.add(layer_of[node])
        elif node is not None and node not in seen:
            seen.add(node)
            queue += [before for before, _ in node.next_functions]
    return ran, list(dict.fromkeys(name for name, _ in layers if name in output_layers))
