"""A sweep on disk, as it was launched: `outputs/sweeps/NAME/`. How its jobs stand is read from their run folders.

sweep.json           command, time, folder it was typed in, threads of a job, jobs at a time, jobs with their folders
jobs/IDENTITY.json   the plan of each job, frozen; IDENTITY-begun.json of one that begins with the run of another
claims/              who works on which, see `claims`
logs/IDENTITY.log    what each job printed
known-KEY            empty: by which command, configuration files and code the sweep is recognised
"""

import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cnnbench
from cnnbench.config.validate import validate
from cnnbench.config.values import conf_dir
from cnnbench.errors import ConfigError, NotWrittenError, UserError
from cnnbench.store.files import (
    CHECKSUM,
    DamagedError,
    as_json,
    check_writable,
    checksum,
    create_whole,
    json_bytes,
    make_folder,
    write_atomically,
    write_json,
)
from cnnbench.store.folder import BEGINNING, RunFolder, find_runs, names_by_hash, now, outputs_dir, readable, shown
from cnnbench.store.index import listed
from cnnbench.store.provenance import versions
from cnnbench.store.query import RunSummary
from cnnbench.store.reading import read_json
from cnnbench.store.schema import FrozenPlan
from cnnbench.store.sweep_files import job_folder, link_file, read_sweep
from cnnbench.sweeps.claims import is_alive
from cnnbench.sweeps.standing import labels_of
from cnnbench.training.existing import made_with
from cnnbench.training.plan import Plan, with_initial_weights

FACTS = "command", "started", "cwd", "threads", "max_minutes", "at_once"  # that sweep.json says of all jobs
SCRATCH = re.compile(r"^\..*\.(.*)-(\d+)\.tmp$")  # as `store.files` names what it writes first


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    number: from which run of its identity on it counts, more than 1 where it trains again. after: the identity of the
    job whose run it begins with; its own run has another identity, which these weights are part of.
    """

    identity: str
    command: str
    folder: str
    number: int = 1
    after: str = ""


@dataclass(frozen=True)
class SweepFolder:
    """One sweep on disk.

    threads: of each job that did not begin with others. max_minutes: of each launch. cwd: where it was typed, which is
    where relative paths in its plans begin. at_once: how many jobs a launcher works on; None: what fits its machine.
    """

    path: Path
    command: str
    threads: int
    max_minutes: float | None
    jobs: tuple[Job, ...]
    plugins: tuple[str, ...] = ()
    started: str = field(default_factory=now)
    cwd: str = field(default_factory=os.getcwd)
    at_once: int | None = 1

    @classmethod
    def open(cls, path: Path) -> "SweepFolder":
        """Return the sweep in a folder. Raises UserError where there is none."""
        said = read_sweep(path / "sweep.json")
        jobs = tuple(
            Job(job["identity"], job["command"], job["folder"], job["number"], job["after"]) for job in said["jobs"]
        )
        facts = {key: said[key] for key in FACTS}
        return cls(path.resolve(), jobs=jobs, plugins=tuple(said["plugins"]), **facts)

    @classmethod
    def write(
        cls, plans: Sequence[Plan], command: str, threads: int, max_minutes: float | None, at_once: int | None = 1
    ) -> "SweepFolder":
        """Write a sweep, or what differs in one that is there: then its folder, its threads and its start stay.

        Several launchers may write the same at once. Raises UserError where nothing can be written.
        """
        runs = names_by_hash(outputs_dir())
        jobs = tuple(_job(plan, plans[:index], runs) for index, plan in enumerate(plans))
        marks = sorted(f"{job.identity}r{job.number}" if job.number > 1 else job.identity for job in jobs)
        begin = hashlib.sha256("".join(marks).encode()).hexdigest()[:BEGINNING]
        names = {readable(plan.config.name or "")[:80] for plan in plans}
        name = names.pop() if len(names) == 1 else ""
        there = sorted(file.parent for way in (begin, f"*-{begin}") for file in sweeps_dir().glob(f"{way}/sweep.json"))
        path = there[0] if there else sweeps_dir() / f"{name}-{begin}".strip("-")
        sweep = cls(path, command, threads, max_minutes, jobs, plans[0].plugins, at_once=at_once)
        try:
            return sweep._written(plans)
        except NotWrittenError as error:
            raise UserError(f"nothing was started.\n{error}") from error

    def _written(self, plans: Sequence[Plan]) -> "SweepFolder":
        check_writable(sweeps_dir())
        for name in ("jobs", "claims", "logs"):
            make_folder(self.path / name)
        _remove_leftovers(self.path)
        for plan, job in zip(plans, self.jobs, strict=True):
            self._freeze(plan, self._plan_file(job))
        file = self.path / "sweep.json"
        if create_whole(file, json_bytes(self._described())):
            return self
        before = SweepFolder.open(self.path)
        sweep = replace(self, threads=before.threads, started=before.started, at_once=before.at_once)
        write_json(file, sweep._described())
        return sweep

    def _described(self) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in FACTS}
        values |= {"plugins": list(self.plugins), "jobs": [vars(job) for job in self.jobs]}
        return {**values, CHECKSUM: checksum(values)}

    def _freeze(self, plan: Plan, path: Path) -> None:
        values = plan_record(plan)
        content = json_bytes({**values, CHECKSUM: checksum(values)})
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)

    def plan(self, job: Job) -> Plan:
        """Return the plan of a job as it was frozen. Raises UserError where that cannot be read.

        Of one that begins with the run of another, as it was linked to that.
        """
        linked = link_file(self.path, vars(job))
        return read_plan(linked if job.after and linked.is_file() else self._plan_file(job))

    def link(self, job: Job, parent: RunFolder) -> None:
        """Let a job begin with the run of another that is finished. Raises UserError where that has no such weights."""
        plan = read_plan(self._plan_file(job))
        init = plan.config.init.model_copy(update={"run": str(parent.path), "experiment": None})
        plan = with_initial_weights(replace(plan, config=plan.config.model_copy(update={"init": init})))
        self._freeze(plan, link_file(self.path, vars(job)))

    def _plan_file(self, job: Job) -> Path:
        return self.path / "jobs" / f"{job.identity}.json"

    def log(self, job: Job) -> Path:
        """Return the file of what a job prints."""
        return self.path / "logs" / f"{job.identity}.log"

    def run_of(self, job: Job, names: Mapping[str, Sequence[str]] | None = None) -> RunFolder | None:
        """Return the run of a job; None: it has not begun. names: of all runs by hash, where those of many are."""
        path = job_folder(self.outputs, self.path, vars(job), names)
        return None if path is None else RunFolder(path)

    def runs(self) -> dict[str, RunFolder | None]:
        """Return the runs of all jobs, by identity."""
        names = names_by_hash(self.outputs)
        return {job.identity: self.run_of(job, names) for job in self.jobs}

    def read_runs(self) -> dict[str, RunSummary | None]:
        """Return the runs of all jobs as their files say, by identity, with the help of the index."""
        runs = self.runs()
        read = {one.path: one for one in listed([run.path for run in runs.values() if run is not None], self.outputs)}
        return {identity: None if run is None else read[run.path] for identity, run in runs.items()}

    def where(self, job: Job, run: RunFolder | None) -> str:
        """Return the folder of the run of a job, which may not be there yet, as one would type it."""
        return shown(self.outputs / job.folder) if run is None else run.shown_path

    @property
    def outputs(self) -> Path:
        """Return the folder of all runs."""
        return self.path.parents[1]

    @property
    def shown_path(self) -> str:
        """The folder as one would type it here."""
        return shown(self.path)

    @cached_property
    def labels(self) -> dict[str, str]:
        """Return what tells each job from the others, by identity."""
        labels = labels_of([job.command for job in self.jobs])
        return {job.identity: label for job, label in zip(self.jobs, labels, strict=True)}

    # Recognition ----------------------------------------------------------------------------------------------------

    def remember(self, key: str) -> None:
        """Let the sweep be recognised by a key; where there is no room for that, it is planned again."""
        with suppress(NotWrittenError):
            write_atomically(self.path / f"known-{key}", b"")

    @classmethod
    def recognised(cls, key: str) -> "SweepFolder | None":
        """Return the sweep that was launched by the same command, files and code; None where there is none."""
        for path in sweeps_dir().glob(f"*/known-{key}"):
            try:
                return cls.open(path.parent)
            except UserError:
                continue  # it is planned and written again
        return None


def sweeps_dir() -> Path:
    """Return the folder of all sweeps."""
    return outputs_dir() / "sweeps"


def key_of(words: Sequence[str], config_dir: str | None, plugins: Sequence[str], code: Mapping[str, str]) -> str:
    """Return the hash of everything that the plans of a command follow from, but data and weights."""
    package = Path(cnnbench.__file__).parent
    folders = [(package, "*.py"), (conf_dir(), "*.yaml"), *([(Path(config_dir), "*.yaml")] if config_dir else [])]
    digest = hashlib.sha256(
        repr([list(words), list(plugins), str(Path.cwd()), versions(), sorted(code.items())]).encode()
    )
    for folder, pattern in folders:
        for path in sorted(folder.rglob(pattern)):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return a plan of a sweep as plain values."""
    values: dict[str, Any] = as_json(
        {
            "identity": plan.config.identity(),
            "config": plan.config.to_dict(),
            "command": plan.command,
            "choices": dict(plan.choices),
            "origins": dict(plan.origins),
            "typed": dict(plan.typed),
            "notes": plan.notes,
            "plugins": plan.plugins,
            "code": dict(plan.code),
            "rerun": plan.rerun,
        }
    )
    return values


def read_plan(path: Path) -> Plan:
    """Return a frozen plan. Raises UserError where it cannot be read, or is no longer what it was."""
    said = read_json(path, FrozenPlan, "Type the command of the sweep again.")
    try:
        config = validate(said["config"], is_recorded=True)[0]
    except ConfigError as error:
        raise DamagedError(f"{path} cannot be used: {error}") from error
    if config.identity() != said["identity"]:
        raise DamagedError(f"{path}: this version reads other settings from it. Type the command of the sweep again.")
    return Plan(
        config, said["command"], said["choices"], said["origins"], said["typed"], tuple(said["notes"]),
        tuple(said["plugins"]), said["code"], rerun=said["rerun"], brief=True,
    )  # fmt: skip


def _job(plan: Plan, earlier: Sequence[Plan], names: Mapping[str, Sequence[str]]) -> Job:
    """Return the job of a plan: the run that is there already, or a new one; with rerun=true the one after it."""
    identity = plan.config.identity()
    runs = find_runs(outputs_dir(), identity, names)
    if not runs:
        return Job(identity, plan.command, plan.run_path().as_posix(), after=_parent_of(plan, earlier))
    run = runs[-1].next_rerun() if plan.rerun else made_with(plan.code, runs)
    return Job(identity, plan.command, run.path.relative_to(outputs_dir()).as_posix(), run.number if plan.rerun else 1)


def _parent_of(plan: Plan, earlier: Sequence[Plan]) -> str:
    """Return the identity of the job that trains what a plan begins with: of several the one that is most like it."""
    name = plan.config.init.experiment
    if name is None or plan.config.source is not None:
        return ""
    parents = [one for one in earlier if one.choices.get("experiment") == name]
    if not parents:
        return ""
    own = set(plan.typed.values())
    return max(reversed(parents), key=lambda one: len(own & set(one.typed.values()))).config.identity()


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine were writing when they were killed."""
    for path in folder.rglob(".*.tmp"):
        found = SCRATCH.match(path.name)
        if found and found[1] == platform.node()[:32] and not is_alive(int(found[2])):
            path.unlink(missing_ok=True)
