"""What a result depends on besides its configuration: code, libraries, machine."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import cnnbench

AFTERWARDS = ("analysis", "cli", "export")  # what only looks at runs changes none of them
LIBRARIES = ("torch", "torchvision", "numpy", "hydra-core", "scikit-learn")


def sources(outside: Iterable[ModuleType] = ()) -> dict[str, str]:
    """Return the hash of every source file of cnnbench and of what was plugged in, by a name that can be shown."""
    package = Path(cnnbench.__file__).parent
    paths = [path for path in sorted(package.rglob("*.py")) if path.relative_to(package).parts[0] not in AFTERWARDS]
    files = {f"cnnbench/{path.relative_to(package).as_posix()}": path for path in paths}
    files |= {Path(module.__file__).name: Path(module.__file__) for module in outside if module.__file__}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}


def changed_names(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the names whose hash is another one, or that are on one side only."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def versions() -> dict[str, str]:
    """Return the versions of everything that arithmetic goes through."""
    found = {"cnnbench": cnnbench.__version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """Return the commit that cnnbench runs from and whether its files differ from it; None outside a checkout."""
    folder = Path(cnnbench.__file__).resolve().parent

    def git(*words: str) -> str:
        ran = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
        return ran.stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", "__init__.py"
        )  # a checkout of something else may lie around an installed one
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the run is computed on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": str(device),
        "name": name,
        "cores": os.cpu_count(),
        "host": platform.node(),
        "system": platform.platform(),
    }


def processor_flags() -> set[str]:
    """Return what the processor says that it can do, in Linux's words; nothing where it cannot be asked."""
    return set(_cpuinfo("flags").split()) or set(_cpuinfo("Features").split())


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
