"""The typed, frozen configuration of a run, and its identity.

Hydra composes plain values; from `check` (check.py) on there is only `RunConfig`.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cnnbench.config.transfer import Factors, FreezeConfig, HeadConfig, InitConfig
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

OVERLAYS = ("experiment", "debug")  # groups whose options have no keys of their own, and fix those of others

# Marks of settings:
NO_EFFECT_ON_RESULT = "cannot change the result"  # not part of a run's identity
IN_MODEL = "overrides the model's setting of this name; null: as the model has it"
IN_TASK = "overrides the task's setting of this name; null: as the task has it"

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


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
    """When checkpoints are written, and how many stay."""

    every_seconds: Annotated[NonNegativeFloat, NO_EFFECT_ON_RESULT]
    keep: Annotated[PositiveInt, NO_EFFECT_ON_RESULT]


class Reference(Section):
    """A published figure to compare with. metric: as results have it: accuracy, loss, top5, recall@1, …"""

    metric: str
    value: float
    split: Literal["train", "val", "test"]
    source: str
    remark: str = ""


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

    ema: exponential, after every step. swa: of the epochs from `start` on, each as much as any other.
    """

    kind: Literal["none", "ema", "swa"] = "none"
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    start: Annotated[float, Field(ge=0, lt=1)] = 0.75


class Regularization(Section):
    """What holds a network back from learning its training images by heart."""

    dropout: Annotated[Fraction | None, IN_MODEL] = None
    batchnorm: Annotated[bool | None, IN_MODEL] = None
    stochastic_depth: Annotated[Fraction | None, IN_MODEL] = None
    label_smoothing: Annotated[Fraction | None, IN_TASK] = None
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    clip: Clipping = Clipping()
    average: Averaging = Averaging()
    early_stopping: EarlyStopping = EarlyStopping()

    def placed(self, where: str) -> dict[str, Any]:
        """Return the overrides that a network (IN_MODEL) or a task (IN_TASK) has to find a place for."""
        wanted = {key: getattr(self, key) for key, field in type(self).model_fields.items() if where in field.metadata}
        return {key: value for key, value in wanted.items() if value is not None}


class Subset(Section):
    """Which images of a data set there shall be; null: all of them.

    classes: by name or number, in both parts. test_per_class: of the test part. The others: of the training part,
    before it is split.
    """

    classes: list[int | str] | None = None
    first: PositiveInt | None = None
    per_class: PositiveInt | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    test_per_class: PositiveInt | None = None


class DataConfig(Choice):
    """Which images, how they are split, and the window of them that the network sees."""

    root: Annotated[str | None, NO_EFFECT_ON_RESULT] = None
    val_fraction: Fraction = 0.1
    split_seed: Seed = 0
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: NonNegativeInt | None = None
    image_size: PositiveInt | None = None
    channels: Literal[1, 3] | None = None
    crop: Annotated[int, Field(ge=2)] | Annotated[float, Field(gt=0, lt=1)] | None = None
    statistics: Literal["own", "imagenet", "half"] = "own"
    subset: Subset = Subset()
    label_noise: Fraction = 0.0
    noise_seed: Seed = 0
    sampling: Literal["natural", "balanced"] | list[PositiveFloat] = "natural"


class OptimizerConfig(Choice):
    """How weights are changed.

    lr_scale: factors on the learning rate, by part of the network or pattern. layer_decay: another one for each layer,
    so many times itself as layers with weights come after it.
    """

    decay_norm_and_bias: bool = True
    lr_scale: Factors = Field(default={})
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


class SchedulerConfig(Choice):
    """How the learning rate changes; `warmup`: rising in a straight line before anything else."""

    warmup: NonNegativeInt = 0
    warmup_unit: Literal["epoch", "step"] = "epoch"


class TopLevelConfig(Section):
    """The settings that belong to no group."""

    epochs: PositiveInt
    batch_size: PositiveInt
    seed: Seed
    accumulate: PositiveInt = 1
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    eval_every: PositiveInt = 1
    eval_unit: Literal["epoch", "step"] = "epoch"
    tested: Literal["best", "last"] = "best"
    reach: Annotated[FiniteFloat | None, NO_EFFECT_ON_RESULT] = None
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N"),
        NO_EFFECT_ON_RESULT,
    ] = "auto"
    deterministic: Annotated[bool, NO_EFFECT_ON_RESULT] = True
    num_workers: Annotated[NonNegativeInt, NO_EFFECT_ON_RESULT] = 0
    threads: Annotated[PositiveInt | None, NO_EFFECT_ON_RESULT] = None
    log_every: Annotated[PositiveInt, NO_EFFECT_ON_RESULT] = 1
    max_minutes: Annotated[PositiveFloat | None, NO_EFFECT_ON_RESULT] = None
    report: Annotated[bool, NO_EFFECT_ON_RESULT] = True
    references: Annotated[list[Reference], NO_EFFECT_ON_RESULT] = Field(default=[])


class RunConfig(TopLevelConfig):
    """Everything that one training is made of; frozen."""

    task: Selection
    data: DataConfig
    model: Selection
    augmentation: tuple[Selection, ...]
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    regularization: Regularization
    checkpoint: CheckpointConfig
    init: InitConfig = InitConfig()
    freeze: FreezeConfig = FreezeConfig()
    head: HeadConfig = HeadConfig()
    source: str | None = None  # what `init` names, wherever it lies: "<identity>@best-<step>"; only planning sets it
    parent: str | None = None  # "<identity>@<step>" of the run that this one goes on from; only resuming sets it

    def network(self) -> Selection:
        """Return the model with the overrides of `regularization` applied."""
        return Selection(self.model.name, {**self.model.settings, **self.regularization.placed(IN_MODEL)})

    def objective(self) -> Selection:
        """Return the task with the overrides of `regularization` applied."""
        return Selection(self.task.name, {**self.task.settings, **self.regularization.placed(IN_TASK)})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values in the layout of `conf/`: what `config.yaml` of a run holds."""
        values: dict[str, Any] = self.model_dump(include=set(TopLevelConfig.model_fields))
        values |= {group: getattr(self, group).flat() for group in GROUPS if group != "augmentation"}
        values["augmentation"] = {part.name: dict(part.settings) for part in self.augmentation}
        values |= {key: getattr(self, key).model_dump() for key in SECTIONS}
        return values | {key: value for key in ("source", "parent") if (value := getattr(self, key)) is not None}

    def identity(self) -> str:
        """Return the hash (sha256, hex) of everything that can change the result.

        Left out are incidental settings, and settings at the default of the code: a new setting renames no run.
        What `regularization` overrides counts as the setting of the model: the same network is the same run. What
        `init` starts from counts by its content, wherever it lies.
        """
        placed = [key for where in (IN_MODEL, IN_TASK) for key in self.regularization.placed(where)]
        canonical = self._non_defaults(self.objective(), self.network(), placed)
        if self.source is not None:
            canonical.pop("init", None)
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def non_default_settings(self) -> dict[str, Any]:
        """Return the settings that can change the result and are not at the default of the code, nested as in YAML.

        Of an augmentation all are told: that it is there is telling.
        """
        augmentation = {part.name: dict(part.settings) for part in self.augmentation}
        return self._non_defaults(self.task, self.model, ()) | {"augmentation": augmentation}

    def _non_defaults(self, task: Selection, model: Selection, left_out: Collection[str]) -> dict[str, Any]:
        values = _non_defaults(self, exclude=GROUPS.keys())
        values["regularization"] = _non_defaults(self.regularization, exclude=left_out)
        values["task"] = _non_default_part(TASKS, task)
        values["model"] = _non_default_part(MODELS, model)
        for group in CHOICES:
            choice: Choice = getattr(self, group)
            values[group] = _non_defaults(choice, exclude=("part",)) | _non_default_part(GROUPS[group], choice.part)
        values["augmentation"] = {part.name: _non_default_part(AUGMENTATIONS, part) for part in self.augmentation}
        return values


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


def has_no_effect_on_result(key: str) -> bool:
    """Tell whether the setting of this dotted key cannot change a result."""
    path, _, leaf = key.rpartition(".")
    schemas: dict[str, type[BaseModel]] = {"": TopLevelConfig, **CHOICES, **SECTIONS}
    found = [schemas[path]] if path in schemas else []
    if path in GROUPS:
        found += [GROUPS[path][name].schema for name in GROUPS[path]]
    return any(
        leaf in schema.model_fields and NO_EFFECT_ON_RESULT in schema.model_fields[leaf].metadata for schema in found
    )


def _non_defaults(section: BaseModel, exclude: Collection[str] = ()) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if key in exclude or NO_EFFECT_ON_RESULT in field.metadata:
            continue
        if isinstance(value, BaseModel):
            told |= {key: inner} if (inner := _non_defaults(value)) else {}
        elif field.is_required() or value != field.default:
            told[key] = value
    return told


def _non_default_part(registry: Registry, selection: Selection) -> dict[str, Any]:
    component = registry[selection.name]
    defaults = component.defaults()
    fields = component.schema.model_fields
    return {"name": selection.name} | {
        key: value
        for key, value in selection.settings.items()
        if NO_EFFECT_ON_RESULT not in fields[key].metadata and (key not in defaults or value != defaults[key])
    }
