"""How large a few lines can become: YAML has names for what stands elsewhere, `*a` and `${a}`, which can be nested."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

LONGEST = 1_000_000  # characters, with every name replaced by what it stands for
DEEPEST = 50
REFERENCE = re.compile(r"\$\{(\.*)([\w.\[\]-]+)\}")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""As safe as the loader in Python, and ten times as fast: reports read hundreds of files."""


def load_yaml(text: str) -> Any:
    """Return what YAML holds. Raises as `check_yaml` does."""
    check_yaml(text)
    return yaml.load(text, LOADER)


def check_yaml(text: str) -> None:
    """Raise ValueError or YAMLError for YAML that is nested too deeply, refers to itself, or grows without limit."""
    sizes: dict[str, int] = {}
    above: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, LOADER):
        anchor, size = getattr(event, "anchor", None), 0
        if isinstance(event, yaml.CollectionStartEvent):
            above.append((anchor, 1))
            if len(above) > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} levels deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise ValueError(f"*{anchor} stands for nothing, or for what it is itself in")
            size = sizes[anchor]
        elif isinstance(event, yaml.ScalarEvent):
            size = len(event.value) + 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = above.pop()
        if anchor is not None:
            sizes[anchor] = size
        above[-1] = above[-1][0], above[-1][1] + size
        if above[-1][1] > LONGEST:
            raise ValueError(f"it has more than {LONGEST} characters, with what its aliases stand for")


def check_depth(values: Any) -> None:
    """Raise ValueError for plain values, without references, that are nested too deeply."""
    inner = [values]
    for _ in range(DEEPEST):
        inner = [
            item
            for one in inner
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not inner:
            return
    raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def endless_reference(values: Mapping[Any, Any]) -> str:
    """Return the key of a setting that would grow without limit by its references to others; empty: there is none."""
    growth = _Growth(values)
    return next((str(key) for key in values if growth.of((str(key),)) > LONGEST), "")


class _Growth:
    """The length of settings, with all references replaced by what they stand for; each is counted once."""

    def __init__(self, values: Mapping[Any, Any]) -> None:
        self._values = values
        self._known: dict[tuple[str, ...], int] = {}

    def of(self, path: tuple[str, ...], depth: int = 0) -> int:
        if depth > DEEPEST:
            return LONGEST + 1
        path, value = self._at(path)
        if path not in self._known:
            self._known[path] = 0  # of what refers to itself, which OmegaConf refuses
            self._known[path] = self._length(value, path, depth + 1)
        return self._known[path]

    def _at(self, path: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
        """Return the value at a path; where a reference stands on the way, that, which has at least as much in it."""
        value: Any = self._values
        for place, key in enumerate(path):
            if isinstance(value, str):
                return path[:place], value
            if isinstance(value, list):
                value = dict(enumerate(value)).get(int(key)) if key.isdigit() else None
            else:
                value = value.get(key) if isinstance(value, Mapping) else None
        return path, value

    def _length(self, value: Any, path: tuple[str, ...], depth: int) -> int:
        if isinstance(value, Mapping | list):
            keys = value if isinstance(value, Mapping) else range(len(value))
            return 1 + sum(self.of((*path, str(key)), depth) for key in keys)
        if not isinstance(value, str):
            return 1
        found = [(path[: -len(dots)] if dots else (), keys) for dots, keys in REFERENCE.findall(value)]
        return len(value) + sum(self.of((*above, *re.findall(r"[^.\[\]]+", keys)), depth) for above, keys in found)
