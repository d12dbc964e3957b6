"""What a result depends on besides its configuration: code, libraries, machine."""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from inspect import getsource, isclass, isfunction
from pathlib import Path
from textwrap import dedent
from types import CodeType, ModuleType
from typing import Any

import cnnbench
from cnnbench.config.run_config import RunConfig
from cnnbench.plugins import sources_of

# What computes. A console message, a command or a report changes no result, and makes no finished run outdated.
COMPUTES = (
    "augmentation", "data", "models", "optim", "tasks", "registry", "randomness.py", "training/setup.py",
    "training/init.py", "training/compilation.py", "training/step.py", "training/loop.py", "training/state.py",
)  # fmt: skip
DRAWS = ("charts", "classifier_figures", "figures", "gallery")  # in `tasks/`, what numbers look like
LIBRARIES = ("torch", "torchvision", "numpy", "hydra-core", "scikit-learn")

Code = Mapping[str, str]
"""Hash of the syntax tree of each source file that computes, by a name that can be shown."""


def code_hashes(plugins: Iterable[ModuleType] = ()) -> dict[str, str]:
    """Return the hash of what computes, in cnnbench and in plugins: a comment or a docstring changes none."""
    package = Path(cnnbench.__file__).parent
    files = {f"cnnbench/{path.relative_to(package).as_posix()}": path for path in _files_that_compute(package)}
    hashes = {name: syntax_hash(path.read_text(encoding="utf-8")) for name, path in files.items()}
    return hashes | plugin_hashes(plugins)


def plugin_hashes(plugins: Iterable[ModuleType]) -> dict[str, str]:
    """Return the hash of each plugin and of what it imports from its own folder or package.

    They go by the name of their file, with folders where several have the same.
    """
    files = {path: source for module in plugins if module.__file__ for path, source in sources_of(module).items()}
    named = {path: path.name for path in files}
    for depth in range(2, max((len(path.parts) for path in files), default=0) + 1):
        shared = Counter(named.values())
        named = {path: "/".join(path.parts[-depth:]) if shared[name] > 1 else name for path, name in named.items()}
    return {name: syntax_hash(files[path]) for path, name in named.items()}


def typed_code(config: RunConfig) -> dict[str, str]:
    """Return the hash of each component of a run that no module holds: it was typed into a notebook or a script."""
    return {
        f"{component.group} '{component.name}'": _hash_of(component.factory)
        for component in config.components()
        if component.factory.__module__ == "__main__"
    }


def _hash_of(factory: Callable[..., Any]) -> str:
    """Return the hash of a function, or of the methods of a class, of which a notebook does not know more."""
    parts = list(vars(factory).values()) if isclass(factory) else [factory]
    try:
        return syntax_hash("".join(dedent(getsource(part)) for part in parts if isfunction(part)))
    except OSError:  # typed into a bare interpreter, or piped into one: there is bytecode alone
        functions = [getattr(part, "__func__", getattr(part, "fget", part)) for part in parts]
        compiled = [
            (_bytecode(one.__code__), one.__defaults__, one.__kwdefaults__) for one in functions if isfunction(one)
        ]
        return hashlib.sha256(re.sub(" at 0x[0-9a-fA-F]+", "", repr(compiled)).encode()).hexdigest()[:16]


def _bytecode(part: Any) -> Any:
    """Return what a code object does, without its lines and files; of a constant in it, what is the same each time."""
    if isinstance(part, CodeType):
        return part.co_code, part.co_names, [_bytecode(one) for one in part.co_consts]
    return sorted(map(repr, part)) if isinstance(part, frozenset) else part


@lru_cache(maxsize=1024)  # a notebook and a sweep plan many runs with the same code
def syntax_hash(source: str) -> str:
    """Return 16 hex digits that follow from what Python code does, not from how it is written down."""
    try:
        parts: Iterable[str] = _syntax(ast.parse(source))
    except (SyntaxError, ValueError):  # a file beside a plugin, which imports it only where that works
        parts = [source]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def changed_names(before: Code, now: Code) -> list[str]:
    """Return the names whose hash differs, or that are on one side only; a file that was renamed is not changed."""
    lost, new = ({one[name] for name in one.keys() - other.keys()} for one, other in ((before, now), (now, before)))
    names = (name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return sorted(name for name in names if before.get(name, now.get(name)) not in lost & new)


def code_digest(record: Mapping[str, Any]) -> str:
    """Return one hash of all code that a run was made with; older runs recorded whole files, as `sources`."""
    code: Code = record.get("code") or record.get("sources") or {}
    return hashlib.sha256(repr(sorted(code.values())).encode()).hexdigest()[:16]


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return what a process computes with: library versions, machine, device, threads."""
    return {"versions": versions(), "machine": machine(device), "threads": threads}


def versions() -> dict[str, str]:
    """Return the versions of everything that arithmetic goes through."""
    installed = {"cnnbench": cnnbench.__version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            installed[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            installed[library] = "not installed"
    return installed


@lru_cache(maxsize=1)  # what a process has imported stays what it was
def packages() -> list[str]:
    """Return every installed distribution as pip's requirements name it: `name==version`, or where it came from."""
    # What they say of themselves is parsed whenever it is asked for: once is enough.
    installed = [(one, one.metadata) for one in importlib.metadata.distributions()]
    lines = {
        _requirement(about["Name"], about["Version"], one.read_text("direct_url.json"))
        for one, about in installed
        if "Name" in about
    }
    return sorted(lines, key=str.casefold)


def machine(device: str) -> dict[str, Any]:
    """Return what a run is computed on, with the libraries and instructions that decide about the last bits."""
    import torch  # `cnnbench list` imports this file, and no torch

    is_gpu = device.startswith("cuda")
    found: dict[str, Any] = {"device": device, "name": torch.cuda.get_device_name(device) if is_gpu else cpu_model()}
    if is_gpu:
        driver = of_linux("/proc/driver/nvidia/version", r"\b(\d+\.\d+(?:\.\d+)?)\b") or "unknown"
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": driver}  # type: ignore[no-untyped-call]
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return found | {
        "instructions": torch.backends.cpu.get_cpu_capability(), "blas": blas[1] if blas else "unknown",
        "cores": os.cpu_count(), "host": platform.node(), "system": platform.platform(),
    }  # fmt: skip


def peak_memory(device: str, before: Mapping[str, int]) -> dict[str, int]:
    """Return the most memory in bytes that this process has used, and its GPU; before: in earlier sessions of a run."""
    peaks = {}
    with suppress(ImportError):  # Windows does not count it
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peaks["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device.startswith("cuda"):
        import torch

        peaks["gpu"] = torch.cuda.max_memory_allocated(device)
    return {name: max(peaks.get(name, 0), before.get(name, 0)) for name in peaks.keys() | before.keys()}


def randomness(config: RunConfig) -> list[str]:
    """Return in sentences what the seed of a run varies, what it does not, and how far the run can be repeated."""
    data = config.data
    fixed = [f"data.fold={data.fold}" if data.folds else f"data.split_seed={data.split_seed}"]
    fixed += [f"data.noise_seed={data.noise_seed}"] if data.label_noise else []
    weights = "weights that are not loaded" if config.source or config.parent else "initial weights"
    augmentation = ", augmentation" if config.augmentation else ""
    repeated = "repeatable bit for bit on this machine, with the same code and the same number of threads"
    if not config.deterministic:
        repeated = "deterministic=false: on a GPU the same command may give other bits"
    return [
        f"seed={config.seed} varies {weights}, order of images{augmentation} and dropout if there is any",
        f"it does not vary which images train, validate and test ({', '.join(fixed)}): other seeds do not show what "
        "another choice of images would change",
        repeated,
    ]


def git_state() -> dict[str, Any] | None:
    """Return the commit that cnnbench runs from and whether its files differ from it; None outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", "__init__.py")  # an installed package may lie inside another checkout
        commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
        return {"commit": commit.decode().strip(), "dirty": bool(status)}
    except (OSError, subprocess.SubprocessError):
        return None


def git_diff() -> bytes | None:
    """Return what differs from the commit, files that are not added included, as `git apply` takes it.

    None where git cannot say it, or not in time: a record stops no run.
    """
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--binary")
    try:
        top = _git("rev-parse", "--show-toplevel").decode().strip()
        added = _git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", ".").split(b"\0")
        parts = [_git("diff", *plain, "HEAD", "--", ".")]
        parts += [
            _git("-C", top, "diff", *plain, "--no-index", "--", "/dev/null", os.fsdecode(name), fails=True)
            for name in filter(None, added)
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return b"".join(parts)


def _git(*words: str, fails: bool = False) -> bytes:
    """Return what git says in the folder of cnnbench. fails: its exit code says nothing."""
    command = ["git", "-C", str(Path(cnnbench.__file__).resolve().parent), *words]
    return subprocess.run(command, capture_output=True, timeout=10, check=not fails).stdout


def cpu_flags() -> set[str]:
    """Return the processor's features in Linux's words; empty where it cannot be asked."""
    return set(of_linux("/proc/cpuinfo", r"^(?:flags|Features)\s*: (.*)").split())


def cpu_model() -> str:
    """Return the processor's name."""
    return of_linux("/proc/cpuinfo", r"^model name\s*: (.*)") or platform.processor() or platform.machine()


def _files_that_compute(package: Path) -> Iterator[Path]:
    for name in COMPUTES:
        path = package / name
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        yield from (file for file in files if not (name == "tasks" and file.stem in DRAWS))


def _syntax(tree: ast.AST) -> Iterator[str]:
    """Yield the tree's node types, field names and constants in a fixed order.

    Not `ast.dump`: what it prints for absent fields differs between Python versions.
    """
    stack: list[Any] = [tree]
    while stack:
        node = stack.pop()
        if not isinstance(node, ast.AST):
            yield repr(node)
            continue
        yield type(node).__name__
        for name in node._fields:
            value = getattr(node, name, None)
            if value in (None, []) or name in ("ctx", "kind", "type_comment"):
                continue
            yield name
            children = value if isinstance(value, list) else [value]
            stack += [")", *(child for child in reversed(children) if not _is_docstring(child))]


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _requirement(name: str, version: str, direct_url: str | None) -> str:
    """Return a distribution with its version, or for one from a repository with that and its commit."""
    try:
        origin = json.loads(direct_url or "{}")
        repository = origin["vcs_info"]
        address = re.sub(r"^(https?://)[^/@]*@", r"\1", origin["url"])  # whose user may be a password
        return f"{name} @ {repository['vcs']}+{address}@{repository['commit_id']}"
    except (ValueError, KeyError, TypeError):  # other programs write that file
        return f"{name}=={version}"


def of_linux(path: str, pattern: str) -> str:
    """Return what a file of Linux says of itself; empty on other systems."""
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""
