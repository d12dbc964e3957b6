"""A sweep from its words to its end: recognised or planned, written to its folder, worked on, compared."""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError, ExitCode, Mistake, SettingError, UserError, counted
from cnnbench.plugins import register_everything
from cnnbench.store.folder import RunFolder
from cnnbench.store.provenance import code_hashes, typed_code
from cnnbench.store.sweep_files import sweep_file
from cnnbench.sweeps.display import Display, summarize
from cnnbench.sweeps.expand import plan_all, resolve_all
from cnnbench.sweeps.folder import SweepFolder, key_of
from cnnbench.sweeps.live import LivePage, WriteProgress
from cnnbench.sweeps.outcome import Worked
from cnnbench.sweeps.slots import JobProcess, Processes, Slot, page_job, slots_of_machine
from cnnbench.sweeps.work import LOOKS_EVERY, Options, Worker
from cnnbench.training import console
from cnnbench.training.ending import WritePage
from cnnbench.training.plan import Plan, command_line
from cnnbench.training.setup import DEFAULT_THREADS
from cnnbench.training.signals import StopRequests

Compare = Callable[[Path], tuple[list[str], Callable[[], Path]]]
"""Compares the runs of a sweep: what to print of it, and what writes the page and returns its path."""


@dataclass(frozen=True)
class Grid:
    """What was typed of a sweep: its words, with the plugins and the folder of YAML files that they need."""

    words: tuple[str, ...]
    plugins: tuple[str, ...] = ()
    config_dir: str | None = None
    rerun: bool = False
    mistakes: tuple[Mistake, ...] = ()

    @property
    def command(self) -> str:
        """Return the command, ready to be typed again."""
        extra = [f"plugins={','.join(self.plugins)}"] * bool(self.plugins) + ["rerun=true"] * self.rerun
        return command_line(
            ["-m", *(["--config-dir", self.config_dir] if self.config_dir else []), *extra, *self.words]
        )

    def plans(self, code: Mapping[str, str]) -> list[Plan]:
        """Return the plans of all jobs. code: hashes of what computes. Raises ConfigError with every mistake."""
        composer = Composer([self.config_dir] if self.config_dir else [])
        plans = plan_all(composer, self.words, self.mistakes)
        typed = {name for plan in plans for name in typed_code(plan.config)}
        if typed:
            where = "is defined in this notebook or script, which the processes of a sweep cannot import"
            raise UserError(f"{', '.join(sorted(typed))} {where}: put it into a file and give plugins=FILE.")
        return [replace(plan.loading(self.plugins, self.config_dir), code=code, rerun=self.rerun) for plan in plans]


@dataclass(frozen=True)
class Pages:
    """Writes the page of a run, and that of a sweep at its end and while it runs."""

    write: WritePage | None = None
    compare: Compare | None = None
    progress: WriteProgress | None = None


def opened(path: str, words: Sequence[str] = (), mistakes: Sequence[Mistake] = ()) -> SweepFolder:
    """Return the sweep in a folder, to be continued. Raises UserError where there is none, and for words."""
    refused = [Mistake(word, "cannot change in a sweep that is continued; type its command with it") for word in words]
    if refused or mistakes:
        raise ConfigError([*mistakes, *refused])
    file = sweep_file(Path(path).expanduser())
    if file is None or file.name != "sweep.json":
        raise UserError(f"{path} is the list of a sweep of an earlier version; to continue it, type its command again.")
    sweep = SweepFolder.open(file.parent)
    os.environ["CNNBENCH_OUTPUTS"] = str(sweep.outputs)  # its runs are there, wherever this is typed
    if os.path.isdir(sweep.cwd) and not os.path.samefile(sweep.cwd, os.curdir):
        console.say(f"note: this sweep was launched in {sweep.cwd}, and goes on there")
        os.chdir(sweep.cwd)
    register_everything(sweep.plugins)
    return sweep


def launched(
    grid: Grid, options: Options, processes: Processes | None = None, threads: int | None = None
) -> SweepFolder:
    """Return the folder of a sweep: the one that the same words made with the same files and code, or a new one.

    processes: of its jobs, which may be prepared meanwhile. threads: of each job; None: its share of this machine.
    Raises UserError with every mistake in any of its jobs, before anything is written.
    """
    code = code_hashes(register_everything(grid.plugins))  # once: edits from now on are not recorded as if they ran
    words = [*grid.words, *["rerun=true"] * grid.rerun]
    key = key_of(words, grid.config_dir, grid.plugins, code)
    sweep = None if grid.mistakes else SweepFolder.recognised(key)
    if sweep is not None and not (grid.rerun and _is_finished(sweep)):
        return sweep
    plans = grid.plans(code)
    if processes is not None:
        processes.warm_up()
    limits = {plan.config.max_minutes for plan in plans}
    if len(limits) > 1:
        raise SettingError("max_minutes", "is the limit of the whole sweep; give one value")
    plans = resolve_all(plans)
    threads = plans[0].config.threads or threads or DEFAULT_THREADS // len(slots_of_machine(options.jobs, plans[0]))
    sweep = SweepFolder.write(plans, grid.command, max(1, threads), limits.pop(), options.jobs)
    _say_where_threads_differ(sweep, plans[0])
    if all(plan.config.source is None for plan in plans):  # weights of other runs are in no key
        sweep.remember(key)
    return sweep


def _say_where_threads_differ(sweep: SweepFolder, plan: Plan) -> None:
    """Say where runs that are there had another number of threads than new ones get."""
    runs = [run.record().get("threads") or sweep.threads for run in sweep.runs().values() if run is not None]
    others = Counter(number for number in runs if number != sweep.threads)
    if others and len(runs) < len(sweep.jobs) and "threads" not in plan.typed:
        (threads, number), *_ = others.most_common()
        console.say(
            f"note: {counted(number, 'run')} of this sweep had {counted(threads, 'thread')}, new ones get "
            f"{sweep.threads}, and the last bits of a result depend on that; to train all alike, add threads={threads}"
        )


def carry_out_sweep(
    sweep: SweepFolder, options: Options, stop: StopRequests, pages: Pages, processes: Processes
) -> tuple[ExitCode, Worked]:
    """Work on a sweep until nothing is left to do here, compare its runs, and return the exit code."""
    first = sweep.plan(sweep.jobs[0])
    slots = slots_of_machine(options.jobs, first)[: len(sweep.jobs)]
    at_once = f", {len(slots)} at a time" if len(slots) > 1 else ""
    console.say(
        f"{counted(len(sweep.jobs), 'run')}{at_once}, {counted(sweep.threads, 'thread')} each: {sweep.shown_path}"
    )
    if len(slots) * sweep.threads > DEFAULT_THREADS and len(slots) > 1:
        console.say("note: each job keeps the threads that the sweep was launched with, since its bits depend on them")
    reports = first.config.report
    live = LivePage(sweep, pages.progress, processes) if reports and pages.progress is not None else None
    worked = Worker(sweep, stop, slots.copy(), options, processes, Display(sweep, live), pages.write).work()
    kinds = [outcome.kind for outcome in worked.outcomes.values()]
    compares = reports and kinds.count("completed") > 1 and worked.stopped is None and "elsewhere" not in kinds
    summarize(sweep, worked.outcomes, is_brief=compares and pages.compare is not None)
    if reports and worked.stopped is None and kinds.count("completed") == 1:
        console.say("  no comparison: only one run is completed")
    write_comparison = None
    if compares and pages.compare is not None:
        with console.tolerating("the comparison"):
            lines, write_comparison = pages.compare(sweep.path)
            console.say("\n".join(["", *lines, ""]))
    if pages.write is not None and reports and worked.stopped is None:
        _write_pages(sweep, worked, pages.write, processes, slots, stop)
    if write_comparison is not None:
        with console.tolerating("the comparison"):
            console.show_page(write_comparison(), first.config.open)
    elif live is not None and "elsewhere" not in kinds:
        live.finish()
    if first.config.test:
        _say_what_is_untested(sweep)
    _say_what_is_left(sweep, worked)
    return stop.exit_code if stop.signal is not None else worked.exit_code, worked


def _is_finished(sweep: SweepFolder) -> bool:
    return all(run is not None and run.is_finished for run in sweep.read_runs().values())


def _write_pages(
    sweep: SweepFolder,
    worked: Worked,
    write: WritePage,
    processes: Processes,
    slots: Sequence[Slot],
    stop: StopRequests,
) -> None:
    """Write the pages of finished and failed runs that have none, as many at a time as there are slots."""
    done = [job for job in sweep.jobs if worked.outcomes[job.identity].kind in ("completed", "failed")]
    there = sweep.runs()
    runs = [(job, run) for job in done if (run := there[job.identity]) is not None and not _has_page(run)]
    if not runs:
        return
    console.say(f"  writing the pages of {counted(len(runs), 'run')}")
    running: dict[int, JobProcess] = {}
    with stop.deferred():
        while running or (runs and stop.signal is None):
            while runs and len(running) < len(slots) and stop.signal is None:
                job, run = runs.pop(0)
                process = processes.start(partial(page_job, run, write), sweep.log(job))
                running[process.sentinel] = process
            for sentinel in wait(list(running), LOOKS_EVERY):
                running.pop(int(str(sentinel))).ended()
            if stop.signal is not None:
                for process in running.values():
                    process.stop(stop.signal)


def _has_page(run: RunFolder) -> bool:
    """Return whether a run has a page that is not older than its result: it may have one of when it failed."""
    newest = run.result_file if run.is_completed else run.record_file
    return run.page.is_file() and run.page.stat().st_mtime >= newest.stat().st_mtime


def _say_what_is_untested(sweep: SweepFolder) -> None:
    """Say how to measure on the test images what was finished with test=false before."""
    untested = [shlex.quote(run.shown_path) for run in sweep.runs().values() if run is not None and _lacks_test(run)]
    if untested:
        command = f"cnnbench evaluate {untested[0]}"
        if len(untested) > 1:
            command = f'for run in {" ".join(untested)}; do cnnbench evaluate "$run"; done'
        console.say(f"test not measured of {counted(len(untested), 'run')}; to measure it: {command}")


def _lacks_test(run: RunFolder) -> bool:
    """Tell whether a run is finished, and was never tested."""
    try:
        record = run.record()  # it counts tests also of data without test images; earlier versions did not count
        is_counted = record.get("status") != "completed" or record.get("test_measured")
        return not is_counted and not run.result(record).get("test")
    except UserError:  # damaged: it is named where runs are compared
        return False


def _say_what_is_left(sweep: SweepFolder, worked: Worked) -> None:
    """Say how to get what is missing."""
    outcomes = worked.outcomes.values()
    held = [outcome for outcome in outcomes if outcome.kind == "elsewhere"]
    if worked.stopped is not None or any(outcome.kind in ("stopped", "not started") for outcome in outcomes):
        console.say(f"stopped; the same command again runs what is missing, or: cnnbench resume {sweep.shown_path}")
    elif held:
        console.say(
            f"nothing is left to begin here: others work on {counted(len(held), 'run')} ({held[0].reason}). The "
            "launcher that ends last compares all of them; the same command again does too."
        )
