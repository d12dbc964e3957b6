"""Rules on combinations of settings: those that have no effect, or that exclude each other."""

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from cnnbench.config.run_config import OVERRIDDEN, RunConfig
from cnnbench.config.schema import IN_MODEL, IN_TASK
from cnnbench.config.values import as_text
from cnnbench.errors import counted, listed
from cnnbench.registry import AUGMENTATIONS, DATASETS, LOGGERS, MODELS, SCHEDULERS, TASKS, Section

PATIENCE = "regularization.early_stopping.patience"
NO_STOPPING = {PATIENCE: None, "regularization.early_stopping.min_delta": 0.0}


class Violation(NamedTuple):
    """A setting that conflicts with others, why, and for a default, values that would not."""

    key: str
    value: Any
    problem: str
    instead: Mapping[str, Any] | None = None


def violations(config: RunConfig, typed: Collection[str]) -> Iterator[Violation]:
    """Yield every invalid combination. typed: the keys that were typed; they are blamed first."""
    yield from _overrides(config, typed)
    yield from _data(config, typed)
    yield from _evaluation(config, typed)
    yield from _regularization(config, typed)
    yield from _learning_rate(config)
    yield from _augmentation(config, typed)
    yield from _transfer(config, typed)
    if config.open and not config.report:
        yield Violation("open", True, "has no page to open with report=false", {"open": False})
    if config.name is not None and (config.name in ("", "last") or {"/", os.sep} & {*config.name}):
        yield Violation("name", config.name, "does not name a run: last is the newest one, / separates folders")
    for name in config.logger:
        if name not in LOGGERS:
            yield Violation("logger", config.logger, f"no such logger as '{name}'; there are {listed(LOGGERS)}, or []")


def still_at_work(config: RunConfig, typed: Collection[str]) -> Iterator[str]:
    """Yield what a null that was typed leaves as the model or the task has it: it reads as if it turned that off."""
    for key, own in OVERRIDDEN.items():
        group, _, name = own.partition(".")
        value = getattr(config, group).settings.get(name)
        if value and key in typed and getattr(config.regularization, name) is None:
            off = "false" if value is True else 0
            yield f"{key}=null leaves {own} at {as_text(value)}; {key}={off} turns it off"


def _overrides(config: RunConfig, typed: Collection[str]) -> Iterator[Violation]:
    for where, registry, part in ((IN_MODEL, MODELS, config.model), (IN_TASK, TASKS, config.task)):
        for setting, value in config.regularization.overrides(where).items():
            own = f"{registry.group}.{setting}"
            if not registry[part.name].accepts(setting):
                having = listed(name for name in registry if registry[name].accepts(setting))
                problem = f"is not supported by '{part.name}'; supported by {having}"
                yield Violation(f"regularization.{setting}", value, problem)
            elif own in typed:
                problem = f"has no effect: regularization.{setting}={value} overrides it; give one of them"
                yield Violation(own, part.settings[setting], problem)


def _data(config: RunConfig, typed: Collection[str]) -> Iterator[Violation]:
    data = config.data
    sizes = data.subset.model_dump(exclude={"classes", "max_classes", "test_per_class"}, exclude_none=True)
    for key in list(sizes)[1:]:
        problem = f"and data.subset.{next(iter(sizes))} exclude each other; give one"
        yield Violation(f"data.subset.{key}", sizes[key], problem)
    if data.image_size is None and _is_changed(data, "interpolation"):
        problem = "has no effect without data.image_size: nothing is resized"
        yield Violation("data.interpolation", data.interpolation, problem, {"data.interpolation": "bilinear"})
    if not data.label_noise and _is_changed(data, "noise_seed"):
        yield Violation("data.noise_seed", data.noise_seed, "has no effect with data.label_noise=0")
    if _is_changed(data, "bits") and not DATASETS[data.name].facts.get("photographs"):
        yield Violation("data.bits", data.bits, "has no effect: only files of photographs have 16 bits per channel")
    if "data.split_seed" in typed and not data.val_fraction and data.subset.fraction is None:
        yield Violation("data.split_seed", data.split_seed, "has no effect with data.val_fraction=0: nothing is split")


def _evaluation(config: RunConfig, typed: Collection[str]) -> Iterator[Violation]:
    if config.data.monitor == "test" and not config.test:
        problem = "measures the test images in the course of the training, and test=false leaves them unmeasured"
        yield Violation("data.monitor", "test", problem, {"data.monitor": None})
    top, average = config.checkpoint.top, config.checkpoint.average
    if average is not None and config.tested == "last":
        problem = "tests the mean of the best on validation, and tested=last the last one; leave out one"
        yield Violation("checkpoint.average", average, problem, {"checkpoint.average": None})
    if not config.data.val_fraction:
        nothing = "with data.val_fraction=0"
        if config.reach is not None:
            yield Violation(
                "reach", config.reach, f"has nothing to measure {nothing}; give a fraction", {"reach": None}
            )
        if config.tested == "last":
            problem = f"has no effect {nothing}: there is no best checkpoint, the last is tested anyway; give best here"
            yield Violation("tested", "last", problem, {"tested": "best"})
        for key, value, usual in (("top", top, 1), ("average", average, None)):
            if value != usual:
                problem = f"has no effect {nothing}: no checkpoint is better than another"
                yield Violation(f"checkpoint.{key}", value, problem, {f"checkpoint.{key}": usual})
        for key, value in (("eval_every", config.eval_every), ("task.watch", config.task.settings.get("watch"))):
            if key in typed and not (key == "eval_every" and config.data.monitor):
                yield Violation(key, value, f"has no effect {nothing}: nothing is evaluated during training")
        stopping = config.regularization.early_stopping.patience
        if stopping is not None:
            problem = f"has nothing to watch {nothing}; give a fraction, or null here"
            yield Violation(PATIENCE, stopping, problem, NO_STOPPING)
        if SCHEDULERS[config.scheduler.name].facts["watches"]:
            problem = f"has nothing to watch {nothing}; give a fraction, or choose another scheduler"
            yield Violation("scheduler.name", config.scheduler.name, problem)
    if config.eval_unit == "epoch":
        yield from evaluated_too_rarely(config, config.epochs, counted(config.epochs, "epoch"))


def evaluated_too_rarely(config: RunConfig, number: int, length: str) -> Iterator[Violation]:
    """Yield what waits for more evaluations than there are; the training has a number of evaluation units."""
    if config.eval_every > number and (config.data.val_fraction or config.data.monitor):
        problem = f"exceeds the {length} of the training; give less"
        yield Violation("eval_every", config.eval_every, problem, {"eval_every": number})
    after_the_first = (number - 1) // config.eval_every  # evaluations; the first one is never without improvement
    most = counted(after_the_first, "evaluation")
    problem = f"exceeds the {most} after the first in {length}; give less, or train for longer"
    average = config.checkpoint.average
    if average is not None and average > after_the_first + 1:
        over = f"exceeds the {counted(after_the_first + 1, 'evaluation')} in {length}; give less"
        yield Violation("checkpoint.average", average, over, {"checkpoint.average": None})
    stopping, scheduler = config.regularization.early_stopping.patience, config.scheduler
    if stopping is not None and stopping > after_the_first and config.data.val_fraction:
        yield Violation(PATIENCE, stopping, problem, NO_STOPPING)
    # A rate that falls at the last evaluation is never used.
    if SCHEDULERS[scheduler.name].facts["watches"] and scheduler.settings["patience"] >= after_the_first:
        fits = {"scheduler.patience": after_the_first - 1} if after_the_first > 1 else None
        yield Violation("scheduler.patience", scheduler.settings["patience"], problem, fits)


def _regularization(config: RunConfig, typed: Collection[str]) -> Iterator[Violation]:
    regularization = config.regularization
    decay = config.optimizer.settings.get("weight_decay")
    if regularization.l2 and decay:
        if "optimizer.weight_decay" in typed:
            problem = f"penalises weights twice, with optimizer.weight_decay={decay}; give one"
            yield Violation("regularization.l2", regularization.l2, problem)
        else:
            problem = f"would penalise weights twice, with regularization.l2={regularization.l2}"
            yield Violation("optimizer.weight_decay", decay, problem, {"optimizer.weight_decay": 0.0})
    average = regularization.average
    for key, kind in (("decay", "ema"), ("start", "swa")):
        if average.kind != kind and _is_changed(average, key):
            problem = f"has no effect with regularization.average.kind={average.kind}; it is for {kind}"
            yield Violation(f"regularization.average.{key}", getattr(average, key), problem)
    stopping = regularization.early_stopping
    # Of a run that is resumed with patience=null, say; min_delta has no effect then.
    if stopping.patience is None and stopping.min_delta and PATIENCE not in typed:
        problem = f"has no effect without {PATIENCE}"
        yield Violation("regularization.early_stopping.min_delta", stopping.min_delta, problem)


def _learning_rate(config: RunConfig) -> Iterator[Violation]:
    optimizer, scheduler = config.optimizer, config.scheduler
    if not optimizer.decay_norm_and_bias and not optimizer.settings.get("weight_decay"):
        problem = "has no effect without optimizer.weight_decay; give one, or true here"
        yield Violation("optimizer.decay_norm_and_bias", False, problem, {"optimizer.decay_norm_and_bias": True})
    if scheduler.warmup and SCHEDULERS[scheduler.name].facts["warms_up"]:
        problem = f"'{scheduler.name}' warms up by itself; give 0"
        yield Violation("scheduler.warmup", scheduler.warmup, problem, {"scheduler.warmup": 0})
    if not scheduler.warmup and _is_changed(scheduler, "warmup_unit"):
        yield Violation("scheduler.warmup_unit", scheduler.warmup_unit, "has no effect with scheduler.warmup=0")


def _transfer(config: RunConfig, typed: Collection[str]) -> Iterator[Violation]:
    init, freeze, head = config.init, config.freeze, config.head
    sources = init.model_dump(include={"run", "experiment", "weights", "file"}, exclude_none=True)
    keys = sorted(sources, key=lambda key: f"init.{key}" not in typed)  # what is typed wins over a preset
    if init.experiment and not init.run and "init.run" in typed:  # init.run=null: of an experiment no run either
        keys = ["run", *keys]
    for key in keys[1:]:
        instead = {f"init.{key}": None} if f"init.{keys[0]}" in typed else None
        problem = f"and init.{keys[0]} exclude each other; give one"
        yield Violation(f"init.{key}", sources[key], problem, instead)
    if init.run is None and init.experiment is None and _is_changed(init, "checkpoint"):
        yield Violation("init.checkpoint", init.checkpoint, "has no effect without init.run or init.experiment")
    if init.partial and not sources:
        yield Violation("init.partial", True, "has no effect without init.run, .experiment, .weights or .file")
    if init.accept_leaks and init.run is None and init.experiment is None:
        yield Violation("init.accept_leaks", True, "has no effect without init.run or init.experiment")
    if init.weights and not MODELS[config.model.name].facts["pretrained"]:
        having = listed(name for name in MODELS if MODELS[name].facts["pretrained"])
        problem = f"'{config.model.name}' has no pretrained weights; these models have: {having}"
        yield Violation("init.weights", init.weights, problem)
    if freeze.what is None and freeze.epochs is not None:
        yield Violation("freeze.epochs", freeze.epochs, "has no effect without freeze.what")
    if freeze.epochs is not None and freeze.epochs >= config.epochs:
        problem = f"is not fewer than epochs={config.epochs}; give less, or null to freeze to the end"
        yield Violation("freeze.epochs", freeze.epochs, problem, {"freeze.epochs": None, "freeze.then_lr": None})
    if freeze.epochs is None and freeze.then_lr is not None:
        yield Violation("freeze.then_lr", freeze.then_lr, "has no effect without freeze.epochs")
    if head.dropout and not head.units:
        yield Violation("head.dropout", head.dropout, "has no effect without head.units")


def _augmentation(config: RunConfig, typed: Collection[str]) -> Iterator[Violation]:
    settings = {part.name: dict(part.settings) for part in config.augmentation}
    built = {part.name: AUGMENTATIONS.build(part) for part in config.augmentation}
    for name in sorted(settings):
        for other in settings.keys() & set(AUGMENTATIONS[name].facts["excludes"]):
            problem = f"and augmentation.{other} exclude each other; set one of them to null"
            yield Violation(f"augmentation.{name}", settings[name], problem)
    probabilities = {f"augmentation.{name}.p": part.mix_probability for name, part in built.items()}
    probabilities = {key: probability for key, probability in probabilities.items() if probability}
    if not probabilities:
        return
    first, probability = next(iter(probabilities.items()))
    if not TASKS[config.task.name].facts["blends"]:
        name = first.split(".")[1]
        problem = f"mixes images of different classes, which task={config.task.name} cannot learn from; set it to null"
        yield Violation(f"augmentation.{name}", settings[name], problem)
    if sum(probabilities.values()) > 1 + 1e-9:  # decimal fractions add up to 1 only nearly
        key = next((key for key in probabilities if key in typed), first)
        others = " and ".join(f"{other}={value}" for other, value in probabilities.items() if other != key)
        problem = f"is above 1 together with {others}; an image is mixed once at most"
        yield Violation(key, probabilities[key], problem)
    if config.batch_size == 1:
        problem = "mixes images of one batch, and batch_size=1 has no other; give more, or 0 here"
        yield Violation(first, probability, problem)


def _is_changed(section: Section, key: str) -> bool:
    return bool(getattr(section, key) != type(section).model_fields[key].default)
