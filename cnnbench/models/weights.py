"""Weights to initialise a network with: where they come from, and which of them fit."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.errors import UserError
from cnnbench.models.head import is_below
from cnnbench.store.tensor_files import TensorFileError, load_safetensors, load_tensors

SUFFIXES = (".pt", ".pth", ".safetensors")
SHOWN = 8  # tensors in an error


@dataclass(frozen=True)
class WeightSource:
    """A source of weights, not loaded yet.

    setting: that named them. identity: the same for the same weights anywhere. description: for a sentence.
    metadata: what is recorded of them, plain values. data: what `run.json` says of the data they were trained on.
    """

    setting: str
    identity: str
    description: str
    load: Callable[[], Mapping[str, Any]]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Matched:
    """Weights sorted by whether they fit a network. reinitialised, skipped: names with the reason."""

    weights: dict[str, Tensor]
    reinitialised: dict[str, str]
    skipped: dict[str, str]

    def counts(self) -> list[str]:
        """Return how many tensors were treated how, and why."""
        lines = [f"{len(self.weights)} tensors loaded"]
        for word, reasons in (("reinitialised", self.reinitialised.values()), ("skipped", self.skipped.values())):
            lines += [f"{list(reasons).count(reason)} {word}: {reason}" for reason in dict.fromkeys(reasons)]
        return lines


def file_source(given: str) -> WeightSource:
    """Return the weights in a file that holds a state dict. Raises UserError where there is none."""
    path = Path(given).expanduser().resolve()
    if not path.is_file():
        raise UserError("no such file. Runs already started from it can be continued with cnnbench resume RUN")
    if path.suffix not in SUFFIXES:
        raise UserError(f"must be a state dict: a file {listed_suffixes()}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {"file": str(path), "sha256": digest}
    return WeightSource(f"init.file={given}", f"sha256:{digest}", path.name, lambda: read_state_dict(path), metadata)


def listed_suffixes() -> str:
    """Return the suffixes of files of weights, for a sentence."""
    return f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def read_state_dict(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a file by name. Raises UserError where it holds anything else."""
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_safetensors(path)
        else:
            with path.open("rb") as file:
                content = load_tensors(file)
    except (TensorFileError, OSError) as error:
        raise UserError(f"{path} is no state dict: {error}") from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise UserError(f"{path} is no state dict: it must hold tensors by their names, and nothing else")
    return content


def match(
    source: WeightSource, network: nn.Module, head: Collection[str], model: str, head_reason: str | None, outputs: int
) -> Matched:
    """Return which weights of a source fit a network.

    head: modules that are built for the classes; what fits by its shape is left out there for `head_reason`, if any.
    Raises UserError for other tensors of another shape, and where nothing fits.
    """
    own = {name: tensor.shape for name, tensor in network.state_dict().items()}
    given = {_own_name(name, own): tensor for name, tensor in source.load().items()}
    misfits: dict[str, tuple[torch.Size, torch.Size]] = {}
    reinitialised: dict[str, str] = {}
    for name, shape in own.items():
        is_head = is_below(name, head)
        if name not in given:
            reinitialised[name] = "not in the source"
        elif given[name].shape != shape:
            reinitialised[name] = f"the head is built for {outputs} outputs"
            misfits |= {} if is_head else {name: (given[name].shape, shape)}
        elif is_head and head_reason:
            reinitialised[name] = head_reason
    if misfits:
        raise UserError(_misfit_message(source, model, network, misfits))
    weights = {name: given[name] for name in own if name not in reinitialised}
    if not weights:
        raise UserError(f"{source.setting}: fits nothing in '{model}': they have no tensor names in common.")
    return Matched(weights, reinitialised, {name: "not in this network" for name in given if name not in own})


def _own_name(name: str, own: Collection[str]) -> str:
    """Return what weights of this name are called here: an autoencoder's encoder may be a whole network."""
    inner = name.removeprefix("encoder.")
    return inner if name not in own and inner in own else name


def _misfit_message(
    source: WeightSource, model: str, network: nn.Module, shapes: Mapping[str, tuple[torch.Size, torch.Size]]
) -> str:
    def shown(shape: Collection[int]) -> str:
        return "x".join(map(str, shape)) or "one number"

    lines = [f"{source.setting} does not fit '{model}' as it is built for these images:"]
    lines += [f"  {name}: {shown(there)} there, {shown(here)} here" for name, (there, here) in shapes.items()][:SHOWN]
    lines += [f"  and {len(shapes) - SHOWN} more"] if len(shapes) > SHOWN else []
    first = next((name for name, tensor in network.state_dict().items() if tensor.ndim == 4), "")
    if first in shapes and (channels := shapes[first][0][1]) in (1, 3) and channels != shapes[first][1][1]:
        lines.append(
            f"It takes images with {channels} in place of {shapes[first][1][1]} channels: data.channels={channels}"
        )
    return "\n".join(lines)
