"""Nested plain values, as YAML holds them, their dotted keys, words that set them, and where the YAML files are."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from cnnbench.errors import UserError

MOST_VALUES = 100_000  # in a YAML file
TYPED = "command line"  # the origin of a value that was typed
FREE_TEXT = "name", "notes"
NEEDS_NO_QUOTES = r"[\w.:/@%+*?$-]+"  # re.ASCII
SYNTAX = r"[\w.:/\\@%+*?$,\[\]{}' -]*|(range|choice|interval|glob|sort|shuffle)\(.*\)"  # lists, grids and the like

Words = str | Mapping[str, Any] | Iterable[str]
"""What a command would be given: a line, its words, or settings by dotted key."""


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


def is_larger_than(values: Any, most: int) -> bool:
    """Tell whether nested values, each counted wherever it is referred to, are more than `most`.

    YAML's aliases make thousands of millions of them out of a few lines.
    """
    sizes: dict[int, int] = {}

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = most + 1  # of what refers to itself
            inner = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size, inner))
        return sizes[id(value)]

    return size(values) > most


def refuse_alias_bombs(folder: Path) -> None:
    """Raise UserError for a YAML file whose aliases stand for so many values that Hydra would never have copied all."""
    import yaml  # completion needs this file, and no YAML

    for path in folder.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "&" not in text or "*" not in text:
            continue
        try:
            values = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            continue  # Hydra says so, if it is used
        if is_larger_than(values, MOST_VALUES):
            raise UserError(f"{path}: its aliases stand for more than {MOST_VALUES} values")


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


def as_words(words: Words, settings: Mapping[str, Any], is_grid: bool = False) -> list[str]:
    """Return what was given in Python as the words of a command: `optimizer={"lr": 0.1}` is `optimizer.lr=0.1`.

    is_grid: a list is one value for each job, in place of a setting that is a list. Raises UserError for what is none.
    """
    given: list[Any] = []
    if isinstance(words, Mapping):
        settings = {**words, **settings}
    elif isinstance(words, str):
        try:
            given = shlex.split(words)
        except ValueError as error:
            raise UserError(f"{words}: a quote is not closed.") from error
    else:
        given = list(words) if isinstance(words, Iterable) else [words]
    for word in given:
        if not isinstance(word, str):
            raise UserError(f"{word!r} is no setting; give words such as 'epochs=3', or keywords: epochs=3.")
    for key, value in flat(settings).items():
        is_many = is_grid and isinstance(value, list | tuple | range)
        given.append(f"{key}={','.join(map(_element, value)) if is_many else as_typed(value)}")
    return given


def as_typed(value: Any) -> str:
    """Return a value of Python as it would be typed; text is taken as if it had been."""
    return value if isinstance(value, str) and re.fullmatch(SYNTAX, value, re.ASCII) else _element(value)


def _element(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Integral | Real):
        return str(int(value)) if isinstance(value, Integral) else repr(float(value))
    if isinstance(value, list | tuple | range):
        return f"[{','.join(map(_element, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_element(inner)}' for key, inner in value.items())}}}"
    text = str(value)
    return text if re.fullmatch(NEEDS_NO_QUOTES, text, re.ASCII) else _in_quotes(text)


def _in_quotes(text: str) -> str:
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def data_for_dataset(word: str) -> str:
    """Return `dataset=cifar100`, `dataset.root=…` or a key like them as `data…`: the configuration has one name."""
    return re.sub(r"^([+~]*)dataset(?=[=.]|$)", r"\1data", word)


def quoted(word: str) -> str:
    """Return `notes=wider, for longer` with its text in quotes: Hydra would take the comma for a sweep."""
    key, _, text = word.partition("=")
    if key not in FREE_TEXT or text in ("", "null") or text[0] in "'\"":
        return word
    return f"{key}={_in_quotes(text)}".replace("${", r"\${")  # text, and no reference to another value
