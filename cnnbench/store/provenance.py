"""What a result depends on besides its configuration: code, libraries, machine."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from inspect import getsource, isclass, isfunction
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import cnnbench
from cnnbench.config.run_config import RunConfig

# What computes. A console message, a command or a report changes no result, and makes no finished run outdated.
COMPUTES = (
    "augmentation", "data", "models", "optim", "tasks", "registry", "randomness.py", "training/setup.py",
    "training/init.py", "training/step.py", "training/loop.py",
)  # fmt: skip
LIBRARIES = ("torch", "torchvision", "numpy", "hydra-core", "scikit-learn")

Code = Mapping[str, str]
"""Hash of the syntax tree of each source file that computes, by a name that can be shown."""


def code_hashes(plugins: Iterable[ModuleType] = ()) -> dict[str, str]:
    """Return the hash of what computes, in cnnbench and in plugins: a comment or a docstring changes none."""
    package = Path(cnnbench.__file__).parent
    files = {f"cnnbench/{path.relative_to(package).as_posix()}": path for path in _files_that_compute(package)}
    files |= {Path(module.__file__).name: Path(module.__file__) for module in plugins if module.__file__}
    return {name: syntax_hash(path.read_text(encoding="utf-8")) for name, path in files.items()}


def typed_code(config: RunConfig) -> dict[str, str]:
    """Return the hash of each component of a run that no module holds: it was typed into a notebook or a script."""
    return {
        f"{component.group} '{component.name}'": syntax_hash(_source_of(component.factory))
        for component in config.components()
        if component.factory.__module__ == "__main__"
    }


def _source_of(factory: Callable[..., Any]) -> str:
    """Return the source of a function, or of the methods of a class, of which a notebook does not know more."""
    is_class = isclass(factory)
    functions = [part for part in vars(factory).values() if isfunction(part)] if is_class else [factory]
    try:
        return "".join(dedent(getsource(function)) for function in functions)
    except OSError:  # typed into a bare interpreter
        return ""


@lru_cache(maxsize=1024)  # a notebook and a sweep plan many runs with the same code
def syntax_hash(source: str) -> str:
    """Return 16 hex digits that follow from what Python code does, not from how it is written down."""
    return hashlib.sha256("\0".join(_syntax(ast.parse(source))).encode()).hexdigest()[:16]


def changed_names(before: Code, now: Code) -> list[str]:
    """Return the names whose hash differs, or that are on one side only."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def code_digest(record: Mapping[str, Any]) -> str:
    """Return one hash of all code that a run was made with; older runs recorded whole files, as `sources`."""
    code: Code = record.get("code") or record.get("sources") or {}
    return hashlib.sha256(repr(sorted(code.items())).encode()).hexdigest()[:16]


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


def machine(device: str) -> dict[str, Any]:
    """Return what a run is computed on."""
    name = _gpu_name(device) if device.startswith("cuda") else cpu_model()
    return {
        "device": device, "name": name, "cores": os.cpu_count(), "host": platform.node(), "system": platform.platform(),
    }  # fmt: skip


def git_state() -> dict[str, Any] | None:
    """Return the commit that cnnbench runs from and whether its files differ from it; None outside a checkout."""
    folder = Path(cnnbench.__file__).resolve().parent

    def git(*words: str) -> str:
        ran = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
        return ran.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed package may lie inside another checkout
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_flags() -> set[str]:
    """Return the processor's features in Linux's words; empty where it cannot be asked."""
    return set(_cpuinfo("flags").split()) or set(_cpuinfo("Features").split())


def cpu_model() -> str:
    """Return the processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _files_that_compute(package: Path) -> Iterator[Path]:
    for name in COMPUTES:
        path = package / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


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


def _gpu_name(device: str) -> str:
    import torch  # `cnnbench list` imports this file, and no torch

    return torch.cuda.get_device_name(device)


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
