"""The typed, frozen configuration of a run, and the check that turns plain values into one.

Hydra composes plain values; from `check` on there is only `RunConfig`. Every mistake is collected before any is said.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from cnnbench.errors import ConfigError, Mistake, did_you_mean, listed
from cnnbench.registry import (
    AUGMENTATIONS,
    DATASETS,
    MODELS,
    OPTIMIZERS,
    SCHEDULERS,
    STRICT,
    TASKS,
    Registry,
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

INCIDENTAL = "cannot change the result"  # marks settings that are not part of a run's identity

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class CheckpointConfig(BaseModel):
    """When checkpoints are written, and how many stay."""

    model_config = STRICT

    every_seconds: Annotated[NonNegativeFloat, INCIDENTAL]
    keep: Annotated[PositiveInt, INCIDENTAL]


class EarlyStopping(BaseModel):
    """Stop after `patience` epochs in which the watched validation metric did not improve by `min_delta`."""

    model_config = STRICT

    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0


class Regularization(BaseModel):
    """What holds a network back from learning its training images by heart."""

    model_config = STRICT

    dropout: Fraction | None = None
    batchnorm: bool | None = None
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    early_stopping: EarlyStopping = EarlyStopping()


class DataConfig(BaseModel):
    """Which images, how they are split, and the window of them that the network sees."""

    model_config = STRICT

    source: Selection
    root: Annotated[str | None, INCIDENTAL] = None
    val_fraction: Fraction
    split_seed: Seed
    image_size: PositiveInt | None = None
    channels: Literal[1, 3] | None = None
    crop: Annotated[int, Field(ge=2)] | Annotated[float, Field(gt=0, le=1)] | None = None


class Spine(BaseModel):
    """The settings that belong to no group."""

    model_config = STRICT

    epochs: PositiveInt
    batch_size: PositiveInt
    seed: Seed
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"), INCIDENTAL] = "auto"
    deterministic: Annotated[bool, INCIDENTAL] = True
    num_workers: Annotated[NonNegativeInt, INCIDENTAL] = 0
    threads: Annotated[PositiveInt | None, INCIDENTAL] = None
    log_every: Annotated[PositiveInt, INCIDENTAL] = 1
    max_minutes: Annotated[PositiveFloat | None, INCIDENTAL] = None


class RunConfig(Spine):
    """Everything that one training is made of; frozen."""

    task: Selection
    data: DataConfig
    model: Selection
    augmentation: tuple[Selection, ...]
    optimizer: Selection
    scheduler: Selection
    regularization: Regularization
    checkpoint: CheckpointConfig
    parent: str | None = None  # "<identity>@<step>" of the run that this one goes on from; only resuming sets it

    def network(self) -> Selection:
        """Return the model with the overrides of `regularization` applied."""
        return Selection(self.model.name, {**self.model.settings, **_placed(self.regularization)})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values in the layout of `conf/`: what `config.yaml` of a run holds."""
        values = {key: getattr(self, key) for key in Spine.model_fields}
        for group in ("task", "model", "optimizer", "scheduler"):
            values[group] = getattr(self, group).flat()
        values["data"] = self.data.source.flat() | self.data.model_dump(exclude={"source"})
        values["augmentation"] = {part.name: dict(part.settings) for part in self.augmentation}
        values["regularization"] = self.regularization.model_dump()
        values["checkpoint"] = self.checkpoint.model_dump()
        if self.parent is not None:
            values["parent"] = self.parent
        return values

    def identity(self) -> str:
        """Return the hash (sha256, hex) of everything that can change the result.

        Left out are incidental settings, and settings at the default of the code: a new setting renames no run.
        """
        values: dict[str, Any] = _telling(self, exclude=("data", "regularization", "checkpoint", *GROUPS))
        for group in ("task", "model", "optimizer", "scheduler"):
            values[group] = _telling_settings(GROUPS[group], getattr(self, group))
        values["data"] = _telling(self.data, exclude=("source",)) | _telling_settings(DATASETS, self.data.source)
        values["augmentation"] = {part.name: _telling_settings(AUGMENTATIONS, part) for part in self.augmentation}
        values["regularization"] = _telling(self.regularization, exclude=("early_stopping",))
        values["regularization"] |= _telling(self.regularization.early_stopping)
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def check(
    values: Mapping[str, Any],
    typed: Mapping[str, str] | None = None,
    mistakes: tuple[Mistake, ...] = (),
    is_recorded: bool = False,
) -> tuple[RunConfig, list[str]]:
    """Return the configuration that plain values describe, and notes on what was left out of it, and why.

    values: nested plain values in the layout of `conf/`.
    typed: the arguments of the command line by the dotted key that they set; messages quote them.
    mistakes: found before; they are raised together with those found here.
    is_recorded: the values are those of a run; what was decided then is decided.
    Raises ConfigError with every mistake.
    """
    return _Check(dict(values), typed or {}, list(mistakes), is_recorded).result()


class _Check:
    """One pass over plain values that collects mistakes instead of stopping at the first."""

    def __init__(
        self, values: dict[str, Any], typed: Mapping[str, str], mistakes: list[Mistake], is_recorded: bool
    ) -> None:
        self.values, self.typed, self.mistakes, self.is_recorded = values, typed, mistakes, is_recorded
        self.notes: list[str] = []

    def result(self) -> tuple[RunConfig, list[str]]:
        nested = {key: self._section(key) for key in (*GROUPS, "regularization", "checkpoint")}
        parent = self.values.pop("parent", None)
        spine = self._model(Spine, self.values, "", self._meant_by(nested))
        parts: dict[str, Any] = {
            group: self._selection(group, nested[group]) for group in ("task", "model", "optimizer", "scheduler")
        }
        parts["data"] = self._data(nested["data"])
        parts["augmentation"] = self._augmentation(nested["augmentation"], parts["data"])
        parts["regularization"] = self._regularization(nested["regularization"])
        parts["checkpoint"] = self._model(CheckpointConfig, nested["checkpoint"], "checkpoint.")
        if spine is not None and None not in parts.values():
            config = RunConfig(**dict(spine), **parts, parent=parent)
            self._together(config)
        if self.mistakes:
            raise ConfigError(self.mistakes)
        return config, self.notes

    def _meant_by(self, nested: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return what a key at the top may have been meant for, by what may have been typed: `lr` for optimizer.lr."""
        names = [*Spine.model_fields, *GROUPS, "regularization", "checkpoint", "experiment", *CONTROLS]
        leaves = {leaf: f"{section}.{leaf}" for section, values in nested.items() for leaf in values if leaf != "name"}
        return leaves | {name: name for name in names}

    def _section(self, key: str) -> dict[str, Any]:
        section = self.values.pop(key, {})
        if isinstance(section, Mapping):
            return dict(section)
        self._mistake(key, section, "is a group of settings; name one of its options, or set one of its keys")
        raise ConfigError(self.mistakes)  # all that is in it would seem to be missing

    def _mistake(self, key: str, value: Any, problem: str) -> None:
        as_typed = (word for typed, word in self.typed.items() if typed == key or typed.startswith(f"{key}."))
        self.mistakes.append(Mistake(next(as_typed, f"{key}={_shown(value)}"), problem))

    def _model(
        self, schema: type[BaseModel], values: Mapping[str, Any], prefix: str, meant_by: Mapping[str, str] | None = None
    ) -> Any:
        try:
            return schema.model_validate(dict(values))
        except ValidationError as errors:
            keys = {str(error["loc"][0]): error["type"] for error in errors.errors()}
        properties = schema.model_json_schema()["properties"] if schema.model_fields else {}
        for key, kind in keys.items():
            if kind == "extra_forbidden":
                hint = did_you_mean(key, meant_by or schema.model_fields.keys())
                own = f"; '{prefix[:-1]}' takes {listed(schema.model_fields)}" if prefix and not hint else ""
                self._mistake(prefix + key, values[key], f"no such key{hint}{own}")
            elif kind == "missing" or values.get(key) == "???":
                self._mistake(prefix + key, "", f"must be given: {_allowed(properties[key])}")
            else:
                self._mistake(prefix + key, values[key], f"must be {_allowed(properties[key])}")
        return None

    def _selection(self, group: str, values: dict[str, Any], prefix: str | None = None) -> Selection | None:
        registry = GROUPS[group]
        name = values.pop("name", None)
        if name not in registry:
            if not any(mistake.given.startswith(f"{group}=") for mistake in self.mistakes):
                hint = did_you_mean(str(name), registry)
                self._mistake(f"{group}.name", name, f"no such {group}{hint}; there are {listed(registry)}")
            return None
        settings = self._model(registry[name].schema, values, prefix or f"{group}.")
        return None if settings is None else Selection(name, settings.model_dump())

    def _data(self, values: dict[str, Any]) -> DataConfig | None:
        shared = {key: values.pop(key) for key in DataConfig.model_fields if key in values}
        own = {key for key in values if key != "name"}
        name = str(values.get("name"))
        if name in DATASETS:  # an unknown key may have been meant for either half
            both = [*DataConfig.model_fields, *DATASETS[name].schema.model_fields]
            for key in own - set(DATASETS[name].schema.model_fields):
                self._mistake(f"data.{key}", values.pop(key), f"no such key{did_you_mean(key, both)}")
        source = self._selection("data", values)
        stand_in = source or Selection("", {})
        config: DataConfig | None = self._model(DataConfig, {"source": stand_in, **shared}, "data.")
        return None if source is None else config

    def _augmentation(self, values: dict[str, Any], data: DataConfig | None) -> tuple[Selection, ...] | None:
        values.pop("name", None)
        source = data.source.name if data else ""
        breaks = DATASETS[source].facts.get("breaks_labels", ()) if data and not self.is_recorded else ()
        parts: list[Selection] = []
        for name, settings in values.items():
            if settings is None:
                continue
            if name not in AUGMENTATIONS:
                hint = did_you_mean(name, AUGMENTATIONS)
                self._mistake(f"augmentation.{name}", settings, f"no such augmentation{hint}; {listed(AUGMENTATIONS)}")
            elif not isinstance(settings, Mapping):
                self._mistake(f"augmentation.{name}", settings, "takes settings of its own, or null for none")
            else:
                prefix = f"augmentation.{name}."
                checked = self._model(AUGMENTATIONS[name].schema, settings, prefix)
                by_hand = any(key.startswith(prefix) for key in self.typed)
                if name in breaks and not by_hand:
                    self.notes.append(
                        f"augmentation.{name} is left out: it can change what an image of '{source}' shows"
                    )
                elif checked is not None:
                    parts.append(Selection(name, checked.model_dump()))
                    if name in breaks:
                        self.notes.append(
                            f"augmentation.{name} can change what an image of '{source}' shows; on, as typed"
                        )
        if any(mistake.given.startswith("augmentation.") for mistake in self.mistakes):
            return None
        return tuple(sorted(parts, key=lambda part: AUGMENTATIONS[part.name].facts["order"]))

    def _regularization(self, values: dict[str, Any]) -> Regularization | None:
        stopping = values.pop("early_stopping", {})
        if not isinstance(stopping, Mapping):
            self._mistake("regularization.early_stopping", stopping, "takes the keys 'patience' and 'min_delta'")
            return None
        early = self._model(EarlyStopping, stopping, "regularization.early_stopping.")
        checked: Regularization | None = self._model(
            Regularization, {**values, "early_stopping": early or EarlyStopping()}, "regularization."
        )
        return checked

    def _together(self, config: RunConfig) -> None:
        """Check what single settings cannot show: combinations that have no effect, or that exclude each other."""
        for setting, value in _placed(config.regularization).items():
            if not MODELS[config.model.name].accepts(setting):
                having = listed(name for name in MODELS if MODELS[name].accepts(setting))
                self._mistake(
                    f"regularization.{setting}",
                    value,
                    f"'{config.model.name}' has no place for it; these have: {having}",
                )
        if config.regularization.l2 and config.optimizer.settings.get("weight_decay"):
            decay = config.optimizer.settings["weight_decay"]
            self._mistake(
                "regularization.l2", config.regularization.l2, f"twice: optimizer.weight_decay={decay} is on too"
            )
        patience = config.regularization.early_stopping.patience
        if patience is not None and patience >= config.epochs:
            problem = f"can never fire in {config.epochs} epochs; give less, or more epochs"
            self._mistake("regularization.early_stopping.patience", patience, problem)
        if patience is not None and not config.data.val_fraction:
            problem = "has nothing to watch with data.val_fraction=0; give a fraction, or null here"
            self._mistake("regularization.early_stopping.patience", patience, problem)


CONTROLS = ("resume", "rerun", "accept_stale", "plugins")


def is_incidental(key: str) -> bool:
    """Tell whether the setting of this dotted key cannot change a result."""
    section, _, leaf = key.rpartition(".")
    schemas: dict[str, type[BaseModel]] = {"": Spine, "data": DataConfig, "checkpoint": CheckpointConfig}
    field = schemas[section].model_fields.get(leaf) if section in schemas else None
    return field is not None and INCIDENTAL in field.metadata


def _placed(regularization: Regularization) -> dict[str, Any]:
    """Return what a network has to find a place for."""
    wanted = {"dropout": regularization.dropout, "batchnorm": regularization.batchnorm}
    return {key: value for key, value in wanted.items() if value is not None}


def _telling(model: BaseModel, exclude: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        key: getattr(model, key)
        for key, field in type(model).model_fields.items()
        if key not in exclude
        and INCIDENTAL not in field.metadata
        and (field.is_required() or getattr(model, key) != field.default)
    }


def _telling_settings(registry: Registry, selection: Selection) -> dict[str, Any]:
    component = registry[selection.name]
    defaults = component.defaults()
    fields = component.schema.model_fields
    return {"name": selection.name} | {
        key: value
        for key, value in selection.settings.items()
        if INCIDENTAL not in fields[key].metadata and (key not in defaults or value != defaults[key])
    }


def _allowed(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"}
    kind = words.get(schema.get("type", ""), "text")
    if schema.get("type") == "array":
        kind = f"a list, each {_allowed(schema.get('items', {}))}"
    bounds = {
        "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below",
        "minItems": "of at least", "maxItems": "of at most", "pattern": "matching",
    }  # fmt: skip
    limits = [f"{word} {schema[bound]}" for bound, word in bounds.items() if bound in schema]
    return " ".join([kind, " and ".join(limits)]).strip()


def _shown(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)
