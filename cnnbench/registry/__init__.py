"""Names in, objects out: the only place where a name in a file turns into something that runs.

A factory's signature is its schema. Some parameters are filled by the program, recognised by name (`spec` of a model,
see PROVIDED); all others are settings, before or after `*`: their types and ranges are in the annotations, or else are
those of the defaults. A default is the value that changes nothing: settings that equal it are no part of a run's
identity.
What is registered is checked at once, and what a factory returns when it is built.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, create_model

from cnnbench.errors import Explained, UserError, blaming, did_you_mean, listed
from cnnbench.registry.contract import EXPLAINED, PRODUCTS, PROVIDED, STRICT, ContractError, Section, problems

__all__ = [
    "AUGMENTATIONS", "DATASETS", "ENGINES", "LOGGERS", "METRICS", "MODELS", "OPTIMIZERS", "PROVIDED", "SCHEDULERS",
    "TASKS", "Component", "ContractError", "Registry", "Section", "Selection", "register_augmentation",
    "register_dataset", "register_engine", "register_logger", "register_metric", "register_model", "register_optimizer",
    "register_scheduler", "register_task",
]  # fmt: skip

Factory = TypeVar("Factory", bound=Callable[..., Any])
ANY_KIND = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # *args, **kwargs


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
    """A registered factory. facts: what else its group records about it."""

    group: str
    name: str
    factory: Callable[..., Any]
    facts: Mapping[str, Any]

    @property
    def is_from_plugin(self) -> bool:
        """Return whether it was registered outside of this package."""
        return not str(self.factory.__module__).startswith("cnnbench.")  # None: of `exec`

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
    def types(self) -> dict[str, Any]:
        """The annotation of each parameter, or else the type of its default."""
        return {
            name: type(one.default) if one.annotation is one.empty else one.annotation
            for name, one in self.parameters.items()
        }

    @cached_property
    def schema(self) -> type[BaseModel]:
        """The settings as a strict pydantic model."""
        fields: dict[str, Any] = {
            name: (self.types[name], ... if parameter.default is parameter.empty else parameter.default)
            for name, parameter in self.parameters.items()
            if name not in self.provided
        }
        return create_model(self.name, __config__=STRICT, **fields)

    def check(self) -> None:
        """Raise ContractError, in one sentence with file and line, where the factory breaks its group's contract."""
        if found := "; ".join(problems(self)):
            raise ContractError(f"{self}: {found}.")

    def build(self, settings: Mapping[str, Any], **provided: Any) -> Any:
        """Call the factory. Raises ContractError where it returns something other than its group requires."""
        filled = {name: provided[what] for name, what in self.provided.items()}
        with blaming(self, "cannot be made", spared=EXPLAINED.get(self.group, Explained)):
            product = self.factory(**filled, **deepcopy(dict(settings)))  # a list may be appended to, and is recorded
        if self.group not in PRODUCTS:
            return product
        expected, description = PRODUCTS[self.group]
        ancestors = {f"{base.__module__}.{base.__qualname__}" for base in type(product).__mro__}
        if expected not in ancestors if expected else not _takes_two(product):
            found = f" of {inspect.signature(product)}" if not expected and inspect.isfunction(product) else ""
            raise ContractError(f"{self}: returns a {type(product).__name__}{found}, and must return {description}.")
        return product

    def defaults(self) -> dict[str, Any]:
        """Return the settings that have a default in the signature."""
        return {key: field.default for key, field in self.schema.model_fields.items() if not field.is_required()}

    def accepts(self, setting: str) -> bool:
        """Return whether the factory has this setting."""
        return setting in self.schema.model_fields

    def summary(self) -> str:
        """Return the first line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]

    @property
    def place(self) -> tuple[Path, int] | None:
        """The file that defines the factory, and the line; None where there is none."""
        factory = inspect.unwrap(self.factory)
        try:
            return Path(inspect.getsourcefile(factory) or "").resolve(), inspect.getsourcelines(factory)[1]
        except (OSError, TypeError):  # typed into a notebook
            return None

    @property
    def file(self) -> str:
        """The name of that file; empty where there is none."""
        return self.place[0].name if self.place else ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.place[1]}: " if self.place else ""
        return f"{where}{self.group} '{self.name}'"


def _takes_two(function: Any) -> bool:
    try:
        inspect.signature(function).bind(0, ())
    except (TypeError, ValueError):
        return False
    return True


def _is_run_again(before: Component, now: Component) -> bool:
    """Return whether a definition is that of before: of a cell, or of a file that is imported and given as plugin."""
    old, new = before.factory, now.factory
    is_cell = old.__module__ == new.__module__ == "__main__"
    is_file = old.__module__ != new.__module__ and before.place and now.place and before.place[0] == now.place[0]
    return old.__qualname__ == new.__qualname__ and bool(is_cell or is_file)


class Registry:
    """The components of one group of the configuration, by name; subclasses state the facts that they keep."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.components: dict[str, Component] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Return a decorator; what the factory needs is said where it lacks it."""
        return self._register(name)

    def _register(self, name: str, **facts: Any) -> Callable[[Factory], Factory]:
        if not isinstance(name, str):  # `@register_model` alone: Python would put the decorator in the place of it
            raise UserError(f"a {self.group} is registered under a name: @register_…('name'), not @register_… alone.")

        def decorate(factory: Factory) -> Factory:
            component = Component(self.group, name, factory, facts)
            for taken in [one for one in self.components.values() if one.name.lower() == name.lower()]:
                if _is_run_again(taken, component):
                    continue
                where = " and in ".join(":".join(map(str, one.place or ("a notebook",))) for one in (taken, component))
                what = "is registered twice" if taken.name == name else f"is '{taken.name}' but for capitals"
                raise UserError(f"{self.group} '{name}' {what}, in {where}; choose another name for one.")
            if component.is_from_plugin:  # tests check ours, which takes 0.15 s
                component.check()
            self.components[name] = component
            return factory

        return decorate

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.components))

    def __contains__(self, name: object) -> bool:
        return name in self.components

    def __getitem__(self, name: str) -> Component:
        if name not in self.components:
            hint = did_you_mean(name, self) or "."
            raise UserError(f"no {self.group} is called '{name}'{hint} There are: {listed(self)}.")
        return self.components[name]

    def build(self, selection: Selection, **provided: Any) -> Any:
        """Return what the selected factory makes of its settings and of what the program provides."""
        return self[selection.name].build(selection.settings, **provided)


class Models(Registry):
    """Factories of networks."""

    def register(
        self, name: str, *, pretrained: Callable[[Mapping[str, Any]], Any] | None = None, aux_classifiers: str = ""
    ) -> Callable[[Factory], Factory]:
        """Return a decorator.

        pretrained: from the model's settings to its published weights, a WeightSource. aux_classifiers: the setting
        that turns auxiliary classifiers on.
        """
        return self._register(name, pretrained=pretrained, aux_classifiers=aux_classifiers)

    def build(self, selection: Selection, **provided: Any) -> Any:
        """Return the network for a data spec, `spec=`."""
        spec = provided["spec"]
        side = spec.height if spec.height == spec.width else (spec.height, spec.width)
        return super().build(selection, spec=spec, channels=spec.channels, outputs=spec.num_outputs, image_size=side)


class Datasets(Registry):
    """Factories of data sets."""

    def register(
        self,
        name: str,
        *,
        breaks_labels: tuple[str, ...] = (),
        source: Any = None,
        photographs: bool = False,
        published: Any = None,
        licence: str = "",
        citation: str = "",
    ) -> Callable[[Factory], Factory]:
        """Return a decorator.

        breaks_labels: augmentations after which an image may show another class. source: the files that it needs.
        photographs: whether it reads image files of any size from `data.folder`. published: what is known of these.
        licence, citation: of the images, where they are known; runs record them.
        """
        return self._register(
            name, breaks_labels=breaks_labels, source=source, photographs=photographs, published=published,
            licence=licence, citation=citation,
        )  # fmt: skip


class Augmentations(Registry):
    """Classes of augmentations."""

    def register(self, name: str, *, order: int = 30, excludes: tuple[str, ...] = ()) -> Callable[[Factory], Factory]:
        """Return a decorator. order: when it acts. excludes: augmentations that it cannot be combined with."""
        return self._register(name, order=order, excludes=excludes)


class Schedulers(Registry):
    """Factories of learning-rate schedules."""

    def register(self, name: str, *, watches: bool = False, warms_up: bool = False) -> Callable[[Factory], Factory]:
        """Return a decorator.

        watches: whether it follows validation scores; it has a setting `patience` then. warms_up: by itself.
        """
        return self._register(name, watches=watches, warms_up=warms_up)


class Tasks(Registry):
    """Classes of tasks."""

    def register(self, name: str, *, blends: bool = False) -> Callable[[Factory], Factory]:
        """Return a decorator. blends: whether images of two classes may be mixed into one sample."""
        return self._register(name, blends=blends)


class Loggers(Registry):
    """Classes of loggers; they have no settings in a configuration."""

    def register(self, name: str, *, package: str = "", install: str = "") -> Callable[[Factory], Factory]:
        """Return a decorator. package: module that has to be installed. install: what pip is given, if not its name."""
        return self._register(name, package=package, install=install)


class Metrics(Registry):
    """Functions of a classifier's predictions."""

    def register(self, name: str, *, higher_is_better: bool = True) -> Callable[[Factory], Factory]:
        """Return a decorator of a function of `predictions`, a `Predictions`, to a number."""
        return self._register(name, higher_is_better=higher_is_better)


MODELS = Models("model")
DATASETS = Datasets("data")
AUGMENTATIONS = Augmentations("augmentation")
OPTIMIZERS = Registry("optimizer")
SCHEDULERS = Schedulers("scheduler")
TASKS = Tasks("task")
LOGGERS = Loggers("logger")
METRICS = Metrics("metric")
ENGINES = Registry("engine")

register_model = MODELS.register
register_dataset = DATASETS.register
register_augmentation = AUGMENTATIONS.register
register_optimizer = OPTIMIZERS.register
register_scheduler = SCHEDULERS.register
register_task = TASKS.register
register_logger = LOGGERS.register
register_metric = METRICS.register
register_engine = ENGINES.register
