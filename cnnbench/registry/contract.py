"""What each group asks of its components: parameters that are filled, settings that can be typed, what is returned."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import BaseModel, ConfigDict, PydanticUserError, create_model
from pydantic_core import to_jsonable_python

from cnnbench.errors import UserError, closest, listed

if TYPE_CHECKING:
    from cnnbench.registry import Component

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

# By group: parameter names that the program fills, and what each is called among what it provides. Names other than
# the first are for classes written without cnnbench in mind, and count only where they are untyped or `int`.
PROVIDED: dict[str, dict[str, str]] = {
    "model": {
        "spec": "spec", "in_channels": "channels", "in_chans": "channels", "channels": "channels",
        "num_classes": "outputs", "num_outputs": "outputs", "image_size": "image_size",
    },
    "data": {"root": "root"},
    "augmentation": {},
    "optimizer": {"groups": "groups", "params": "groups"},
    "scheduler": {"horizon": "horizon"},
    "task": {"spec": "spec"},
    "metric": {"predictions": "predictions"},
    "engine": {"worker": "worker"},
}  # fmt: skip

# By group: the class of what a factory must return, and how to say it. By name: importing torch here would make every
# command wait for it.
PRODUCTS = {
    "model": ("torch.nn.modules.module.Module", "an nn.Module"),
    "data": ("cnnbench.data.images.ImageData", "an ImageData (cnnbench.data.images)"),
    "augmentation": ("cnnbench.augmentation.base.Augmentation", "an Augmentation (cnnbench.augmentation.base)"),
    "optimizer": ("torch.optim.optimizer.Optimizer", "a torch.optim.Optimizer"),
    "scheduler": ("", "a function of (step, scores)"),
    "task": ("cnnbench.tasks.base.Task", "a Task (cnnbench.tasks.base)"),
    "logger": ("cnnbench.training.loggers.base.Logger", "a Logger (cnnbench.training.loggers.base)"),
}  # a metric returns whatever `float` takes, an engine nothing

# By group: what its factories raise that is explained where they are called.
EXPLAINED = {
    "model": Exception, "data": Exception, "logger": Exception, "metric": Exception, "optimizer": ValueError,
}  # fmt: skip

# A name is a word of a command, text in YAML, part of a key such as name/val, and a folder.
NAME = re.compile(r"(?=.*[^\W_])[\w@-]{1,100}", re.ASCII)
NO_TEXT = re.compile(r"null|none|true|false|yes|no|on|off|nan|-?inf|-?\d[\d_]*(e-?\d+)?|0[bx][\da-f_]+", re.IGNORECASE)

BASES = ("augmentation", "task", "logger")  # groups whose components are classes
ALONE = {"metric": "is a function of `predictions` alone", "logger": "is made without settings"}
ANYTHING = "anything"


class ContractError(UserError):
    """A component that breaks the contract of its group: no other settings or data could fix it."""


class Section(BaseModel):
    """Settings that stand together under one key."""

    model_config = STRICT


def problems(component: "Component") -> Iterator[str]:
    """Yield what is wrong with a component, each in words that follow its name."""
    if not NAME.fullmatch(component.name) or (NO_TEXT.fullmatch(component.name) and component.is_from_plugin):
        yield "a name has up to 100 letters a to z, digits, _, - and @, and is no number, nor true, no or none"
    bases = {f"{base.__module__}.{base.__qualname__}" for base in getattr(component.factory, "__mro__", ())}
    expected, description = PRODUCTS.get(component.group, ("", ""))
    unfilled = [name for name, one in component.parameters.items() if one.default is one.empty]
    unfilled = [name for name in unfilled if name not in component.provided]
    if not bases and component.group in BASES and any(_is_no_setting(component, name) for name in unfilled):
        yield f"is a function of {listed(unfilled)}, and must be a class, derived from {description.partition(' ')[2]}"
    elif unfilled and component.group in ALONE:
        missing = [name for name in PROVIDED.get(component.group, ()) if name not in component.parameters]
        called = f", and call what it is given `{missing[0]}`" if missing else ""
        yield f"{ALONE[component.group]}; give {listed(unfilled)} a default{called}"
    else:
        yield from _of_parameters(component)
    if lacking := sorted(getattr(component.factory, "__abstractmethods__", ())):
        yield f"lacks the methods that its base class leaves open: define {listed(lacking)}"
    if bases and expected and expected not in bases:
        yield f"is a class, and must derive from {description.partition(' ')[2]}"
    elif bases and component.group == "logger":
        yield from _of_methods(component.factory, expected)
    if component.group == "optimizer" and "lr" not in component.parameters:
        yield "has no setting `lr`, the learning rate that schedules scale"
    if component.facts.get("watches") and "patience" not in component.parameters:
        yield "watches validation, and has no setting `patience`: evaluations that it waits for"


def _of_methods(factory: Any, expected: str) -> Iterator[str]:
    """Yield which methods of a class cannot be called as those of its base, which are called by position."""
    base = next(one for one in factory.__mro__ if f"{one.__module__}.{one.__qualname__}" == expected)
    for name, method in vars(base).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        given = [*inspect.signature(method).parameters]
        if isinstance(inspect.getattr_static(factory, name), staticmethod | classmethod):
            given = given[1:]
        try:
            inspect.signature(getattr(factory, name)).bind(*given)
        except TypeError:
            wanted = ", ".join(inspect.signature(method).parameters)
            yield f"its `{name}` cannot be called as it will be: write `def {name}({wanted})`"


def _of_parameters(component: "Component") -> Iterator[str]:
    known = PROVIDED.get(component.group, {})
    for name, parameter in component.parameters.items():
        meant = f", or is a misspelt `{close}`" if (close := closest(name, known)) else ""
        if parameter.kind is parameter.POSITIONAL_ONLY:
            yield f"parameter '{name}' is positional-only, and all are given by name"
        elif name in component.provided:
            continue
        elif name == "name":
            yield "a setting cannot be called 'name', which is the key of the choice itself; give it another name"
        elif parameter.annotation is parameter.empty and parameter.default in (parameter.empty, None):
            kind = "int" if parameter.default is parameter.empty else "int | None = None"
            yield f"setting '{name}' has no type{meant or f': write `{name}: {kind}`, say'}"
        elif _is_foreign(component.types[name]):
            kind = getattr(component.types[name], "__name__", component.types[name])
            yield f"setting '{name}' cannot be a {kind}{meant or ': take bool, int, float, str or list'}"
        elif parameter.default is not parameter.empty and not _comes_back(component.types[name], parameter.default):
            kinds = _kinds(component.types[name])
            why = "is nothing that a file can state" if kinds == ANYTHING else f"does not fit its type: {kinds}"
            why += f"; add `| None` to `{name}: …`" * (parameter.default is None)
            yield f"the default of '{name}', {parameter.default!r}, {why}"
    if known and any(_is_no_setting(component, name) for name in component.parameters):
        yield f"what the program fills is called {', '.join(f'`{name}`' for name in known)}"


def _is_no_setting(component: "Component", name: str) -> bool:
    """Return whether a parameter has no type, or one of no value of YAML, and is not filled."""
    parameter = component.parameters[name]
    is_untyped = parameter.annotation is parameter.empty and parameter.default in (parameter.empty, None)
    return name not in component.provided and (is_untyped or _is_foreign(component.types[name]))


def _is_foreign(kind: Any) -> bool:
    """Return whether a type is one whose objects are no values of YAML."""
    if isinstance(kind, type) and kind is not Any:
        return kind not in (bool, int, float, str, list, dict) and not issubclass(kind, Section)
    try:
        _kinds(kind)
    except PydanticUserError:  # `callable`, `nn.Module | None`
        return True
    return get_origin(kind) in (tuple, type)  # a list in YAML is no tuple


def _comes_back(kind: Any, default: Any) -> bool:
    """Return whether a setting accepts its default as a file states it."""
    schema = create_model("Setting", __config__=STRICT, value=(kind, default))
    try:
        schema(value=to_jsonable_python(schema.model_fields["value"].get_default(call_default_factory=True)))
    except ValueError:
        return False
    return True


def _kinds(kind: Any) -> str:
    return allowed(create_model("Setting", value=(kind, ...)).model_json_schema()["properties"]["value"])


def setting_schemas(section: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of every setting of a section, each complete in itself."""
    whole = section.model_json_schema()
    return {key: _inlined(schema, whole.get("$defs", {})) for key, schema in whole.get("properties", {}).items()}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        section = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {key: value for key, value in section.items() if key != "description"}  # for readers of the code
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def allowed(schema: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema allows."""
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return " or ".join(allowed(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"}
    inner = {key: one for key, one in schema.get("properties", {}).items() if key in schema.get("required", ())}
    braces = ", ".join(f"{key}: {allowed(one)}" for key, one in inner.items())
    words |= {"object": f"settings in braces{f': {{{braces}}}' if inner else ', as in {a:1}'}"}
    kind = words.get(schema["type"], "text") if "type" in schema else ANYTHING
    if schema.get("type") == "array":
        fewest, most = schema.get("minItems"), schema.get("maxItems")
        limits = [f"at least {fewest}"] * bool(fewest) + [f"at most {most}"] * bool(most)
        number = str(fewest) if fewest and fewest == most else " and ".join(limits)
        return f"a list{f' of {number}' if number else ''}, each {allowed(schema.get('items', {}))}"
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds |= {"pattern": "matching"}
    limits = [f"{word} {schema[bound]}" for bound, word in bounds.items() if bound in schema]
    return " ".join([kind, " and ".join(limits)]).strip()
