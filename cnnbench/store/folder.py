"""The run directory: the contract between training and everything that comes after it.

outputs/<data>/<model>/<what-differs>-<hash8>/
  config.yaml      every setting, and as a comment the command line that made it
  run.json         status, times, versions, device, code, data, parameter counts; the configuration once more
  split.json       which images train, validate and are tested, and which labels are wrong on purpose
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

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cnnbench.config.run_config import RunConfig, edited_code
from cnnbench.config.validate import validate
from cnnbench.errors import ConfigError, NotWrittenError, PluginsNeededError, UserError
from cnnbench.registry import METRICS
from cnnbench.store.files import DamagedError, as_json, make_folder, remove_leftovers, write_atomically, write_json
from cnnbench.store.lock import is_locked, locked
from cnnbench.store.reading import edited_settings, read_json, read_yaml
from cnnbench.store.schema import Record, Result, SplitFile

STOPPED_BEFORE = "paused", "preempted", "interrupted"  # what earlier versions recorded of a run that was stopped
LABELS = "name", "notes", "tags"
"""What users call their runs: settings that a run.json has as well, since they may be given to a finished run."""
HASH = re.compile(r"-(?!(?:19|20)\d{6})(?=([0-9a-f]{8}))")  # as a name has it; what looks like a date is none
BEGINNING = 8  # characters of an identity in the name of its folder


def outputs_dir() -> Path:
    """Return the folder of all runs: $CNNBENCH_OUTPUTS, or ./outputs."""
    return Path(os.environ.get("CNNBENCH_OUTPUTS") or "outputs").expanduser().resolve()


def run_names(outputs: Path) -> list[str]:
    """Return the folders that may be runs, as `data/model/name`: whether they have a record is not looked at."""
    above = [""]
    for _ in ("data", "model"):
        below = [f"{folder}{name}/" for folder in above for name in _names_in(outputs / folder)]
        above = [folder for folder in below if (outputs / folder).is_dir()]
    return [f"{folder}{name}" for folder in above for name in _names_in(outputs / folder)]


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def holds_runs(outputs: Path) -> bool:
    """Tell whether there are runs in a folder, or trials of some."""
    return any(next(outputs.glob(pattern), None) for pattern in ("*/*/*/run.json", "dry_runs", "lr_finds"))


def now() -> str:
    """Return the time as text, to the second, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def readable(text: str) -> str:
    """Return text with only those characters that need no quoting in any shell or in Hydra: A-Z a-z 0-9 . _ -."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")


def shown(path: Path) -> str:
    """Return a path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class RunHeldError(UserError):
    """A run that another process is working on."""


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

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the run in an existing folder. Raises UserError where there is none."""
        folder = cls(path.expanduser().resolve())
        if not folder.record_file.is_file():
            raise UserError(f"{path} is no run folder: it has no run.json; runs are below {outputs_dir()}.")
        return folder

    def create(self, config: Mapping[str, Any], command: str, record: Mapping[str, Any]) -> None:
        """Make the folder; `run.json` comes last, so that a folder without one is no run."""
        make_folder(self.path)
        self.write_config(config, command)
        write_json(self.record_file, {**record, "config": as_json(config)})

    def write_config(self, config: Mapping[str, Any], command: str) -> None:
        """Write `config.yaml`."""
        text = yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None, width=110)
        write_atomically(self.config_file, f"# {command}\n{text}".encode())

    @property
    def shown_path(self) -> str:
        """The folder as one would type it here."""
        return shown(self.path)

    def config(self, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the plain values of `config.yaml`.

        record: what `run.json` says, if that has been read; it has them too. Raises UserError where they are not those
        that the run began with, but for what cannot change its result, and DamagedError where they cannot be read.
        """
        record = self.record() if record is None else record
        command = f"cnnbench resume {self.shown_path}" if "config" in record else str(record.get("command"))
        values = read_yaml(self.config_file, f"To restore it, type: {command}")
        edited = edited_settings(record.get("config"), values)
        if edited:
            raise UserError(
                f"{self.config_file} was edited after the run began: {'; '.join(edited)}.\n"
                "Undo that, or delete the file and resume restores it. For other settings begin a run of its own: "
                f"cnnbench resume {self.shown_path} KEY=VALUE."
            )
        return values

    def run_config(self, values: Mapping[str, Any] | None = None) -> RunConfig:
        """Return the configuration of the run. values: what its file holds, where that has been read.

        Raises UserError where a plugin is missing that it needs, and where its identity is not the recorded one.
        """
        values = self.config() if values is None else values
        try:
            config = validate(values, is_recorded=True)[0]
        except ConfigError as error:
            unknown = [one.given for one in error.mistakes if re.match("no such (?!key)", one.problem)]
            self._require(unknown)
            problems = "".join(f"\n  {mistake.given}  {mistake.problem}" for mistake in error.mistakes)
            way = self._cells_needed() if unknown else edited_code(values, error.mistakes)
            raise UserError(f"{way}{self.config_file} cannot be used:{problems}") from error
        metrics = config.task.settings.get("metrics") or ()
        self._require(f"task.metrics=[{name}]" for name in metrics if name not in METRICS)
        recorded = self.record().get("identity")
        # An identity leaves out what is at its default, and that of a plugin may have been edited since.
        is_certain = not any(component.is_from_plugin for component in config.components())
        if is_certain and recorded not in (None, config.identity()):
            raise UserError(
                f"{self.config_file} is the configuration of another run: its identity is {config.identity()[:8]}…, "
                f"that in run.json is {str(recorded)[:8]}…. Undo what was edited or copied here."
            )
        return config

    def _require(self, unknown: Iterable[str]) -> None:
        """Raise UserError where something is unknown, and the run was made with plugins."""
        if (parts := ", ".join(unknown)) and (plugins := self.record().get("plugins")):
            raise PluginsNeededError(self.shown_path, parts, plugins)

    def _cells_needed(self) -> str:
        """Say which cells of a notebook the configuration needs, in a line; nothing where it needs none."""
        typed = [name for name in self.record().get("code", {}) if name.endswith("'")]  # see `typed_code`
        return f"{', '.join(typed)}: run the cell that defines it first.\n" if typed else ""

    def record(self) -> dict[str, Any]:
        """Return what `run.json` says."""
        said = read_json(self.record_file, Record, "Restore it from a copy, or move the folder of the run away.")
        return said | {"status": "stopped"} if said.get("status") in STOPPED_BEFORE else said

    def result(self, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what `result.json` says. Raises UserError where that was changed, or is the result of another run."""
        way = "Delete it, and the same command measures the trained network again."
        result = read_json(self.result_file, Result, way)
        of_run = (self.record() if record is None else record).get("identity")
        if result.get("identity", of_run) != of_run:
            raise UserError(f"{self.result_file} is the result of another run than run.json. {way}")
        return result

    def split(self) -> dict[str, Any]:
        """Return what `split.json` says. Raises UserError where that was changed, or is the split of another run."""
        way = f"cnnbench resume {self.shown_path} restores it."
        split = read_json(self.split_file, SplitFile, way)
        if self.record().get("split", split.get("sha256")) != split.get("sha256"):
            raise DamagedError(f"{self.split_file} is not the split that run.json names. {way}")
        return split

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change entries of `run.json`, None removing one, and return all of it."""
        record = {key: value for key, value in self.record().items() if key not in changes}
        record |= {key: value for key, value in changes.items() if value is not None}
        write_json(self.record_file, record)
        return record

    def end(self, status: str, **changes: Any) -> None:
        """Record how work on the run ended, unless it was completed before.

        Where nothing can be written it stays `running`, which counts as stopped without a process that holds it; a
        run that is completed then raises NotWrittenError.
        """
        try:
            if not self.is_completed:
                self.update(status=status, ended=now(), **changes)
        except (UserError, NotWrittenError):
            if status == "completed":
                raise

    def count_test(self) -> None:
        """Record that the test images were measured once more; a folder that cannot be written stays as it is."""
        with suppress(NotWrittenError):
            self.update(test_measured=self.record().get("test_measured", 0) + 1)

    def record_damage(self, *what: str) -> None:
        """Add to what `run.json` says was damaged or lost, each once."""
        self.update(damage=list(dict.fromkeys([*self.record().get("damage", []), *what])))

    def parent(self) -> "RunFolder":
        """Return the run that this one continues for longer. Raises UserError where it is not there."""
        return RunFolder.open(Path(self.record()["parent"]["folder"]))

    def evaluation(self, split: str, which: str) -> Path:
        """Return the folder for what is found out about a checkpoint (`best`, `last`, its step) on a split."""
        return self.path / "evaluation" / f"{split}-{which}"

    @property
    def has_test(self) -> bool:
        """Tell whether the data have test images; older records do not say it."""
        return bool(self.record().get("data", {}).get("images", {}).get("test", True))

    @property
    def is_completed(self) -> bool:
        """Tell whether the run has its result."""
        return self.result_file.is_file() and self.record().get("status") == "completed"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system lets go of it when the process ends, however it ends.

        Raises RunHeldError where another process holds it.
        """
        with locked(self.path / ".lock") as holder:
            if holder:
                raise RunHeldError(f"{self.path} is being worked on by {holder}; wait for it, or stop it.")
            remove_leftovers(self.path)
            yield

    def is_held(self) -> bool:
        """Tell whether a process is working on the run."""
        return is_locked(self.path / ".lock")

    @property
    def number(self) -> int:
        """Return 1 for an original, and n for what was trained again as -rn."""
        match = re.search(r"-r(\d+)$", self.path.name)
        return int(match[1]) if match else 1

    def next_rerun(self) -> "RunFolder":
        """Return the folder next to this one for training the same again."""
        original = re.sub(r"-r\d+$", "", self.path.name)
        return RunFolder(self.path.with_name(f"{original}-r{self.number + 1}"))


def _beginnings(outputs: Path, name: str) -> list[str]:
    """Return the beginnings of identities in the name of a run, or that of its record where it was renamed."""
    if found := HASH.findall(name.rpartition("/")[2]):
        return found
    record = outputs / name / "run.json"
    with suppress(UserError):
        return [str(RunFolder(record.parent).record().get("identity"))[:BEGINNING]] if record.is_file() else []
    return []


def find_runs(outputs: Path, identity: str, names: Mapping[str, Sequence[str]] | None = None) -> list[RunFolder]:
    """Return all runs of one identity, the first first: renamed copies, the original, then -r2, -r3, …

    names: those of all runs by hash, where several are looked up.
    """
    begin = identity[:BEGINNING]
    names = names_by_hash(outputs) if names is None else names
    folders = [RunFolder(outputs / name) for name in names.get(begin, ())]
    runs = [one for one in folders if one.record_file.is_file() and one.record().get("identity") == identity]
    return sorted(runs, key=lambda folder: (folder.number, begin in folder.path.name, folder.path))


def names_by_hash(outputs: Path) -> dict[str, list[str]]:
    """Return the names of all runs by the beginning of their identities, as `find_runs` takes them."""
    names: dict[str, list[str]] = {}
    for name in run_names(outputs):
        for begin in _beginnings(outputs, name):
            names.setdefault(begin, []).append(name)
    return names
