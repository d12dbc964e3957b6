"""Training and sweeps from Python, as the command line has them carried out; and the pages that they end with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cnnbench.analysis.run import Run, load_run, plan
from cnnbench.config.compose import Composer
from cnnbench.plugins import register_everything
from cnnbench.store.folder import RunFolder, find_runs, outputs_dir
from cnnbench.store.provenance import code_hashes
from cnnbench.store.query import comparison_title, runs_named
from cnnbench.sweeps.expand import plan_all, resolve_all
from cnnbench.sweeps.slots import carry_out_all
from cnnbench.training.plan import Plan
from cnnbench.training.resolve import resolve
from cnnbench.training.trainer import carry_out


def train(overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Run:
    """Train, or continue, what `cnnbench …` would with these words, and return the run; a finished one is only opened.

    Raises UserError for a mistake, TrainingError if training fails.
    """
    code = code_hashes(register_everything(plugins))
    resolved, _ = resolve(replace(plan(overrides), plugins=tuple(plugins), code=code), torch.device("cpu"))
    carry_out(resolved, write_page)
    return load_run(_newest_run(resolved)[0].path, plugins)


def sweep(overrides: Sequence[str], plugins: Sequence[str] = ()) -> list[Run]:
    """Carry out what `cnnbench -m …` would with these words, and return the run of each job that has begun.

    Raises UserError for a mistake in any of the jobs; a job that fails leaves the others running.
    """
    code = code_hashes(register_everything(plugins))  # once: code that is edited meanwhile is not recorded as if it ran
    jobs = plan_all(Composer(), list(overrides))
    plans = resolve_all([replace(job, plugins=tuple(plugins), code=code) for job in jobs])
    carry_out_all(plans, write_page, write_comparison)
    return [load_run(folder.path, plugins) for job in plans for folder in _newest_run(job)]


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


def _newest_run(plan: Plan) -> list[RunFolder]:
    return find_runs(outputs_dir(), plan.config.identity())[-1:]
