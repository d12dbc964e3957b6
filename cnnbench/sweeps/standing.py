"""How the jobs of a sweep stand, by its folder and its runs: also while launchers work on it. Imports no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.store.folder import names_by_hash
from cnnbench.store.index import listed
from cnnbench.store.query import RunSummary
from cnnbench.store.sweep_files import MISSING, job_folder, read_sweep
from cnnbench.sweeps.claims import Claims

STATES = ("completed", "running", "stopped", "failed", "unreadable", "missing", "waiting")


@dataclass(frozen=True)
class JobStanding:
    """How a job stands. state: one of STATES. reason: why it stopped or failed. holder: who works on it, since when."""

    label: str
    command: str
    state: str
    reason: str = ""
    holder: str = ""
    since: str = ""
    run: RunSummary | None = None

    @property
    def progress(self) -> float:
        """Return the share of its epochs that is trained."""
        if self.run is None or self.run.problem:
            return 0.0
        return min(1.0, self.run.epochs_done / int(self.run.settings["epochs"]))


@dataclass(frozen=True)
class Standing:
    """How a sweep stands. file: that describes it."""

    file: Path
    command: str
    started: str
    jobs: tuple[JobStanding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Return how many jobs there are in each state, the empty ones left out."""
        counts = Counter(job.state for job in self.jobs)
        return {state: counts[state] for state in STATES if counts[state]}

    @property
    def seconds_left(self) -> float | None:
        """Return how long it takes from now on, with as many jobs at a time as run; None where that is not known."""
        results = (job.run.result for job in self.jobs if job.run is not None)
        times = [float(seconds["total"]) for one in results if "total" in (seconds := one.get("seconds", {}))]
        running = self.counts.get("running", 0)
        if not times or not running:
            return None
        left = sum(1 - job.progress for job in self.jobs if job.state in ("running", "stopped", "missing", "waiting"))
        return sum(times) / len(times) * left / running


def standings(files: Sequence[Path], outputs: Path) -> list[Standing]:
    """Return how sweeps stand that files describe. outputs: the folder of all runs. Raises UserError for any other."""
    names = names_by_hash(outputs)
    sweeps = [(file, read_sweep(file)) for file in files]
    folders = [[job_folder(outputs, file.parent, job, names) for job in said["jobs"]] for file, said in sweeps]
    begun = dict.fromkeys(folder for some in folders for folder in some if folder is not None)
    runs = {run.path: run for run in listed(begun, outputs)}
    return [
        _standing_of(file, said, [None if folder is None else runs[folder] for folder in some])
        for (file, said), some in zip(sweeps, folders, strict=True)
    ]


def _standing_of(file: Path, said: Mapping[str, Any], runs: Sequence[RunSummary | None]) -> Standing:
    claims = Claims(file.parent / "claims") if file.name == "sweep.json" else None  # earlier versions made none
    labels = labels_of([job.get("command", "") for job in said["jobs"]])
    jobs = [_job(*one, claims) for one in zip(said["jobs"], runs, labels, strict=True)]
    return Standing(file, said.get("command") or "", said.get("started", ""), tuple(jobs))


def _job(job: Mapping[str, Any], run: RunSummary | None, label: str, claims: Claims | None) -> JobStanding:
    def stands(state: str, reason: str = "", holder: str = "", since: str = "") -> JobStanding:
        return JobStanding(label, job.get("command", ""), state, reason, holder, since, run)

    if run is not None and run.is_finished:
        return stands("completed")
    number = 0 if claims is None else claims.number(job["identity"])
    claim = {} if claims is None else claims.said(job["identity"], number)
    if claims is not None and (holder := claims.holder(job["identity"], number)):
        return stands("running", holder=holder, since=claim.get("began", ""))
    if run is not None and run.folder.is_held():
        return stands("running", holder="a process that no launcher waits for")
    if run is not None and run.status in ("failed", "unreadable"):
        return stands(run.status, run.error)
    if claim.get("outcome") == "failed":
        return stands("failed", claim["reason"])
    is_missing = run is None and claim.get("outcome") == "completed"
    unbegun = ("missing", MISSING) if is_missing else ("waiting",)
    return stands(*unbegun) if run is None else stands("stopped", str(run.record.get("error") or ""))


def labels_of(commands: list[str]) -> list[str]:
    """Return what tells each command from the others: the words that not all of them have, with the ends of keys."""
    words = [command.removeprefix("cnnbench ").split(" ") for command in commands]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    own = [[word.partition("=") for word in one if word not in shared] or [one[-1].partition("=")] for one in words]
    ends = Counter(key.rpartition(".")[2] for key in {key for one in own for key, *_ in one})

    def short(key: str) -> str:
        return end if ends[end := key.rpartition(".")[2]] == 1 else key

    return [" ".join(f"{short(key)}{equals}{value}" for key, equals, value in one) for one in own]
