"""What registers components: cnnbench's own packages, installed entry points, and plugins typed on the command line."""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from cnnbench.config.schema import GROUPS
from cnnbench.errors import UserError, one_line, quoted, raised_at
from cnnbench.registry import ENGINES, LOGGERS, METRICS, Registry

PACKAGES = ("data", "models", "augmentation", "optim", "tasks", "training.loggers")
PREFIX = "cnnbench_plugin_"
REGISTRIES: tuple[Registry, ...] = (*GROUPS.values(), LOGGERS, METRICS, ENGINES)

_imported: dict[str, bytes] = {}
"""Content of each plugin file as it was imported, by the name of its module; of modules none: they may be reloaded."""

_said: set[str] = set()
"""Notes on installed plugins that could not be loaded: no reason to refuse commands that do not need them."""


def plugin_names(text: str) -> tuple[str, ...]:
    """Return the files and modules of `plugins=one.py,my_package.nets`."""
    return tuple(part.strip(" '\"") for part in text.strip("[]").split(",") if part.strip())


def register_everything(plugins: str | Iterable[str] = ()) -> tuple[ModuleType, ...]:
    """Register all components, and return the modules that came from outside the package.

    plugins: paths of Python files, and names of modules; as text with commas between. Raises UserError for one that
    cannot be imported.
    """
    for name in PACKAGES:
        package = importlib.import_module(f"cnnbench.{name}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return (*_entry_points(), *map(_load, plugin_names(plugins) if isinstance(plugins, str) else plugins))


def imported() -> list[ModuleType]:
    """Return the modules of others that this process has imported, whichever call named them."""
    components = (one for registry in REGISTRIES for one in registry.components.values() if one.is_from_plugin)
    modules = map(sys.modules.get, dict.fromkeys([*_imported, *(one.factory.__module__ for one in components)]))
    return [one for one in modules if one is not None and Path(getattr(one, "__file__", None) or "").is_file()]


def source_of(module: ModuleType) -> str:
    """Return the code of a module that has a file."""
    return (_imported.get(module.__name__) or Path(str(module.__file__)).read_bytes()).decode("utf-8")


def _entry_points() -> Iterator[ModuleType]:
    for point in importlib.metadata.entry_points(group="cnnbench.plugins"):
        try:
            with _rolled_back_on_failure():
                loaded = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of others, and this command may not need it
            _say_once(point, error)
            continue
        if isinstance(loaded, ModuleType):
            yield loaded


def _say_once(point: EntryPoint, error: BaseException) -> None:
    package = point.module.partition(".")[0]
    own = [one for one in extract_tb(error.__traceback__) if package in Path(one.filename).with_suffix("").parts]
    where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    name = point.dist.name if point.dist else point.name
    note = one_line(f"note: the installed package {name} cannot be imported: {where}{quoted(error)}")
    if note not in _said and sys.stderr is not None:  # a command registers several times; pythonw has no stderr
        sys.stderr.write(f"{note}\n")
    _said.add(note)


def _load(plugin: str) -> ModuleType:
    try:
        with _rolled_back_on_failure():
            if plugin.endswith(".py") or "/" in plugin or Path(plugin).exists():
                return _load_file(Path(plugin))
            module = importlib.import_module(plugin)
            _imported[module.__name__] = b""
            return module
    except UserError as error:
        raise UserError(f"plugins={plugin}: {quoted(error)}") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and Path(f"{plugin}.py").is_file():
            raise UserError(f"plugins={plugin}: there is no such module; type plugins={plugin}.py") from error
        raise UserError(
            f"plugins={plugin} cannot be imported: {raised_at(error, Path(plugin).name)}{quoted(error)}"
        ) from error


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(
            "no such Python file; give the path of a file, or the name of a module, that registers something."
        )
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    loaded, content = sys.modules.get(name), path.read_bytes()
    if loaded is not None and _imported.get(name) == content:
        return loaded
    for registry in REGISTRIES:  # a file that was edited while a notebook goes on
        for own in [own for own in registry.components.values() if own.factory.__module__ == name]:
            del registry.components[own.name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = [dict(registry.components) for registry in REGISTRIES]
    try:
        spec.loader.exec_module(module)
        if b"register" not in content and before == [registry.components for registry in REGISTRIES]:
            raise UserError(
                "registers nothing; above a network comes @cnnbench.register_model('my_net'); "
                "cnnbench new model my_net writes such a file."
            )
    except BaseException:
        del sys.modules[name]
        raise
    _imported[name] = content
    return module


@contextmanager
def _rolled_back_on_failure() -> Iterator[None]:
    """Forget what a module registered before it failed: once fixed, it is imported again."""
    before = [(registry, dict(registry.components)) for registry in REGISTRIES]
    try:
        yield
    except BaseException:
        for registry, components in before:
            registry.components = components
        raise
