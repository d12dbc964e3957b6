"""The typed, frozen configuration of one run, and the hash that identifies it.

Hydra composes plain values; from `validate` on there is only `RunConfig`.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from cnnbench.config.schema import (
    CHOICES,
    GROUPS,
    IN_MODEL,
    IN_TASK,
    NO_EFFECT_ON_RESULT,
    OVERLAYS,
    SECTIONS,
    CheckpointConfig,
    Choice,
    DataConfig,
    FreezeConfig,
    HeadConfig,
    InitConfig,
    OptimizerConfig,
    Regularization,
    SchedulerConfig,
    TopLevelConfig,
    is_section,
)
from cnnbench.errors import Mistake
from cnnbench.registry import AUGMENTATIONS, DATASETS, MODELS, TASKS, Component, Registry, Selection


@dataclass(frozen=True)
class WithoutAugmentation:
    """Mark of a setting: `value` computes the same as another one where there is no augmentation."""

    value: str
    same_as: str


OVERRIDDEN = {
    f"regularization.{key}": f"{group}.{key}"
    for key, field in Regularization.model_fields.items()
    for where, group in ((IN_MODEL, "model"), (IN_TASK, "task"))
    if where in field.metadata
}
"""What each key that overrides another one replaces: `regularization.dropout`: `model.dropout`."""


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
    source: str | None = None  # content of the initial weights: "<identity>@best-<step>"; set by planning only
    parent: str | None = None  # "<identity>@<step>" of the run that this one continues; set by resuming only

    def network(self) -> Selection:
        """Return the model with the overrides of `regularization` applied."""
        return Selection(self.model.name, {**self.model.settings, **self.regularization.overrides(IN_MODEL)})

    def objective(self) -> Selection:
        """Return the task with the overrides of `regularization` applied."""
        return Selection(self.task.name, {**self.task.settings, **self.regularization.overrides(IN_TASK)})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values in the layout of `conf/`: what `config.yaml` of a run holds."""
        values: dict[str, Any] = self.model_dump(include=set(TopLevelConfig.model_fields))
        values |= {group: getattr(self, group).flat() for group in GROUPS if group != "augmentation"}
        values["augmentation"] = {part.name: dict(part.settings) for part in self.augmentation}
        values |= {key: getattr(self, key).model_dump() for key in SECTIONS}
        return values | {key: value for key in ("source", "parent") if (value := getattr(self, key)) is not None}

    def identity(self) -> str:
        """Return the hash (sha256, hex) of everything that can change the result.

        Settings without an effect on the result are left out, and those at the default of the code: a new setting
        renames no run. What `regularization` overrides counts as the setting of the model: the same network is the
        same run. Initial weights count by their content, wherever they are stored.
        """
        moved = [key for where in (IN_MODEL, IN_TASK) for key in self.regularization.overrides(where)]
        canonical = self._non_defaults(self.objective(), self.network(), moved)
        if self.source is not None:
            canonical.pop("init", None)
        if not self.augmentation:
            canonical["data"] |= _same_without_augmentation(DATASETS[self.data.name].schema, canonical["data"])
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def components(self) -> list[Component]:
        """Return what was chosen in each group, as it is registered."""
        chosen = ((GROUPS[group], getattr(self, group)) for group in GROUPS)
        return [
            registry[part.name] for registry, some in chosen for part in (some if isinstance(some, tuple) else (some,))
        ]

    def non_default_settings(self) -> dict[str, Any]:
        """Return the settings that can change the result and are not at the default of the code, nested as in YAML.

        Of an augmentation all settings are returned: its presence is what deviates from the default.
        """
        augmentation = {part.name: dict(part.settings) for part in self.augmentation}
        return self._non_defaults(self.task, self.model, ()) | {"augmentation": augmentation}

    def _non_defaults(self, task: Selection, model: Selection, excluded: Collection[str]) -> dict[str, Any]:
        values = _non_defaults(self, exclude=GROUPS.keys())
        values["regularization"] = _non_defaults(self.regularization, exclude=excluded)
        values["task"] = _non_default_part(TASKS, task)
        values["model"] = _non_default_part(MODELS, model)
        for group in CHOICES:
            choice: Choice = getattr(self, group)
            values[group] = _non_defaults(choice, exclude=("part",)) | _non_default_part(GROUPS[group], choice.part)
        values["augmentation"] = {part.name: _non_default_part(AUGMENTATIONS, part) for part in self.augmentation}
        return values


def has_no_effect_on_result(key: str) -> bool:
    """Return whether the setting of this dotted key cannot change a result."""
    path, _, leaf = key.rpartition(".")
    first, *deeper = path.split(".")
    sections: dict[str, type[BaseModel]] = {"": TopLevelConfig, **CHOICES, **SECTIONS}
    schemas = [sections[first]] if first in sections else []
    for name in deeper:
        below = (schema.model_fields[name].annotation for schema in schemas if name in schema.model_fields)
        schemas = [schema for schema in below if is_section(schema)]
    if path in GROUPS:
        schemas += [GROUPS[path][name].schema for name in GROUPS[path]]
    fields = [schema.model_fields[leaf] for schema in schemas if leaf in schema.model_fields]
    return any(NO_EFFECT_ON_RESULT in field.metadata for field in fields)


def that_count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted key; one that is null and would override another has the value of that one."""
    unset = [key for key, own in OVERRIDDEN.items() if settings.get(key) is None and own in settings]
    return {**settings, **{key: settings[OVERRIDDEN[key]] for key in unset}}


def known_keys(chosen: Mapping[str, str] | None = None) -> list[str]:
    """Return the keys of all settings, dotted, with those of the chosen component of each group; None: of every one.

    Where several end in the same name, the one most often meant comes first.
    """
    keys = [key for section, parts in _schemas(chosen).items() for one in parts for key, _ in _keys_in(one, section)]
    return list(dict.fromkeys([*TopLevelConfig.model_fields, *GROUPS, *OVERLAYS, *SECTIONS, *keys]))


def accepts(key: str, value: Any) -> bool:
    """Tell whether a value is one that a setting of some component may have."""
    schemas: dict[str, list[type[BaseModel]]] = {"": [TopLevelConfig], **_schemas(None)}
    for section, parts in schemas.items():
        for schema in [found for one in parts for name, found in _keys_in(one, section) if name.lstrip(".") == key]:
            name = key.rpartition(".")[2]
            try:
                schema.model_validate({name: value})
            except ValidationError as error:
                if any(one["loc"][0] == name for one in error.errors()):
                    continue
            return True
    return False


def edited_code(values: Mapping[str, Any], mistakes: Iterable[Mistake]) -> str:
    """Say in a line which code of others takes other settings now than those recorded; nothing where none does."""
    keys = (mistake.given.partition("=")[0].split(".") for mistake in mistakes)
    keys = (key for key in keys if key[0] in GROUPS and len(key) > 1)
    parts = {(group, name if group == "augmentation" else str(values[group].get("name"))) for group, name, *_ in keys}
    chosen = [GROUPS[group][name] for group, name in sorted(parts) if name in GROUPS[group]]
    edited = [str(one) for one in chosen if one.is_from_plugin]
    way = "was edited since the training: let it take these settings again, or give its code as it was then"
    return f"{', '.join(edited)} {way}.\n" if edited else ""


def _schemas(chosen: Mapping[str, str] | None) -> dict[str, list[type[BaseModel]]]:
    schemas: dict[str, list[type[BaseModel]]] = {"regularization": [Regularization]}
    for group in ("optimizer", "data", "model", "scheduler", "task"):
        names = [name for name in GROUPS[group] if chosen is None or chosen.get(group) == name]
        schemas[group] = [
            *([CHOICES[group]] if group in CHOICES else []),
            *(GROUPS[group][name].schema for name in names),
        ]
    schemas |= {section: [schema] for section, schema in SECTIONS.items() if section not in schemas}
    return schemas | {f"augmentation.{name}": [AUGMENTATIONS[name].schema] for name in AUGMENTATIONS}


def _keys_in(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in schema.model_fields.items():
        if is_section(field.annotation):
            yield from _keys_in(field.annotation, f"{prefix}.{name}")
        elif name != "part":
            yield f"{prefix}.{name}", schema


def _non_defaults(section: BaseModel, exclude: Collection[str] = ()) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if key in exclude or NO_EFFECT_ON_RESULT in field.metadata:
            continue
        if isinstance(value, BaseModel):
            values |= {key: inner} if (inner := _non_defaults(value)) else {}
        elif field.is_required() or value != field.default:
            values[key] = value
    return values


def _same_without_augmentation(schema: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands for settings of a data set that differ from it with an augmentation only."""
    return {
        key: mark.same_as
        for key, field in schema.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, WithoutAugmentation) and values.get(key) == mark.value
    }


def _non_default_part(registry: Registry, selection: Selection) -> dict[str, Any]:
    component = registry[selection.name]
    defaults = component.defaults()
    fields = component.schema.model_fields
    return {"name": selection.name} | {
        key: value
        for key, value in selection.settings.items()
        if NO_EFFECT_ON_RESULT not in fields[key].metadata and (key not in defaults or value != defaults[key])
    }
