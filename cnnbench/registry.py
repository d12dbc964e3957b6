"""Names in, objects out: the only place where a name in a file turns into something that runs.

A factory's signature is its schema. Parameters before `*` are what the program knows (the data spec, the parameters
to optimize); keyword-only parameters are what a YAML file may say, with their types and ranges in the annotations.
A default there is the value that changes nothing: settings that equal it are left out of a run's identity.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, create_model

from cnnbench.errors import UserError, did_you_mean, listed

Factory = TypeVar("Factory", bound=Callable[..., Any])

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


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
    """A registered factory, with what else is known of it."""

    name: str
    factory: Callable[..., Any]
    facts: Mapping[str, Any]

    @cached_property
    def schema(self) -> type[BaseModel]:
        """The keyword-only parameters as a strict pydantic model."""
        fields: dict[str, Any] = {
            parameter.name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
            for parameter in inspect.signature(self.factory, eval_str=True).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        return create_model(self.name, __config__=STRICT, **fields)

    def defaults(self) -> dict[str, Any]:
        """Return the settings that have a default in the signature."""
        return {key: field.default for key, field in self.schema.model_fields.items() if not field.is_required()}

    def accepts(self, setting: str) -> bool:
        """Tell whether the factory has this keyword."""
        return setting in self.schema.model_fields

    def summary(self) -> str:
        """Return the first line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]


class Registry:
    """The components of one group of the configuration, by name."""

    def __init__(self, group: str) -> None:
        self.group = group
        self._components: dict[str, Component] = {}

    def register(self, name: str, **facts: Any) -> Callable[[Factory], Factory]:
        """Return a decorator that enters a factory under a name; a name that is taken is an error."""

        def enter(factory: Factory) -> Factory:
            taken = self._components.get(name)
            if taken is not None:
                where = f"{taken.factory.__module__}.{taken.factory.__qualname__}"
                raise UserError(
                    f"{self.group} '{name}' is registered twice: it is already {where}; choose another name."
                )
            self._components[name] = Component(name, factory, facts)
            return factory

        return enter

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._components))

    def __contains__(self, name: object) -> bool:
        return name in self._components

    def __getitem__(self, name: str) -> Component:
        if name not in self._components:
            hint = did_you_mean(name, self)
            raise UserError(f"no {self.group} is called '{name}'{hint} There are: {listed(self)}.")
        return self._components[name]

    def build(self, selection: Selection, *runtime: Any) -> Any:
        """Call the selected factory with what the program knows and what the configuration says."""
        return self[selection.name].factory(*runtime, **selection.settings)


MODELS = Registry("model")
DATASETS = Registry("data")
AUGMENTATIONS = Registry("augmentation")
OPTIMIZERS = Registry("optimizer")
SCHEDULERS = Registry("scheduler")
TASKS = Registry("task")

PACKAGES = ("data", "models", "augmentation", "optim", "tasks")
PLUGIN_PREFIX = "cnnbench_plugin_"


def register_everything(plugins: Iterable[str] = ()) -> tuple[ModuleType, ...]:
    """Import what registers: the package's own parts, installed entry points, and the plugins typed by the user.

    plugins: paths of Python files. Returns the modules that came from outside the package.
    """
    for name in PACKAGES:
        package = importlib.import_module(f"cnnbench.{name}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    outside = [point.load() for point in importlib.metadata.entry_points(group="cnnbench.plugins")]
    outside += [_import_file(Path(plugin)) for plugin in plugins]
    return tuple(module for module in outside if isinstance(module, ModuleType))


def _import_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"plugins={path}: no such Python file; give the path of a file that registers something.")
    name = f"{PLUGIN_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"plugins={path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
