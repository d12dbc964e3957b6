"""The run directory: the contract between training and everything that comes after it.

outputs/<data>/<model>/<what-differs>-<hash8>/
  config.yaml      every value that counted, and as a comment the command line that made it
  run.json         status, times, versions, device, code, data, parameter counts
  split.json       which rows of the training part validate
  metrics.jsonl    step rows and epoch rows
  events.out.…     TensorBoard's view of them
  wandb/           W&B's, where it was asked for
  checkpoints/     step-N.pt and its manifest step-N.json
  result.json      what came out
  report.html      the page to open; report.md the same as text
  evaluation/      figures by class, confusion matrix, the prediction for every image
  pictures/        reconstructions and the like, of tasks that have something to show
  explanation/     what the network looks at: written by `cnnbench explain`
  export/          the network for use elsewhere: written by `cnnbench export`
  embeddings/      TensorBoard's projector, and test.npz
"""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cnnbench.config.run_config import RunConfig
from cnnbench.config.validate import validate
from cnnbench.errors import ConfigError, UserError
from cnnbench.store.files import remove_leftovers, write_atomically, write_json

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


# Keys whose values speak for themselves, in a folder's name:
NAMES = (
    "experiment", "debug", "optimizer", "scheduler", "augmentation", "regularization", "freeze.what", "init.weights",
    "init.experiment", "task",
)  # fmt: skip


def outputs_dir() -> Path:
    """Return the folder of all runs: $CNNBENCH_OUTPUTS, or ./outputs."""
    return Path(os.environ.get("CNNBENCH_OUTPUTS") or "outputs").expanduser().resolve()


def holds_runs(outputs: Path) -> bool:
    """Tell whether there are runs in a folder, or trials of some."""
    return any(next(outputs.glob(pattern), None) for pattern in ("*/*/*/run.json", "dry_runs", "lr_finds"))


def now() -> str:
    """Return the time as text, to the second, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(path: Path) -> str:
    """Return a path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def readable(text: str) -> str:
    """Return text with only those characters that need no quoting in any shell or in Hydra: A-Z a-z 0-9 . _ -."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")


def folder_name(words: Mapping[str, str], identity: str) -> str:
    """Return a run's folder name: what was typed, shortest form, sorted, and the beginning of its identity.

    words: value as typed, by dotted key. The identity alone decides which run it is; the rest is for people.
    """
    parts = []
    for key, value in sorted(words.items()):
        parts.append(readable(value if key in NAMES else _named_value(key.rpartition(".")[2], value)))
    shown = readable("_".join(part for part in parts if part))[:80]
    return f"{shown or 'default'}-{identity[:8]}"


def _named_value(name: str, value: str) -> str:
    """Return `lr0.1`, `crop-null`, `folder-my_photos`: a number joins its name, and stays the same number."""
    try:
        float(value)
    except ValueError:
        return f"{name}-{readable(value.rstrip('/').rpartition('/')[2])}"  # of a path, its end
    return name + re.sub(r"^\+|(?<=[eE])\+", "", value)  # `1e+3` would become `1e-3` with the characters allowed


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.record_file = path / "run.json"
        self.split_file = path / "split.json"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.result_file = path / "result.json"
        self.page = path / "report.html"

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the run in an existing folder. Raises UserError where there is none."""
        folder = cls(path.expanduser().resolve())
        if not folder.record_file.is_file() or not folder.config_file.is_file():
            raise UserError(
                f"{path} is no run folder: it has no run.json and config.yaml; runs are below {outputs_dir()}."
            )
        return folder

    @classmethod
    def named(cls, word: str) -> "RunFolder":
        """Return the run that a word means: a folder; `last`, the run worked on last; a part of one run's path.

        Of several runs with that part, the one whose path ends in it. Raises UserError for none, and for several.
        """
        if Path(word).expanduser().exists():
            return cls.open(Path(word))
        outputs = outputs_dir()
        runs = {path.parent.relative_to(outputs).as_posix(): path for path in outputs.glob("*/*/*/run.json")}
        if word == "last":
            if not runs:
                raise UserError(f"{word}: there are no runs in {outputs} yet.")
            return cls(max(runs.values(), key=lambda path: path.stat().st_mtime_ns).parent)
        found = [name for name in runs if word.strip("/") in name] if word.strip("/") else []
        found = [name for name in found if name.endswith(word.strip("/"))] or found
        if len(found) > 1:
            names = "".join(f"\n  {name}" for name in sorted(found)[:8])
            more = f"\n  and {len(found) - 8} more" if len(found) > 8 else ""
            raise UserError(
                f"{word}: {len(found)} runs have this in their path; type more of one of them:{names}{more}"
            )
        if not found:
            raise UserError(f"{word}: there is no such folder, and no run below {outputs} has this in its path.")
        return cls.open(runs[found[0]].parent)

    def create(self, config: Mapping[str, Any], command: str, record: Mapping[str, Any]) -> None:
        """Make the folder; `run.json` comes last, so that a folder without one is no run."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None, width=110)
        write_atomically(self.config_file, f"# {command}\n{text}".encode())
        write_json(self.record_file, dict(record))

    @property
    def shown_path(self) -> str:
        """The folder as one would type it here."""
        return shown(self.path)

    def config(self) -> dict[str, Any]:
        """Return the plain values of `config.yaml`."""
        return _read(self.config_file, _parse_yaml)

    def run_config(self, values: Mapping[str, Any] | None = None) -> RunConfig:
        """Return the configuration of the run. Raises UserError where a plugin is missing that it was made with.

        values: what its file holds, where that has been read already.
        """
        try:
            return validate(self.config() if values is None else values, is_recorded=True)[0]
        except ConfigError as error:
            plugins = self.record().get("plugins")
            if plugins:
                hint = f"this run was made with plugins={','.join(plugins)}; type that too."
                raise UserError(f"{error}\n{hint}") from error
            raise

    def record(self) -> dict[str, Any]:
        """Return what `run.json` says."""
        return _read(self.record_file, json.loads)

    def result(self) -> dict[str, Any]:
        """Return what `result.json` says."""
        return _read(self.result_file, json.loads)

    def split(self) -> dict[str, Any]:
        """Return what `split.json` says."""
        return _read(self.split_file, json.loads)

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change entries of `run.json`, None removing one, and return all of it."""
        record = {key: value for key, value in self.record().items() if key not in changes}
        record |= {key: value for key, value in changes.items() if value is not None}
        write_json(self.record_file, record)
        return record

    def evaluation(self, split: str, which: str) -> Path:
        """Return the folder for what is found out about a checkpoint (`best`, `last`, its step) on a split."""
        return self.path / "evaluation" / f"{split}-{which}"

    @property
    def is_completed(self) -> bool:
        """Tell whether the run has its result."""
        return self.result_file.is_file() and self.record().get("status") == "completed"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system lets go of it when the process ends, however it ends.

        Raises UserError where another process holds it.
        """
        path = self.path / ".lock"
        with path.open("a+") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise UserError(f"{self.path} is being worked on by {holder}; wait for it, or stop it.") from error
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            remove_leftovers(self.path)
            remove_leftovers(self.checkpoints)
            yield

    def is_held(self) -> bool:
        """Tell whether a process is working on the run."""
        path = self.path / ".lock"
        if fcntl is None or not path.exists():
            return False
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    @property
    def number(self) -> int:
        """Return 1 for an original, and n for what was trained again as -rn."""
        match = re.search(r"-r(\d+)$", self.path.name)
        return int(match[1]) if match else 1

    def next_rerun(self) -> "RunFolder":
        """Return the folder next to this one for training the same again."""
        original = re.sub(r"-r\d+$", "", self.path.name)
        return RunFolder(self.path.with_name(f"{original}-r{self.number + 1}"))


def find_runs(outputs: Path, identity: str) -> list[RunFolder]:
    """Return all runs of one identity, the first first: the original, then -r2, -r3, …"""
    folders = [RunFolder(path) for path in outputs.glob(f"*/*/*-{identity[:8]}*") if (path / "run.json").is_file()]
    found = [folder for folder in folders if folder.record().get("identity") == identity]
    return sorted(found, key=lambda folder: (folder.number, folder.path))


def _parse_yaml(text: str) -> Any:
    # As safe as the loader in Python, and ten times as fast: reports read hundreds of these.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _read(path: Path, parse: Any) -> dict[str, Any]:
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no mapping")
    return values
