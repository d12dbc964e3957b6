"""`cnnbench resume`: the words with which a run goes on. It is carried out by `cnnbench.train`."""

from cnnbench.cli.parse import RUN, Argument, Verb
from cnnbench.cli.train import CONFIG

ABOUT = """\
Continues a run where it stopped, or trains it for longer.

  cnnbench resume outputs/RUN                  continue after a crash or Ctrl-C
  cnnbench resume outputs/RUN num_workers=2    ... with settings that cannot
                                               change the result
  cnnbench resume outputs/RUN epochs=80        train for longer: a new run that
                                               starts from the last checkpoint
  cnnbench resume=outputs/RUN epochs=80        the same

Whenever a run is interrupted, its result is the same, bit for bit. Data, model,
task, seed and batch size of a run cannot change; its own folder is never
overwritten by another run.
"""
SETTINGS = Argument("words", nargs="*", metavar="KEY=VALUE", help="settings that differ from now on")

VERB = Verb("resume", ABOUT, (RUN, SETTINGS, CONFIG), None)
