"""`cnnbench-data`: which data sets there are, what is in them, and how files brought by hand get where they belong."""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from cnnbench.cli.parse import finish, split_key_values
from cnnbench.errors import UserError, grouped, listed
from cnnbench.plugins import plugin_names

ABOUT = """\
Says which data sets there are and what is in them, and brings files to where they are looked for.

  cnnbench-data list                                    data sets, where they are looked for, whether they are there
  cnnbench-data info cifar10                            classes, images of each split and class, means, checksums
  cnnbench-data info cifar10 data.val_fraction=0.2      ... with any setting of the main command
  cnnbench-data prepare cifar10 --from ~/Downloads      find the files there, check them, copy what is not there yet

Data sets are looked for in data.root=FOLDER, else in $CNNBENCH_DATA, else in the user's cache folder. Nothing is
downloaded here, and nothing that is there is overwritten. plugins=my_data.py registers data sets of your own.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit."""
    parser = ArgumentParser("cnnbench-data", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("list", "info", "prepare"))
    parser.add_argument(
        "words", nargs="*", metavar="NAME or KEY=VALUE", help="a data set; settings, as in data.root=FOLDER"
    )
    parser.add_argument("--from", dest="origin", metavar="FOLDER", help="prepare: where the files are, or are below")
    parser.add_argument("--unverified", action="store_true", help="prepare: take files that are not the originals too")
    flags = parser.parse_intermixed_args(arguments)
    words, given = split_key_values(flags.words, "plugins")
    names = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if len(names) != (flags.action != "list"):
        parser.error(
            "list takes no name" if flags.action == "list" else f"{flags.action} needs the name of one data set"
        )
    if (flags.origin is not None) != (flags.action == "prepare"):
        parser.error("prepare needs --from FOLDER" if flags.action == "prepare" else "--from is for prepare")
    if flags.unverified and flags.action != "prepare":
        parser.error("--unverified is for prepare")
    plugins = plugin_names(given.get("plugins", ""))

    def command() -> None:
        from cnnbench.plugins import register_everything

        register_everything(plugins)
        if flags.action == "info":
            lines = info(names[0], settings)
        elif flags.action == "prepare":
            lines = bring_files(names[0], Path(flags.origin).expanduser(), _root(settings), not flags.unverified)
        else:
            lines = inventory(_root(settings))
        sys.stdout.write("\n".join(lines) + "\n")

    finish("cnnbench-data", command)


def inventory(root: Path) -> list[str]:
    """Return a line a data set: whether it is there, and where it is looked for."""
    from cnnbench.data.files import source_of
    from cnnbench.registry import DATASETS

    lines = [f"data sets in {root} (data.root=FOLDER or CNNBENCH_DATA=FOLDER names another place):"]
    for name in DATASETS:
        source = source_of(name)
        if source is None:
            state = "data.folder=…" if DATASETS[name].facts.get("photographs") else "needs no files"
            lines.append(f"  {name:<16} {state:<16} {DATASETS[name].summary()}")
            continue
        lacking = source.missing(root)
        state = "there" if not lacking else "not there" if len(lacking) == len(source.files) else "incomplete"
        some = f": lacks {', '.join(lacking)}" if state == "incomplete" else ""
        lines.append(f"  {name:<16} {state:<16} {root / source.folder}{some}")
    return lines


def info(name: str, settings: Sequence[str]) -> list[str]:
    """Return what is in a data set with these settings of the main command, line by line."""
    from cnnbench.config.compose import open_composer
    from cnnbench.data.files import altered_files, data_root, source_of
    from cnnbench.data.images import counts_per_class
    from cnnbench.data.prepare import prepare_local
    from cnnbench.registry import DATASETS
    from cnnbench.training.plan import plan_run

    with open_composer() as composer:
        composer.add_missing_options()
        plan = plan_run(composer, [f"data={name}", *settings])
    config = plan.config.data
    data = prepare_local(config)
    spec, source = data.spec, source_of(config.name)
    if source is None:
        files = str(config.settings.get("folder", "none needed"))
    else:
        root = data_root(config.root)
        others = altered_files(source, root)
        state = f"not the originals: {', '.join(others)}" if others else "all of them the originals, by their md5"
        files = f"{len(source.files)} in {root / source.folder}; {state}"
    _, height, width = data.train.size
    window = "" if (height, width) == (spec.height, spec.width) else f", seen through {spec.height}x{spec.width}"
    if config.folds is not None:
        split = f"fold {config.fold} of {config.folds} validates, seed {config.split_seed}"
    else:
        split = f"{config.val_fraction:g} of the training part validates, seed {config.split_seed}"
    of = "of the images that train" if config.statistics == "own" else f"data.statistics={config.statistics}"
    lines = [f"{name}: {DATASETS[config.name].summary()}"]
    for key, value in {
        "files": files,
        "images": f"{spec.channels}x{height}x{width}{window}",
        "mean": ", ".join(f"{value:.4f}" for value in data.mean) + f" ({of}, pixels from 0 to 1)",
        "deviation": ", ".join(f"{value:.4f}" for value in data.std),
        "fingerprint": f"{data.fingerprint} (sha256 of all images, labels and names)",
        "split": f"{split}; {data.split.hash()[:16]}",
        "classes": str(spec.num_classes),
    }.items():
        lines.append(f"  {key:<12} {value}")
    lines += [f"  note         {note}" for note in (*plan.notes, *data.notes)]
    columns = [counts_per_class(part.labels, spec.num_classes) for part in (data.train, data.val, data.test)]
    rows = [("all", *(sum(column) for column in columns)), *zip(spec.classes, *columns, strict=True)]
    size = max(len(label) for label, *_ in rows)
    lines += ["", f"  {'images':<{size}}{'train':>10}{'validation':>12}{'test':>10}"]
    for label, train, val, test in rows:
        lines.append(f"  {label:<{size}}{grouped(train):>10}{grouped(val):>12}{grouped(test):>10}")
    return lines


def bring_files(name: str, origin: Path, root: Path, verify: bool) -> list[str]:
    """Copy the files of a data set to where they are looked for, and return what was done, line by line."""
    from cnnbench.data.files import import_files, source_of
    from cnnbench.registry import DATASETS

    source = source_of(name)
    if source is None:
        whose = (
            "reads photographs where data.folder=FOLDER says"
            if DATASETS[name].facts.get("photographs")
            else "needs no files"
        )
        raise UserError(f"'{name}' {whose}: there is nothing to prepare.")
    return [
        f"{source.title} in {root / source.folder}:",
        *(f"  {line}" for line in import_files(source, origin, root, verify)),
    ]


def _root(settings: Sequence[str]) -> Path:
    """Return the folder of all data sets. Raises UserError for any other setting."""
    from cnnbench.data.files import data_root

    others, given = split_key_values(settings, "data.root", "dataset.root")
    if others:
        raise UserError(f"{listed(others)}: only data.root=FOLDER and plugins=FILE mean something here.")
    return data_root(next(iter(given.values()), None))


if __name__ == "__main__":
    main()
