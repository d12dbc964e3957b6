"""Which settings distinguish configurations: as few columns as possible, named as they are typed."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnbench.config.run_config import OVERRIDDEN
from cnnbench.config.schema import TopLevelConfig
from cnnbench.config.values import TYPED, as_text

GROUPS = ("experiment", "data", "model", "augmentation", "optimizer", "scheduler", "regularization", "task", "debug")
BASELINE = "baseline"  # the label of the one that others are named by their differences from
SHORT = 3  # columns; with more, a label names only what differs from the baseline


@dataclass(frozen=True)
class Configuration:
    """All settings by dotted name, the option chosen of each group, and the settings that were typed."""

    settings: Mapping[str, Any]
    options: Mapping[str, str]
    typed: frozenset[str]

    @classmethod
    def of(cls, settings: Mapping[str, Any], record: Mapping[str, Any]) -> "Configuration":
        """Return a configuration from its settings and the content of `run.json`."""
        origins = record.get("origins", {})
        return cls(settings, record.get("choices", {}), frozenset(key for key in origins if origins[key] == TYPED))

    def text(self, key: str) -> str:
        """Return a setting, or the option of a group, as it would be typed; empty if there is none."""
        if key in GROUPS:
            return self.options.get(key, "")
        value = self.settings.get(key, "")
        return value if isinstance(value, str) else as_typed(value) if isinstance(value, float) else json.dumps(value)


def as_typed(value: Any) -> str:
    """Return a value as it would be typed, numbers as short as they can be: `0`, `0.05`, `1e6`."""
    if not isinstance(value, float):
        return as_text(value)
    texts = (text for text in (f"{value:g}", str(value)) if float(text) == value)
    return re.sub(r"e\+?(-?)0*", r"e\1", min(texts, key=len, default=str(value)))


def with_overrides_applied(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings of runs with one key for what has two: a model's dropout, and what overrides it.

    That key is kept where any run has set it, with the value that counts: one network is one configuration.
    """
    applied = [dict(one) for one in settings]
    for key, replaced in OVERRIDDEN.items():
        if any(one.get(key) is not None for one in applied):
            for one in applied:
                own = one.pop(replaced, None)
                if one.get(key) is None:
                    one[key] = own
    return applied


def distinguishing_keys(configurations: Sequence[Configuration]) -> tuple[str, ...]:
    """Return the keys that distinguish configurations: groups, and settings that do not follow from their options.

    A setting follows from an option if it was never typed, and is the same wherever the option is the same.
    """
    groups = [key for key in GROUPS if _differs(key, configurations)]
    keys = dict.fromkeys(key for one in configurations for key in one.settings)
    settings = [key for key in keys if key not in GROUPS and _differs(key, configurations)]
    typed = frozenset(key for one in configurations for key in one.typed)
    if "experiment" in groups:
        groups = [key for key in groups if key == "experiment" or not _follows(key, "experiment", configurations)]

    def is_shown(key: str) -> bool:
        if key in typed:
            return True
        covering = [group for group in groups if group == "experiment" or key.startswith(f"{group}.")]
        follows = any(_follows(key, group, configurations) for group in covering)
        return not follows and not _is_of_another_part(key, configurations)

    return (*groups, *filter(is_shown, settings))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the keys by their names in labels, where these are names of one key each."""
    names = [_short(key) for key in keys]
    return {key: name for key, name in zip(keys, names, strict=True) if names.count(name) == 1 and name not in keys}


def label(configuration: Configuration, baseline: Configuration, keys: Sequence[str]) -> str:
    """Return a name for a configuration: all keys if they are few, else those that differ from the baseline."""
    if len(keys) > SHORT:
        if configuration is baseline:
            return BASELINE
        keys = [key for key in keys if configuration.text(key) != baseline.text(key)]
    return " ".join(_word(key, configuration.text(key)) for key in keys) or BASELINE


def fits(configuration: Configuration, name: str, keys: Sequence[str]) -> bool:
    """Tell whether a configuration is meant by `KEY=VALUE,…`, or by its label. keys: which can be shortened."""
    for word in re.split(r"[, ]+(?=[\w.]+=)", name):
        key, equals, value = word.partition("=")
        full = [one for one in keys if one == key or one.endswith(f".{key}")]
        if not equals or not _is_same(configuration.text(full[0] if len(full) == 1 else key), value):
            return False
    return True


def _is_same(text: str, typed: str) -> bool:
    try:
        return float(text) == float(typed)
    except ValueError:
        return text.replace(" ", "") == typed.replace(" ", "") != ""


def _differs(key: str, configurations: Sequence[Configuration]) -> bool:
    return len({one.text(key) for one in configurations}) > 1


def _follows(key: str, group: str, configurations: Sequence[Configuration]) -> bool:
    values: dict[str, set[str]] = {}
    for one in configurations:
        values.setdefault(one.text(group), set()).add(one.text(key))
    return all(len(texts) == 1 for texts in values.values())


def _is_of_another_part(key: str, configurations: Sequence[Configuration]) -> bool:
    """Return whether a setting belongs to one part of its group only: momentum, where some configurations have Adam."""
    name = f"{key.rpartition('.')[0]}.name"
    return key != name and _differs(name, configurations) and not all(key in one.settings for one in configurations)


def _word(key: str, text: str) -> str:
    if key in ("experiment", "model", "data"):
        return text.rpartition("/")[2]
    return f"{_short(key)}={text}"


def _short(key: str) -> str:
    group, _, leaf = key.rpartition(".")
    return group if leaf == "name" else key if leaf in TopLevelConfig.model_fields else leaf
