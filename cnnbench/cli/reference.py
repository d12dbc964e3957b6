"""The page of all settings: `python -m cnnbench.cli.reference > cnnbench/docs/settings.md` writes it again."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from cnnbench.cli.catalog import HOMES, Setting, general_settings, options_in, settings_of
from cnnbench.config.schema import GROUPS
from cnnbench.config.values import as_text, conf_dir
from cnnbench.plugins import register_everything
from cnnbench.registry import Component
from cnnbench.registry.contract import allowed

HEAD = """\
# Settings

Every setting, with its default and meaning.

A default is what `GROUP=NAME` alone sets; presets set others. `cnnbench --cfg job …` shows the value of every setting
for one command, `cnnbench options` lists the presets. This page is written by `python -m cnnbench.cli.reference`.

## General
"""
BAR = r"\|"  # within a cell


def reference() -> str:
    """Return the page as Markdown: general settings, then those of each component, with what they accept."""
    register_everything()
    general = ((f"`{one.key}={one.value}`" if one.value else f"`{one.key}`", one.comment) for one in general_settings())
    return "\n".join([HEAD, *_table(("setting", "meaning"), general), *chain.from_iterable(map(_group, HOMES)), ""])


def _group(group: str) -> Iterator[str]:
    files = options_in([conf_dir()], group)
    options = {
        name: {one.key.removeprefix(f"{group}."): one for one in settings_of(path.read_text(encoding="utf-8"))}
        for name, path in files.items()
    }
    yield from ("", f"## {group.capitalize()}")
    for name in GROUPS[group]:
        component = GROUPS[group][name]
        rows = list(_rows(component, options))
        yield from ("", f"### `{group}{'.' if _is_listed(group) else '='}{name}`", "", _described(component), "")
        yield from _table(("setting", "meaning", "accepts"), rows) if rows else ["No settings of its own."]


def _described(component: Component) -> str:
    """Return the docstring, without the errors that callers from Python see."""
    return re.sub(r"\s*Raises\s+\w+Error[^.]*\.", "", inspect.getdoc(component.factory) or "")


def _rows(component: Component, options: Mapping[str, Mapping[str, Setting]]) -> Iterator[tuple[str, str, str]]:
    group, name = component.group, component.name
    defaults = component.defaults()
    for key, schema in component.schema.model_json_schema().get("properties", {}).items():
        path = f"{name}.{key}" if _is_listed(group) else key
        stated = {option: rows[path] for option, rows in options.items() if path in rows}
        own = [row for option, row in stated.items() if _is_listed(group) or options[option]["name"].value == name]
        value = stated[name].value if name in stated else as_text(defaults.get(key, "…"))
        meaning = next((row.comment for row in own if row.comment), "")
        yield f"`{group}.{path}={value}`", meaning, allowed(schema)


def _is_listed(group: str) -> bool:
    """Return whether an option of a group lists several of its components, as those of `augmentation` do."""
    return group == "augmentation"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *([cell.replace("|", BAR) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201
