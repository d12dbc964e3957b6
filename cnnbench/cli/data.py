"""`cnnbench data`: which data sets there are, what they contain, and the import of files downloaded by hand."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from cnnbench.cli.catalog import all_options
from cnnbench.cli.parse import Argument, Verb, path, say, split_key_values
from cnnbench.errors import UserError, grouped, listed

ABOUT = """\
Lists data sets, shows what is in them, and puts files where they belong.

  cnnbench data list            data sets, and whether their files are there
  cnnbench data info cifar10    classes, images by split and class, mean
  cnnbench data info cifar10 data.val_fraction=0.2
  cnnbench data prepare cifar10 --from ~/Downloads
                                verify and copy the files that are there

Data sets are looked for in data.root=FOLDER, else in $CNNBENCH_DATA, else in
the cache folder of the user. Nothing is downloaded here, and no file is
overwritten.
"""
ACTIONS = ("list", "info", "prepare")


def _run(flags: Namespace) -> None:
    names = [word for word in flags.words if "=" not in word]
    settings = [word for word in flags.words if "=" in word]
    action, is_prepare = flags.action, flags.action == "prepare"
    if len(names) != (action != "list"):
        raise UserError("list takes no name" if action == "list" else f"{action} needs the name of one data set")
    if (flags.origin is not None) != is_prepare:
        raise UserError("prepare needs --from FOLDER" if is_prepare else "--from is for prepare")
    if flags.unverified and not is_prepare:
        raise UserError("--unverified is for prepare")

    from cnnbench.plugins import register_everything

    register_everything(flags.plugins)
    if action == "info":
        say(*_info(names[0], settings))
    elif is_prepare:
        say(*bring_files(names[0], flags.origin, _root(settings), not flags.unverified))
    else:
        say(*inventory(_root(settings)))


def inventory(root: Path) -> list[str]:
    """Return a line for each data set: whether its files are there, and where they are looked for."""
    from cnnbench.data.files import source_of
    from cnnbench.registry import DATASETS

    lines = [f"data sets in {root} (data.root=FOLDER or CNNBENCH_DATA=FOLDER names another folder):"]
    for name in DATASETS:
        source = source_of(name)
        if source is None:
            state = "data.folder=…" if DATASETS[name].facts.get("photographs") else "needs no files"
            lines.append(f"  {name:<16} {state:<16} {DATASETS[name].summary()}")
            continue
        missing = source.missing(root)
        state = "there" if not missing else "not there" if len(missing) == len(source.files) else "incomplete"
        some = f": missing {', '.join(missing)}" if state == "incomplete" else ""
        lines.append(f"  {name:<16} {state:<16} {root / source.folder}{some}")
    return lines


def _info(name: str, settings: Sequence[str]) -> list[str]:
    from cnnbench.data.files import altered_files, data_root, source_of
    from cnnbench.data.images import counts_per_class
    from cnnbench.data.prepare import prepare_local
    from cnnbench.registry import DATASETS
    from cnnbench.training.plan import plan_words

    planned = plan_words([f"data={name}", *settings])
    config = planned.config.data
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
    cropped = "" if (height, width) == (spec.height, spec.width) else f", cropped to {spec.height}x{spec.width}"
    if config.folds is not None:
        split = f"fold {config.fold} of {config.folds} is validation, seed {config.split_seed}"
    else:
        split = f"{config.val_fraction:g} of the training part is validation, seed {config.split_seed}"
    of = "of the training images" if config.statistics == "own" else f"data.statistics={config.statistics}"
    rows = {
        "files": files,
        "images": f"{spec.channels}x{height}x{width}{cropped}",
        "mean": ", ".join(f"{value:.4f}" for value in data.mean) + f" ({of}, pixels from 0 to 1)",
        "deviation": ", ".join(f"{value:.4f}" for value in data.std),
        "fingerprint": f"{data.fingerprint} (sha256 of all images, labels and names)",
        "split": f"{split}; {data.split.hash()[:16]}",
        "classes": str(spec.num_classes),
    }
    lines = [f"{name}: {DATASETS[config.name].summary()}", *(f"  {key:<12} {value}" for key, value in rows.items())]
    lines += [f"  note         {note}" for note in (*planned.notes, *data.notes)]
    columns = [counts_per_class(part.labels, spec.num_classes) for part in (data.train, data.val, data.test)]
    counts = [("all", *(sum(column) for column in columns)), *zip(spec.classes, *columns, strict=True)]
    width = max(len(label) for label, *_ in counts)
    lines += ["", f"  {'images':<{width}}{'train':>10}{'validation':>12}{'test':>10}"]
    for label, train, val, test in counts:
        lines.append(f"  {label:<{width}}{grouped(train):>10}{grouped(val):>12}{grouped(test):>10}")
    return lines


def bring_files(name: str, origin: Path, root: Path, verify: bool) -> list[str]:
    """Copy the files of a data set to where they are looked for, and return what was done, line by line."""
    from cnnbench.data.files import import_files, source_of
    from cnnbench.registry import DATASETS

    source = source_of(name)
    if source is None:
        is_folder = DATASETS[name].facts.get("photographs")
        reads = "reads photographs where data.folder=FOLDER says" if is_folder else "needs no files"
        raise UserError(f"'{name}' {reads}: there is nothing to prepare.")
    lines = import_files(source, origin, root, verify)
    return [f"{source.title} in {root / source.folder}:", *(f"  {line}" for line in lines)]


def _root(settings: Sequence[str]) -> Path:
    """Return the folder of all data sets. Raises UserError for any other setting."""
    from cnnbench.data.files import data_root

    others, given = split_key_values(settings, "data.root", "dataset.root")
    if others:
        raise UserError(f"{listed(others)}: only data.root=FOLDER and plugins=FILE have an effect here.")
    return data_root(next(iter(given.values()), None))


VERB = Verb(
    "data",
    ABOUT,
    (
        Argument("action", choices=ACTIONS, metavar="|".join(ACTIONS), help="what to do, as above"),
        Argument(
            "words",
            nargs="*",
            metavar="NAME|KEY=VALUE",
            complete=lambda: all_options()["data"],
            help="a data set, and settings such as data.root=FOLDER",
        ),
        Argument(
            "--from", dest="origin", type=path, metavar="FOLDER", help="prepare: the folder of the files, or one above"
        ),
        Argument("--unverified", action="store_true", help="prepare: take files that are not the originals too"),
    ),
    _run,
)
