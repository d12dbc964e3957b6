"""`cnnbench resume`: how a run is continued. It is carried out by `cnnbench.train`."""

from cnnbench.cli.catalog import run_folders, sweeps
from cnnbench.cli.parse import Argument, Verb, run_name
from cnnbench.cli.train import CONFIG

ABOUT = """\
Continues a run where it stopped, or trains it for longer.

  cnnbench resume last                    after a crash, a kill or Ctrl-C
  cnnbench resume outputs/RUN device=cpu  the same run, on another device
  cnnbench resume outputs/RUN epochs=80   for longer: a new run, which
                                          starts from the last checkpoint
  cnnbench resume=outputs/RUN epochs=80   the same
  cnnbench resume outputs/sweeps/NAME     the unfinished jobs of a sweep;
                                          jobs=N, or as many as at first

Stopped or not, a run ends with the same weights, bit for bit. Its data,
model, task, seed and batch size cannot change.
"""
RUN = Argument(
    "run", metavar="RUN", type=run_name, complete=lambda: [*run_folders(), *sweeps()],
    help="folder of a run or a sweep, a run's name, a part of its path, or last, the one trained last",
)  # fmt: skip
SETTINGS = Argument("words", nargs="*", metavar="KEY=VALUE", help="settings that differ from now on")

NEEDS_NO_FILES = "; a run has all of its settings, and needs no YAML files."

VERB = Verb(
    "resume", ABOUT, (RUN, SETTINGS, CONFIG), None, why_not={"config_dir": NEEDS_NO_FILES, "cd": NEEDS_NO_FILES}
)
