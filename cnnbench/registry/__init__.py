"""Names in, objects out: the only place where a name in a file turns into something that runs.

A factory's signature is its schema. Some parameters are filled by the program, recognised by name (`spec` of a model,
see PROVIDED); all others are settings, before or after `*`: their types and ranges are in the annotations, or else are
those of the defaults. A default is the value that changes nothing: settings that equal it are no part of a run's
identity.
What is registered is checked at once, and what a factory returns when it is built.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.registry.component import PROVIDED, Component, ContractError, Section, Selection

__all__ = [
    "AUGMENTATIONS", "DATASETS", "LOGGERS", "METRICS", "MODELS", "OPTIMIZERS", "PROVIDED", "SCHEDULERS", "TASKS",
    "Component", "ContractError", "Registry", "Section", "Selection", "register_augmentation", "register_dataset",
    "register_logger", "register_metric", "register_model", "register_optimizer", "register_scheduler", "register_task",
]  # fmt: skip

Factory = TypeVar("Factory", bound=Callable[..., Any])


def _is_the_same_cell(before: Callable[..., Any], now: Callable[..., Any]) -> bool:
    """Tell whether a definition is run again, as cells of a notebook are; a file is imported once."""
    names = {(factory.__module__, factory.__qualname__) for factory in (before, now)}
    return names == {("__main__", now.__qualname__)}


class Registry:
    """The components of one group of the configuration, by name; subclasses state the facts that they keep."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.components: dict[str, Component] = {}

    def _register(self, name: str, **facts: Any) -> Callable[[Factory], Factory]:
        def enter(factory: Factory) -> Factory:
            taken = self.components.get(name)
            if taken is not None and not _is_the_same_cell(taken.factory, factory):
                where = f"{taken.factory.__module__}.{taken.factory.__qualname__}"
                raise UserError(
                    f"{self.group} '{name}' is registered twice: it is already {where}; choose another name."
                )
            component = Component(self.group, name, factory, facts)
            component.check()
            self.components[name] = component
            return factory

        return enter

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.components))

    def __contains__(self, name: object) -> bool:
        return name in self.components

    def __getitem__(self, name: str) -> Component:
        if name not in self.components:
            hint = did_you_mean(name, self)
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
        return super().build(
            selection, spec=spec, channels=spec.channels, outputs=spec.num_outputs, image_size=side
        )  # fmt: skip


class Datasets(Registry):
    """Factories of data sets."""

    def register(
        self, name: str, *, breaks_labels: tuple[str, ...] = (), source: Any = None, photographs: bool = False
    ) -> Callable[[Factory], Factory]:
        """Return a decorator.

        breaks_labels: augmentations after which an image may show another class. source: the files that it needs.
        photographs: whether it reads image files of any size from `data.folder`.
        """
        return self._register(name, breaks_labels=breaks_labels, source=source, photographs=photographs)


class Augmentations(Registry):
    """Classes of augmentations."""

    def register(self, name: str, *, order: int = 30, excludes: tuple[str, ...] = ()) -> Callable[[Factory], Factory]:
        """Return a decorator. order: when it acts among others. excludes: augmentations that it cannot go with."""
        return self._register(name, order=order, excludes=excludes)


class Optimizers(Registry):
    """Factories of optimizers."""

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Return a decorator; the factory has a setting `lr`, which schedules scale."""
        return self._register(name)


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
        if not re.fullmatch(r"[\w@-]+", name):  # of keys such as name/val, and of columns
            raise UserError(f"metric '{name}': a name has letters, digits, _, - and @ only.")
        return self._register(name, higher_is_better=higher_is_better)


MODELS = Models("model")
DATASETS = Datasets("data")
AUGMENTATIONS = Augmentations("augmentation")
OPTIMIZERS = Optimizers("optimizer")
SCHEDULERS = Schedulers("scheduler")
TASKS = Tasks("task")
LOGGERS = Loggers("logger")
METRICS = Metrics("metric")

register_model = MODELS.register
register_dataset = DATASETS.register
register_augmentation = AUGMENTATIONS.register
register_optimizer = OPTIMIZERS.register
register_scheduler = SCHEDULERS.register
register_task = TASKS.register
register_logger = LOGGERS.register
register_metric = METRICS.register
