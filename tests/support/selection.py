"""Which cases of a matrix run every day, and which only with `pytest -m thorough`."""

from collections.abc import Collection, Iterable
from itertools import cycle, islice
from typing import Any

import pytest


def everyday(cases: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """Return the cases as parameters; those that are not chosen prove the same again, and are marked thorough.

    Raises AssertionError for a choice that is no case: it would drop one silently.
    """
    cases = list(cases)
    assert set(chosen) <= set(cases), set(chosen) - set(cases)
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.thorough) for case in cases]


def diagonal(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return tuples in which each value of each axis occurs: as many as the longest has, the others begin again."""
    lists = list(map(list, axes))
    longest = max(map(len, lists))
    return list(zip(*(islice(cycle(values), longest) for values in lists), strict=True))
