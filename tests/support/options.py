"""The options of the groups: files of `conf/`, and what is registered without one; tests that walk them begin here."""

from collections.abc import Collection
from typing import Any

import pytest
import yaml

from cnnbench.config.schema import CHOICES, GROUPS
from cnnbench.config.values import conf_dir
from cnnbench.data.images import DataSpec
from cnnbench.models.build import smallest_side, works
from cnnbench.plugins import register_everything
from cnnbench.registry import Selection
from tests.conftest import SMALL_FORMS

register_everything()

# What is given where neither a file nor the signature does, and works with most.
USUAL = {"lr": 0.01}


def texts(group: str) -> dict[str, str]:
    """Return the files of a group by option."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted((conf_dir() / group).glob("*.yaml"))}


def node(group: str, text: str) -> dict[str, Any]:
    """Return what a file sets in its own group; a preset may set keys of others too."""
    content = yaml.safe_load(text) or {}
    return dict(content.get(group, content))


def without_a_file(group: str) -> list[str]:
    """Return the registered names that no file of the group states."""
    nodes = [node(group, text) for text in texts(group).values()]
    stated = {name for one in nodes for name in (one if group == "augmentation" else [one["name"]])}
    return [name for name in GROUPS[group] if name not in stated]


def settings_of(group: str, option: str) -> dict[str, Any]:
    """Return `name` and the part's own settings, those at their defaults and what is usual included."""
    text = texts(group).get(option)
    stated = {"name": option} if text is None else node(group, text)
    shared = CHOICES[group].model_fields if group in CHOICES else {}
    own = {key: value for key, value in stated.items() if key not in shared}
    component = GROUPS[group][own["name"]]
    usual = {key: value for key, value in USUAL.items() if component.accepts(key)}
    return usual | component.defaults() | own


def words_for(group: str, option: str) -> list[str]:
    """Return the words that choose an option, with what must be given; of a network, small enough for a test."""
    asked = _asked(group, option) if option in without_a_file(group) else []
    words = [f"{group}={option}", *(f"{group}.{key}={USUAL[key]}" for key in asked)]
    if group == "model":
        words += SMALL_FORMS.get(option) or [f"data.image_size={side_for(option, at_least=32)}"]
    return words


def side_for(model: str, at_least: int) -> int:
    """Return the side of images that a network works on: the one given, or else the smallest that does."""
    settings = settings_of("model", model)
    selection = Selection(settings.pop("name"), settings)

    def fits(side: int) -> bool:
        return side >= at_least and works(selection, DataSpec(3, side, side, ("a", "b")))

    return at_least if fits(at_least) else smallest_side(fits) or at_least


def walked(group: str, without: Collection[str] = ()) -> list[Any]:
    """Return every option of a group for `parametrize`; skipped are those with settings that only a file could give."""
    asking = [_unless_it_asks(group, name) for name in without_a_file(group) if name not in without]
    return [*(name for name in texts(group) if name not in without), *asking]


def _unless_it_asks(group: str, name: str) -> Any:
    asked = [key for key in _asked(group, name) if key not in USUAL]
    if not asked:
        return name
    reason = f"{group}.{asked[0]} has no default; with conf/{group}/{name}.yaml, which gives it, {name} is tested here"
    return pytest.param(name, marks=pytest.mark.skip(reason))


def _asked(group: str, name: str) -> list[str]:
    """Return the settings of a registered part that have no default."""
    return [key for key, field in GROUPS[group][name].schema.model_fields.items() if field.is_required()]
