"""`cnnbench resume`: the words with which a run goes on. It is carried out by `cnnbench.train`."""

from cnnbench.cli.parse import RUN, Argument, Verb
from cnnbench.cli.train import CONFIG

ABOUT = """\
Continues a run where it stopped, or trains it for longer.

  cnnbench resume last                    after a crash, a kill or Ctrl-C
  cnnbench resume outputs/RUN device=cpu  the same run, on another device
  cnnbench resume outputs/RUN epochs=80   for longer: a run of its own, which
                                          starts from the last checkpoint
  cnnbench resume=outputs/RUN epochs=80   the same

Interrupted or not, a run ends in the same weights, bit for bit. What cannot
change are its data, model, task, seed and batch size.
"""
SETTINGS = Argument("words", nargs="*", metavar="KEY=VALUE", help="settings that differ from now on")

VERB = Verb("resume", ABOUT, (RUN, SETTINGS, CONFIG), None)
