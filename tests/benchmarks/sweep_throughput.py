"""How much faster a sweep is with several jobs at a time: `python tests/benchmarks/sweep_throughput.py [--small]`.

24 LeNets (dropout, batch norm, six seeds) on the digits that ship with scikit-learn, with their pages, from the command
to its end: by another checkout of cnnbench where `--before FOLDER` names one, with jobs=1, with jobs=2, and finished
ones typed again. Each begins in an empty folder. Run it on a machine that does nothing else.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parents[2]
GRID = ("regularization.dropout=0,0.5", "regularization.batchnorm=false,true", "seed=0,1,2,3,4,5")
WORDS = ("-m", "model=lenet_v2", "data=digits", "epochs=3", "device=cpu")


def seconds(words: list[str], outputs: Path, package: Path) -> float:
    """Return how long a command takes, from its start to its end."""
    environment = {**os.environ, "PYTHONPATH": str(package), "CNNBENCH_OUTPUTS": str(outputs)}
    began = time.perf_counter()
    command = [sys.executable, "-m", "cnnbench", *words]
    subprocess.run(command, env=environment, cwd=outputs.parent, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="four jobs, to try it")
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    flags = parser.parse_args()
    words = [*WORDS, *(GRID[2:] if flags.small else GRID)]
    ways = [("jobs=1", HERE, ["jobs=1"]), ("jobs=2", HERE, ["jobs=2"])]
    ways = [("before", flags.before.resolve(), []), *ways] if flags.before else ways
    taken: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        for name, package, more in ways:
            outputs = Path(folder) / name / "outputs"
            outputs.mkdir(parents=True)
            taken[name] = seconds([*words, *more], outputs, package)
            print(f"{name:<8}  {taken[name]:6.1f} s  {next(iter(taken.values())) / taken[name]:.2f} times", flush=True)
        print(f"again     {seconds([*words, 'jobs=2'], Path(folder) / 'jobs=2' / 'outputs', HERE):6.1f} s")


if __name__ == "__main__":
    main()
