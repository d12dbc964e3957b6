"""From plain values to a configuration: every mistake is collected before any is said."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from cnnbench.config import (
    CHOICES,
    GROUPS,
    IN_MODEL,
    IN_TASK,
    OVERLAYS,
    SECTIONS,
    Choice,
    DataConfig,
    RunConfig,
    Section,
    Spine,
)
from cnnbench.errors import ConfigError, Mistake, did_you_mean, listed
from cnnbench.registry import AUGMENTATIONS, DATASETS, MODELS, SCHEDULERS, TASKS, Selection

CONTROLS = ("resume", "rerun", "accept_stale", "plugins", "dry_run", "lr_find")


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
        nested = {key: self._nested(key) for key in (*GROUPS, *SECTIONS)}
        self._fold(nested["data"])
        parent = self.values.pop("parent", None)
        spine = self._section(Spine, self.values, "", self._meant_by(nested))
        parts: dict[str, Any] = {
            group: self._choice(group, nested[group]) for group in GROUPS if group != "augmentation"
        }
        parts["augmentation"] = self._augmentation(nested["augmentation"], parts["data"])
        parts |= {key: self._section(schema, nested[key], f"{key}.") for key, schema in SECTIONS.items()}
        if spine is not None and None not in parts.values():
            config = RunConfig(**dict(spine), **parts, parent=parent)
            self._together(config)
        if self.mistakes:
            raise ConfigError(self.mistakes)
        return config, self.notes

    def _meant_by(self, nested: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return what a key at the top may have been meant for, by what may have been typed: `lr` for optimizer.lr."""
        names = [*Spine.model_fields, *GROUPS, "regularization", "checkpoint", *OVERLAYS, *CONTROLS]
        leaves = {leaf: f"{section}.{leaf}" for section, values in nested.items() for leaf in values if leaf != "name"}
        return leaves | {name: name for name in names}

    def _nested(self, key: str) -> dict[str, Any]:
        values = self.values.pop(key, {})
        if isinstance(values, Mapping):
            return dict(values)
        self._mistake(key, values, "is a group of settings; name one of its options, or set one of its keys")
        raise ConfigError(self.mistakes)  # all that is in it would seem to be missing

    def _mistake(self, key: str, value: Any, problem: str) -> None:
        as_typed = (word for typed, word in self.typed.items() if typed == key or typed.startswith(f"{key}."))
        self.mistakes.append(Mistake(next(as_typed, f"{key}={_shown(value)}"), problem))

    def _section(
        self, schema: type[BaseModel], values: Mapping[str, Any], prefix: str, meant_by: Mapping[str, str] | None = None
    ) -> Any:
        """Return the values as their schema has them, or None where something is wrong with them."""
        inner = {key: value for key, value in values.items() if key in schema.model_fields}
        inner = {key: value for key, value in inner.items() if _is_section(schema.model_fields[key].annotation)}
        checked: dict[str, Any] = {}
        for key, value in inner.items():
            inner_schema: Any = schema.model_fields[key].annotation
            if isinstance(value, Mapping):
                checked[key] = self._section(inner_schema, value, f"{prefix}{key}.")
            else:
                self._mistake(prefix + key, value, f"takes the keys {listed(inner_schema.model_fields)}")
                checked[key] = None
        try:
            valid = schema.model_validate({**values, **{key: value for key, value in checked.items() if value}})
            return None if None in checked.values() else valid
        except ValidationError as errors:
            kinds = {str(error["loc"][0]): error["type"] for error in errors.errors()}
        properties = schema.model_json_schema()["properties"] if schema.model_fields else {}
        for key, kind in kinds.items():
            if key in inner:
                continue  # said already
            if kind == "extra_forbidden":
                hint = did_you_mean(key, meant_by or schema.model_fields.keys())
                own = f"; '{prefix[:-1]}' takes {listed(schema.model_fields)}" if prefix and not hint else ""
                self._mistake(prefix + key, values[key], f"no such key{hint}{own}")
            elif kind == "missing" or values.get(key) == "???":
                self._mistake(prefix + key, "", f"must be given: {_allowed(properties[key])}")
            else:
                self._mistake(prefix + key, values[key], f"must be {_allowed(properties[key])}")
        return None

    def _fold(self, data: dict[str, Any]) -> None:
        """Let the folds say what share validates: what is recorded is true, and no preset's share renames a run."""
        folds, fold = data.get("folds"), data.get("fold")
        if folds is None and fold is not None:
            self._mistake("data.fold", fold, "is one of data.folds; give their number too")
        if type(folds) is not int or folds < 2:
            return
        if fold is None:
            self._mistake("data.folds", folds, f"needs data.fold, which of them validates: 0 to {folds - 1}")
        elif type(fold) is int and fold >= folds:
            self._mistake("data.fold", fold, f"must be below data.folds={folds}; they count from 0")
        if "data.val_fraction" in self.typed:
            problem = f"and data.folds={folds} exclude each other: the folds say what validates"
            self._mistake("data.val_fraction", data.get("val_fraction"), problem)
        data["val_fraction"] = 1 / folds

    def _selection(self, group: str, values: dict[str, Any]) -> Selection | None:
        registry = GROUPS[group]
        name = values.pop("name", None)
        if name not in registry:
            if not any(mistake.given.startswith(f"{group}=") for mistake in self.mistakes):
                hint = did_you_mean(str(name), registry)
                self._mistake(f"{group}.name", name, f"no such {group}{hint}; there are {listed(registry)}")
            return None
        settings = self._section(registry[name].schema, values, f"{group}.")
        return None if settings is None else Selection(name, settings.model_dump())

    def _choice(self, group: str, values: dict[str, Any]) -> Selection | Choice | None:
        """Return what was chosen in a group, with the settings that all of its parts share, if there are any."""
        schema = CHOICES.get(group)
        if schema is None:
            return self._selection(group, values)
        shared = {key: values.pop(key) for key in schema.model_fields if key in values}
        name = values.get("name")
        if name in GROUPS[group]:  # an unknown key may have been meant for either half
            own = GROUPS[group][str(name)].schema.model_fields
            for key in set(values) - set(own) - {"name"}:
                hint = did_you_mean(key, [*schema.model_fields, *own])
                self._mistake(f"{group}.{key}", values.pop(key), f"no such key{hint}")
        part = self._selection(group, values)
        choice: Choice | None = self._section(schema, {"part": part or Selection("", {}), **shared}, f"{group}.")
        return None if part is None else choice

    def _augmentation(self, values: dict[str, Any], data: DataConfig | None) -> tuple[Selection, ...] | None:
        values.pop("name", None)
        source = data.name if data else ""
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
                checked = self._section(AUGMENTATIONS[name].schema, settings, prefix)
                by_hand = any(f"{key}.".startswith(prefix) for key in self.typed)
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

    def _together(self, config: RunConfig) -> None:
        """Check what single settings cannot show: combinations that have no effect, or that exclude each other."""
        for where, registry, part in ((IN_MODEL, MODELS, config.model), (IN_TASK, TASKS, config.task)):
            for setting, value in config.regularization.placed(where).items():
                if not registry[part.name].accepts(setting):
                    having = listed(name for name in registry if registry[name].accepts(setting))
                    problem = f"'{part.name}' has no place for it; these have: {having}"
                    self._mistake(f"regularization.{setting}", value, problem)
        sizes = config.data.subset.model_dump(exclude={"classes"}, exclude_none=True)
        for key in list(sizes)[1:]:
            problem = f"and data.subset.{next(iter(sizes))} exclude each other; give one"
            self._mistake(f"data.subset.{key}", sizes[key], problem)
        if config.regularization.l2 and config.optimizer.settings.get("weight_decay"):
            decay = config.optimizer.settings["weight_decay"]
            self._mistake(
                "regularization.l2", config.regularization.l2, f"twice: optimizer.weight_decay={decay} is on too"
            )
        self._augmentations_together(config)
        self._rates_together(config)
        patience = config.regularization.early_stopping.patience
        if patience is not None and patience >= config.epochs - 1:  # the first epoch is never without improvement
            problem = f"can never fire before the end of {config.epochs} epochs; give less, or more epochs"
            self._mistake("regularization.early_stopping.patience", patience, problem)
        if patience is not None and not config.data.val_fraction:
            problem = "has nothing to watch with data.val_fraction=0; give a fraction, or null here"
            self._mistake("regularization.early_stopping.patience", patience, problem)

    def _rates_together(self, config: RunConfig) -> None:
        optimizer, scheduler = config.optimizer, config.scheduler
        if not optimizer.decay_norm_and_bias and not optimizer.settings.get("weight_decay"):
            problem = "has no effect without optimizer.weight_decay; give one, or true here"
            self._mistake("optimizer.decay_norm_and_bias", False, problem)
        facts = SCHEDULERS[scheduler.name].facts
        if scheduler.warmup and facts.get("warms_up"):
            self._mistake("scheduler.warmup", scheduler.warmup, f"'{scheduler.name}' warms up by itself; give 0")
        if facts.get("watches") and not config.data.val_fraction:
            problem = "has nothing to watch with data.val_fraction=0; give a fraction, or take another one"
            self._mistake("scheduler.name", scheduler.name, problem)
        patience = scheduler.settings.get("patience", 0)
        if config.eval_unit == "epoch" and patience and patience >= (config.epochs - 1) // config.eval_every:
            problem = f"can never be over before the end of {config.epochs} epochs; give less, or more epochs"
            self._mistake("scheduler.patience", patience, problem)

    def _augmentations_together(self, config: RunConfig) -> None:
        names = {part.name for part in config.augmentation}
        for name in sorted(names):
            for other in names.intersection(AUGMENTATIONS[name].facts.get("excludes", ())):
                problem = f"and augmentation.{other} exclude each other; set one of them to null"
                self.mistakes.append(Mistake(f"augmentation.{name}", problem))
        shares = {f"augmentation.{part.name}.p": AUGMENTATIONS.build(part).mixes for part in config.augmentation}
        shares = {key: share for key, share in shares.items() if share}
        if sum(shares.values()) > 1 + 1e-9:  # decimal fractions add up to 1 only nearly
            key = next((key for key in shares if key in self.typed), next(iter(shares)))
            others = " and ".join(f"{other}={share}" for other, share in shares.items() if other != key)
            self._mistake(key, shares[key], f"is above 1 together with {others}; an image is blended once at most")
        if shares and config.batch_size == 1:
            problem = "blends images of one batch, and batch_size=1 has no other; give more, or 0 here"
            self._mistake(next(iter(shares)), next(iter(shares.values())), problem)


def _allowed(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "description" in schema:
        return str(schema["description"])
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


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _shown(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)
