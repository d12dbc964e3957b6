"""The Python API for notebooks and scripts: train, sweep and plan as the commands do, and a table of runs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.analysis.loading import opened
from cnnbench.analysis.run import Run
from cnnbench.config.compose import Composer
from cnnbench.config.validate import CONTROLS
from cnnbench.config.values import Words, as_words, flat
from cnnbench.data.prepare import read_anew
from cnnbench.errors import ExitCode, Mistake, SettingError, Stopped, UserError, exits_explained
from cnnbench.plugins import plugin_names, register_everything
from cnnbench.store.folder import RunFolder, outputs_dir
from cnnbench.store.lookup import word_of
from cnnbench.store.provenance import code_hashes, typed_code
from cnnbench.store.query import RunSummary, read_run, runs_below, runs_named
from cnnbench.sweeps.launch import Grid, Pages, carry_out_sweep, launched
from cnnbench.sweeps.slots import Processes
from cnnbench.sweeps.work import Options
from cnnbench.training import terminal
from cnnbench.training.console import ProgressMode, showing
from cnnbench.training.ending import kept_checkpoint
from cnnbench.training.plan import Plan, plan_resume, plan_run
from cnnbench.training.signals import StopRequests
from cnnbench.training.torch_state import borrowed_torch
from cnnbench.training.trainer import carried_out

if TYPE_CHECKING:
    import pandas as pd

Plugins = str | Sequence[str]
"""Python files, or names of modules, that register components."""
OnEpoch = Callable[[Run, dict[str, Any]], None]
"""Called with the run and the row of an epoch: epoch, step, loss/train, accuracy/val, … May raise Stopped to stop."""
COMMANDS = ("dry_run", "lr_find")
OF_SWEEPS = ("jobs", "fail_fast", "retry_failed")


def train(
    words: Words = (),
    *,
    plugins: Plugins = (),
    resume: str | PathLike[str] | None = None,
    rerun: bool = False,
    accept_stale: bool = False,
    config_dir: str | Path | None = None,
    progress: ProgressMode = "auto",
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> Run:
    """Train, or continue, what `cnnbench …` would with these words, and return the run; a finished one is only opened.

    `model={"name": "mlp", "units": [64]}` chooses an option and sets its keys.

    words: `"data=digits epochs=1"`, a list of such words, or a mapping. settings: the same as keywords, `epochs=1`,
    `optimizer={"lr": 0.1}` or `**{"optimizer.lr": 0.1}`. resume: a run to continue. rerun: train a finished run
    again. accept_stale: continue although code or data changed. config_dir: a folder of more YAML files. progress: a
    bar, lines or nothing, `quiet`; auto: a bar on a terminal, elsewhere lines. on_epoch: called after each epoch.

    Raises UserError for a mistake, TrainingError if training fails, and Stopped if it was stopped: by Ctrl-C, by
    `max_minutes`, or by `on_epoch`; the same call continues. Random generators, threads and flags of torch are
    restored afterwards; trainings in several threads take turns.
    """
    if on_epoch is not None:
        _check_callback(on_epoch)
    controls: dict[str, Any] = {"resume": resume, "rerun": rerun, "accept_stale": accept_stale}
    planned = plan(words, plugins=plugins, config_dir=config_dir, **controls, **settings)
    run_of = cache(lambda folder: opened(folder, planned.plugins))
    tell = None if on_epoch is None else lambda folder, row: on_epoch(run_of(folder), row)
    read_anew()
    with StopRequests() as stop, borrowed_torch(), showing(progress):
        _, folder = carried_out(planned, stop, write_page, tell)
    run = opened(folder, planned.plugins)
    if not folder.is_completed:
        record = folder.record()
        raise Stopped(
            f"{record['status']} after step {record['step']}; {kept_checkpoint(folder)}\n"
            f"To continue, make the same call again, or: cnnbench.train(resume={folder.shown_path!r})",
            run,
        )
    return run


def sweep(
    words: Words = (),
    *,
    jobs: int | Literal["auto"] = 1,
    plugins: Plugins = (),
    rerun: bool = False,
    accept_stale: bool = False,
    fail_fast: bool = False,
    retry_failed: bool = False,
    config_dir: str | Path | None = None,
    progress: ProgressMode = "auto",
    **settings: Any,
) -> "pd.DataFrame":
    """Carry out what `cnnbench -m …` would with these words, and return a row for each run, as `runs` does.

    Arguments are those of `train`, where a list is one value for each job: `model=["lenet", "mlp"], seed=range(3)`.
    jobs: at a time; auto: what fits this machine. fail_fast: stop at the first failure. retry_failed: also what
    diverged with the same code. Raises UserError for a mistake in any of the jobs, and Stopped if the sweep was, by
    Ctrl-C or by `max_minutes`; a job that fails leaves the others running.
    """
    typed = as_words(words, settings, is_grid=True)
    if given := [word for word in typed if word.partition("=")[0] in OF_SWEEPS]:
        raise SettingError(given[0], "is an argument of its own: sweep(…, jobs=2, fail_fast=True)")
    asked = _Request.of(typed, plugins, None, rerun, accept_stale)
    if asked.resume is not None:
        raise SettingError(f"resume={asked.resume}", "is for one run; to continue a sweep, make the same call again")
    if jobs != "auto" and (type(jobs) is not int or jobs < 1):
        raise SettingError(f"jobs={jobs}", "must be 'auto', or a whole number, at least 1")
    options = Options(None if jobs == "auto" else jobs, fail_fast, retry_failed, asked.accept_stale)
    processes = Processes()
    folder = None if config_dir is None else str(config_dir)
    grid = Grid(tuple(asked.words), asked.plugins, folder, asked.rerun, asked.mistakes)
    read_anew()
    with StopRequests() as stop, borrowed_torch(), showing(progress), exits_explained():
        swept = launched(grid, options, processes)
        code, _ = carry_out_sweep(swept, options, stop, Pages(write_page, compare_sweep, write_progress), processes)
    if code in (ExitCode.STOPPED, ExitCode.INTERRUPTED):
        raise Stopped("stopped; finished jobs are kept.\nTo continue, make the same call again.")
    return _table([read_run(run.path) for job in swept.jobs if (run := swept.run_of(job)) is not None])


def plan(
    words: Words = (),
    *,
    plugins: Plugins = (),
    resume: str | PathLike[str] | None = None,
    rerun: bool = False,
    accept_stale: bool = False,
    config_dir: str | Path | None = None,
    **settings: Any,
) -> Plan:
    """Return what `train` would carry out for the same arguments: its `config`, and `origins` of the values.

    Nothing is trained, and no data is read. Raises UserError for a mistake.
    """
    asked = _Request.of(as_words(words, settings), plugins, resume, rerun, accept_stale)
    code = code_hashes(register_everything(asked.plugins))
    if asked.resume is not None:
        planned = plan_resume(asked.resume, asked.words, asked.mistakes)
    else:
        planned = plan_run(_composer(config_dir), asked.words, asked.mistakes)
    return asked.applied_to(planned, code)


def runs(words: str | PathLike[str] | Sequence[str | PathLike[str]] = (), plugins: Plugins = ()) -> "pd.DataFrame":
    """Return a row per run: path, status, options such as `model`, settings by dotted name, results: `accuracy/test`.

    words: folders, sweeps, patterns or parts of paths, as `cnnbench report` takes them; none: all runs in `outputs`,
    or wherever they are written. plugins: as in `load_run`. Raises UserError for words that name no run.
    """
    register_everything(plugins)
    named = [word_of(one) for one in ([words] if isinstance(words, str | PathLike) else words)]
    return _table(runs_named(named) if named else runs_below(outputs_dir()))


def _table(summaries: Sequence[RunSummary]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for run in summaries:
        row = {"path": str(run.path), "status": run.record.get("status", run.status)}
        row |= run.record.get("choices", {}) | flat(run.config)  # model: lenet_v2; model.name: lenet
        row |= {"problem": run.problem} if run.problem else {}
        if run.result:
            row |= {
                f"{name}/{split}": value
                for split in ("train", "val", "test")
                for name, value in run.result.get(split, {}).items()
            }
            row |= {"parameters": run.result["parameters"]["total"], "seconds": run.result["seconds"]["train"]}
        rows.append(row)
    return pd.DataFrame(rows)


def write_page(folder: RunFolder) -> Path:
    """Write the page of a finished run, and return its path."""
    from cnnbench.analysis.reports.single import page_of  # with pandas, jinja2

    return page_of(folder).write(folder.path)


def compare_sweep(sweep: Path) -> tuple[list[str], Callable[[], Path]]:
    """Return what to print of the runs of a sweep side by side, and what writes their page and returns its path."""
    from cnnbench.analysis.reports.compared import page_of_sweep  # with pandas, jinja2

    page = page_of_sweep(sweep)
    return page.terminal(terminal.width()), partial(page.write, sweep)


def write_progress(sweep: Path, is_running: bool) -> Path:
    """Write the page of a sweep that runs, or that does not go on."""
    from cnnbench.analysis.reports.compared import page_of_sweep

    return page_of_sweep(sweep, is_running).write(sweep)


@dataclass(frozen=True)
class _Request:
    """The arguments of a call: words that configure a run, and controls that say what to do with it."""

    words: list[str]
    plugins: tuple[str, ...]
    resume: str | None
    rerun: bool
    accept_stale: bool
    mistakes: tuple[Mistake, ...]

    @classmethod
    def of(
        cls,
        words: list[str],
        plugins: Plugins,
        resume: str | PathLike[str] | None = None,
        rerun: bool = False,
        accept_stale: bool = False,
    ) -> "_Request":
        """Return the request of a call; words may hold controls too, as on the command line."""
        named = plugin_names(plugins) if isinstance(plugins, str) else plugins
        values = {key: value for key, _, value in (word.partition("=") for word in words) if key in CONTROLS}
        switches = {key: values.get(key, "false") for key in ("rerun", "accept_stale")}
        wrong = [key for key, value in switches.items() if value not in ("true", "false")]
        return cls(
            [word for word in words if word.partition("=")[0] not in CONTROLS],
            (*named, *plugin_names(values.get("plugins", ""))),
            values.get("resume") if resume is None else word_of(resume),
            rerun or switches["rerun"] == "true",
            accept_stale or switches["accept_stale"] == "true",
            (
                *(Mistake(f"{key}={values[key]}", "must be true or false") for key in wrong),
                *(Mistake(f"{key}={values[key]}", "is for the command line only") for key in COMMANDS if key in values),
                *(Mistake(f"{key}={values[key]}", "is for a sweep") for key in OF_SWEEPS if key in values),
            ),
        )

    def applied_to(self, planned: Plan, code: Mapping[str, str]) -> Plan:
        """Return the plan with the controls of the request. code: hashes of the code that computes."""
        code = {**code, **typed_code(planned.config)}
        return replace(planned.loading(self.plugins), code=code, rerun=self.rerun, accept_stale=self.accept_stale)


def _check_callback(on_epoch: OnEpoch) -> None:
    """Raise UserError where it cannot be called with a run and a row: now, and not after the first epoch."""
    try:
        signature = inspect.signature(on_epoch)
    except ValueError:  # of some that are written in C, Python does not know it
        return
    except TypeError as error:
        raise UserError(f"on_epoch={on_epoch!r} is no function.") from error
    try:
        signature.bind("run", "row")
    except TypeError as error:
        raise UserError(f"on_epoch is called with the run and the row of an epoch, and takes {signature}.") from error


def _composer(config_dir: str | Path | None) -> Composer:
    return Composer([] if config_dir is None else [str(config_dir)])
