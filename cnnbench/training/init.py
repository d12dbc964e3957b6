"""What a training starts from instead of chance: the weights of a run, of a file, or published ones."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.config.schema import RunConfig
from cnnbench.config.transfer import Source
from cnnbench.errors import ConfigError, Mistake, UserError
from cnnbench.models.head import is_below
from cnnbench.registry import MODELS
from cnnbench.store import checkpoint
from cnnbench.store.folder import RunFolder
from cnnbench.training.resolve import Ready

SHOWN = 8  # tensors in an error
HOW_TO_CONTINUE = "What began from it goes on without it: resume=FOLDER"


@dataclass(frozen=True)
class Start:
    """Weights that a network begins with, those that fit it, and what is recorded of them."""

    weights: dict[str, Tensor]
    record: dict[str, Any]

    def enter(self, network: nn.Module) -> None:
        """Put the weights into the network."""
        network.load_state_dict(self.weights, strict=False)


def with_source(config: RunConfig) -> RunConfig:
    """Return the configuration with what its `init` names pinned down, by its content. Raises ConfigError."""
    source = find_source(config)
    if source is None:
        return config
    where = config.init.model_dump(include={"run", "file"}, exclude_none=True)
    where = {key: str(Path(path).expanduser().resolve()) for key, path in where.items()}
    return config.model_copy(update={"source": source.name, "init": config.init.model_copy(update=where)})


def find_source(config: RunConfig) -> Source | None:
    """Return what `init` names; None where that is nothing. Raises ConfigError where it is not there."""
    init = config.init
    try:
        if init.run is not None:
            return _of_run(init.run, init.checkpoint)
        if init.file is not None:
            return _of_file(init.file)
        if init.weights is not None:
            published: Source = MODELS[config.model.name].facts["pretrained"](config.model.settings)
            return published
    except ConfigError:
        raise
    except UserError as error:
        given = f"init.run={init.run}" if init.run is not None else f"init.file={init.file}"
        raise ConfigError([Mistake(given, str(error))]) from error
    return None


def _of_run(path: str, which: str) -> Source:
    try:
        folder = RunFolder.open(Path(path))
    except UserError as error:
        raise UserError(f"{error} {HOW_TO_CONTINUE}") from error
    record, steps = folder.record(), checkpoint.steps_in(folder.checkpoints)
    if not steps:
        raise UserError("has no checkpoint yet; train it first")
    said = checkpoint.manifest(folder.checkpoints, steps[-1])
    best: dict[str, Any] | None = said.get("best")
    if which == "best" and best is None:
        raise UserError("has no best checkpoint, since it was never validated; init.checkpoint=last takes its last one")
    at = best if which == "best" and best else {"epoch": said["epoch"], "step": said["step"], "metrics": {}}
    facts = {
        "run": str(folder.path),
        "identity": record["identity"],
        "checkpoint": {"chosen": which, "epoch": at["epoch"], "step": at["step"]},
        "data": record.get("choices", {}).get("data"),
        "metrics": {f"{name}/val": value for name, value in at["metrics"].items()},
        "epochs": said["epoch"] + record.get("init", {}).get("epochs", 0),
        "split": record.get("split"),
        "task": folder.config()["task"]["name"],
    }

    def load() -> Mapping[str, Any]:
        content = checkpoint.load(folder.checkpoints, steps[-1])
        weights: dict[str, Tensor] = content["best"]["weights"] if which == "best" else content["network"]
        return weights

    told = f"the {which} checkpoint (epoch {at['epoch']}) of {folder.path.name}"
    name = f"{record['identity']}@{which}-{at['step']}"
    return Source(f"init.run={path}", name, told, load, facts, record.get("data", {}))


def _of_file(given: str) -> Source:
    path = Path(given).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"no such file. {HOW_TO_CONTINUE}")
    if path.suffix not in (".pt", ".pth", ".safetensors"):
        raise UserError("must be a state dict: a file .pt, .pth or .safetensors")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"file": str(path), "sha256": digest}
    return Source(f"init.file={given}", f"sha256:{digest}", path.name, lambda: _read(path), facts)


def _read(path: Path) -> Mapping[str, Any]:
    content: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise UserError(f"{path} needs a library that is not installed: pip install safetensors") from error
    except Exception as error:
        raise UserError(f"{path} is no state dict: {str(error).splitlines()[0]}") from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise UserError(f"{path} is no state dict: it must hold tensors by their names, and nothing else")
    return content


def find_start(config: RunConfig, ready: Ready) -> Start | None:
    """Return the weights that a run begins with; None where they are drawn, or are those of the run it goes on from.

    Raises UserError where they do not fit the network, or are other ones than those that the run began with.
    """
    source = find_source(config) if config.source is not None and config.parent is None else None
    if source is None:
        return None
    if source.name != config.source:
        raise UserError(f"{source.given}: is not what it was when this run was made; begin one without resume=.")
    own, head = ready.shapes, ready.named.head
    given = {_as_here(name, own): tensor for name, tensor in source.load().items()}
    classes = source.data.get("classes", list(ready.spec.classes))
    task = source.facts.get("task", config.task.name)
    misfits, renewed = [], {}
    for name, shape in own.items():
        is_head = is_below(name, head)
        if name not in given:
            renewed[name] = "the source has none"
        elif given[name].shape != shape:
            renewed[name] = f"the head is built for {ready.spec.num_outputs} outputs"
            misfits += [] if is_head else [name]
        elif is_head and task != config.task.name:
            renewed[name] = f"the task was {task}"
        elif is_head and ready.task.is_classifier and classes != list(ready.spec.classes):
            renewed[name] = "the classes are others"
    skipped = {name: "there is none here" for name in given if name not in own}
    weights = {name: given[name] for name in own if name not in renewed}
    if misfits:
        raise UserError(_misfit(source, config, ready, {name: (given[name].shape, own[name]) for name in misfits}))
    if not weights:
        raise UserError(f"{source.given}: fits nothing in '{config.model.name}': no name of its tensors is one here.")
    counts = {"loaded": len(weights), "reinitialised": renewed, "skipped": skipped}
    record = {"source": source.name, **source.facts, **counts}
    return Start(weights, record | {"notes": _notes(source, config, ready, record)})


def _as_here(name: str, own: Collection[str]) -> str:
    """Return what weights of this name are called here: an autoencoder's encoder may be a whole network."""
    inner = name.removeprefix("encoder.")
    return inner if name not in own and inner in own else name


def _misfit(source: Source, config: RunConfig, ready: Ready, shapes: Mapping[str, tuple[Any, Any]]) -> str:
    def told(shape: Collection[int]) -> str:
        return "x".join(map(str, shape)) or "one number"

    lines = [f"{source.given} does not fit '{config.model.name}' as it is built for these images:"]
    lines += [f"  {name}: {told(there)} there, {told(here)} here" for name, (there, here) in shapes.items()][:SHOWN]
    lines += [f"  and {len(shapes) - SHOWN} more"] if len(shapes) > SHOWN else []
    spec, window = ready.spec, source.data.get("window")
    for there, here in shapes.values():
        if len(there) == 4 and there[1] in (1, 3) and here[1] == spec.channels != there[1]:
            lines.append(f"It takes images with {there[1]} in place of {here[1]} channels: data.channels={there[1]}")
            break
    if window and window[1:] != [spec.height, spec.width]:
        lines.append(f"It was trained on {window[1]}x{window[2]} pixels: set data.image_size, or data.crop, to that")
    return "\n".join(lines)


def _notes(source: Source, config: RunConfig, ready: Ready, record: Mapping[str, Any]) -> list[str]:
    measured = ", ".join(f"{name} {value:.4f}" for name, value in record.get("metrics", {}).items())
    trained = f" trained on {record['data']}" if record.get("data") else ""
    counts = [f"{record['loaded']} tensors loaded"]
    for word in ("reinitialised", "skipped"):
        reasons = list(record[word].values())
        counts += [f"{reasons.count(reason)} {word}: {reason}" for reason in dict.fromkeys(reasons)]
    notes = [f"starts from {source.told}{trained}{f' ({measured})' if measured else ''}", f"init: {'; '.join(counts)}"]
    if source.data.get("fingerprint") == ready.data.fingerprint:
        epochs = f"{record['epochs']} + {config.epochs}"
        notes.append(f"init.run was trained on the same data: what comes out is the work of {epochs} epochs")
        if record["split"] != ready.data.split.hash():
            notes.append("init.run split these data otherwise: images that validate here were trained on there")
    return notes
