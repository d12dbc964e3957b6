"""What is registered: a factory, whose signature is the schema of its settings, held to the contract of its group."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from cnnbench.errors import UserError, listed

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
ANY_KIND = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # *args, **kwargs

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
}  # fmt: skip

# By group: the class of what a factory must return, and how to say it. By name: importing torch here would make every
# command wait for it.
PRODUCTS = {
    "model": ("torch.nn.modules.module.Module", "an nn.Module"),
    "data": ("cnnbench.data.images.ImageData", "an ImageData (cnnbench.data.images)"),
    "augmentation": ("cnnbench.augmentation.base.Augmentation", "an Augmentation (cnnbench.augmentation.base)"),
    "optimizer": ("torch.optim.optimizer.Optimizer", "a torch.optim.Optimizer"),
    "scheduler": ("", "a function of the step and the scores"),
    "task": ("cnnbench.tasks.base.Task", "a Task (cnnbench.tasks.base)"),
    "logger": ("cnnbench.training.loggers.base.Logger", "a Logger (cnnbench.training.loggers.base)"),
}  # a metric returns whatever `float` takes


class ContractError(UserError):
    """A component that breaks the contract of its group: no other settings or data could mend it."""


class Section(BaseModel):
    """Settings that stand together under one key."""

    model_config = STRICT


@dataclass(frozen=True)
class Selection:
    """A registered name together with the settings chosen for it."""

    name: str
    settings: Mapping[str, Any]

    def flat(self) -> dict[str, Any]:
        """Return the selection as it stands in YAML: `name` first, then every setting."""
        return {"name": self.name, **self.settings}


@dataclass(frozen=True)
class Component:
    """A registered factory. facts: what its group wants to know about it besides."""

    group: str
    name: str
    factory: Callable[..., Any]
    facts: Mapping[str, Any]

    @property
    def is_from_plugin(self) -> bool:
        """Tell whether it was registered outside of this package."""
        return not self.factory.__module__.startswith("cnnbench.")

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The factory's parameters. Raises ContractError where an annotation cannot be evaluated."""
        try:
            found = inspect.signature(self.factory, eval_str=True).parameters
        except (NameError, SyntaxError, TypeError, ValueError) as error:
            raise ContractError(f"{self}: its signature cannot be read: {error}") from error
        return {name: parameter for name, parameter in found.items() if parameter.kind not in ANY_KIND}

    @cached_property
    def provided(self) -> dict[str, str]:
        """What the program provides for which parameter."""
        names = PROVIDED.get(self.group, {})
        first = next(iter(names), None)
        return {
            name: names[name.lstrip("_")]
            for name, parameter in self.parameters.items()
            if name.lstrip("_") in names
            and (name.lstrip("_") == first or parameter.annotation in (parameter.empty, int))
        }

    @cached_property
    def schema(self) -> type[BaseModel]:
        """The settings as a strict pydantic model."""
        fields: dict[str, Any] = {
            name: (_type_of(parameter), ... if parameter.default is parameter.empty else parameter.default)
            for name, parameter in self.parameters.items()
            if name not in self.provided
        }
        return create_model(self.name, __config__=STRICT, **fields)

    def check(self) -> None:
        """Raise ContractError, in one sentence with file and line, where the factory breaks its group's contract."""
        for problem in self._problems():
            raise ContractError(f"{self}: {problem}.")

    def _problems(self) -> Iterator[str]:
        names = ", ".join(f"`{name}`" for name in PROVIDED.get(self.group, ()))
        filled = f"; what the program fills is called {names}" if names else ""
        for name, parameter in self.parameters.items():
            if parameter.kind is parameter.POSITIONAL_ONLY:
                yield f"parameter '{name}' is positional-only, and all are given by name"
            elif name in self.provided:
                continue
            elif parameter.annotation is parameter.empty and parameter.default in (parameter.empty, None):
                yield f"setting '{name}' has no type: write `{name}: int`, say{filled}"
            elif _is_foreign(_type_of(parameter)):
                kind = _type_of(parameter).__name__
                yield f"setting '{name}' cannot be a {kind}: take bool, int, float, str or list{filled}"
        if self.group == "optimizer" and "lr" not in self.parameters:
            yield "has no setting `lr`, the learning rate that schedules scale"
        if self.facts.get("watches") and "patience" not in self.parameters:
            yield "watches validation, and has no setting `patience`: evaluations that it waits for"
        if self.group == "metric" and (required := [*self.schema.model_json_schema().get("required", ())]):
            yield f"is a function of `predictions` alone; give {listed(required)} a default"

    def build(self, settings: Mapping[str, Any], **provided: Any) -> Any:
        """Call the factory. Raises ContractError where it returns something else than its group asks for."""
        filled = {name: provided[what] for name, what in self.provided.items()}
        product = self.factory(**filled, **settings)
        if self.group not in PRODUCTS:
            return product
        expected, description = PRODUCTS[self.group]
        ancestors = {f"{base.__module__}.{base.__qualname__}" for base in type(product).__mro__}
        if expected not in ancestors if expected else not _takes_two(product):
            raise ContractError(f"{self}: returns a {type(product).__name__}, and must return {description}.")
        return product

    def defaults(self) -> dict[str, Any]:
        """Return the settings that have a default in the signature."""
        return {key: field.default for key, field in self.schema.model_fields.items() if not field.is_required()}

    def accepts(self, setting: str) -> bool:
        """Tell whether the factory has this setting."""
        return setting in self.schema.model_fields

    def summary(self) -> str:
        """Return the first line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]

    @property
    def file(self) -> str:
        """The name of the file that defines the factory; empty where there is none."""
        try:
            return Path(inspect.getsourcefile(inspect.unwrap(self.factory)) or "").name
        except TypeError:
            return ""

    def __str__(self) -> str:
        try:
            where = f"{self.file}:{inspect.getsourcelines(inspect.unwrap(self.factory))[1]}: "
        except (OSError, TypeError):
            where = ""
        return f"{where}{self.group} '{self.name}'"


def _type_of(parameter: inspect.Parameter) -> Any:
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    return type(parameter.default)


def _is_foreign(kind: Any) -> bool:
    """Tell whether a type is a class whose objects are no values of YAML."""
    is_class = isinstance(kind, type) and kind is not Any
    return is_class and kind not in (bool, int, float, str, list, dict) and not issubclass(kind, Section)


def _takes_two(function: Any) -> bool:
    try:
        inspect.signature(function).bind(0, ())
    except (TypeError, ValueError):
        return False
    return True
