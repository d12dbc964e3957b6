"""From plain values to a configuration: every mistake is collected before any is said."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from cnnbench.config.rules import clashes
from cnnbench.config.schema import (
    CHOICES,
    GROUPS,
    OVERLAYS,
    SECTIONS,
    Choice,
    DataConfig,
    RunConfig,
    TopLevelConfig,
)
from cnnbench.errors import ConfigError, Mistake, UserError, did_you_mean, listed
from cnnbench.registry import AUGMENTATIONS, DATASETS, Section, Selection
from cnnbench.store.folder import RunFolder

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


def recorded_config(folder: RunFolder, values: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the configuration of a run. Raises UserError where a plugin is lacking that the run was made with.

    values: what its file holds, where that has been read already.
    """
    try:
        return check(folder.config() if values is None else values, is_recorded=True)[0]
    except ConfigError as error:
        plugins = folder.record().get("plugins")
        if plugins:
            raise UserError(f"{error}\nthis run was made with plugins={','.join(plugins)}; type that too.") from error
        raise


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
        facts = {key: self.values.pop(key, None) for key in ("source", "parent")}
        spine = self._section(TopLevelConfig, self.values, "", self._meant_by(nested))
        parts: dict[str, Any] = {
            group: self._choice(group, nested[group]) for group in GROUPS if group != "augmentation"
        }
        parts["augmentation"] = self._augmentation(nested["augmentation"], parts["data"])
        parts |= {key: self._section(schema, nested[key], f"{key}.") for key, schema in SECTIONS.items()}
        if spine is not None and None not in parts.values():
            config = RunConfig(**dict(spine), **parts, **facts)
            for clash in clashes(config, self.typed):
                self._mistake(*clash)
        if self.mistakes:
            raise ConfigError(self.mistakes)
        return config, self.notes

    def _meant_by(self, nested: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return what a key at the top may have been meant for, by what may have been typed: `lr` for optimizer.lr."""
        names = [*TopLevelConfig.model_fields, *GROUPS, *SECTIONS, *OVERLAYS, *CONTROLS]
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
        self.mistakes.append(Mistake(next(as_typed, _as_word(key, value)), problem))

    def _section(
        self, schema: type[BaseModel], values: Mapping[str, Any], prefix: str, meant_by: Mapping[str, str] | None = None
    ) -> Any:
        """Return the values as their schema has them, or None where something is wrong with them."""
        values = {key: value for key, value in values.items() if value != "???"}  # Hydra's word for what must be given
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
            elif kind == "missing":
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
            both = [*own, *(key for key in schema.model_fields if key != "part")]
            for key in set(values) - set(own) - {"name"}:
                hint = did_you_mean(key, both) or f"; '{group}' takes {listed(both)}"
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


def _as_word(key: str, value: Any) -> str:
    """Return a setting as it would be typed; a group of settings by its key alone."""
    if isinstance(value, Mapping):
        return key
    is_plain = value is not None and not isinstance(value, bool | list)
    return f"{key}={value if is_plain else json.dumps(value)}"
