"""Files of a run folder as plain values: whole, as they were written, and of the run that they lie with."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cnnbench.config.growth import check_depth, load_yaml
from cnnbench.config.run_config import has_no_effect_on_result
from cnnbench.config.values import flat
from cnnbench.errors import shortened
from cnnbench.store.files import CHECKSUM, DamagedError, as_json, checksum

Plain = dict[str, Any]


class Entries(Plain):
    """The entries of a file; one that is asked for and missing is an error of the file, not of the program."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise DamagedError(f"{self.path} is damaged: it says nothing of '{key}'")


def read_json(path: Path, schema: type[BaseModel], way: str = "") -> Plain:
    """Return what a JSON file holds, of the types of its schema.

    way: what to do where it cannot be read, a sentence. Raises DamagedError.
    """

    def entries(values: Plain) -> Entries:
        read = Entries(values)
        read.path = path
        return read

    def parse(text: str) -> Any:
        values = json.loads(text, object_hook=entries)
        check_depth(values)
        return values

    values = _read(path, parse, way)
    try:
        schema.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"it says nothing of '{where}'" if first["type"] == "missing" else f"{where}: {first['msg']}"
        raise DamagedError(f"{path} is damaged: {problem}{_then(way)}") from error
    return values


def read_yaml(path: Path, way: str = "") -> Plain:
    """Return what a YAML file holds; as above."""
    return _read(path, load_yaml, way)


def edited_settings(recorded: Mapping[str, Any] | None, found: Mapping[str, Any]) -> list[str]:
    """Return which settings differ that can change a result, and how: `optimizer.lr was 0.05, and is 0.15`.

    recorded: None: of a run of before, whose record holds none.
    """
    if recorded is None:
        return []
    before, now = flat(as_json(recorded)), flat(as_json(found))
    keys = [key for key in before | now if before.get(key, ...) != now.get(key, ...)]
    if before.get("source") is not None and before.get("source") == now.get("source"):
        keys = [key for key in keys if not key.startswith("init.")]  # the same weights, wherever they lie by now
    return [
        f"{key} was {_quoted(before, key)}, and is {_quoted(now, key)}"
        for key in keys
        if not has_no_effect_on_result(key)
    ]


def _quoted(values: Mapping[str, Any], key: str) -> str:
    return shortened(json.dumps(values[key])) if key in values else "not there"


def _read(path: Path, parse: Callable[[str], Any], way: str) -> Plain:
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DamagedError(f"{path} cannot be read: {' '.join(str(error).split())}{_then(way)}") from error
    if not isinstance(values, dict):
        raise DamagedError(f"{path} is damaged: it holds no mapping{_then(way)}")
    if CHECKSUM in values and values[CHECKSUM] != checksum(values):
        raise DamagedError(f"{path} was changed after it was written: its checksum does not match{_then(way)}")
    return values


def _then(way: str) -> str:
    return f". {way}" if way else ""
