"""`cnnbench --help`: read off the configuration files, comments included, without importing anything heavy."""

import re
from pathlib import Path
from textwrap import fill, indent

from cnnbench.config.values import conf_dir
from cnnbench.errors import UserError

HEAD = """\
cnnbench trains a convolutional network from one line, and leaves honest numbers and a folder that explains them.

usage: cnnbench [-m] [GROUP=OPTION] [KEY=VALUE] ...

  cnnbench                                                  LeNet on digits that need no download: seconds
  cnnbench model=minialexnet_v4 data=cifar100 epochs=150    one run
  cnnbench -m regularization.dropout=0,0.5 seed=0,1,2       a sweep: six runs
  cnnbench resume=outputs/digits/lenet/RUN epochs=80        go on from a run, for longer

The same command again continues an interrupted run, and shows the result of a finished one.
Runs are below ./outputs or $CNNBENCH_OUTPUTS; data sets in the user's cache folder, $CNNBENCH_DATA or data.root.
"""

TAIL = """\
What to do with a run:

  resume=FOLDER         go on with the run in a folder; with keys that change the result: a new run from there
  rerun=true            train anew beside a run that is there; nothing is overwritten
  accept_stale=true     take a run as it is, though code or data changed since
  dry_run=true          build and show everything, try three steps, train nothing
  lr_find=true          try learning rates, and say at which the loss falls fastest
  plugins=my_net.py     register what a Python file of your own defines

Afterwards, each with a --help of its own:

  cnnbench-list         which runs there are
  cnnbench-evaluate     what a network is worth: by class, confusions, calibration
  cnnbench-predict      what it answers to an image
  cnnbench-explain      what it looks at: maps of layers, kernels, Grad-CAM, saliency, t-SNE, augmentation
  cnnbench-report       all about a run on a page; or runs side by side, over seeds
  cnnbench-export       the network as one file: ONNX, torch.export, safetensors
  cnnbench-options      what can be chosen;   cnnbench-data      which data sets there are

Flags:

  -m                    every combination of comma-separated values, each a run
  --cfg job             show the whole configuration of a command, run nothing
  --config-dir FOLDER   a folder of your own YAML files, laid out like the groups above
  --version             show the version
  -sc install=bash      print the shell completion; use: eval "$(cnnbench -sc install=bash)"
"""


def help_text(own_folder: str | None = None) -> str:
    """Return the help, with the options of a user's own folder of YAML files among the others."""
    if own_folder and not Path(own_folder).is_dir():
        raise UserError(f"--config-dir {own_folder}: there is no such folder")
    folders = [conf_dir(), *([Path(own_folder)] if own_folder else [])]
    groups = sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()})
    lines = []
    for group in groups:
        options = sorted({option for folder in folders for option in _options(folder / group)})
        lines.append(fill(f"{group:<16}{', '.join(options)}", width=112, subsequent_indent=" " * 16))
    sections = [
        HEAD,
        "Groups, and what can be chosen in each (GROUP=OPTION):\n",
        indent("\n".join(lines), "  ") + "\n",
        "Keys that belong to no group, and the values that they have when nothing is typed (KEY=VALUE):\n",
        indent(_keys((conf_dir() / "config.yaml").read_text(encoding="utf-8")), "  "),
        "Keys of a group are typed with its name before them: optimizer.lr=0.1 data.val_fraction=0.2 model.dropout=0.5",
        "regularization.batchnorm=true. `cnnbench --cfg job` shows all of them; the files in",
        f"{conf_dir()} say what each means.\n",
        TAIL,
    ]
    return "\n".join(sections)


def _options(folder: Path) -> list[str]:
    return [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]


def _keys(text: str) -> str:
    """Return what follows the defaults list of the primary configuration, comments included."""
    return re.split(r"(?m)^(?=epochs:)", text, maxsplit=1)[-1]
