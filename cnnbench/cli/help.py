"""`cnnbench --help`: read from the configuration files, comments included, without importing anything heavy."""

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
  cnnbench resume=outputs/digits/lenet/RUN epochs=80        continue a run, for longer

The same command again continues an interrupted run, and shows the result of a finished one.
Runs are below ./outputs or $CNNBENCH_OUTPUTS; data sets in the user's cache folder, $CNNBENCH_DATA or data.root.
"""

TAIL = """\
What to do with a run:

  resume=FOLDER         continue the run in a folder; with keys that change the result: a new run that starts from it
  rerun=true            train again, in a new folder; nothing is overwritten
  accept_stale=true     use a run although code or data have changed since
  dry_run=true          build and show everything, try three steps, train nothing
  lr_find=true          try learning rates, and say at which the loss falls fastest
  plugins=my_net.py     register what a Python file of your own defines

Afterwards, each with a --help of its own:

  cnnbench list         which runs there are
  cnnbench evaluate     metrics by class, confusions, calibration
  cnnbench predict      the classes predicted for any image
  cnnbench explain      maps of layers, kernels, Grad-CAM, saliency, t-SNE, augmented views
  cnnbench report       everything about a run on a page; or runs side by side, over seeds
  cnnbench export       the network as one file: ONNX, torch.export, safetensors
  cnnbench options      the options of every group;   cnnbench data      the data sets

Flags:

  -m                    every combination of comma-separated values, each a run
  --cfg job             show the whole configuration of a command, run nothing
  --config-dir FOLDER   a folder of your own YAML files, laid out like the groups above
  --version             show the version
  -sc install=bash      print the shell completion; use: eval "$(cnnbench -sc install=bash)"
"""


def help_text(own_folder: str | None = None) -> str:
    """Return the help; own_folder: of more YAML files, whose options are listed too."""
    folders = config_folders(own_folder)
    lines = [
        fill(f"{group:<16}{', '.join(options_in(folders, group))}", width=112, subsequent_indent=" " * 16)
        for group in groups_in(folders)
    ]
    sections = [
        HEAD,
        "Groups, and the options of each (GROUP=OPTION):\n",
        indent("\n".join(lines), "  ") + "\n",
        "Keys that belong to no group, and their default values (KEY=VALUE):\n",
        indent(_keys((conf_dir() / "config.yaml").read_text(encoding="utf-8")), "  "),
        "Keys of a group start with its name: optimizer.lr=0.1 data.val_fraction=0.2 model.dropout=0.5",
        "regularization.batchnorm=true. `cnnbench --cfg job` shows all of them; the files in",
        f"{conf_dir()} say what each means.\n",
        TAIL,
    ]
    return "\n".join(sections)


def config_folders(own_folder: str | None) -> list[Path]:
    """Return the folders of the configuration files. Raises UserError if the user's own does not exist."""
    if own_folder and not Path(own_folder).is_dir():
        raise UserError(f"--config-dir {own_folder}: there is no such folder")
    return [conf_dir(), *([Path(own_folder)] if own_folder else [])]


def groups_in(folders: list[Path]) -> list[str]:
    """Return the groups that have files."""
    return sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()})


def options_in(folders: list[Path], group: str) -> dict[str, Path]:
    """Return the files of a group by option, in the order of their names."""
    files = {
        path.relative_to(folder / group).with_suffix("").as_posix(): path
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
    }
    return dict(sorted(files.items()))


def _keys(text: str) -> str:
    """Return what follows the defaults list of the primary configuration, comments included."""
    return re.split(r"(?m)^(?=epochs:)", text, maxsplit=1)[-1]
