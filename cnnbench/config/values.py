"""Nested plain values, as YAML holds them, their dotted keys, words that set them, and where the YAML files are."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from cnnbench.errors import SettingError, UserError, shortened

TYPED = "command line"  # the origin of a value that was typed
FREE_TEXT = "name", "notes"
PATHS = "data.folder", "data.root", "data.train", "data.val", "data.test", "data.classes", "init.file", "init.run"
NEEDS_NO_QUOTES = r"[\w.:/@%+*?$-]+"  # re.ASCII
FUNCTION = r"(range|choice|interval|glob|sort|shuffle)\(.*\)"
NO_TEXT = r"true|false|nan|[+-]?(inf|[\d_.]*\d[\d_.]*(e[+-]?\d+)?)"  # for Hydra
SYNTAX = rf"[\w.:/\\@%+*?$,\[\]{{}}' -]*|{FUNCTION}"  # lists, grids and the like
ONE_OF_SEVERAL = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]+"""

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


def as_text(value: Any) -> str:
    """Return a value as people read it: `null`, `true`, `[paper, lab3]`; `none` for parts of which there are none."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "none"
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


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

    `model={"name": "mlp", "units": [8]}` chooses an option and sets its keys. is_grid: a list, or anything else with
    several values, is one value for each job, in place of a setting that is a list. Raises UserError for anything else.
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
    for key, nested in settings.items():
        for inner, value in flat(nested, f"{key}.").items():
            setting = key if isinstance(nested, Mapping) and inner == f"{key}.name" else inner
            given.append(f"{setting}={_values(value, is_grid)}")
            if callable(value):
                problem = "is an object of Python; cnnbench.register_model and its siblings give yours a name to type"
                raise SettingError(shortened(given[-1]), problem)
    return given


def _values(value: Any, is_grid: bool) -> str:
    if hasattr(value, "tolist"):  # of numpy, pandas or torch
        value = value.tolist()
    if is_grid and isinstance(value, list | tuple | range | Iterator):
        return ",".join(map(_element, value))
    return as_typed(value)


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


def split_key_values(words: Sequence[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Return the words that do not set one of the keys, and the values of those that do, by key."""
    pairs = [(word, *word.partition("=")) for word in words]
    others = [word for word, key, equals, _ in pairs if not equals or key not in keys]
    return others, {key: value for _, key, equals, value in pairs if equals and key in keys}


def data_for_dataset(word: str) -> str:
    """Return `dataset=cifar100`, `dataset.root=…` or a key like them as `data…`: the configuration has one name."""
    return re.sub(r"^([+~]*)dataset(?=[=.]|$)", r"\1data", word)


def quoted(word: str) -> str:
    """Return `notes=wider, for longer` with its text in quotes: Hydra would take the comma for a sweep.

    A path is quoted where it is not plain, as `data.folder=Größe (1)`, `a{b}`, `2019`, and refers to no setting; of
    several with commas between them, each, unless there is a file or folder of the whole name.
    """
    key, _, text = word.partition("=")
    if text in ("", "null") or (text[0] in "'\"" and key not in PATHS):
        return word
    if key in PATHS:
        if os.path.exists(os.path.expanduser(text)):
            return f"{key}={_path(text)}"
        if "${" in text or re.fullmatch(FUNCTION, text):
            return word
        return f"{key}={','.join(map(_path, re.findall(ONE_OF_SEVERAL, text)))}"
    if key not in FREE_TEXT:
        return word
    return f"{key}={_in_quotes(text)}".replace("${", r"\${")  # text, and no reference to another value


def _path(text: str) -> str:
    is_plain = re.fullmatch(NEEDS_NO_QUOTES, text, re.ASCII) and not re.fullmatch(NO_TEXT, text, re.IGNORECASE)
    return text if is_plain or text[0] in "'\"" else _in_quotes(text).replace("${", r"\${")
