"""From plain values to a configuration: every mistake is collected before any is reported, and defaults are adapted.

A value that was typed is used or refused. A value from a preset or a default is adapted, with a note.
"""

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cnnbench.config.hints import meant_by_key, retyped_as, wrong_entry
from cnnbench.config.rules import still_at_work, violations
from cnnbench.config.run_config import RunConfig, known_keys
from cnnbench.config.schema import CHOICES, GROUPS, SECTIONS, Choice, DataConfig, TopLevelConfig, is_section
from cnnbench.config.values import set_value
from cnnbench.errors import ConfigError, Mistake, did_you_mean, listed
from cnnbench.registry import AUGMENTATIONS, DATASETS, Selection
from cnnbench.registry.contract import allowed, setting_schemas

CONTROLS = ("resume", "rerun", "accept_stale", "plugins", "dry_run", "lr_find", "jobs", "fail_fast", "retry_failed")
LONGEST = 200  # characters of a value in a message

Result = TypeVar("Result")


def validate(
    values: Mapping[str, Any],
    typed: Mapping[str, str] | None = None,
    mistakes: Iterable[Mistake] = (),
    is_recorded: bool = False,
) -> tuple[RunConfig, list[str]]:
    """Return the configuration that plain values describe, and notes on what was adapted or left out, and why.

    values: nested plain values in the layout of `conf/`.
    typed: the arguments of the command line by the dotted key or the group that they set; messages quote them.
    mistakes: already known; they are raised together with those found here.
    is_recorded: the values are those of an existing run: they stay as they are, and only what is typed is checked.
    Raises ConfigError with every mistake.
    """
    reading = _Reading(dict(values), typed or {}, list(mistakes), is_recorded)
    config = reading.config()
    if config is None:
        raise ConfigError(reading.mistakes)
    config, _, notes = adapt_until_valid(config, reading.typed, lambda one: check_rules(one, reading), reading.mistakes)
    return config, [*reading.notes, *notes, *still_at_work(config, reading.typed)]


def check_rules(config: RunConfig, reading: "_Reading") -> None:
    """Raise ConfigError with every rule on combinations of settings that a configuration breaks."""
    broken = list(violations(config, reading.typed))
    if reading.is_recorded:
        broken = [violation for violation in broken if violation.key in reading.typed]
    if broken:
        raise ConfigError(
            Mistake(reading.as_typed(violation.key, violation.value), violation.problem, violation.instead)
            for violation in broken
        )


def adapt_until_valid(
    config: RunConfig, typed: Collection[str], attempt: Callable[[RunConfig], Result], known: Iterable[Mistake] = ()
) -> tuple[RunConfig, Result, list[str]]:
    """Return a configuration for which an attempt succeeds, what it returns, and notes on what was adapted.

    An attempt raises ConfigError for what does not fit. Where a mistake names values that would fit, the attempt is
    made again with these, to find its other mistakes. In the end a mistake is reported, unless none of it was typed:
    then the values that fit are used. Raises ConfigError with all mistakes to report, the known ones included.
    """
    found: dict[Mistake, None] = dict.fromkeys(known)
    while True:
        try:
            result = attempt(config)
        except ConfigError as error:
            new = [mistake for mistake in error.mistakes if mistake not in found]
            found |= dict.fromkeys(new)
            if new and all(mistake.instead for mistake in new):
                config = with_values(config, {key: value for one in new for key, value in (one.instead or {}).items()})
                continue
            raise ConfigError([one for one in found if not _is_adaptable(one, typed)] or found) from error
        reported = [mistake for mistake in found if not _is_adaptable(mistake, typed)]
        if reported:
            raise ConfigError(reported)
        return config, result, [_note(mistake) for mistake in found]


def read_section(
    schema: type[BaseModel], values: Mapping[str, Any], typed: Mapping[str, str], name: str
) -> tuple[Any, list[Mistake]]:
    """Return settings that are no part of a run as their schema has them, and every mistake in them.

    typed: the words that set them, by dotted key. name: of their group.
    """
    reading = _Reading({}, typed, [], is_recorded=False)
    return reading._section(schema, values, f"{name}."), reading.mistakes


def with_values(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with other values of some dotted keys. Raises ConfigError where they are invalid."""
    values = config.to_dict()
    for key, value in changes.items():
        set_value(values, key.split("."), value)
    reading = _Reading(values, {}, [], is_recorded=True)
    changed = reading.config()
    if changed is None:
        raise ConfigError(reading.mistakes)
    return changed


def as_word(key: str, value: Any) -> str:
    """Return a setting as it would be typed; a group of settings by its key alone."""
    if isinstance(value, Mapping):
        return key
    is_plain = value is not None and not isinstance(value, bool | list)
    word = f"{key}={value if is_plain else json.dumps(value)}"
    return word if len(word) <= LONGEST else f"{word[:LONGEST]}…"


def _is_adaptable(mistake: Mistake, typed: Collection[str]) -> bool:
    keys = [mistake.given.partition("=")[0], *(mistake.instead or ())]
    return bool(mistake.instead) and not any(key in typed for key in keys)


def _note(mistake: Mistake) -> str:
    words = " ".join(as_word(key, value) for key, value in (mistake.instead or {}).items())
    return f"{mistake.given} {mistake.problem}: {words} is used instead"


class _Reading:
    """One pass over plain values that collects mistakes instead of stopping at the first."""

    def __init__(
        self, values: dict[str, Any], typed: Mapping[str, str], mistakes: list[Mistake], is_recorded: bool
    ) -> None:
        self.values, self.typed, self.mistakes, self.is_recorded = values, typed, mistakes, is_recorded
        self.notes: list[str] = []
        self.chosen: dict[str, str] = {}

    def config(self) -> RunConfig | None:
        """Return the configuration, or None where a value is missing or has the wrong type."""
        before = len(self.mistakes)
        nested = {key: self._nested(key) for key in (*GROUPS, *SECTIONS)}
        self.chosen = {group: str(nested[group].get("name")) for group in GROUPS}
        self._fold(nested["data"])
        facts = {key: self.values.pop(key, None) for key in ("source", "parent")}
        top = self._section(TopLevelConfig, self.values, "")
        parts: dict[str, Any] = {
            group: self._choice(group, nested[group]) for group in GROUPS if group != "augmentation"
        }
        parts["augmentation"] = self._augmentation(nested["augmentation"], parts["data"])
        parts |= {key: self._section(schema, nested[key], f"{key}.") for key, schema in SECTIONS.items()}
        if top is None or None in parts.values() or len(self.mistakes) > before:
            return None
        return RunConfig(**dict(top), **parts, **facts)

    def as_typed(self, key: str, value: Any) -> str:
        """Return the argument that set a key, or else the setting as it would be typed."""
        words = (word for typed, word in self.typed.items() if typed == key or typed.startswith(f"{key}."))
        return next(words, as_word(key, value))

    def _mistake(self, key: str, value: Any, problem: str) -> None:
        word = self.as_typed(key, value)
        self.mistakes.append(Mistake(word if len(word) <= LONGEST else f"{word[:LONGEST]}…", problem))

    def _unknown(self, key: str, value: Any, known: Iterable[str]) -> None:
        """Note a key that does not exist, and what may have been meant, or else what its section knows."""
        below = [typed for typed in self.typed if typed.startswith(f"{key}.")]
        for inner in below:
            self._unknown(inner, "", ())
        if below:
            return
        section, _, leaf = key.rpartition(".")
        registry = GROUPS.get(section, ())
        having = [name for name in registry if GROUPS[section][name].accepts(leaf)]
        if having:
            hint = f"; it is a setting of {listed(having)}, not of '{self.chosen[section]}'"
        elif key in CONTROLS:
            self._mistake(key, value, f"belongs into the command, not into a file: cnnbench … {as_word(key, value)}")
            return
        else:
            typed = self.as_typed(key, value).partition("=")[2]
            own = [f"{section}.{one}" for one in known] if section else []
            hint = meant_by_key(key[:LONGEST], typed[:LONGEST], [*own, *known_keys(self.chosen), *CONTROLS])
        otherwise = (
            f"; '{section}' takes {listed(known)}" if section and known else "; cnnbench help settings lists all"
        )
        factory = GROUPS[section][self.chosen[section]].factory if self.chosen.get(section) in registry else validate
        takes_any = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(factory).parameters.values())
        if takes_any and (having or not hint):
            hint = "; what `**` of a signature would take is no setting: give it a name and a type of its own there"
        elif hint and f"'{section}." not in hint and not factory.__module__.startswith("cnnbench."):  # it was renamed
            hint += otherwise.removeprefix(";" * hint.endswith("?"))
        self._mistake(key, value, f"no such key{hint or otherwise}")

    def _nested(self, key: str) -> dict[str, Any]:
        values = self.values.pop(key, {})
        if isinstance(values, Mapping):
            return dict(values)
        self._mistake(key, values, "is a group of settings; name one of its options, or set one of its keys")
        raise ConfigError(self.mistakes)  # all that is in it would seem to be missing

    def _section(self, schema: type[BaseModel], values: Mapping[str, Any], prefix: str) -> Any:
        """Return the values as their schema has them, or None where something is wrong with them."""
        # "???" is Hydra's word for what must be given.
        values = {str(key): value for key, value in values.items() if value != "???"}
        inner = {key: value for key, value in values.items() if key in schema.model_fields}
        inner = {key: value for key, value in inner.items() if is_section(schema.model_fields[key].annotation)}
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
            found: dict[str, Any] = {}
            for error in errors.errors():
                found.setdefault(str(error["loc"][0]), error)
        properties = setting_schemas(schema)
        for key, error in found.items():
            kind = error["type"] if len(error["loc"]) == 1 else "of an entry"
            if key in inner:
                continue  # reported already
            if kind == "extra_forbidden":
                self._unknown(prefix + key, values[key], schema.model_fields)
            elif kind == "missing":
                if any(mistake.given.startswith(f"{prefix}{key}=") for mistake in self.mistakes):
                    continue  # it was, in a word that cannot be read
                example = "".join(f"; as in {prefix}{key}={one}" for one in properties[key].get("examples", ()))
                self._mistake(prefix + key, "", f"must be given: {allowed(properties[key])}{example}")
            else:
                problem = f"must be {allowed(properties[key])}{wrong_entry(error['type'], error['loc'][1:])}"
                self._mistake(
                    prefix + key, values[key], problem + retyped_as(self.typed.get(prefix + key, ""), properties[key])
                )
        return None

    def _fold(self, data: dict[str, Any]) -> None:
        """Derive the validation fraction from the folds, so that the record is true and no preset renames a run."""
        folds, fold = data.get("folds"), data.get("fold")
        if folds is None and fold is not None:
            self._mistake("data.fold", fold, "needs data.folds, the number of folds")
        if type(folds) is not int or folds < 2:
            return
        if fold is None:
            self._mistake("data.folds", folds, f"needs data.fold, the one to validate on: 0 to {folds - 1}")
        elif type(fold) is int and fold >= folds:
            self._mistake("data.fold", fold, f"must be below data.folds={folds}; folds are counted from 0")
        if "data.val_fraction" in self.typed:
            problem = f"and data.folds={folds} exclude each other: the folds define the validation part"
            self._mistake("data.val_fraction", data.get("val_fraction"), problem)
        data["val_fraction"] = 1 / folds

    def _selection(self, group: str, values: dict[str, Any]) -> Selection | None:
        registry = GROUPS[group]
        name = values.pop("name", None)
        if not isinstance(name, str) or name not in registry:
            if not any(mistake.given.startswith(f"{group}=") for mistake in self.mistakes):
                hint = did_you_mean(str(name)[:LONGEST], registry)
                self._mistake(f"{group}.name", name, f"no such {group}{hint}; there are {listed(registry)}")
            return None
        settings = self._section(registry[name].schema, values, f"{group}.")
        return None if settings is None else Selection(name, settings.model_dump())

    def _choice(self, group: str, values: dict[str, Any]) -> Selection | Choice | None:
        """Return what was chosen in a group, with the settings that all of its parts share, if there are any."""
        schema = CHOICES.get(group)
        if schema is None:
            return self._selection(group, values)
        shared = {key: values.pop(key) for key in schema.model_fields if key in values and key != "part"}
        name = values.get("name")
        if isinstance(name, str) and name in GROUPS[group]:  # an unknown key may have been meant for either half
            own = GROUPS[group][name].schema.model_fields
            both = [*own, *(key for key in schema.model_fields if key != "part")]
            for key in set(values) - set(own) - {"name"}:
                self._unknown(f"{group}.{key}", values.pop(key), both)
        part = self._selection(group, values)
        choice: Choice | None = self._section(schema, {"part": part or Selection("", {}), **shared}, f"{group}.")
        return None if part is None else choice

    def _augmentation(self, values: dict[str, Any], data: DataConfig | None) -> tuple[Selection, ...] | None:
        values.pop("name", None)
        parts: list[Selection] = []
        for name, settings in values.items():
            if settings is None:
                continue
            if name not in AUGMENTATIONS:
                hint = did_you_mean(name[:LONGEST], AUGMENTATIONS) or "; cnnbench options augmentation lists all"
                self._mistake(f"augmentation.{name}", settings, f"no such augmentation{hint}")
            elif not isinstance(settings, Mapping):
                self._mistake(f"augmentation.{name}", settings, "takes settings of its own, or null for none")
            else:
                checked = self._section(AUGMENTATIONS[name].schema, settings, f"augmentation.{name}.")
                if checked is not None and not self._is_left_out(name, data, settings):
                    parts.append(Selection(name, checked.model_dump()))
        if any(mistake.given.startswith("augmentation.") for mistake in self.mistakes):
            return None
        return tuple(sorted(parts, key=lambda part: AUGMENTATIONS[part.name].facts["order"]))

    def _is_left_out(self, name: str, data: DataConfig | None, settings: Mapping[str, Any]) -> bool:
        """Return whether an augmentation that can change what an image shows comes from a preset, and was not typed."""
        if data is None or self.is_recorded or name not in DATASETS[data.name].facts["breaks_labels"]:
            return False
        changes = f"can change what an image of '{data.name}' shows"
        if any(f"{key}.".startswith(f"augmentation.{name}.") for key in self.typed):
            self.notes.append(f"augmentation.{name} {changes}; kept, as typed")
            return False
        if "augmentation" in self.typed:
            kept = next((as_word(f".{key}", value) for key, value in settings.items()), "={}")
            ways = f"augmentation.{name}=null removes it, augmentation.{name}{kept} keeps it"
            self._mistake("augmentation", "", f"includes augmentation.{name}, which {changes}; {ways}")
        else:
            self.notes.append(f"augmentation.{name} is left out: it {changes}")
        return True
