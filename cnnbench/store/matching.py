"""Runs chosen and ordered by their settings and results, and the short words that mean a key: `dropout`."""

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from cnnbench.config.hints import MAX_LISTED
from cnnbench.config.run_config import OVERRIDDEN
from cnnbench.config.values import TYPED, data_for_dataset
from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.store.query import RunSummary, higher_is_better

SIGNS = "(>=|<=|!=|>|<|=)"
EXAMPLES = "data=mnist, model=lenet*, accuracy>0.98"
ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip

FACTS: dict[str, Callable[[RunSummary], Any]] = {
    "started": lambda run: run.record.get("started"),
    "ended": lambda run: run.record.get("ended"),
    "epoch": lambda run: None if run.problem else run.epochs_done,
    "size": lambda run: run.size,
}
"""What runs can be ordered by besides settings and results."""


class KeyNames:
    """The keys of settings and results that some runs have, and the ends of keys that mean them."""

    def __init__(self, runs: Sequence[RunSummary]) -> None:
        self._differs = keys_that_differ([run.values for run in runs])
        origins = (run.record.get("origins", {}) for run in runs)
        self._typed = {key for one in origins for key, origin in one.items() if origin == TYPED}
        # Of a setting and what overrides it, which have one value, a word means the one that some run has set.
        self._same = {
            own if any(run.settings.get(key) is not None for run in runs) else key for key, own in OVERRIDDEN.items()
        }

    def meant(self, word: str, known: Iterable[str] = ()) -> str:
        """Return the key that a word means: itself, or the one that ends in it, as `dropout` in `head.dropout`.

        Of several, the one whose values differ, or that was typed. known: words that mean something besides. Raises
        UserError where none is meant, or more than one.
        """
        if word in self._differs:
            return word
        ending = [key for key in self._differs if key.endswith(f".{word}") and key not in self._same]
        for narrowed in (self._differs.get, self._typed.__contains__):
            ending = list(filter(narrowed, ending)) or ending
        if not ending:
            ends = (key.rpartition(".")[2] for key in self._differs)
            raise UserError(f"no run has '{word}'{did_you_mean(word, [*self._differs, *known, *ends]) or '.'}")
        if len(ending) > 1:
            raise UserError(f"'{word}' is the end of {', '.join(sorted(ending))}; type one of them.")
        return ending[0]

    def short(self, key: str) -> str:
        """Return the shortest end of a key that means it."""
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1)]
        return next((end for end in ends if self._is_meant(end, key)), key)

    def _is_meant(self, word: str, key: str) -> bool:
        try:
            return self.meant(word) == key
        except UserError:
            return False


def keys_that_differ(settings: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Return of each key whether those that have it differ in its value."""
    first: dict[str, Any] = {}
    differing = set()
    for one in settings:
        for key, value in one.items():
            other = first.setdefault(key, value)
            # Runs that an index has share their values: most of a million comparisons end here.
            if value is not other and (value != other or type(value) is not type(other)):
                differing.add(key)
    return {key: key in differing for key in first}


def as_shown(value: Any) -> str:
    """Return a value as it would be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def runs_matching(runs: Iterable[RunSummary], conditions: Sequence[str]) -> list[RunSummary]:
    """Return the runs that meet all conditions: data=mnist, model=lenet*, accuracy>0.98, optimizer.lr<=0.1.

    Raises UserError for a malformed condition, and for a key that no run has.
    """
    runs = everything = list(runs)
    parsed = [(condition, *_parse_condition(condition)) for condition in conditions]
    names = KeyNames(runs if conditions else ())
    for condition, word, test in parsed if runs else ():
        try:
            key = names.meant(word)
        except UserError as error:
            raise UserError(f"{condition}: {error}") from error
        having = [run.values[key] for run in everything if key in run.values]
        if not any(map(test, having)):
            _check_kind(condition, having)
        runs = [run for run in runs if key in run.values and test(run.values[key])]
    return runs


def unmet(runs: Sequence[RunSummary], conditions: Sequence[str]) -> list[str]:
    """Return a line for each condition that no run meets, even by itself, with what was meant."""
    lines = []
    for condition in conditions:
        key, sign, operand = re.split(SIGNS, condition, maxsplit=1)
        meant = KeyNames(runs).meant(data_for_dataset(key))
        known = {as_shown(run.values[meant]) for run in runs if meant in run.values}
        if not runs_matching(runs, [condition]):
            there = did_you_mean(operand, known) or f"; there are {listed(sorted(known)[:MAX_LISTED])}"
            lines.append(f"no run has {condition}{there * (sign == '=')}")
    return lines


def unchecked(runs: Iterable[RunSummary], conditions: Sequence[str]) -> list[RunSummary]:
    """Return the runs that cannot be read, so that only conditions on their status say anything of them."""
    of_status = [condition for condition in conditions if re.match(r"status\b", condition)]
    return runs_matching((run for run in runs if run.problem), of_status) if len(of_status) < len(conditions) else []


def _check_kind(condition: str, values: Sequence[Any]) -> None:
    """Raise UserError where a condition compares text with a number."""
    sign, operand = re.split(SIGNS, condition, maxsplit=1)[1:]
    is_number = {not isinstance(one, bool) and _number(one) is not None for one in values if one is not None}
    if is_number == {False} and sign in ORDERINGS:
        raise UserError(f"{condition}: that is text, which has no order.")
    if is_number == {True} and sign == "=" and _number(operand) is None and not re.search(r"[*?[]|^null$", operand):
        raise UserError(f"{condition}: '{operand}' is not a number.")


def _parse_condition(condition: str) -> tuple[str, Callable[[Any], bool]]:
    match = re.fullmatch(rf"([\w./@-]+?){SIGNS}([^=<>].*|)", condition)
    if match is None:
        if (plain := re.sub("==+|=([<>])", lambda found: f"{found[1] or ''}=", condition)) != condition:
            raise UserError(f"{condition}: type {plain!r}.")
        raise UserError(f"{condition}: is no condition, such as {EXAMPLES}.")
    key, sign, operand = match.groups()
    if sign in ORDERINGS and _number(operand) is None:
        raise UserError(f"{condition}: '{operand}' is not a number.")

    def holds(value: Any) -> bool:
        number = _number(value)
        if isinstance(value, list) and sign in ("=", "!="):  # tags=wide: one of them
            return any(fnmatchcase(str(item), operand) for item in (value, *value)) == (sign == "=")
        if sign not in ORDERINGS:
            shown = json.dumps(value) if isinstance(value, bool) or value is None else str(value)
            is_equal = not isinstance(value, bool) and number is not None and number == _number(operand)
            return (fnmatchcase(shown, operand) or is_equal) == (sign == "=")
        return number is not None and ORDERINGS[sign](number, _number(operand))

    return data_for_dataset(key), holds


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Order:
    """What runs are ordered by, under its short name; begins_with_most: a metric of which more is better."""

    name: str
    read: Callable[[RunSummary], Any]
    begins_with_most: bool = False

    @classmethod
    def by(cls, word: str, runs: Sequence[RunSummary]) -> "Order":
        """Return the order that a word means: one of FACTS, a metric, a setting. Raises UserError for any other."""
        if word in FACTS:
            return cls(word, FACTS[word])
        names = KeyNames(runs)
        key = names.meant(data_for_dataset(word).removesuffix("/test"), FACTS)
        measured = [run.result for run in runs if key in run.metrics]
        most = any(higher_is_better(key.partition("/")[0], result) for result in measured)
        return cls(names.short(key), lambda run: run.values.get(key), most)

    def applied_to(self, runs: Iterable[RunSummary], is_reversed: bool = False) -> list[RunSummary]:
        """Return the runs from small to large, or else the best first; those without a value last, in any case."""
        values = [(run, self.read(run)) for run in runs]
        there = [pair for pair in values if pair[1] is not None]
        there.sort(key=lambda pair: _rank(pair[1]), reverse=self.begins_with_most != is_reversed)
        return [run for run, _ in there] + [run for run, value in values if value is None]


def _rank(value: Any) -> tuple[bool, float, str]:
    """Return what puts numbers in their order, and text after them."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (False, float(value), "") if is_number else (True, 0.0, as_shown(value))
