"""What registers components: cnnbench's own packages, installed entry points, and plugins typed on the command line."""

import ast
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

_imported: dict[str, dict[Path, bytes]] = {}
"""What each plugin file was imported from, by the name of its module; of modules nothing: they may be reloaded."""

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


def sources_of(module: ModuleType) -> dict[Path, str]:
    """Return the code of a plugin, and of the modules beside or below it that it imports, by their files."""
    files = _imported.get(module.__name__) or _files_of(Path(str(module.__file__)))
    return {path: content.decode("utf-8", "replace") for path, content in files.items()}


def _files_of(path: Path) -> dict[Path, bytes]:
    """Return the content of a plugin, and of what it imports from its own folder or package, by file."""
    home = path.parent
    while (home / "__init__.py").is_file() and (home.parent / "__init__.py").is_file():
        home = home.parent
    found, waiting = {path: path.read_bytes()}, [path]
    while waiting and home.name not in ("site-packages", "dist-packages"):
        file = waiting.pop()
        for base, name in _imports_in(found[file], file, home):
            parts = name.split(".")
            if parts[0] == __package__:
                continue
            stems = [base.joinpath(*parts[:number]) for number in range(1, len(parts) + 1)]
            candidates = (one for stem in stems for one in (Path(f"{stem}.py"), stem / "__init__.py"))
            own = [one for one in candidates if one not in found and one.is_relative_to(home) and one.is_file()]
            found |= {one: one.read_bytes() for one in own}
            waiting += own
    return found


def _imports_in(content: bytes, file: Path, home: Path) -> Iterator[tuple[Path, str]]:
    """Yield folders and what is imported in a file, as it may be found below them: `nets`, `nets.blocks`."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # which importing it says better
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((base, one.name) for one in node.names for base in (home, home.parent))
        elif isinstance(node, ast.ImportFrom):
            bases = [file.parents[node.level - 1]] if node.level else [home, file.parent, home.parent]
            names = [".".join(filter(None, (node.module, one.name))) for one in node.names]
            yield from ((base, name) for base in bases for name in names)


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
            with _importable(Path.cwd()):
                module = importlib.import_module(plugin)
            _imported[module.__name__] = {}
            return module
    except UserError as error:
        raise UserError(f"plugins={plugin}: {quoted(error)}") from error
    except (Exception, SystemExit) as error:
        file = Path(plugin)
        way = f"; give it as a module of its package: plugins={file.resolve().parent.name}.{file.stem}"
        way *= isinstance(error, ImportError) and "attempted relative import" in str(error)
        said = f"{raised_at(error, file.name)}{quoted(error)}{way}"
        raise UserError(f"plugins={plugin} cannot be imported: {said}") from error


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(
            "no such Python file; give the path of a file, or the name of a module, that registers something."
        )
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    loaded, files = sys.modules.get(name), _files_of(path)
    if loaded is not None and _imported.get(name) == files:
        return loaded
    beside = files.keys() - {path}
    known = {file: content for others in _imported.values() for file, content in others.items()}
    stale = set(map(str, beside)) if any(known.get(file) != files[file] for file in beside) else set()
    forgotten = {key for key, one in sys.modules.items() if getattr(one, "__file__", None) in stale} - {"__main__"}
    for registry in REGISTRIES:  # a file that was edited while a notebook goes on
        for own in [own for own in registry.components.values() if own.factory.__module__ in forgotten | {name}]:
            del registry.components[own.name]
    for key in forgotten:
        del sys.modules[key]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = [dict(registry.components) for registry in REGISTRIES]
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
        if b"register" not in files[path] and before == [registry.components for registry in REGISTRIES]:
            raise UserError(
                "registers nothing; above a network comes @cnnbench.register_model('my_net'); "
                "cnnbench new model my_net writes such a file."
            )
    except BaseException:
        del sys.modules[name]
        raise
    _imported[name] = files
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let what is imported find the modules of a folder, after all that is installed."""
    added = [str(folder)] if str(folder) not in sys.path else []
    sys.path += added
    try:
        yield
    finally:
        for one in added:
            sys.path.remove(one)


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
