"""What single settings cannot show: combinations that have no effect, or that exclude each other."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from cnnbench.config.schema import IN_MODEL, IN_TASK, RunConfig
from cnnbench.errors import listed
from cnnbench.registry import AUGMENTATIONS, MODELS, SCHEDULERS, TASKS, Section


class Clash(NamedTuple):
    """A setting that does not go with the others, and why."""

    key: str
    value: Any
    problem: str


def clashes(config: RunConfig, typed: Collection[str]) -> Iterator[Clash]:
    """Yield every combination that makes no sense. typed: the keys that were typed; blame falls on them first."""
    yield from _overrides_without_a_place(config)
    yield from _data(config)
    yield from _regularizers(config, typed)
    yield from _rates(config)
    yield from _augmentations(config, typed)
    yield from _patience(config)
    yield from _beginnings(config)


def _overrides_without_a_place(config: RunConfig) -> Iterator[Clash]:
    for where, registry, part in ((IN_MODEL, MODELS, config.model), (IN_TASK, TASKS, config.task)):
        for setting, value in config.regularization.placed(where).items():
            if not registry[part.name].accepts(setting):
                having = listed(name for name in registry if registry[name].accepts(setting))
                problem = f"'{part.name}' has no place for it; these have: {having}"
                yield Clash(f"regularization.{setting}", value, problem)


def _data(config: RunConfig) -> Iterator[Clash]:
    sizes = config.data.subset.model_dump(exclude={"classes", "test_per_class"}, exclude_none=True)
    for key in list(sizes)[1:]:
        problem = f"and data.subset.{next(iter(sizes))} exclude each other; give one"
        yield Clash(f"data.subset.{key}", sizes[key], problem)
    if config.reach is not None and not config.data.val_fraction:
        yield Clash("reach", config.reach, "has nothing to measure with data.val_fraction=0; give a fraction")
    if config.tested == "last" and not config.data.val_fraction:
        yield Clash("tested", "last", "has no effect with data.val_fraction=0: there is no other; give best here")
    if not config.data.label_noise and _is_changed(config.data, "noise_seed"):
        yield Clash("data.noise_seed", config.data.noise_seed, "has no effect with data.label_noise=0")


def _regularizers(config: RunConfig, typed: Collection[str]) -> Iterator[Clash]:
    regularization = config.regularization
    decay = config.optimizer.settings.get("weight_decay")
    if regularization.l2 and decay:
        yield Clash("regularization.l2", regularization.l2, f"twice: optimizer.weight_decay={decay} is on too")
    average = regularization.average
    for key, kind in (("decay", "ema"), ("start", "swa")):
        if average.kind != kind and _is_changed(average, key):
            problem = f"has no effect with regularization.average.kind={average.kind}; it is for {kind}"
            yield Clash(f"regularization.average.{key}", getattr(average, key), problem)
    stopping = regularization.early_stopping
    is_switched_off = "regularization.early_stopping.patience" in typed  # of a run that goes on, say; the rest is moot
    if stopping.patience is None and stopping.min_delta and not is_switched_off:
        problem = "has no effect without regularization.early_stopping.patience"
        yield Clash("regularization.early_stopping.min_delta", stopping.min_delta, problem)


def _rates(config: RunConfig) -> Iterator[Clash]:
    optimizer, scheduler = config.optimizer, config.scheduler
    if not optimizer.decay_norm_and_bias and not optimizer.settings.get("weight_decay"):
        problem = "has no effect without optimizer.weight_decay; give one, or true here"
        yield Clash("optimizer.decay_norm_and_bias", False, problem)
    facts = SCHEDULERS[scheduler.name].facts
    if scheduler.warmup and facts.get("warms_up"):
        yield Clash("scheduler.warmup", scheduler.warmup, f"'{scheduler.name}' warms up by itself; give 0")
    if not scheduler.warmup and _is_changed(scheduler, "warmup_unit"):
        yield Clash("scheduler.warmup_unit", scheduler.warmup_unit, "has no effect with scheduler.warmup=0")
    if facts.get("watches") and not config.data.val_fraction:
        problem = "has nothing to watch with data.val_fraction=0; give a fraction, or take another one"
        yield Clash("scheduler.name", scheduler.name, problem)


def _beginnings(config: RunConfig) -> Iterator[Clash]:
    init, freeze, head = config.init, config.freeze, config.head
    sources = init.model_dump(include={"run", "experiment", "weights", "file"}, exclude_none=True)
    for key in list(sources)[1:]:
        yield Clash(f"init.{key}", sources[key], f"and init.{next(iter(sources))} exclude each other; give one")
    if init.run is None and init.experiment is None and _is_changed(init, "checkpoint"):
        yield Clash("init.checkpoint", init.checkpoint, "has no effect without init.run or init.experiment")
    if init.weights and "pretrained" not in MODELS[config.model.name].facts:
        having = listed(name for name in MODELS if "pretrained" in MODELS[name].facts)
        yield Clash("init.weights", init.weights, f"there are none for '{config.model.name}'; there are for {having}")
    if freeze.what is None and freeze.epochs is not None:
        yield Clash("freeze.epochs", freeze.epochs, "has no effect without freeze.what")
    if freeze.epochs is not None and freeze.epochs >= config.epochs:
        problem = f"is not fewer than epochs={config.epochs}; give less, or null to freeze to the end"
        yield Clash("freeze.epochs", freeze.epochs, problem)
    if freeze.epochs is None and freeze.then_lr is not None:
        yield Clash("freeze.then_lr", freeze.then_lr, "has no effect without freeze.epochs")
    if head.dropout and not head.units:
        yield Clash("head.dropout", head.dropout, "has no effect without head.units")


def _augmentations(config: RunConfig, typed: Collection[str]) -> Iterator[Clash]:
    names = {part.name: dict(part.settings) for part in config.augmentation}
    for name in sorted(names):
        for other in names.keys() & AUGMENTATIONS[name].facts.get("excludes", ()):
            problem = f"and augmentation.{other} exclude each other; set one of them to null"
            yield Clash(f"augmentation.{name}", names[name], problem)
    blended = [part.name for part in config.augmentation if AUGMENTATIONS.build(part).mix_probability]
    if blended and not TASKS[config.task.name].facts.get("blends"):
        problem = f"blends images of classes, and task={config.task.name} has no blended ones; set it to null"
        yield Clash(f"augmentation.{blended[0]}", names[blended[0]], problem)
    shares = {f"augmentation.{part.name}.p": AUGMENTATIONS.build(part).mix_probability for part in config.augmentation}
    shares = {key: share for key, share in shares.items() if share}
    if sum(shares.values()) > 1 + 1e-9:  # decimal fractions add up to 1 only nearly
        key = next((key for key in shares if key in typed), next(iter(shares)))
        others = " and ".join(f"{other}={share}" for other, share in shares.items() if other != key)
        yield Clash(key, shares[key], f"is above 1 together with {others}; an image is blended once at most")
    if shares and config.batch_size == 1:
        problem = "blends images of one batch, and batch_size=1 has no other; give more, or 0 here"
        yield Clash(next(iter(shares)), next(iter(shares.values())), problem)


def _patience(config: RunConfig) -> Iterator[Clash]:
    key, patience = "regularization.early_stopping.patience", config.regularization.early_stopping.patience
    if patience is not None and not config.data.val_fraction:
        yield Clash(key, patience, "has nothing to watch with data.val_fraction=0; give a fraction, or null here")
    if config.eval_unit == "epoch":
        yield from too_patient(config, config.epochs, f"{config.epochs} epochs")


def too_patient(config: RunConfig, number: int, told: str) -> Iterator[Clash]:
    """Yield each patience that cannot be over in time; the end is after a number of evaluation units."""
    after_the_first = (number - 1) // config.eval_every  # evaluations; the first one is never without improvement
    problem = f"can never be over before the end of {told}; give less, or train for longer"
    stopping, scheduler = config.regularization.early_stopping.patience, config.scheduler
    if stopping is not None and stopping > after_the_first:
        yield Clash("regularization.early_stopping.patience", stopping, problem)
    # A rate that falls at the last evaluation is never used.
    if SCHEDULERS[scheduler.name].facts.get("watches") and scheduler.settings["patience"] >= after_the_first:
        yield Clash("scheduler.patience", scheduler.settings["patience"], problem)


def _is_changed(section: Section, key: str) -> bool:
    return bool(getattr(section, key) != type(section).model_fields[key].default)
