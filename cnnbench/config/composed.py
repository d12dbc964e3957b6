"""What was composed from words, and what that says of other words: jobs of a grid differ in a few plain values."""

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

from cnnbench.config.values import copied, set_value
from cnnbench.errors import Mistake


@dataclass(frozen=True)
class Composed:
    """The configuration that Hydra composed from the words typed."""

    values: dict[str, Any]
    choices: dict[str, str]  # group -> chosen option: {"model": "minialexnet_v4", …}
    origins: dict[str, str]  # dotted key -> where its value came from; keys that nobody set are missing
    typed: dict[str, str]  # dotted key or group -> the argument as typed
    sweep: dict[str, str]  # the grid of an experiment, by key
    mistakes: tuple[Mistake, ...] = ()

    def located(self, mistake: Mistake) -> Mistake:
        """Return a mistake with the file that it is in, where nobody typed it."""
        key = mistake.given.partition("=")[0]
        group = key.partition(".")[0]
        is_lacking = mistake.problem.startswith("must be given") or mistake.given == f"{group}.name=null"
        lacking = f"{group}/{self.choices[group]}" if is_lacking and group in self.choices else ""
        of_a_part = [self.origins.get(f"{key.rpartition('.')[0]}{name}", "") for name in (".name", "")]
        signature = next((origin for origin in of_a_part if origin.startswith("signature")), "")
        file = self.origins.get(key, "" if signature else lacking)
        place = f"{file}.yaml" if "/" in file else f"the {signature}" * bool(signature)
        is_known = mistake in self.mistakes or mistake.given in self.typed.values()
        return mistake if is_known or not place else replace(mistake, problem=f"{mistake.problem} (in {place})")


@dataclass
class CheckedWords:
    """The overrides for Hydra, and what is wrong with the others. values: as they are read, by dotted key or group."""

    overrides: list[str] = field(default_factory=list)
    typed: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def pattern(self, groups: Container[str]) -> tuple[str, ...] | None:
        """Return the words without values that can be replaced in what they are composed to; None: none of them can.

        Those are plain values of single settings, where no other word sets what is above or below.
        """
        keys = [key for key in self.typed if key not in groups]
        if self.mistakes or any(one != key and f"{one}.".startswith(f"{key}.") for key in keys for one in keys):
            return None
        return tuple(key if key not in groups and _is_plain(word) else word for key, word in self.typed.items())

    def replaced_in(self, composed: Composed) -> Composed:
        """Return what these words compose to, from what others of the same pattern did."""
        values = copied(composed.values)
        for key, word in self.typed.items():
            if composed.typed[key] != word:
                set_value(values, key.split("."), self.values[key])
        return replace(composed, values=values, typed=dict(self.typed))


def _is_plain(word: str) -> bool:
    return not word.startswith(("~", "+")) and word.partition("=")[2][:1] not in ("{", "[") and "${" not in word
