"""`cnnbench train`, or `cnnbench` alone: how a training is typed. It is carried out by `cnnbench.train`."""

from collections.abc import Sequence

from cnnbench.cli.catalog import HOMES, config_dir_in, config_folders, general_settings, groups_in, options_in
from cnnbench.cli.parse import Argument, Rows, Verb

ABOUT = """\
Trains a network, tests it once, and writes a page about it.

  cnnbench train model=resnet20_cifar data=cifar10 epochs=30
  cnnbench model=resnet20_cifar data=cifar10 epochs=30     the same
  cnnbench -m regularization.dropout=0,0.5 seeds=3 jobs=2  a sweep: six runs,
                                                           two at a time
  cnnbench experiment=cnn_lab/lenet_mnist                  a published recipe
  cnnbench model=vgg16_cifar data=cifar10 dry_run=true     check everything

The same command again continues a stopped run, and shows the result of a
finished one. What is typed overrides what a preset or an experiment sets.
"""
CONTROLS = (
    ("rerun=true", "train again, in a new folder; nothing is overwritten"),
    ("dry_run=true", "build and show everything, take three steps, train nothing"),
    ("lr_find=true", "try learning rates, and say where the loss falls fastest"),
    ("accept_stale=true", "use a run although code or data have changed since"),
    ("resume=RUN", "the same as cnnbench resume RUN"),
    ("seeds=N", "with -m: N seeds, seed=0,1,…"),
    ("jobs=N", "with -m: N runs at a time; auto: as many as fit this machine"),
    ("engine=slurm", "with -m: workers on a cluster take the runs: cnnbench help cluster"),
    ("fail_fast=true", "with -m: stop at the first failure"),
    ("retry_failed=true", "with -m: also retry trainings that diverged with the same code"),
)
SETTINGS = Argument("words", nargs="*", metavar="KEY=VALUE", help="groups and settings, as below")
CONFIG = Argument("--cfg", choices=("job",), metavar="job", help="show the whole configuration, and train nothing")


def sections(words: Sequence[str] = ()) -> dict[str, Rows]:
    """Return what can be typed; words: which may name a folder of more YAML files, whose options are listed too."""
    folders = config_folders(config_dir_in(words))
    rest = [group for group in groups_in(folders) if group not in HOMES]
    choices = {group: ", ".join(options_in(folders, group)) for group in (*HOMES, *rest)}
    recipes = options_in(folders, "experiment")
    choices["experiment"] = f"{len(recipes)} recipes, such as cnn_lab/lenet_mnist; cnnbench options experiment"
    settings = [one for one in general_settings() if "." not in one.key and one.value]
    return {
        "Groups and their options (cnnbench options describes them)": tuple(choices.items()),
        "Settings and their defaults (cnnbench help settings lists all)": tuple(
            (f"{one.key}={one.value}", one.comment) for one in settings
        ),
        "How to run it": CONTROLS,
    }


VERB = Verb(
    "train",
    ABOUT,
    (
        SETTINGS,
        Argument("-m", "--multirun", action="store_true", help="a run for each combination of comma-separated values"),
        CONFIG,
        Argument("--config-dir", "-cd", metavar="FOLDER", help="your own YAML files, in folders named after groups"),
        Argument("--version", action="store_true", help="show the version"),
    ),
    None,
    sections=sections,
)
