"""The one entry point: `cnnbench …` turns words into plans, and has them carried out.

Nothing heavy is imported at the top: `--help` and completion answer at once.
"""

import gc
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import TextIOWrapper
from pathlib import Path
from shutil import get_terminal_size
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cnnbench
from cnnbench.cli.parse import VERBS, asks_for_help, verb_and_words
from cnnbench.config.hints import SWITCHES
from cnnbench.errors import (
    ExitCode,
    Mistake,
    PluginsNeededError,
    TrainingError,
    UserError,
    exits_explained,
    printable,
    said_of_paths,
    wrapped,
)
from cnnbench.training.signals import StopRequests

if TYPE_CHECKING:
    from cnnbench.analysis.run import Run
    from cnnbench.training.plan import Plan

# What the end of a run needs, with pandas and matplotlib: a second, once instead of for every job of a sweep.
REPORTING = (
    "cnnbench.analysis.reports.single",
    "cnnbench.analysis.reports.compared",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",
)
MAX_JOBS = 1024


@dataclass
class Request:
    """What was typed: flags, controls, and the words that configure a run."""

    is_sweep: bool
    shows_config: bool
    config_dir: str | None
    resume: str | None = None
    plugins: tuple[str, ...] = ()
    words: list[str] = field(default_factory=list)
    rerun: bool = False
    accept_stale: bool = False
    dry_run: bool = False
    lr_find: bool = False
    engine: list[str] = field(default_factory=list)
    jobs: str = ""
    fail_fast: bool = False
    retry_failed: bool = False
    mistakes: tuple[Mistake, ...] = ()

    @property
    def num_jobs(self) -> int | None:
        """Return how many jobs of a sweep are to run at a time; None: as many as fit."""
        return None if self.jobs == "auto" else int(self.jobs) if self.jobs.isdigit() else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit with one of the codes of `ExitCode`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _set_waiting()
    gc.set_threshold(20_000)  # by default a tenth of the start is a search for garbage among what was imported
    if isinstance(sys.stdout, TextIOWrapper):  # a page or a help text holds more than ASCII; errors are escaped anyhow
        sys.stdout.reconfigure(errors="backslashreplace")
    with StopRequests(gives_back=arguments is not None) as stop:
        code = _exit_code(words, stop)
    if arguments is None and "triton" not in sys.modules:  # which complains, 26 lines long, of what is not collected
        gc.freeze()  # the process ends: to look for garbage in all that torch has loaded would take half a second
    sys.exit(code)


def _set_waiting() -> None:
    """Let threads of torch, which reads this when it is loaded, wait for each other awake for a moment, then asleep.

    By default they wait awake for long, and as soon as anything else runs on the machine small networks crawl: 130 to
    650 images/s, where sleeping gives 2 500. But to wake up is a system call for every layer: with 10 000 spins, an MLP
    trains 2.3 times as fast on a quiet machine, LeNet 1.7 times (`cnnbench/docs/speed.md`).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"  # of libgomp, which comes with torch for Linux
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # of others


def _exit_code(words: Sequence[str], stop: StopRequests) -> ExitCode:
    """Do what the words say; say what went wrong, and return how the command ends."""
    try:
        os.getcwd()  # where that was removed, MKL ends the process as torch is loaded
        code = run_command(words, stop)
        if sys.stdout is not None:  # closed: `>&-`
            sys.stdout.flush()  # a reader that has gone away is noticed here, not when Python ends
    except (UserError, TrainingError) as error:
        _say(words, error)
        code = ExitCode.MISTAKE if isinstance(error, UserError) else ExitCode.FAILED
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does; Python would complain when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.FINISHED
    except OSError as error:
        if not (said := said_of_paths(error)):
            raise
        _say(words, said)
        code = ExitCode.MISTAKE
    except KeyboardInterrupt as error:  # a second Ctrl-C
        _say(words, str(error) or "stopped.")
        code = ExitCode.INTERRUPTED
    except BaseException as error:
        if not (said := stop.said_of(error)):
            raise
        _say(words, said)
        code = stop.exit_code
    return code


def _say(words: Sequence[str], text: object) -> None:
    verb = f" {words[0]}" if words and words[0] in VERBS else ""
    way = f" Type: {text.retyped(words)}" if isinstance(text, PluginsNeededError) else ""
    message = printable(f"cnnbench{verb}: {text}{way}\n")
    sys.stderr.write(wrapped(message, get_terminal_size().columns) if sys.stderr.isatty() else message)


def run_command(arguments: Sequence[str], stop: StopRequests) -> ExitCode:
    """Do what the words of a command line say, and return the exit code. stop: what listens to signals."""
    verb, words = verb_and_words(arguments)
    if asks_for_help(words):
        from cnnbench.cli.help import overview

        sys.stdout.write(printable(overview() if len(words) == len(arguments) else verb.help_text(words)))
        return ExitCode.FINISHED
    flags = verb.parse(words)
    if verb.run is None and vars(flags).get("version"):
        sys.stdout.write(f"cnnbench {cnnbench.__version__}\n")
        return ExitCode.FINISHED
    with exits_explained():
        if verb.run is not None:
            verb.run(flags)
            return ExitCode.FINISHED
        request = read_request(flags)
        _check_ranks(request)
        if request.is_sweep and not request.dry_run:
            return _sweep(request, stop)
        return _do(request, plans_of(request), stop)


def plans_of(request: Request) -> "list[Plan]":
    """Return the plans that a request means, with the hashes of the code that will carry them out."""
    from cnnbench.config.compose import Composer
    from cnnbench.plugins import register_everything
    from cnnbench.store.provenance import code_hashes
    from cnnbench.training.plan import plan_resume, plan_run

    modules = register_everything(request.plugins)
    composer = Composer([request.config_dir] if request.config_dir else [])
    if request.resume is not None:
        plans = [plan_resume(request.resume, request.words, request.mistakes)]
    elif request.is_sweep:
        from cnnbench.sweeps.expand import plan_all

        plans = plan_all(composer, request.words, request.mistakes)
    else:
        plans = [plan_run(composer, request.words, request.mistakes)]
    code = code_hashes(modules)  # half a second, which a mistake need not wait for
    return [
        replace(
            plan.loading(request.plugins, request.config_dir),
            code=code, rerun=request.rerun, accept_stale=request.accept_stale,
        )
        for plan in plans
    ]  # fmt: skip


def _do(request: Request, plans: "Sequence[Plan]", stop: StopRequests) -> ExitCode:
    if request.shows_config:
        import yaml

        sys.stdout.write(yaml.safe_dump(plans[0].config.to_dict(), sort_keys=False))
        return ExitCode.FINISHED
    if request.dry_run:
        from cnnbench.sweeps.expand import design_of
        from cnnbench.sweeps.slots import slots_of_machine
        from cnnbench.training.dry_run import dry_run_all

        return dry_run_all(design_of(plans), len(slots_of_machine(request.num_jobs, plans[0])))
    if request.lr_find:
        from cnnbench.training.lr_finder import find_learning_rate

        return find_learning_rate(plans[0])
    from cnnbench.api import write_page
    from cnnbench.training.console import say
    from cnnbench.training.trainer import carry_out

    if plans[0].grid:
        say(f"note: this experiment has a grid, {plans[0].grid}, of which this is one run; -m runs all of it")
    return carry_out(plans[0], write_page, stop)


def _sweep(request: Request, stop: StopRequests) -> ExitCode:
    """Carry out a sweep, or let an engine do so: one that was typed, or one that is continued, given by its folder."""
    from cnnbench.api import compare_sweep, write_page, write_progress
    from cnnbench.plugins import register_everything
    from cnnbench.sweeps.engines import chosen_engine, handed_over, threads_of_worker
    from cnnbench.sweeps.launch import Grid, Pages, carry_out_sweep, launched, opened
    from cnnbench.sweeps.slots import Processes
    from cnnbench.sweeps.work import Options

    processes = Processes(REPORTING)
    options = Options(request.num_jobs, request.fail_fast, request.retry_failed, request.accept_stale)
    register_everything(request.plugins)
    engine, mistakes = chosen_engine(request.engine, request.config_dir)
    known = (*request.mistakes, *mistakes)
    if request.resume is not None:
        sweep = opened(request.resume, request.words, known)
        options = options if request.jobs else replace(options, jobs=sweep.at_once)
    else:
        words = tuple(request.words)
        grid = Grid(words, request.plugins, request.config_dir, request.rerun, known)
        sweep = launched(grid, options, processes, threads_of_worker(engine, options))
    if handed_over(sweep, engine, options):
        return ExitCode.FINISHED
    return carry_out_sweep(sweep, options, stop, Pages(write_page, compare_sweep, write_progress), processes)[0]


def _check_ranks(request: Request) -> None:
    """Raise UserError where several processes were started for one run; those of a sweep share its jobs."""
    ranks = (
        ("RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    )
    started = [size for rank, size in ranks if rank in os.environ and os.environ.get(size, "").isdigit()]
    number = max((int(os.environ[size]) for size in started), default=1)
    if number > 1 and not request.is_sweep:
        raise UserError(
            f"{number} processes were started for one run (by torchrun, srun or mpirun), which trains in one: start "
            "one, or a sweep (-m), whose jobs they share."
        )


def read_request(flags: Namespace) -> Request:
    """Separate the words that configure a run from those that say what to do with it."""
    typed, mistakes = vars(flags), []
    # `cnnbench resume RUN` has fewer flags than a training that begins.
    is_sweep, shows_config = typed.get("multirun", False), typed["cfg"] is not None
    resumed = typed.get("run")
    request = Request(is_sweep, shows_config, typed.get("config_dir"), resumed, flags.plugins)
    for word in flags.words:
        key, _, value = word.partition("=")
        if key == "resume":
            request.resume = value
        elif key in SWITCHES:
            if value not in ("true", "false"):
                mistakes.append(Mistake(word, "must be true or false"))
            setattr(request, key, value == "true")
        elif key.partition(".")[0] == "engine":
            request.engine.append(word)
        elif key == "jobs":
            if value != "auto" and not (value.isdigit() and 0 < int(value) <= MAX_JOBS):
                mistakes.append(Mistake(word, f"must be auto, as many as fit, or a whole number from 1 to {MAX_JOBS}"))
            request.jobs = value
        elif word in VERBS:
            mistakes.append(Mistake(word, f"is a command, which comes first: cnnbench {word} …"))
        else:
            request.words.append(word)
    if request.resume is not None:
        from cnnbench.store.folder import outputs_dir
        from cnnbench.store.sweep_files import sweep_file, with_folder

        request.resume = with_folder(request.resume, outputs_dir())
        request.is_sweep |= bool(request.resume) and sweep_file(Path(request.resume).expanduser()) is not None
    request.mistakes = (*mistakes, *_contradictions(request, is_sweep, flags.words))
    return request


def _contradictions(request: Request, is_multirun: bool, words: Sequence[str]) -> Iterator[Mistake]:
    """Yield what cannot be asked for together. is_multirun: -m was typed."""
    if request.resume is not None and is_multirun:
        yield Mistake("-m", "and resume= exclude each other; cnnbench resume outputs/sweeps/NAME continues a sweep")
    elif request.resume is not None and request.is_sweep:
        switches = {"rerun=true": request.rerun, "dry_run=true": request.dry_run}
        yield from (Mistake(word, "is for the command of a sweep") for word, is_set in switches.items() if is_set)
    if not request.is_sweep:
        of_sweeps = (word for word in words if re.match("(jobs|engine|fail_fast|retry_failed)[.=]", word))
        way = "put -m before it" if request.resume is None else f"{request.resume} is one run"
        yield from (Mistake(word, f"is for a sweep; {way}") for word in of_sweeps)
    if request.shows_config and request.is_sweep:
        yield Mistake("-m", "and --cfg exclude each other; --cfg shows the configuration of one run")
    if request.lr_find and (request.is_sweep or request.dry_run or request.resume is not None):
        yield Mistake("lr_find=true", "is for one new run: without -m, dry_run and resume")


class _Callable(ModuleType):
    """What makes `cnnbench.train(…)` train, although this file has the name of that function."""

    def __call__(self, *words: Any, **settings: Any) -> "Run":
        from cnnbench.api import train

        return train(*words, **settings)


sys.modules[__name__].__class__ = _Callable


if __name__ == "__main__":
    main()
