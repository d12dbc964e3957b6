"""Initial weights of a training, where they are not random: those of a run, of a file, or published ones."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnbench.config.run_config import RunConfig
from cnnbench.config.validate import with_values
from cnnbench.config.values import flat
from cnnbench.errors import ConfigError, SettingError, UserError
from cnnbench.models.build import load_weights
from cnnbench.models.weights import Matched, WeightSource, file_source, first_tensors, match
from cnnbench.plugins import register_everything
from cnnbench.registry import MODELS
from cnnbench.store import checkpoint
from cnnbench.store.folder import RunFolder
from cnnbench.store.lookup import run_named
from cnnbench.training.compilation import compiled
from cnnbench.training.leaks import check_leaks
from cnnbench.training.plan import Plan, untrained
from cnnbench.training.resolve import resolve
from cnnbench.training.setup import DEFAULT_THREADS, TrainingSetup, set_up_torch

HOW_TO_CONTINUE = "Runs already started from it can be continued with cnnbench resume RUN"


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a network is initialised with, those that fit it, and what is recorded of them."""

    weights: dict[str, Tensor]
    record: dict[str, Any]


def with_source(config: RunConfig, chosen: Collection[str], insists: bool = True) -> tuple[RunConfig, list[str]]:
    """Return the configuration with its initial weights pinned by their content, and the keys set by their recipe.

    Images are prepared as the weights were published for, where somebody has not chosen otherwise. chosen: keys that
    were set. insists: the checkpoint was typed; else the last one is taken of a run that was never validated.
    Raises ConfigError.
    """
    source = find_source(config, insists)
    if source is None:
        return config, []
    own = flat(config.to_dict())
    recipe = {key: value for key, value in source.recipe.items() if key not in chosen and own.get(key) != value}
    if config.data.image_size is None:  # nothing is resized
        recipe.pop("data.interpolation", None)
    where = {}
    if config.init.run is not None:  # `last` is another run tomorrow
        where["run"] = source.metadata["run"]
        where["checkpoint"] = source.metadata["checkpoint"]["chosen"]
    if config.init.file is not None:
        where["file"] = str(Path(config.init.file).expanduser().resolve())
    pinned = {"source": source.identity, "init": config.init.model_copy(update=where)}
    return with_values(config, recipe).model_copy(update=pinned), list(recipe)


def find_source(config: RunConfig, insists: bool = True) -> WeightSource | None:
    """Return the weights that `init` names; None where it names none. Raises ConfigError where they are missing.

    insists: on the best ones of a run; else the last are taken where it was never validated.
    """
    init = config.init
    try:
        if init.run is not None:
            return _run_source(init.run, init.checkpoint, insists)
        if init.file is not None:
            return file_source(init.file)
        if init.weights is not None:
            published: WeightSource = MODELS[config.model.name].facts["pretrained"](config.model.settings)
            return published
    except ConfigError:
        raise
    except UserError as error:
        given = f"init.run={init.run}" if init.run is not None else f"init.file={init.file}"
        raise SettingError(given, str(error)) from error
    return None


def _run_source(path: str, which: str, insists: bool) -> WeightSource:
    try:
        folder = run_named(path)
    except UserError as error:
        raise UserError(f"{error} {HOW_TO_CONTINUE}") from error
    record = folder.record()
    damaged: list[str] = []
    manifest = checkpoint.newest(folder.checkpoints, damaged.append, record["identity"])
    if manifest is None:
        raise UserError(checkpoint.why_none(record, "; train it first"))
    best: dict[str, Any] | None = manifest.get("best")
    if best is None and not insists:
        which = "last"
    if which == "best" and best is None:
        raise UserError("has no best checkpoint, since it was never validated; init.checkpoint=last takes its last one")
    at = best if which == "best" and best else {"epoch": manifest["epoch"], "step": manifest["step"], "metrics": {}}
    metadata = {
        "run": str(folder.path),
        "identity": record["identity"],
        "checkpoint": {"chosen": which, "epoch": at["epoch"], "step": at["step"]},
        "data": record.get("choices", {}).get("data"),
        "metrics": {f"{name}/val": value for name, value in at["metrics"].items()},
        "epochs": manifest["epoch"] + record.get("init", {}).get("epochs", 0),
        "split": record.get("split"),
        "task": folder.config()["task"]["name"],
    }

    def load() -> Mapping[str, Any]:
        content = checkpoint.load(folder.checkpoints, manifest["step"], record["identity"])
        weights: dict[str, Tensor] = content["best"]["weights"] if which == "best" else content["network"]
        return weights

    unvalidated = ", as there was no validation" if best is None else ""
    description = f"the {which} checkpoint (epoch {at['epoch']}{unvalidated}) of {folder.path.name}"
    description = "; ".join([description, *damaged])
    identity = f"{record['identity']}@{which}-{at['step']}"
    return WeightSource(f"init.run={path}", identity, description, load, metadata, record.get("data", {}))


def initial_weights(training: TrainingSetup) -> InitialWeights | None:
    """Return the initial weights of a run; None where they are random, or those of the run that it continues.

    Raises UserError where they do not fit the network, differ from those that the run started with, or were trained on
    its test images.
    """
    config = training.config
    source = find_source(config) if config.source is not None and config.parent is None else None
    if source is None:
        return None
    if source.identity != config.source:
        raise UserError(f"{source.setting}: has changed since this run was started; start a new one without resume=.")
    run = source.metadata.get("run")
    leaks, leak_notes = check_leaks(config, training.data, None if run is None else RunFolder(Path(run)))
    matched = _matched(source, training)
    counts = {
        "loaded": len(matched.weights), "reinitialised": matched.reinitialised, "skipped": matched.skipped,
    }  # fmt: skip
    record = {"source": source.identity, **source.metadata, **counts, **leaks}
    notes = [*_notes(source, training, matched), *leak_notes]
    return InitialWeights(matched.weights, record | {"notes": notes})


def load_initial_weights(training: TrainingSetup) -> dict[str, Any]:
    """Put initial weights into the network, where there are any, and return what is recorded of them."""
    initial = initial_weights(training)
    if initial is None:
        return {}
    load_weights(training.network, initial.weights, strict=False)
    return initial.record


def trial(plan: Plan) -> tuple[Plan, TrainingSetup, list[str]]:
    """Return a plan adapted to the data, its training with initial weights, and notes on these, for a trial."""
    register_everything(plan.plugins)
    plan, training = resolve(plan)
    record = load_initial_weights(training)
    awaited = plan.config.init.experiment
    if awaited is not None:
        missing = untrained(awaited)
        record = {"notes": [f"{missing.given} {missing.problem}. Random weights are tried here"]}
    set_up_torch(training.device, plan.config, plan.config.threads or DEFAULT_THREADS)
    training = compiled(training) if plan.config.compile else training
    return plan, training, record.get("notes", [])


def _matched(source: WeightSource, training: TrainingSetup) -> Matched:
    classes, own = source.data.get("classes"), list(training.spec.classes)
    task = source.metadata.get("task", training.config.task.name)
    head_reason = None
    if task != training.config.task.name:
        head_reason = f"the task was {task}"
    elif training.task.is_classifier and classes not in (None, own):
        head_reason = "the classes differ"
    try:
        return match(
            source, training.network, training.head.head, training.config.model.name, head_reason,
            training.spec.num_outputs, training.config.init.partial,
        )  # fmt: skip
    except UserError as error:
        size, spec = source.data.get("window"), training.spec
        if not size or size[1:] == [spec.height, spec.width]:
            raise
        hint = f"It was trained on {size[1]}x{size[2]} pixels: set data.image_size, or data.crop, to that"
        raise UserError(f"{error}\n{hint}") from error


def _notes(source: WeightSource, training: TrainingSetup, matched: Matched) -> list[str]:
    metadata = source.metadata
    measured = ", ".join(f"{name} {value:.4f}" for name, value in metadata.get("metrics", {}).items())
    trained = f" trained on {metadata['data']}" if metadata.get("data") else ""
    measured = f" ({measured})" if measured else ""
    notes = [f"initial weights: {source.description}{trained}{measured}", f"init: {'; '.join(matched.counts())}"]
    if training.config.init.partial and matched.reinitialised:
        notes.append(f"init.partial: random are {first_tensors(matched.reinitialised)}")
        frozen = [name for name in matched.reinitialised if name in training.freeze.frozen]
        notes += [f"init.partial: frozen at random values are {first_tensors(frozen)}"] if frozen else []
    if source.data.get("fingerprint") == training.data.fingerprint:
        epochs = f"{metadata['epochs']} + {training.config.epochs}"
        notes.append(f"init.run was trained on the same data; total training: {epochs} epochs")
    return notes
