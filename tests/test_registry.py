"""Names in, objects out: what can be registered, and what a name can select."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from pydantic import Field, PositiveInt, ValidationError

from cnnbench.config.schema import GROUPS
from cnnbench.errors import UserError
from cnnbench.plugins import PREFIX, REGISTRIES, register_everything
from cnnbench.registry import LOGGERS, PROVIDED, Registry, Selection
from cnnbench.training.loggers.base import Logger


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Forget what a test registers, plugs in and stores."""
    register_everything()
    components = {group: dict(registry.components) for group, registry in GROUPS.items()}
    loggers = dict(LOGGERS.components)
    yield
    LOGGERS.components = loggers
    for group, registry in GROUPS.items():
        registry.components = components[group]
        ConfigStore.instance().repo.pop(group, None)
    for name in [name for name in sys.modules if name.startswith(PREFIX)]:
        del sys.modules[name]


PROVIDED["shape"] = {"spec": "spec"}


class Shapes(Registry):
    def register(self, name, *, corners=0):
        return self._register(name, corners=corners)


@pytest.fixture
def shapes() -> Registry:
    registry = Shapes("shape")

    @registry.register("circle")
    def circle(spec, *, radius: Annotated[float, Field(gt=0)], filled: bool = False):
        """A circle. And more."""
        return spec, radius, filled

    @registry.register("square", corners=4)
    def square(*, side: PositiveInt):
        return side

    return registry


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.group)
def test_a_name_that_was_forgotten_is_asked_for(registry):
    with pytest.raises(UserError, match=r"is registered under a name: @register_…\('name'\), not @register_… alone"):

        @registry.register
        def mine(spec):
            """A component."""


def test_a_name_is_registered_once(shapes):
    with pytest.raises(UserError) as refused:
        shapes.register("circle")(lambda spec: spec)
    places = r"in /.*/tests/test_registry\.py:\d+ and in /.*/tests/test_registry\.py:\d+; choose another name"
    assert re.match(rf"shape 'circle' is registered twice, {places}", str(refused.value))


def test_a_name_that_is_taken_but_for_capitals_is_refused(shapes):
    with pytest.raises(UserError, match=r"^shape 'Circle' is 'circle' but for capitals, in .* and in "):
        shapes.register("Circle")(lambda spec: spec)


WORDS = ["true", "False", "none", "NULL", "yes", "No", "on", "off", "nan", "-inf", "18", "1_000", "1e5", "0x10"]


@pytest.mark.parametrize("name", ["my net", "größe", "a/b", "a.b", "", "a" * 101, "_", "-@", *WORDS])
def test_a_name_that_cannot_be_typed_or_is_read_as_something_else_is_refused(shapes, name):
    with pytest.raises(UserError, match=f": shape '{name}': a name has up to 100 letters a to z, digits, _, - and @"):
        shapes.register(name)(lambda spec: spec)


@pytest.mark.parametrize("name", ["MyNet", "my_net-v2@b", "3conv", "nono", "e5", "infinite", "a" * 100])
def test_any_other_name_is_taken(shapes, name):
    shapes.register(name)(lambda spec: spec)
    assert name in shapes


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("circl", "; did you mean 'circle'?"),
        ("CIRCEL", "; did you mean 'circle'?"),
        ("quarks", ""),
        ("zzz", ""),
        ("pathlib.Path", ""),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_there_are(shapes, name, hint):
    with pytest.raises(UserError) as refused:
        shapes[name]
    message = str(refused.value)
    assert message.startswith(f"no shape is called '{name}'{hint}")
    assert message.endswith("There are: 'circle', 'square'.")
    assert ("did you mean" in message) == bool(hint)


def test_only_keywords_are_settings(shapes):
    circle = shapes["circle"]
    assert list(circle.schema.model_fields) == ["radius", "filled"]
    assert circle.defaults() == {"filled": False}
    assert (circle.accepts("filled"), circle.accepts("spec")) == (True, False)
    assert circle.summary() == "A circle. And more."


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "missing"),
        ({"radius": 0}, "greater_than"),
        ({"radius": "1"}, "float_type"),
        ({"radius": True}, "float_type"),
        ({"radius": float("nan")}, "finite_number"),
        ({"radius": 1.0, "filled": 1}, "bool_type"),
        ({"radius": 1.0, "spec": 1}, "extra_forbidden"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_are_checked_strictly_against_the_signature(shapes, settings, kind):
    with pytest.raises(ValidationError) as refused:
        shapes["circle"].schema.model_validate(settings)
    assert [error["type"] for error in refused.value.errors()] == [kind]


def test_a_selection_is_built_from_what_the_program_knows_and_what_the_file_says(shapes):
    assert shapes.build(Selection("circle", {"radius": 2.0, "filled": True}), spec="spec") == ("spec", 2.0, True)


def test_what_a_component_does_with_its_settings_stays_its_own(shapes):
    @shapes.register("polygon")
    def polygon(spec, *, sides: list[float], colors: dict[str, list[int]]):
        sides.append(1.0)
        colors["edge"].append(255)
        return sides, colors

    chosen = Selection("polygon", {"sides": [2.0], "colors": {"edge": [0]}})
    assert [shapes.build(chosen, spec="spec") for _ in range(2)] == [([2.0, 1.0], {"edge": [0, 255]})] * 2
    assert chosen.settings == {"sides": [2.0], "colors": {"edge": [0]}}


def test_names_come_in_order_with_what_else_is_known_of_them(shapes):
    assert list(shapes) == ["circle", "square"]
    assert ("square" in shapes, "triangle" in shapes) == (True, False)
    assert shapes["square"].facts == {"corners": 4}


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.group)
def test_every_part_of_ours_keeps_the_contract(registry):
    for component in registry.components.values():
        component.check()


FILLED = "what the program fills is called `spec`, `in_channels`"


@pytest.mark.parametrize(
    ("group", "signature", "said"),
    [
        ("model", "specs, width: int", f"setting 'specs' has no type, or is a misspelt `spec`; {FILLED}"),
        ("model", "specs: Path", f"setting 'specs' cannot be a Path, or is a misspelt `spec`; {FILLED}"),
        (
            "model",
            "sepc, wide",
            "or is a misspelt `spec`; setting 'wide' has no type: write `wide: int`, say; what the",
        ),
        (
            "model",
            "spec, a, b=None",
            "'a' has no type: write `a: int`, say; setting 'b' has no type: write `b: ",
        ),
        (
            "scheduler",
            "optimizer, horizons, gamma: float",
            "; setting 'horizons' has no type, or is a misspelt",
        ),
        ("augmentation", "images, p: float = 0.5", "is a function of 'images', and must be a class, derived from Augm"),
        (
            "task",
            "outputs: Path, labels",
            "is a function of 'outputs', 'labels', and must be a class, derived from",
        ),
        ("logger", "values, step", "is a function of 'values', 'step', and must be a class, derived from Logger (cnnb"),
        ("logger", "url: str", "is made without settings; give 'url' a default."),
        ("metric", "preds", "alone; give 'preds' a default, and call what it is given `predictions`."),
        (
            "optimizer",
            "group, lr: float",
            "setting 'group' has no type, or is a misspelt `groups`; what the",
        ),
        (
            "optimizer",
            "group",
            "; what the program fills is called `groups`, `params`; has no setting `lr`, the",
        ),
    ],
)
def test_a_signature_that_cannot_be_filled_is_answered_with_what_was_meant_and_all_else(group, signature, said):
    (registry,) = (one for one in REGISTRIES if one.group == group)
    with pytest.raises(UserError) as refused:
        exec(f"@register('mine')\ndef mine({signature}): ...", {"register": registry.register, "Path": Path})
    assert said in str(refused.value)


def logger_with(*methods: str) -> type:
    """Return a class of a logger in which these methods are written so."""
    lines = ["def begin(self, run, known_as): ...", "def scalars(self, values, step): ...", *methods]
    names = {"staticmethod": staticmethod, "Logger": Logger}
    exec("class Mine(Logger):\n    " + "\n    ".join(lines), names)
    return names["Mine"]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("def scalars(self, values): ...", "write `def scalars(self, values, step)`."),
        ("def begin(run, known_as): ...", "write `def begin(self, run, known_as)`."),
        (
            "def end(self, status): ...",
            "its `end` cannot be called as it will be: write `def end(self, status, files)`.",
        ),
        ("def result(self, metrics, *, step): ...", "write `def result(self, metrics, step)`."),
        ("flush = None", "write `def flush(self)`."),
    ],
)
def test_a_method_of_a_logger_that_cannot_be_called_is_refused_before_training(method, said):
    with pytest.raises(UserError) as refused:
        LOGGERS.register("mine")(logger_with(method))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "method",
    [
        "def scalars(self, row, at): ...",
        "def end(self, *_): ...",
        "def result(self, metrics, step, extra=1): ...",
        "@staticmethod\n    def flush(): ...",
    ],
)
def test_a_method_of_a_logger_may_call_what_it_is_given_as_it_likes(method):
    LOGGERS.register("mine")(logger_with(method))
    assert "mine" in LOGGERS


@pytest.mark.parametrize("group", GROUPS)
def test_every_registered_part_says_what_it_is_and_types_each_setting(group):
    assert list(GROUPS[group])
    for name in GROUPS[group]:
        assert GROUPS[group][name].summary().endswith("."), name
        assert GROUPS[group][name].schema.model_json_schema()["additionalProperties"] is False


@pytest.mark.parametrize("group", GROUPS)
def test_every_default_comes_back_from_a_file_as_it_was(group):
    for name in GROUPS[group]:
        defaults = GROUPS[group][name].defaults()
        assert yaml.safe_load(yaml.safe_dump(defaults)) == defaults, name


def test_registering_everything_again_changes_nothing():
    before = {group: list(registry) for group, registry in GROUPS.items()}
    register_everything()
    assert {group: list(registry) for group, registry in GROUPS.items()} == before


def test_what_only_measuring_drawing_and_compiling_need_is_not_imported_while_a_training_runs(tmp_path):
    heavy = {"sklearn", "pandas", "matplotlib", "scipy", "jinja2", "torchvision", "torch._dynamo", "sympy"}
    look = f"lambda run, row: print('after epoch', row['epoch'], sorted({heavy} & sys.modules.keys()))"
    words = "data=digits epochs=1 data.subset.first=100 test=false report=false"
    code = f"import sys, cnnbench; cnnbench.train({words!r}, progress='quiet', on_epoch={look})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "after epoch 1 []"
