"""How sweeps stand, as lines, CSV and plain values."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnbench.cli.run_table import begun
from cnnbench.errors import counted, duration, grouped, one_line
from cnnbench.store.folder import shown
from cnnbench.store.tables import csv_of_rows
from cnnbench.sweeps.standing import STATES, JobStanding, Standing

MOST = 20  # jobs of a state that are shown


def lines(standing: Standing, width: int | None) -> Iterator[str]:
    """Yield how a sweep stands: numbers by state, the jobs that run or have no result, and what to type next."""
    yield begun(f"  {one_line(standing.command)}", width)
    left = standing.seconds_left
    about = [] if left is None else [f"about {duration(left)} left"]
    yield f"  {', '.join([*_numbers(standing), *about])}, of {counted(len(standing.jobs), 'run')}"
    for state in ("running", "stopped", "failed", "unreadable", "missing"):
        jobs = [job for job in standing.jobs if job.state == state]
        yield from [""] * bool(jobs)
        yield from (begun(f"  {state:<10}  {_described(job)}", width) for job in jobs[:MOST])
        if len(jobs) > MOST:
            why = Counter(_first_line(job.reason) for job in jobs[MOST:]).most_common(1)[0][0]
            yield begun(f"  and {grouped(len(jobs) - MOST)} more{f', most of them: {why}' if why else ''}", width)
    yield ""
    folder = shown(standing.file.parent if standing.file.name == "sweep.json" else standing.file)
    if standing.counts.get("completed", 0) < len(standing.jobs):
        how = "work on it here too" if "running" in standing.counts else "go on with it"
        yield f"  to {how}:  cnnbench resume {folder}"
    if standing.counts.get("completed", 0) > 1:
        yield f"  to compare those that are completed:  cnnbench report {folder}"


def overview(standings: Sequence[Standing], width: int | None) -> Iterator[str]:
    """Yield a line for each sweep."""
    rows = [(one.file.parent.name if one.file.name == "sweep.json" else one.file.stem, one) for one in standings]
    longest = max((len(name) for name, _ in rows), default=0)
    for name, one in rows:
        started = one.started[:16].replace("T", " ")
        yield begun(f"  {name:<{longest}}  {started}  {', '.join(_numbers(one))}: {one_line(one.command)}", width)
    yield f"  {counted(len(rows), 'sweep')}; cnnbench list NAME says more of one"


def as_plain(standing: Standing) -> dict[str, Any]:
    """Return how a sweep stands as plain values."""
    jobs = [
        {
            "job": job.label,
            "state": job.state,
            "epoch": None if job.run is None or job.run.problem else job.run.epochs_done,
            "reason": job.reason or None,
            "holder": job.holder or None,
            "since": job.since or None,
            "path": None if job.run is None else str(job.run.path),
            "command": job.command,
        }
        for job in standing.jobs
    ]
    (counts,) = counted_by_state([standing])
    return {**counts, "seconds_left": standing.seconds_left, "jobs": jobs}


def counted_by_state(sweeps: Sequence[Standing]) -> list[dict[str, Any]]:
    """Return a row for each sweep: how many of its jobs are in each state."""
    return [
        {"sweep": str(one.file), "started": one.started, "command": one.command}
        | {state: one.counts.get(state, 0) for state in STATES}
        for one in sweeps
    ]


def rows_as_csv(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows of the same keys as the lines of a CSV file."""
    return csv_of_rows([list(rows[0]), *(list(row.values()) for row in rows)]).split("\n")[:-1] if rows else []


def _numbers(standing: Standing) -> list[str]:
    return [f"{grouped(number)} {state}" for state, number in standing.counts.items()]


def _described(job: JobStanding) -> str:
    epochs = "" if job.run is None or job.run.problem else job.run.settings["epochs"]
    progress = f"epoch {job.run.epochs_done}/{epochs}" if job.run is not None and epochs else ""
    return "  ".join(filter(None, (one_line(job.label), progress, job.holder, _first_line(job.reason))))


def _first_line(text: str) -> str:
    return one_line(text.strip().partition("\n")[0])
