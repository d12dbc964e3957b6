"""How long commands take where there are many runs: `python tests/benchmarks/many_runs.py [--runs 1000]`.

One network is trained, and its folder is copied to other identities, as hard links but for what names the run: sweeps
of up to 1 000 finished jobs, ten seeds each. Then each command is typed three times, and the least is printed: seconds,
and seconds of processors, which say more on a machine that does something else too. What `--in FOLDER` holds is
measured without making more; `--package FOLDER` measures another checkout of cnnbench.
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
from cnnbench.store.folder import RunFolder, find_runs, names_by_hash
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Manifest
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.launch import Grid
from cnnbench.training.plan import Plan

HERE = Path(__file__).parents[2]
RUN = ("data=digits", "model=mlp", "epochs=3", "device=cpu")
JOBS, SEEDS = 1000, 10  # of a sweep, of each of its configurations
OWN = ("run.json", "result.json", "config.yaml")


def cnnbench(*words: str) -> None:
    """Carry out a command, which must succeed."""
    command = [sys.executable, "-m", "cnnbench", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")


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


def least(read: Callable[[], object], times: int) -> tuple[float, float]:
    """Return how long something takes, and for how long processors work on it, in seconds: the least of each."""
    taken = []
    for _ in range(times):
        began, worked = time.perf_counter(), sum(os.times()[:4])
        read()
        taken.append((time.perf_counter() - began, sum(os.times()[:4]) - worked))
    return min(wall for wall, _ in taken), min(worked for _, worked in taken)


def measure(outputs: Path, times: int) -> None:
    """Print how long each command takes."""
    sweep = SweepFolder.open(max(path.parent for path in (outputs / "sweeps").glob("*/sweep.json")))
    named, chance = f"outputs/sweeps/{sweep.path.name}", random.SystemRandom()
    names = names_by_hash(outputs)
    ways = {
        "list": lambda: cnnbench("list"),
        "list 'accuracy>0.95' --sort accuracy": lambda: cnnbench("list", "accuracy>0.95", "--sort", "accuracy"),
        "list --json": lambda: cnnbench("list", "--json"),
        "list SWEEP": lambda: cnnbench("list", named),
        "list sweeps": lambda: cnnbench("list", "sweeps"),
        "list --prune-checkpoints 10": lambda: cnnbench("list", "--prune-checkpoints", "10"),
        "report SWEEP": lambda: cnnbench("report", named),
        "report of one seed": lambda: cnnbench("report", "outputs/digits/mlp/*_seed0-*"),
        "resume SWEEP, which is finished": lambda: cnnbench("resume", named),
        "a new run": lambda: cnnbench(*RUN, "report=false", f"optimizer.lr={chance.uniform(0.2, 0.3)}"),
    }
    for name, read in ways.items():
        print(f"{name:<40}  {'  '.join(f'{one:7.2f} s' for one in least(read, times))}", flush=True)
    for name, known in (("a look-up", None), ("a look-up of many", names)):
        wall, _ = least(lambda known=known: find_runs(outputs, sweep.jobs[0].identity, known), 20)
        print(f"{name:<40}  {1000 * wall:6.2f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--in", dest="folder", type=Path, help="empty, or what an earlier call made")
    parser.add_argument("--package", type=Path, default=HERE, help="the checkout that is measured")
    flags = parser.parse_args()
    with TemporaryDirectory() as scratch:
        home = (flags.folder or Path(scratch)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        os.environ |= {"CNNBENCH_OUTPUTS": str(home / "outputs"), "PYTHONPATH": str(flags.package.resolve())}
        os.chdir(home)
        if not Path("outputs").is_dir():
            make(home / "outputs", flags.runs)
        measure(home / "outputs", flags.times)


if __name__ == "__main__":
    main()
