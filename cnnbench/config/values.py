"""Nested plain values, as YAML holds them, their dotted keys, words that set them, and where the YAML files are."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TYPED = "command line"  # the origin of a value that was typed
FREE_TEXT = "name", "notes"


def conf_dir() -> Path:
    """Return the folder of the configuration files: inside an installed package, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(path for path in (package / "conf", package.parent / "conf") if (path / "config.yaml").is_file())


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key; an empty mapping counts as a value."""
    if not isinstance(values, Mapping) or not values:
        return {prefix[:-1]: values} if prefix else {}
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= flat(value, f"{prefix}{key}.")
    return leaves


def copied(values: Any) -> Any:
    """Return nested values in dictionaries of their own."""
    return {key: copied(value) for key, value in values.items()} if isinstance(values, Mapping) else values


def set_value(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the value at the end of a path of keys, making the dictionaries on the way."""
    for key in path[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[path[-1]] = value


def data_for_dataset(word: str) -> str:
    """Return `dataset=cifar100`, `dataset.root=…` or a key like them as `data…`: the configuration has one name."""
    return re.sub(r"^([+~]*)dataset(?=[=.]|$)", r"\1data", word)


def quoted(word: str) -> str:
    """Return `notes=wider, for longer` with its text in quotes: Hydra would take the comma for a sweep."""
    key, _, text = word.partition("=")
    if key not in FREE_TEXT or text in ("", "null") or text[0] in "'\"":
        return word
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"{key}='{escaped}'".replace("${", r"\${")  # text, and no reference to another value
