"""Every setting of a run that does not belong to a registered component: its type, range and default.

A default here is the value that changes nothing: settings that equal it are no part of a run's identity.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import BeforeValidator, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cnnbench.config.values import flat
from cnnbench.registry import (
    AUGMENTATIONS,
    DATASETS,
    MODELS,
    OPTIMIZERS,
    SCHEDULERS,
    TASKS,
    Registry,
    Section,
    Selection,
)

GROUPS: dict[str, Registry] = {
    "task": TASKS,
    "data": DATASETS,
    "model": MODELS,
    "augmentation": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
}
OVERLAYS = ("experiment", "debug")  # groups whose options set the keys of other groups

# Marks of settings:
NO_EFFECT_ON_RESULT = "cannot change the result"  # not part of a run's identity
IN_MODEL = "overrides the model's setting of this name; null: as the model has it"
IN_TASK = "overrides the task's setting of this name; null: as the task has it"

MAX_SIDE = 4096  # of images in memory; more is a typing mistake
MAX_THREADS = 1024  # torch aborts the process when the system refuses it a thread

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

Listed = Annotated[list[str], BeforeValidator(lambda words: [words] if isinstance(words, str) else words)]
Words = Annotated[Listed, Field(min_length=1, description="features, all_but_head, or names or patterns of modules")]
Names = Annotated[Listed, Field(description="names of loggers, or [] for none")]
MeanAndStd = Annotated[
    list[list[FiniteFloat]], Field(min_length=2, max_length=2, description="[[mean, …], [deviation, …]], by channel")
]

Factors = Annotated[
    dict[str, PositiveFloat],
    BeforeValidator(lambda values: flat(values) if isinstance(values, Mapping) else values),  # a.b=2 arrives nested
    Field(description="numbers above 0 by head, features, or names or patterns of modules"),
]


class Choice(Section):
    """A registered part of a group; subclasses add the settings that every part of the group shares."""

    part: Selection

    @property
    def name(self) -> str:
        """Return the registered name."""
        return self.part.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings of the part, without those that are shared."""
        return self.part.settings

    def flat(self) -> dict[str, Any]:
        """Return the choice as it stands in YAML: `name` first, its own settings, the shared ones."""
        return self.part.flat() | self.shared()

    def shared(self) -> dict[str, Any]:
        """Return the settings that every part of the group has."""
        return self.model_dump(exclude={"part"})


class CheckpointConfig(Section):
    """When checkpoints are written, and how many stay; of how many of the best validations the weights stay in each.

    average: the mean of the weights of this many is tested; null: the best.
    """

    every_seconds: Annotated[NonNegativeFloat, NO_EFFECT_ON_RESULT]
    keep: Annotated[PositiveInt, NO_EFFECT_ON_RESULT]
    top: Annotated[PositiveInt, NO_EFFECT_ON_RESULT] = 1
    average: Annotated[int, Field(ge=2)] | None = None

    @property
    def num_best(self) -> int:
        """The number of best validations whose weights stay."""
        return max(self.top, self.average or 1)


class Reference(Section):
    """A published figure to compare with. metric: as results have it: accuracy, loss, top5, recall@1, …

    error: whether its source has the error in per cent, which is then shown next to the accuracy.
    """

    metric: str
    value: float
    split: Literal["train", "val", "test"]
    source: str
    remark: str = ""
    error: bool = False


class EarlyStopping(Section):
    """Stop after `patience` epochs in which the watched validation metric did not improve by `min_delta`."""

    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0


class Clipping(Section):
    """Bound the gradient of a step: its norm over all weights, or each of its values."""

    norm: PositiveFloat | None = None
    value: PositiveFloat | None = None


class Averaging(Section):
    """Evaluate and keep an average of the weights of many steps.

    ema: exponential, after every step. swa: of the epochs from `start` on, all equally weighted.
    """

    kind: Literal["none", "ema", "swa"] = "none"
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    start: Annotated[float, Field(ge=0, lt=1)] = 0.75


class Regularization(Section):
    """What keeps a network from overfitting."""

    dropout: Annotated[Fraction | None, IN_MODEL] = None
    batchnorm: Annotated[bool | None, IN_MODEL] = None
    stochastic_depth: Annotated[Fraction | None, IN_MODEL] = None
    label_smoothing: Annotated[Fraction | None, IN_TASK] = None
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    clip: Clipping = Clipping()
    average: Averaging = Averaging()
    early_stopping: EarlyStopping = EarlyStopping()

    def overrides(self, where: str) -> dict[str, Any]:
        """Return the settings that replace those of the model (IN_MODEL) or the task (IN_TASK), where they are set."""
        marked = {key: getattr(self, key) for key, field in type(self).model_fields.items() if where in field.metadata}
        return {key: value for key, value in marked.items() if value is not None}


class Subset(Section):
    """Which images of a data set are used; null: all of them.

    classes: by name or number, in both parts. max_classes: where there are more, `classes` becomes the first ones.
    test_per_class: of the test part. The others: of the training part, before it is split.
    """

    classes: list[int | str] | None = None
    max_classes: Annotated[Annotated[int, Field(ge=2)] | None, NO_EFFECT_ON_RESULT] = None  # `classes` has the effect
    first: PositiveInt | None = None
    per_class: PositiveInt | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    test_per_class: PositiveInt | None = None


class DataConfig(Choice):
    """Which images, how they are split, which crop of them the network sees, and which part is only watched."""

    root: Annotated[str | None, NO_EFFECT_ON_RESULT] = None
    val_fraction: Fraction = 0.1
    split_seed: Seed = 0
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: NonNegativeInt | None = None
    image_size: Annotated[int, Field(gt=0, le=MAX_SIDE)] | None = None
    channels: Literal[1, 3] | None = None
    bits: Annotated[int, Field(ge=8, le=16)] = 16
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop: Annotated[int, Field(ge=2)] | Annotated[float, Field(gt=0, lt=1)] | None = None
    statistics: Literal["own", "imagenet", "half"] | MeanAndStd = "own"
    subset: Subset = Subset()
    label_noise: Fraction = 0.0
    noise_seed: Seed = 0
    sampling: Literal["natural", "balanced"] | list[PositiveFloat] = "natural"
    monitor: Annotated[Literal["test"] | None, NO_EFFECT_ON_RESULT] = None


class OptimizerConfig(Choice):
    """How weights are updated.

    lr_scale: factors on the learning rate, by part of the network or pattern. layer_decay: factor for each layer, to
    the power of the number of layers with weights that come after it.
    """

    decay_norm_and_bias: bool = True
    lr_scale: Factors = Field(default={})
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


class SchedulerConfig(Choice):
    """How the learning rate changes; `warmup`: length of a linear rise before the schedule."""

    warmup: NonNegativeInt = 0
    warmup_unit: Literal["epoch", "step"] = "epoch"


class InitConfig(Section):
    """Initial weights, where they are not random: from one of run, experiment, weights and file.

    run: folder of one. experiment: name of one that was trained. checkpoint: which weights of either. weights:
    published ones. file: a state dict. partial: the rest may be random. accept_leaks: also if trained on test images.
    """

    run: str | None = None
    experiment: str | None = None
    checkpoint: Literal["best", "last"] = "best"
    weights: Literal["imagenet"] | None = None
    file: str | None = None
    partial: bool = False
    accept_leaks: Annotated[bool, NO_EFFECT_ON_RESULT] = False


class FreezeConfig(Section):
    """Which parts of the network are frozen: for the first `epochs`, or always.

    what: `features`, `all_but_head`, modules by name or pattern. then_lr: factor on the learning rate from then on.
    """

    what: Words | None = None
    epochs: PositiveInt | None = None
    then_lr: PositiveFloat | None = None


class HeadConfig(Section):
    """Dense layers put before the last layer of a network, each followed by ReLU and dropout; none: as it is.

    init: how the last layer begins: as its architecture initialises it, or as layers of torch do.
    """

    units: list[PositiveInt] = Field(default=[])
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init: Literal["architecture", "torch"] = "architecture"


class TopLevelConfig(Section):
    """The settings that belong to no group."""

    epochs: PositiveInt
    batch_size: PositiveInt
    seed: Seed
    accumulate: PositiveInt = 1
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    eval_every: PositiveInt = 1
    eval_unit: Literal["epoch", "step"] = "epoch"
    tested: Literal["best", "last"] = "best"
    test: Annotated[bool, NO_EFFECT_ON_RESULT] = True
    reach: Annotated[FiniteFloat | None, NO_EFFECT_ON_RESULT] = None
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N"),
        NO_EFFECT_ON_RESULT,
    ] = "auto"
    deterministic: Annotated[bool, NO_EFFECT_ON_RESULT] = True
    num_workers: Annotated[NonNegativeInt, NO_EFFECT_ON_RESULT] = 0
    threads: Annotated[Annotated[int, Field(gt=0, le=MAX_THREADS)] | None, NO_EFFECT_ON_RESULT] = None
    log_every: Annotated[PositiveInt, NO_EFFECT_ON_RESULT] = 1
    max_minutes: Annotated[PositiveFloat | None, NO_EFFECT_ON_RESULT] = None
    report: Annotated[bool, NO_EFFECT_ON_RESULT] = True
    open: Annotated[bool, NO_EFFECT_ON_RESULT] = False
    name: Annotated[str | None, NO_EFFECT_ON_RESULT] = None
    notes: Annotated[str | None, NO_EFFECT_ON_RESULT] = None
    tags: Annotated[Listed, NO_EFFECT_ON_RESULT] = Field(default=[])
    logger: Annotated[Names, NO_EFFECT_ON_RESULT] = Field(default=["tensorboard"])
    references: Annotated[list[Reference], NO_EFFECT_ON_RESULT] = Field(default=[])


CHOICES: dict[str, type[Choice]] = {  # groups with settings that all of their parts share
    "data": DataConfig,
    "optimizer": OptimizerConfig,
    "scheduler": SchedulerConfig,
}
SECTIONS: dict[str, type[Section]] = {
    "regularization": Regularization,
    "checkpoint": CheckpointConfig,
    "init": InitConfig,
    "freeze": FreezeConfig,
    "head": HeadConfig,
}


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    """Return whether the type of a setting is a section of settings."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
