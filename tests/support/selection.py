"""Which cases of a matrix run every day, and which only with `pytest -m thorough` or `-m faults`."""

from collections.abc import Collection, Iterable
from itertools import cycle, islice
from typing import Any

import pytest


def everyday(cases: Iterable[Any], chosen: Collection[Any], else_only: Any = pytest.mark.thorough) -> list[Any]:
    """Return the cases as parameters; those that are not chosen prove the same again, and are marked as such.

    Raises AssertionError for a choice that is no case: it would drop one silently.
    """
    cases = list(cases)
    assert not (missing := [case for case in chosen if case not in cases]), missing
    return [
        pytest.param(*(case if type(case) is tuple else (case,)), marks=else_only)
        if _is_plain(case) and case not in chosen
        else case
        for case in cases
    ]


def _is_plain(case: Any) -> bool:
    """Tell a value, or a tuple of them, from one that is marked already, to be skipped."""
    return isinstance(case, str | int) or type(case) is tuple


def diagonal(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return tuples in which each value of each axis occurs: as many as the longest has, the others begin again."""
    lists = list(map(list, axes))
    longest = max(map(len, lists))
    return list(zip(*(islice(cycle(values), longest) for values in lists), strict=True))
