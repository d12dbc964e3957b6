"""What the parts of a network are called: `head`, `features`, `all_but_head`, or modules by their names."""

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
from cnnbench.models.ending import SCORES, OutputSpec
from cnnbench.registry import MODELS, Selection


@dataclass(frozen=True)
class NamedParts:
    """Which layers of a network do what, by the names of its modules.

    outputs: those that give the scores; none where they cannot be found. auxiliary: those that give the scores of
    classifiers half-way up. beside: what works on features, not on maps: dense layers, auxiliary classifiers.
    """

    outputs: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def head(self) -> tuple[str, ...]:
        """Return the layers that are built for the classes."""
        return self.outputs + self.auxiliary

    def named(self, word: str, names: Iterable[str]) -> set[str]:
        """Return those names of weights and buffers that a word stands for; modules are named with all below them.

        Raises UserError for `head` and `all_but_head` where there is none.
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
            return {name for name in names if not is_below(name, self.head + self.beside)}
        return {name for name in names if any(fnmatchcase(above, word) for above in _with_modules_above(name))}


def is_below(name: str, modules: Iterable[str]) -> bool:
    """Tell whether a weight or a module of this name belongs to one of the modules."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _with_modules_above(name: str) -> Iterable[str]:
    return accumulate(name.split("."), lambda above, own: f"{above}.{own}")


def parts_of(selection: Selection, spec: DataSpec, ending: OutputSpec = SCORES) -> NamedParts:
    """Return the parts of the selected network, found by following its outputs back to the layers that made them."""
    with torch.random.fork_rng(devices=()):
        try:
            return _traced(selection, spec, ending, "meta")
        except Exception:  # noqa: BLE001 - what a network of somebody's own computes may need values
            return _traced(selection, spec, ending, "cpu")


def replace_head(network: nn.Module, layers: Iterable[str], units: Sequence[int], dropout: float) -> nn.Module:
    """Put dense layers of so many units, each with ReLU and dropout behind it, before the last layers named."""
    for name in layers:
        last: Any = network.get_submodule(name)
        is_dense = isinstance(last, nn.Linear)
        size, num_outputs = (last.in_features, last.out_features) if is_dense else (last.in_channels, last.out_channels)
        shape = {} if is_dense else {"kernel_size": last.kernel_size, "stride": last.stride, "padding": last.padding}
        head: dict[str, nn.Module] = {}
        for number, wanted in enumerate(units, start=1):
            head |= {f"linear{number}": type(last)(size, wanted, **shape), f"relu{number}": nn.ReLU()}
            if dropout:
                head[f"dropout{number}"] = nn.Dropout(dropout)
            size, shape = wanted, shape and {"kernel_size": 1}
        head["linear"] = type(last)(size, num_outputs, **shape)
        above, _, own = name.rpartition(".")
        setattr(network.get_submodule(above), own, nn.Sequential(OrderedDict(head)))
    return network


def _traced(selection: Selection, spec: DataSpec, ending: OutputSpec, device: str) -> NamedParts:
    with torch.device(device):
        network = ending.wrap_model(MODELS.build(selection, spec=spec), spec)
        images = torch.zeros(2, spec.channels, spec.height, spec.width, requires_grad=True)
        ran, main = _pass(network.eval(), images)
        ran_in_training, every = _pass(network.train(), images)
    # The dense part is what comes last and has no maps any more; the features that squeezing blocks make are within.
    dense = [name for name, _ in takewhile(lambda layer: layer[1] == 2, reversed(ran.items()))]
    auxiliary = [name for name in ran_in_training if name not in ran]
    return NamedParts(tuple(main), tuple(name for name in every if name not in main), (*dense, *auxiliary))


def _pass(network: nn.Module, images: Tensor) -> tuple[dict[str, int], list[str]]:
    """Return the layers with weights or buffers in the order in which they ran last, with the number of axes of what
    they gave, and those Linear and Conv2d whose outputs become the network's with no other such layer in between.
    """
    ran: dict[str, int] = {}
    made: dict[Any, str] = {}  # by the node of the graph of gradients

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                ran.pop(name, None)
                ran[name] = output.ndim
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    made[output.grad_fn] = name

        return hook

    layers = [(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(note(name)) for name, layer in layers if layer.state_dict()]
    outputs = network(images)
    for handle in handles:
        handle.remove()
    waiting = [
        output.grad_fn for output in (outputs if isinstance(outputs, tuple) else (outputs,)) if output is not None
    ]
    found, seen = set(), set()
    while waiting:
        node = waiting.pop()
        if node in made:
            found.add(made[node])
        elif node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return ran, [name for name, _ in layers if name in found]
