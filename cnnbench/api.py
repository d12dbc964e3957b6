"""What notebooks and scripts call: trainings and sweeps, as the commands carry them out, and which runs there are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.analysis.run import Run, load_run
from cnnbench.config.compose import Composer
from cnnbench.config.validate import CONTROLS
from cnnbench.config.values import Words, as_words, flat
from cnnbench.errors import ExitCode, Mistake, SettingError, Stopped, UserError, exits_explained
from cnnbench.plugins import plugin_names, register_everything
from cnnbench.store.folder import RunFolder, find_runs, outputs_dir
from cnnbench.store.provenance import code_hashes, typed_code
from cnnbench.store.query import RunSummary, comparison_title, runs_named
from cnnbench.sweeps.expand import plan_all, resolve_all
from cnnbench.sweeps.slots import carry_out_all
from cnnbench.training.console import ProgressMode, showing
from cnnbench.training.ending import kept_checkpoint
from cnnbench.training.plan import Plan, command_line, plan_resume, plan_run
from cnnbench.training.signals import StopRequests
from cnnbench.training.torch_state import borrowed_torch
from cnnbench.training.trainer import carried_out

if TYPE_CHECKING:
    import pandas as pd

Plugins = str | Sequence[str]
"""Python files, or names of modules, that register components."""
OnEpoch = Callable[[Run, Mapping[str, Any]], None]
"""Gets the run, and the row of an epoch: epoch, step, loss/train, accuracy/val, … To stop there: raise Stopped."""
COMMANDS = ("dry_run", "lr_find")


def train(
    words: Words = (),
    plugins: Plugins = (),
    *,
    resume: str | Path | None = None,
    rerun: bool = False,
    accept_stale: bool = False,
    config_dir: str | Path | None = None,
    progress: ProgressMode = "auto",
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> Run:
    """Train, or continue, what `cnnbench …` would with these words, and return the run; a finished one is only opened.

    words: `"data=digits epochs=1"`, a list of such words, or a mapping. settings: the same as keywords, `epochs=1`,
    `optimizer={"lr": 0.1}` or `**{"optimizer.lr": 0.1}`. resume: a run to go on with. rerun: train a finished run
    again. accept_stale: go on although code or data changed. config_dir: a folder of more YAML files. progress: a bar,
    lines or nothing, `quiet`; auto: a bar on a terminal, elsewhere lines. on_epoch: called after each epoch.

    Raises UserError for a mistake, TrainingError if training fails, and Stopped if it was stopped: by Ctrl-C, by
    `max_minutes`, or by `on_epoch`; the same call goes on. Random generators, threads and flags of torch are given back
    as they were; trainings in several threads take turns.
    """
    controls: dict[str, Any] = {"resume": resume, "rerun": rerun, "accept_stale": accept_stale}
    planned = plan(words, plugins, config_dir=config_dir, **controls, **settings)
    opened = cache(lambda folder: load_run(folder.path, planned.plugins))
    tell = None if on_epoch is None else lambda folder, row: on_epoch(opened(folder), row)
    with StopRequests() as stop, borrowed_torch(), showing(progress):
        _, folder = carried_out(planned, stop, write_page, tell)
    run = load_run(folder.path, planned.plugins)
    if not folder.is_completed:
        record = folder.record()
        raise Stopped(
            f"{record['status']} after step {record['step']}; {kept_checkpoint(folder)}\n"
            f"To go on, call the same again, or: cnnbench.train(resume={folder.shown_path!r})",
            run,
        )
    return run


def sweep(
    words: Words = (),
    plugins: Plugins = (),
    *,
    rerun: bool = False,
    accept_stale: bool = False,
    config_dir: str | Path | None = None,
    progress: ProgressMode = "auto",
    **settings: Any,
) -> list[Run]:
    """Carry out what `cnnbench -m …` would with these words, and return the run of each job that has begun.

    Arguments are those of `train`, where a list is one value for each job: `model=["lenet", "mlp"], seed=range(3)`.
    Raises UserError for a mistake in any of the jobs, and Stopped if the sweep was, or its jobs by `max_minutes`; a job
    that fails leaves the others running.
    """
    asked = _Request.of(as_words(words, settings, is_grid=True), plugins, None, rerun, accept_stale)
    if asked.resume is not None:
        raise SettingError(f"resume={asked.resume}", "is for one run; to go on with a sweep, call the same again")
    with StopRequests() as stop, borrowed_torch(), showing(progress), exits_explained():
        # Once: edits from now on are not recorded as if they ran.
        code = code_hashes(register_everything(asked.plugins))
        jobs = plan_all(_composer(config_dir), asked.words, asked.mistakes)
        typed = {name for job in jobs for name in typed_code(job.config)}
        if typed:
            where = "is defined in this notebook or script, which the processes of a sweep do not have"
            raise UserError(f"{', '.join(sorted(typed))} {where}: put it into a file, plugins=FILE.")
        plans = resolve_all([asked.applied_to(job, code) for job in jobs])
        code_of_end = carry_out_all(plans, stop, write_page, write_comparison, (), command_line(["-m", *asked.words]))
    if code_of_end in (ExitCode.STOPPED, ExitCode.INTERRUPTED):
        raise Stopped("stopped; finished jobs are kept.\nTo go on, call the same again.")
    return [load_run(folder.path, asked.plugins) for job in plans for folder in _newest_run(job)]


def plan(
    words: Words = (),
    plugins: Plugins = (),
    *,
    resume: str | Path | None = None,
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


def runs(pattern: str | Path | None = None, plugins: Plugins = ()) -> "pd.DataFrame":
    """Return a row for each run whose folder matches a pattern: path, status, settings, results.

    pattern: None: all runs in `outputs`, or wherever they are written. plugins: as in `load_run`. Settings have their
    dotted names, results names like `accuracy/test`.
    """
    import pandas as pd

    register_everything(plugins)
    rows = []
    path = outputs_dir() / "**" if pattern is None else Path(pattern)
    start = Path(path.anchor)
    for record in sorted(start.glob(f"{path.relative_to(start)}/run.json")):
        run = RunSummary(RunFolder(record.parent))
        row = {"path": str(run.path), "status": run.record.get("status")} | flat(run.config)
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
    from cnnbench.analysis.reports.single import page_of  # with pandas, matplotlib, jinja2

    return page_of(folder).write(folder.path)


def write_comparison(manifest: Path) -> Path:
    """Write the page that compares the runs of a sweep, and return its path."""
    from cnnbench.analysis.reports.compared import page_of  # with pandas, matplotlib, jinja2
    from cnnbench.analysis.reports.comparison import compare

    words = [str(manifest)]
    return page_of(compare(runs_named(words)), comparison_title(words)).write(outputs_dir() / "reports" / manifest.stem)


@dataclass(frozen=True)
class _Request:
    """What was asked for: words that configure a run, and what to do with it besides."""

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
        resume: str | Path | None = None,
        rerun: bool = False,
        accept_stale: bool = False,
    ) -> "_Request":
        """Return what arguments ask for; words may say the same, as those of a command do."""
        named = plugin_names(plugins) if isinstance(plugins, str) else plugins
        values = {key: value for key, _, value in (word.partition("=") for word in words) if key in CONTROLS}
        switches = {key: values.get(key, "false") for key in ("rerun", "accept_stale")}
        wrong = [key for key, value in switches.items() if value not in ("true", "false")]
        return cls(
            [word for word in words if word.partition("=")[0] not in CONTROLS],
            (*named, *plugin_names(values.get("plugins", ""))),
            values.get("resume") if resume is None else str(resume),
            rerun or switches["rerun"] == "true",
            accept_stale or switches["accept_stale"] == "true",
            (
                *(Mistake(f"{key}={values[key]}", "must be true or false") for key in wrong),
                *(Mistake(f"{key}={values[key]}", "is for the command line only") for key in COMMANDS if key in values),
            ),
        )

    def applied_to(self, planned: Plan, code: Mapping[str, str]) -> Plan:
        """Return a plan with all that is no setting of the run. code: hashes of what computes."""
        code = {**code, **typed_code(planned.config)}
        return replace(planned, code=code, plugins=self.plugins, rerun=self.rerun, accept_stale=self.accept_stale)


def _composer(config_dir: str | Path | None) -> Composer:
    return Composer([] if config_dir is None else [str(config_dir)])


def _newest_run(planned: Plan) -> list[RunFolder]:
    return find_runs(outputs_dir(), planned.config.identity())[-1:]
