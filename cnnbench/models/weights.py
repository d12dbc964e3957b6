"""Weights to initialise a network with: where they come from, and which of them fit."""

import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.data.statistics import IMAGENET
from cnnbench.errors import UserError, counted, grouped, quotable
from cnnbench.models.head import is_below
from cnnbench.store.tensor_files import TensorFileError, load_safetensors, load_tensors

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")
SHOWN = 8  # tensors in a message
COUNTER = "num_batches_tracked"  # of batch norm; files of torch before 0.4.1 have none, and nothing is computed with it
COMPILED = "_orig_mod."  # torch.compile puts it before the names of what it compiles
STATISTICS: Mapping[Any, str] = {IMAGENET: "imagenet", ((0.5,) * 3, (0.5,) * 3): "half"}
OTHER_FORMATS = {
    b"": "it is empty: copy or download it again",
    b"<": "it is a web page: download the file itself",
    b"version https://git-lfs": "it is a pointer of Git LFS: git lfs pull fetches the weights",
    b"\x89HDF": "it is HDF5, as Keras writes; its tensors have other names and axes",
}  # by how a file begins


@dataclass(frozen=True)
class WeightSource:
    """A source of weights, not loaded yet.

    setting: that named them. identity: the same for the same weights anywhere. description: for a sentence.
    metadata: what is recorded of them, plain values. data: what `run.json` says of the data they were trained on.
    recipe: settings, by dotted key, that the weights were published for, and without which a network sees other images.
    """

    setting: str
    identity: str
    description: str
    load: Callable[[], Mapping[str, Any]]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


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
    if path.is_dir():
        raise UserError("is a folder; init.run=FOLDER takes that of a run")
    if not path.is_file():
        raise UserError("no such file. Runs already started from it can be continued with cnnbench resume RUN")
    if path.suffix not in SUFFIXES:
        raise UserError(f"must be a state dict: a file {listed_suffixes()}; {_remedy(path)}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {"file": str(path), "sha256": digest}
    return WeightSource(f"init.file={given}", f"sha256:{digest}", path.name, lambda: read_state_dict(path), metadata)


def listed_suffixes() -> str:
    """Return the suffixes of files of weights, for a sentence."""
    return f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def published_input(mean: Sequence[float], std: Sequence[float], interpolation: str) -> dict[str, Any]:
    """Return the settings of the data that published weights were trained on."""
    named = STATISTICS.get((tuple(mean), tuple(std)), [list(mean), list(std)])
    return {"data.statistics": named, "data.interpolation": interpolation}


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a file by name, also where they are one entry among others, as in most checkpoints.

    Raises UserError where it holds anything else, or several such entries.
    """
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_safetensors(path)
        else:
            with path.open("rb") as file:
                content = load_tensors(file)
    except (TensorFileError, OSError) as error:
        raise UserError(f"{path} is no state dict: {error}; {_remedy(path)}") from error
    if _is_state_dict(content):
        return content  # type: ignore[no-any-return]
    entries = content if isinstance(content, Mapping) else {}
    if {"network", "progress"} <= entries.keys():
        raise UserError(f"{path} is a checkpoint of a run: init.run=FOLDER takes the folder of that run")
    found = [key for key, value in entries.items() if _is_state_dict(value)]
    if len(found) == 1:
        return entries[found[0]]  # type: ignore[no-any-return]
    if found:
        names = ", ".join(map(repr, found))
        raise UserError(f"{path} holds several state dicts, {names}; save the one that is meant alone")
    raise UserError(f"{path} is no state dict: it must hold tensors by their names, and nothing else; {_remedy(path)}")


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
    )


def _remedy(path: Path) -> str:
    """Return what to do about a file that holds no state dict."""
    with path.open("rb") as file:
        begin = file.read(100)
    for known, problem in OTHER_FORMATS.items():
        if begin.startswith(known) if known else not begin:
            return problem
    if begin.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "it is not complete: copy or download it again"
    return "torch.save(network.state_dict(), FILE) writes one"


def match(
    source: WeightSource,
    network: nn.Module,
    head: Collection[str],
    model: str,
    head_reason: str | None,
    outputs: int,
    partial: bool = False,
) -> Matched:
    """Return which weights of a source fit a network.

    head: modules that are built for the classes; what fits by its shape is left out there for `head_reason`, if any.
    partial: whether other tensors may be missing, left over or of another shape. What is left over and belongs to no
    module of the network, such as a decoder, is left out in any case.
    Raises UserError for weights that fit only in part, or nowhere, and for those that are not finite.
    """
    own = {name: tensor.shape for name, tensor in network.state_dict().items()}
    given = _by_own_names(source, own)
    misfits: dict[str, str] = {}
    missing: list[str] = []
    reinitialised: dict[str, str] = {}
    for name, shape in own.items():
        is_head = is_below(name, head)
        if name not in given:
            if name.rpartition(".")[2] != COUNTER:
                reinitialised[name] = "not in the source"
                missing += [] if is_head else [name]
        elif given[name].shape != shape:
            reinitialised[name] = f"the head is built for {outputs} outputs" if is_head else "of another shape"
            misfits |= {} if is_head else {name: f"{_shown(given[name].shape)} there, {_shown(shape)} here"}
        elif is_head and head_reason:
            reinitialised[name] = head_reason
    weights = {name: given[name] for name in own if name in given and name not in reinitialised}
    skipped = [name for name in given if name not in own and name.rpartition(".")[2] != COUNTER]
    if not weights and not misfits:
        names = f"it has {first_tensors(given)}; the network {first_tensors(own)}"
        raise UserError(f"{source.setting}: fits nothing in '{model}': they have no tensor names in common: {names}.")
    modules = {name.partition(".")[0] for name in own}
    left_over = [name for name in skipped if name.partition(".")[0] in modules and not is_below(name, head)]
    if (misfits or missing or left_over) and not (partial and weights):
        raise UserError(_misfit_message(source, model, given, own, misfits, missing, left_over))
    infinite = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if infinite:
        raise UserError(
            f"{source.setting}: weights are not finite, in {first_tensors(infinite)}: the training that wrote them "
            "diverged; take others"
        )
    return Matched(weights, reinitialised, dict.fromkeys(skipped, "not in this network"))


def first_tensors(names: Iterable[str]) -> str:
    """Return the first names of tensors, and how many more there are."""
    every = list(names)
    more = f" and {grouped(len(every) - SHOWN)} more" if len(every) > SHOWN else ""
    return ", ".join(map(quotable, every[:SHOWN])) + more


def _by_own_names(source: WeightSource, own: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return weights by what they are called here: what wraps a network puts a prefix before every name.

    DataParallel calls a network `module.`, others `model.` or `net.`, an autoencoder `encoder.`: any prefix is left
    out with which most names and shapes are those of the network. Raises UserError where several are as good.
    """
    loaded = source.load()
    if others := [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{source.setting}: holds no tensor under {', '.join(map(repr, others[:SHOWN]))}.")
    given = {name.replace(COMPILED, ""): tensor for name, tensor in loaded.items()}
    by_name, by_shape = Counter[str](), Counter[str]()
    for name, tensor in given.items():
        prefix, inner = "", name
        while inner:
            by_name[prefix] += inner in own
            by_shape[prefix] += own.get(inner) == tensor.shape
            first, _, inner = inner.partition(".")
            prefix += f"{first}."
    best, *others = sorted(by_name, key=lambda prefix: (-by_shape[prefix], -by_name[prefix], len(prefix))) or [""]
    if not by_name[best] and any(f"encoder.{name}" in own for name in given):
        return {f"encoder.{name}": tensor for name, tensor in given.items()}
    equal = [prefix for prefix in others if by_shape[prefix] == by_shape[best] and by_name[prefix] == by_name[best]]
    if best and equal and 2 * by_shape[best] > len(own):
        problem = f"holds several networks that fit, {', '.join(map(repr, (best, *equal)))}; save one of them alone"
        raise UserError(f"{source.setting}: {problem}.")
    return {name.removeprefix(best): tensor for name, tensor in given.items()}


def _shown(shape: Collection[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _misfit_message(
    source: WeightSource,
    model: str,
    given: Mapping[str, Tensor],
    own: Mapping[str, torch.Size],
    misfits: Mapping[str, str],
    missing: Sequence[str],
    left_over: Sequence[str],
) -> str:
    lines = [f"{source.setting} does not fit '{model}' as it is built for these images:"]
    lines += [f"  {name}: {problem}" for name, problem in misfits.items()][:SHOWN]
    lines += [f"  and {len(misfits) - SHOWN} more"] if len(misfits) > SHOWN else []
    if missing:
        lines.append(f"  {counted(len(missing), 'tensor')} of the network not in it: {first_tensors(missing)}")
    if left_over:
        lines.append(f"  {counted(len(left_over), 'tensor')} of it not in the network: {first_tensors(left_over)}")
    first = next((name for name, shape in own.items() if len(shape) == 4), "")
    if first in misfits and (channels := given[first].shape[1]) in (1, 3) and channels != own[first][1]:
        lines.append(f"It takes images with {channels} in place of {own[first][1]} channels: data.channels={channels}")
    lines.append("init.partial=true takes what fits, and initialises the rest randomly")
    return "\n".join(lines)
