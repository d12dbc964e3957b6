"""What tells configurations apart: as few columns as will do, in the words that people typed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnbench.config.compose import TYPED

CHOICES = ("experiment", "data", "model", "augmentation", "optimizer", "scheduler", "regularization", "task", "debug")
SPELT_OUT = 3  # columns; of more, a label names only what the baseline has not


@dataclass(frozen=True)
class Choice:
    """A configuration: all settings by dotted name, what was chosen of each group, and which settings were typed."""

    settings: Mapping[str, Any]
    chosen: Mapping[str, str]
    typed: frozenset[str]

    @classmethod
    def of(cls, settings: Mapping[str, Any], record: Mapping[str, Any]) -> "Choice":
        """Return a configuration, from its settings and what `run.json` says."""
        origins = record.get("origins", {})
        return cls(settings, record.get("choices", {}), frozenset(key for key in origins if origins[key] == TYPED))

    def text(self, key: str) -> str:
        """Return a setting, or what was chosen of a group, as text; nothing where there is none."""
        if key in CHOICES:
            return self.chosen.get(key, "")
        return shown(self.settings[key]) if key in self.settings else ""


def columns(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Return the keys that tell configurations apart: choices of groups, and settings that do not follow from them.

    A setting follows from a choice where it was never typed, and is the same wherever the choice is the same.
    """
    differing = [key for key in CHOICES if _differs(key, choices)]
    keys = dict.fromkeys(key for choice in choices for key in choice.settings)
    settings = [key for key in keys if key not in CHOICES and _differs(key, choices)]
    typed = frozenset(key for choice in choices for key in choice.typed)
    if "experiment" in differing:
        differing = [key for key in differing if key == "experiment" or not _follows(key, "experiment", choices)]

    def is_told(key: str) -> bool:
        if key in typed:
            return True
        follows = any(_covers(above, key) and _follows(key, above, choices) for above in differing)
        return not follows and not _is_of_another_part(key, choices)

    return (*differing, *filter(is_told, settings))


def label(choice: Choice, base: Choice, keys: Sequence[str]) -> str:
    """Return what a configuration is called among others: in full where that is short, else what the first has not."""
    if len(keys) > SPELT_OUT:
        if choice is base:
            return "baseline"
        keys = [key for key in keys if choice.text(key) != base.text(key)]
    return " ".join(_word(key, choice.text(key)) for key in keys) or "baseline"


def besides(choice: Choice, base: Choice, keys: Sequence[str]) -> list[str]:
    """Return the settings in which two differ, and of which no column speaks, itself or by what was chosen."""
    parts = [key for key in keys if key != "experiment"]
    differing = [key for key in dict.fromkeys([*choice.settings, *base.settings]) if choice.text(key) != base.text(key)]
    return [key for key in differing if key not in keys and not any(_covers(above, key) for above in parts)]


def shown(value: Any) -> str:
    """Return a setting as it would be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _differs(key: str, choices: Sequence[Choice]) -> bool:
    return len({choice.text(key) for choice in choices}) > 1


def _covers(above: str, key: str) -> bool:
    return above == "experiment" or key.startswith(f"{above}.")


def _follows(key: str, above: str, choices: Sequence[Choice]) -> bool:
    values: dict[str, set[str]] = {}
    for choice in choices:
        values.setdefault(choice.text(above), set()).add(choice.text(key))
    return all(len(found) == 1 for found in values.values())


def _is_of_another_part(key: str, choices: Sequence[Choice]) -> bool:
    """Tell whether a setting is only there where another part of its group is: momentum, where some have Adam."""
    name = f"{key.rpartition('.')[0]}.name"
    return key != name and _differs(name, choices) and not all(key in choice.settings for choice in choices)


def _word(key: str, text: str) -> str:
    if key in CHOICES:
        return text.rpartition("/")[2] if key in ("experiment", "model", "data") else f"{key}={text}"
    above, _, leaf = key.rpartition(".")
    return f"{above if leaf == 'name' else leaf}={text}"
