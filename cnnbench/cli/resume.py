"""`cnnbench resume`: how a run is continued. It is carried out by `cnnbench.train`."""

from cnnbench.cli.parse import RUN, Argument, Verb
from cnnbench.cli.train import CONFIG

ABOUT = """\
Continues a run where it stopped, or trains it for longer.

  cnnbench resume last                    after a crash, a kill or Ctrl-C
  cnnbench resume outputs/RUN device=cpu  the same run, on another device
  cnnbench resume outputs/RUN epochs=80   for longer: a new run, which
                                          starts from the last checkpoint
  cnnbench resume=outputs/RUN epochs=80   the same

Interrupted or not, a run ends with the same weights, bit for bit. Its data,
model, task, seed and batch size cannot change.
"""
SETTINGS = Argument("words", nargs="*", metavar="KEY=VALUE", help="settings that differ from now on")

VERB = Verb("resume", ABOUT, (RUN, SETTINGS, CONFIG), None)
