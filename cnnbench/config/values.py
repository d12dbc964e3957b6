"""Plain nested values: dicts, lists, strings, numbers, booleans, null."""

from collections.abc import Mapping
from typing import Any


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key; an empty mapping counts as a value."""
    if not isinstance(values, Mapping) or not values:
        return {prefix[:-1]: values} if prefix else {}
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= flat(value, f"{prefix}{key}.")
    return leaves
