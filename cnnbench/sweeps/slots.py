"""Sweeps: every job is expanded, checked and frozen before the first starts, and runs in a process of its own.

A job is the same run, in the same folder, as the single command would be; typing the sweep again does what is
missing. A job that fails, exits or is killed leaves the others running.
"""

import hashlib
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError, Mistake, TrainingError, UserError
from cnnbench.store.files import write_json
from cnnbench.store.folder import find_runs, now, outputs_dir
from cnnbench.store.query import comparison_title, runs_named
from cnnbench.training import console
from cnnbench.training.init import find_start
from cnnbench.training.plan import Plan, command_line, plan_run
from cnnbench.training.resolve import preflight
from cnnbench.training.trainer import carry_out

# What the end of a run needs besides, with pandas, scikit-learn and matplotlib: 2 s, once instead of for every job.
REPORTING = (
    "cnnbench.tasks.evaluation.classes",
    "cnnbench.tasks.evaluation.drawings",
    "cnnbench.analysis.reports.single",
)


def plan_all(composer: Composer, words: Sequence[str], known: tuple[Mistake, ...] = ()) -> list[Plan]:
    """Return the plans of all jobs of a grid, each once. Raises ConfigError with the mistakes of all jobs."""
    plans: dict[str, Plan] = {}
    mistakes = list(known)
    for job_words in composer.expand(words):
        try:
            plan = plan_run(composer, job_words)
        except ConfigError as error:
            mistakes += error.mistakes
            continue
        plans.setdefault(plan.config.identity(), replace(plan, brief=True))
    if mistakes:
        raise ConfigError(mistakes)
    return list(plans.values())


def carry_out_all(plans: Sequence[Plan]) -> int:
    """Run every plan, one after another, and return 0 if all have their result."""
    before = set(sys.modules)
    _check_all(plans)
    needed = [name for name, module in sys.modules.items() if name not in before and module.__spec__]
    needed += REPORTING if any(plan.config.report for plan in plans) else ()
    console.say(f"{len(plans)} runs")
    outcomes: list[str] = []
    with _Processes(needed) as processes:
        for number, plan in enumerate(plans, start=1):
            console.say(f"\n[{number}/{len(plans)}] {plan.command}")
            outcomes.append(_outcome(plan, *processes.run(plan)))
            if processes.stopped_by:
                break
    outcomes += ["not started"] * (len(plans) - len(outcomes))
    sweep = _record(plans, outcomes)
    _summarize(plans, outcomes)
    if any(plan.config.report for plan in plans) and outcomes.count("completed") > 1:
        _report(sweep)
    if processes.stopped_by:
        console.say("stopped; the same command again does what is missing.")
        return 128 + processes.stopped_by
    return 0 if all(outcome == "completed" for outcome in outcomes) else 1


def _check_all(plans: Sequence[Plan]) -> None:
    problems: dict[str, list[str]] = {}
    for plan in plans:
        try:
            find_start(plan.config, preflight(plan.config))
        except UserError as error:
            problems.setdefault(str(error), []).append(plan.command)
    if problems:
        parts = [f"{problem}\n  in: " + "\n      ".join(commands) for problem, commands in problems.items()]
        raise UserError("nothing was started.\n" + "\n".join(parts))


class _Processes:
    """Starts a process for each job: from a server that has imported everything once, and run nothing.

    So a job starts at once, with the code as it was when the sweep began, and shares no state with the others.
    """

    def __init__(self, imports: Sequence[str]) -> None:
        """imports: modules that every job will need, beside cnnbench itself."""
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["cnnbench.sweeps.slots", *imports])
        self._process: Any = None
        self.stopped_by: int | None = None

    def __enter__(self) -> "_Processes":
        self._before = {number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, plan: Plan) -> tuple[int, str]:
        """Return the exit code of the job, and why it failed, where it could say so itself."""
        receiving, sending = self._context.Pipe(duplex=False)
        self._process = self._context.Process(target=_job, args=(plan, sending))
        self._process.start()
        sending.close()
        self._process.join()
        try:
            reason = str(receiving.recv()) if receiving.poll() else ""
        except EOFError:  # it ended without a word
            reason = ""
        return int(self._process.exitcode or 0), reason

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Let the job finish its step and save; a second signal ends it at once."""
        if self._process is not None and self._process.is_alive():
            if self.stopped_by:
                self._process.kill()
            elif number == signal.SIGTERM or not sys.stdin.isatty():  # Ctrl-C reaches the whole group by itself
                self._process.terminate()
        self.stopped_by = number


def _job(plan: Plan, sending: Any) -> None:
    try:
        sys.exit(carry_out(plan))
    except (UserError, TrainingError) as error:
        console.error(error)
        sending.send(str(error).partition("\n")[0])
        sys.exit(1 if isinstance(error, TrainingError) else 2)


def _outcome(plan: Plan, code: int, reason: str) -> str:
    """Say how a job ended, by what its folder holds rather than by what its process said."""
    runs = find_runs(outputs_dir(), plan.config.identity())
    if code == 0 and runs and runs[-1].is_completed:
        return "completed"
    record = runs[-1].record() if runs else {}
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code == 0 or code > 128:
        return str(record.get("status", "stopped"))
    return f"failed: {reason or record.get('error') or f'exit code {code}'}"


def _record(plans: Sequence[Plan], outcomes: Sequence[str]) -> Path:
    """Write down which runs belong together, for the reports, and return where."""
    identities = [plan.config.identity() for plan in plans]
    folder = outputs_dir() / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256("".join(sorted(identities)).encode()).hexdigest()[:8]
    runs = [find_runs(outputs_dir(), identity) for identity in identities]
    jobs = [
        {
            "command": plan.command,
            "identity": identity,
            "outcome": outcome,
            "folder": str(found[-1].path.relative_to(outputs_dir())) if found else None,
        }
        for plan, identity, outcome, found in zip(plans, identities, outcomes, runs, strict=True)
    ]
    path = folder / f"{name}.json"
    write_json(path, {"command": command_line(sys.argv[1:]), "ended": now(), "jobs": jobs})
    return path


def _report(sweep: Path) -> None:
    """Put the runs that are there side by side, and say where the page lies."""
    with console.tolerating("the comparison"):
        from cnnbench.analysis.reports.compared import page_of  # with pandas, matplotlib, jinja2
        from cnnbench.analysis.reports.comparison import compare

        page = page_of(compare(runs_named([str(sweep)])), comparison_title([str(sweep)]))
        console.say(f"  page        {console.shorter(page.write(outputs_dir() / 'reports' / sweep.stem))}")


def _summarize(plans: Sequence[Plan], outcomes: Sequence[str]) -> None:
    console.say()
    for plan, outcome in zip(plans, outcomes, strict=True):
        found = find_runs(outputs_dir(), plan.config.identity())
        measured = ""
        if outcome == "completed":
            result = found[-1].result()
            test = {name: value for name, value in result["test"].items() if name != "samples" and value is not None}
            told = [*(f"{name} {value:.4f}" for name, value in test.items()), console.reached(result)]
            measured = "  ".join(filter(None, told))
        where = console.shorter(found[-1].path) if found else ""
        console.say(f"  {outcome:<12}  {measured:<40}  {where}")
    done = sum(outcome == "completed" for outcome in outcomes)
    console.say(f"  {done} of {len(plans)} runs completed")
