"""Where the jobs of a sweep run: on this machine, or by workers elsewhere, which an engine starts.

A worker is a command that continues the sweep in its folder. It can be run as often, and wherever, one likes.
"""

import hashlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from cnnbench.config.compose import Composer
from cnnbench.config.hints import no_such_option
from cnnbench.config.validate import read_section
from cnnbench.errors import Mistake, SettingError, UserError, counted
from cnnbench.registry import ENGINES, Selection
from cnnbench.store.files import create_whole
from cnnbench.store.folder import shown
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.outcome import outcome_on_disk
from cnnbench.sweeps.work import Options
from cnnbench.training import console

SCRIPT = """\
#!/bin/bash
{options}

# Takes jobs of the sweep until none is left.
srun --ntasks=1 --cpus-per-task={cpus} {command}
code=$?
# 75: stopped by a signal, with everything saved. The number of the last task of an array is that of the whole array.
[ $code = 75 ] && scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
exit $code
"""
LOCAL = Selection("local", {})
WARNING = 120  # seconds before the time of a worker is over: its jobs end their step, and save

Time = Annotated[PositiveInt | str | None, Field(description="minutes, or hours:minutes:seconds; null: no limit")]


@dataclass(frozen=True)
class Worker:
    """What an engine runs. words: the command, which takes jobs of the sweep until none is left.

    Its exit code 75 says that it was stopped by a signal and has saved; run again, it goes on.
    """

    sweep: SweepFolder
    words: tuple[str, ...]

    @property
    def left(self) -> int:
        """Return how many jobs there is something to do about."""
        return sum(outcome_on_disk(run) is None for run in self.sweep.read_runs().values())


def chosen_engine(words: Sequence[str], config_dir: str | None = None) -> tuple[Selection, list[Mistake]]:
    """Return the engine that `engine=slurm engine.workers=8` means, and every mistake in these words."""
    typed = {word.partition("=")[0]: word for word in words}
    composer = Composer([config_dir] if config_dir else [])
    option = typed.pop("engine", "engine=local").partition("=")[2]
    options = sorted({*composer.groups()["engine"], *ENGINES})
    if option not in options:
        return LOCAL, [Mistake(f"engine={option}", no_such_option("engine", option, options))]
    values = composer.settings_of("engine", option)
    name = str(values.get("name", option))
    if name == LOCAL.name:
        return LOCAL, [
            Mistake(word, "is for an engine that runs jobs elsewhere, such as engine=slurm") for word in typed.values()
        ]
    values = composer.settings_of("engine", name) | values
    values |= {key.partition(".")[2]: _value(word.partition("=")[2]) for key, word in typed.items()}
    values.pop("name", None)
    settings, mistakes = read_section(ENGINES[name].schema, values, typed, "engine")
    return Selection(name, {} if mistakes else settings.model_dump()), mistakes


def threads_of_worker(engine: Selection, options: Options) -> int | None:
    """Return the threads of each run of a worker: its share of the cores; None: as on this machine."""
    cpus = engine.settings.get("cpus")
    return None if cpus is None else max(1, cpus // (options.jobs or engine.settings.get("gpus") or cpus))


def handed_over(sweep: SweepFolder, engine: Selection, options: Options) -> bool:
    """Let an engine run workers for what is left of a sweep, say how to go on, and tell whether there was an engine.

    Raises UserError for a limit of minutes: that of a worker is its engine's, which runs it again.
    """
    words = [sys.executable, "-m", "cnnbench", "resume", str(sweep.path), f"jobs={options.jobs or 'auto'}"]
    words += [f"{key}=true" for key in ("fail_fast", "retry_failed", "accept_stale") if getattr(options, key)]
    worker = Worker(sweep, tuple(words))
    if engine == LOCAL or not worker.left:
        return False
    if sweep.max_minutes is not None:
        raise SettingError(
            f"max_minutes={sweep.max_minutes:g}", "is for jobs on this machine; a worker has engine.time"
        )
    console.say(
        f"{counted(len(sweep.jobs), 'run')}, {worker.left} to be trained, "
        f"{counted(sweep.threads, 'thread')} each: {sweep.shown_path}"
    )
    ENGINES.build(engine, worker=worker)
    console.say(
        f"  how it stands  cnnbench list {sweep.shown_path}\n"
        f"  to continue    the same command again, or: cnnbench resume {sweep.shown_path}\n"
        f"  to compare     cnnbench report {sweep.shown_path}"
    )
    return True


def _value(text: str) -> object:
    """Return a number, a switch, or else the text. For YAML 4:00:00 is 14400, and for Hydra gpu,long a grid."""
    plain: dict[str, object] = {"true": True, "false": False, "null": None}
    return plain.get(text, int(text) if text.isdecimal() else text)


@ENGINES.register("manual")
def print_command(worker: Worker, *, cpus: PositiveInt) -> None:
    """Prints the command of a worker."""
    console.say(f"nothing was started; a worker, which needs {counted(cpus, 'core')}: {shlex.join(worker.words)}")


@ENGINES.register("slurm")
def submit_to_slurm(
    worker: Worker,
    *,
    workers: PositiveInt,
    time: Time,
    partition: str | None,
    cpus: PositiveInt,
    gpus: NonNegativeInt,
    memory: int | str | None,
    options: str,
    submit: bool,
) -> None:
    """Submits an array of workers to Slurm."""
    sweep, number = worker.sweep, min(workers, worker.left)
    warning = min(WARNING, 20 * time) if isinstance(time, int) else WARNING  # longer than a worker, it comes at once
    asked = {
        "job-name": f"cnnbench-{sweep.path.name}",
        "array": f"1-{number}",
        "chdir": sweep.cwd,
        "output": sweep.path / "logs" / "slurm-%A_%a.txt",
        "open-mode": "append",
        "signal": f"USR1@{warning}",
        "cpus-per-task": cpus,
        "time": time,
        "partition": partition,
        "gres": f"gpu:{gpus}" if gpus else None,
        "mem": memory,
    }
    given = [f"--{key}={shlex.quote(str(value))}" for key, value in asked.items() if value is not None]
    lines = "\n".join(f"#SBATCH {option}" for option in (*given, "--requeue", options) if option)
    content = SCRIPT.format(options=lines, cpus=cpus, command=shlex.join(worker.words)).encode()
    script = sweep.path / f"slurm-{hashlib.sha256(content).hexdigest()[:8]}.sh"
    create_whole(script, content)  # one that is there stays: its user may have edited it
    by_hand = f"sbatch {shlex.quote(str(script))}"
    if not submit:
        console.say(f"nothing was submitted; to submit its workers: {by_hand}")
        return
    try:
        answer = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"nothing was submitted: there is no sbatch on this machine. Where there is: {by_hand}"
        ) from None
    if answer.returncode:
        raise UserError(f"nothing was submitted. {answer.stderr.strip()}\n  the script is {script}")
    job = answer.stdout.strip().partition(";")[0]  # which a cluster's name may follow
    console.say(f"submitted {counted(number, 'worker')} to Slurm as job {job}: {shown(script)}")
