"""How long commands take where there are many runs: `python tests/benchmarks/many_runs.py [--runs 1000]`.

One network is trained, and its folder is copied to other identities, as hard links but for what names the run: sweeps
of up to 1 000 finished jobs, ten seeds each. Then each command is typed three times, and the least is printed. Run it
on a machine that does nothing else; what `--in FOLDER` holds is measured without making more.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnbench.plugins import register_everything
from cnnbench.store.files import CHECKSUM, as_json, checksum, json_bytes
from cnnbench.store.folder import RunFolder
from cnnbench.store.lookup import find_runs
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Manifest
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.launch import Grid
from cnnbench.training.plan import Plan

HERE = Path(__file__).parents[2]
RUN = ("data=digits", "model=mlp", "epochs=3", "device=cpu")
JOBS, SEEDS = 1000, 10  # of a sweep, of each of its configurations
OWN = ("run.json", "result.json", "config.yaml")


def cnnbench(*words: str) -> float:
    """Return how long a command takes, from its start to its end, in seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "cnnbench", *words]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def make(outputs: Path, number: int) -> None:
    """Fill a folder with that many finished runs, in sweeps."""
    register_everything()
    cnnbench(*RUN)
    template = RunFolder(next(outputs.glob("*/*/*/run.json")).parent)
    chance = random.Random(0)
    rates = [f"{index / 1e5:g}" for index in range(1, max(2, number // SEEDS + 1))]
    for first in range(0, len(rates), JOBS // SEEDS):
        some = rates[first : first + JOBS // SEEDS]
        grid = Grid((*RUN, f"optimizer.lr={','.join(some)}", f"seeds={min(SEEDS, number)}"))
        sweep = SweepFolder.write(grid.plans({}), grid.command, 1, None)
        for job in sweep.jobs:
            copy(template, outputs / job.folder, sweep.plan(job), chance)


def copy(template: RunFolder, path: Path, plan: Plan, chance: random.Random) -> None:
    """Write the folder of a finished run with this plan; nothing is flushed to the disk."""
    for source in sorted(template.path.rglob("*")):
        target = path / source.relative_to(template.path)
        if source.is_dir():
            target.mkdir(parents=True)
        elif source.parent == template.checkpoints and source.suffix == ".json":
            target.write_bytes(sealed({**read_json(source, Manifest), "identity": plan.config.identity()}))
        elif source.name not in OWN:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    values = as_json(plan.config.to_dict())
    facts = {"identity": plan.config.identity(), "command": plan.command, "origins": dict(plan.origins)}
    (path / "run.json").write_bytes(json_bytes({**template.record(), **facts, "config": values}))
    result = template.result()
    measured = {split: {**result[split], "accuracy": chance.uniform(0.8, 0.99)} for split in ("val", "test")}
    (path / "result.json").write_bytes(sealed({**result, **measured, "identity": plan.config.identity()}))
    RunFolder(path).write_config(values, plan.command)


def sealed(values: dict[str, object]) -> bytes:
    """Return the content of a file that says when it was edited."""
    return json_bytes({**values, CHECKSUM: checksum(values)})


def least(read: Callable[[], object], times: int = 3) -> float:
    """Return how long something takes, in seconds: the least of several times."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        read()
        taken.append(time.perf_counter() - began)
    return min(taken)


def measure(outputs: Path) -> None:
    """Print how long each command takes."""
    sweep = SweepFolder.open(max(path.parent for path in (outputs / "sweeps").glob("*/sweep.json")))
    named = f"outputs/sweeps/{sweep.path.name}"
    fresh = random.SystemRandom()
    ways = {
        "list": lambda: cnnbench("list"),
        "list 'accuracy>0.95' --sort accuracy": lambda: cnnbench("list", "accuracy>0.95", "--sort", "accuracy"),
        "list --json": lambda: cnnbench("list", "--json"),
        "list last": lambda: RunFolder.named("last"),
        f"list {named}": lambda: cnnbench("list", named),
        "look up an identity": lambda: find_runs(outputs, sweep.jobs[0].identity),
        f"report {named}": lambda: cnnbench("report", named),
        "report outputs/digits": lambda: cnnbench("report", str(outputs / "digits")),
        "the sweep again": lambda: cnnbench("resume", named),
        "a new run": lambda: cnnbench(*RUN, "report=false", f"optimizer.lr={fresh.uniform(0.2, 0.3)}"),
    }
    for name, read in ways.items():
        print(f"{name:<40}  {least(read):8.3f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--in", dest="folder", type=Path, help="empty, or what an earlier call made")
    flags = parser.parse_args()
    with TemporaryDirectory() as scratch:
        home = (flags.folder or Path(scratch)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        os.chdir(home)
        os.environ["CNNBENCH_OUTPUTS"] = str(home / "outputs")
        if not Path("outputs").is_dir():
            make(home / "outputs", flags.runs)
        measure(home / "outputs")


if __name__ == "__main__":
    main()
