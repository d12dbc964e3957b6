"""`cnnbench data`: which data sets there are, what they contain, and the import of files downloaded by hand."""

import math
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from cnnbench.cli.catalog import all_options
from cnnbench.cli.parse import JSON, Argument, Verb, columns, path, say, say_json
from cnnbench.config.values import split_key_values
from cnnbench.errors import UserError, counted, grouped, listed, one_line

ABOUT = """\
Lists data sets, shows what is in them, and puts files where they belong.

  cnnbench data list            data sets, and whether their files are there
  cnnbench data list data.folder=my_photos
                                … and what is in a folder of your own
  cnnbench data info cifar10    classes, images by split and class, mean
  cnnbench data info cifar10 data.val_fraction=0.2
  cnnbench data prepare cifar10 --from ~/Downloads
                                verify files you downloaded, and copy them
  cnnbench data prepare caltech101 --from caltech-101.zip
                                … also out of archives, and count the images
  cnnbench data cache           decoded photographs that are kept on disk
  cnnbench data cache --prune 30
                                remove those not used for 30 days; 0: all

Data sets are looked for in data.root=FOLDER, else in $CNNBENCH_DATA, else in
your cache folder. This command downloads nothing, and overwrites no file.
"""
ACTIONS = ("list", "info", "prepare", "cache")


def _run(flags: Namespace) -> None:
    words = [word.removeprefix("data=") for word in flags.words]  # as it is typed to train
    names = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    action, is_prepare = flags.action, flags.action == "prepare"
    if len(names) != (action in ("info", "prepare")):
        raise UserError(_how_typed(action, names))
    if (flags.origin is not None) != is_prepare:
        raise UserError("prepare needs --from FOLDER" if is_prepare else "--from is for prepare")
    if flags.unverified and not is_prepare:
        raise UserError("--unverified is for prepare")
    if flags.json and action != "list":
        raise UserError("--json is for list")
    if flags.prune is not None and action != "cache":
        raise UserError("--prune is for cache")
    if action == "cache":
        if settings:
            raise UserError(f"{listed(settings)}: has no effect here; CNNBENCH_CACHE=FOLDER names another cache.")
        say(*cached(flags.prune))
        return

    from cnnbench.plugins import register_everything

    register_everything(flags.plugins)
    if action == "info":
        say(*_info(names[0], settings))
    elif is_prepare:
        say(*bring_files(names[0], flags.origin, _root(settings)[0], not flags.unverified))
    else:
        root, folder = _root(settings, "data.folder")
        states = [state_of(name, root, folder) for name in all_data_sets()]
        say_json([asdict(one) for one in states]) if flags.json else say(*inventory(states, root))


def _how_typed(action: str, names: Sequence[str]) -> str:
    """Return how an action is typed that was given too many names, or none."""
    if action in ("list", "cache"):
        return f"{action} takes no name; cnnbench data info {names[0]} shows one data set."
    if not names:
        return f"{action} needs the name of a data set, one of those that cnnbench data list shows."
    place = (
        ""
        if names[1] in all_options()["data"]
        else f" {'--from ' if action == 'prepare' else 'data.folder='}{names[1]}"
    )
    return f"{action} takes the name of one data set. Type: cnnbench data {action} {names[0]}{place}"


@dataclass(frozen=True)
class State:
    """Whether the files of a data set are there.

    state: `there`, `incomplete`, `not there`, `needs no files`, `yours` (in a folder that was not named), `unknown`.
    found, expected: numbers of `unit`, files or images; None: unknown. folders: with images in them. folder: where they
    are looked for. missing: names of files.
    """

    name: str
    state: str
    found: int | None = None
    expected: int | None = None
    unit: str = "files"
    folders: int | None = None
    folder: str | None = None
    missing: Sequence[str] = ()
    remark: str = ""

    def text(self, root: Path) -> str:
        """Return the state in words; folders below that of all data sets without it."""
        if self.folder is None:
            return f"{self.state}: {self.remark}" if self.remark else self.state
        folder = Path(self.folder)
        place = folder.relative_to(root) if folder.is_relative_to(root) else folder
        of = "" if self.expected is None else f" of {grouped(self.expected)}"
        number = "" if self.found is None else f": {grouped(self.found)}{of} {self.unit}"
        folders = f" in {grouped(self.folders)} folder{'s' * (self.folders > 1)}" if self.folders else ""
        missing = f"; missing {', '.join(self.missing)}" if self.missing and self.found else ""
        return f"{self.state}{number}{folders}, {place}{missing}{self.remark}"


def inventory(states: Sequence[State], root: Path) -> list[str]:
    """Return the states of data sets as lines for a terminal, below where they are looked for."""
    return [
        f"data sets in {root}",
        "(data.root=FOLDER or CNNBENCH_DATA=FOLDER names another folder)",
        *columns(tuple((one.name, one.text(root)) for one in states), indent=18),
    ]


def all_data_sets() -> list[str]:
    """Return the names of all registered data sets."""
    from cnnbench.registry import DATASETS

    return list(DATASETS)


def state_of(name: str, root: Path, folder: str | None = None) -> State:
    """Return whether the files of a data set are below a folder of all data sets. folder: of photographs of one's own.

    Files are counted, and not opened.
    """
    from cnnbench.data.files import source_of
    from cnnbench.data.published import published_of
    from cnnbench.registry import DATASETS

    component, source, published = DATASETS[name], source_of(name), published_of(name)
    if source is not None:
        missing, number = source.missing(root), len(source.files)
        state = "there" if not missing else "not there" if len(missing) == number else "incomplete"
        return State(name, state, number - len(missing), number, folder=str(root / source.folder), missing=missing)
    if published is not None:
        return _photographs(name, published.folder, root, published.images)
    if component.facts.get("photographs") and folder is not None:
        return _photographs(name, folder, root, has_lists=component.accepts("train"))
    if component.facts.get("photographs"):
        return State(name, "yours", unit="images", remark="data.folder=FOLDER names the place, here too")
    if component.factory.__module__.startswith("cnnbench."):
        return State(name, "needs no files", remark=component.summary().rstrip("."))
    return State(name, "unknown", remark=f"of {component.file or 'a plugin'}, which does not say what files it needs")


def _photographs(name: str, folder: str, root: Path, expected: int | None = None, has_lists: bool = False) -> State:
    """Return whether photographs are in the current folder, or else below that of all data sets, and how many."""
    from cnnbench.data.archives import members
    from cnnbench.data.decode import SUFFIXES
    from cnnbench.data.prepare import folder_root

    place = folder_root(folder, root) / Path(folder).expanduser()
    paths = [one.path for one in members(place)] if place.is_dir() else []
    images = [path for path in paths if path.suffix.lower() in SUFFIXES]
    state = "not there" if not images else "there" if len(images) >= (expected or 0) else "incomplete"
    lists = ", ".join(str(path) for path in paths if path.suffix.lower() == ".csv")
    remark = f"; lists: {lists or 'none'}" if has_lists and images else ""
    folders = len({path.parent for path in images})
    return State(name, state, len(images), expected, "images", folders, str(place), remark=remark)


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
    share = config.settings.get("test_fraction")
    drawn = (
        "the test part is held out" if share is None else f"before that, {share:g} of every class is held out for test"
    )
    test = drawn if data.draws_test else "the test part is the data set's own"
    test = test if len(data.test) else "there is no test part"
    of = "of the training images" if config.statistics == "own" else f"data.statistics={config.statistics}"
    rows = {
        "files": files,
        "images": f"{spec.channels}x{height}x{width}{cropped}",
        "mean": ", ".join(f"{value:.4f}" for value in data.mean) + f" ({of}, pixels from 0 to 1)",
        "deviation": ", ".join(f"{value:.4f}" for value in data.std),
        "fingerprint": f"{data.fingerprint} (sha256 of all images, labels and names)",
        "split": f"{split}; {test}; {data.split.hash()[:16]}",
        "classes": str(spec.num_classes),
    }
    facts = DATASETS[config.name].facts
    rows |= {fact: facts[fact] for fact in ("licence", "citation") if facts[fact]}
    lines = [f"{name}: {DATASETS[config.name].summary()}", *(f"  {key:<12} {value}" for key, value in rows.items())]
    lines += [f"  note         {note}" for note in (*planned.notes, *data.notes)]
    columns = [counts_per_class(part.labels, spec.num_classes) for part in (data.train, data.val, data.test)]
    counts = [("all", *(sum(column) for column in columns)), *zip(map(one_line, spec.classes), *columns, strict=True)]
    width = max(len(label) for label, *_ in counts)
    lines += ["", f"  {'images':<{width}}{'train':>10}{'validation':>12}{'test':>10}"]
    for label, train, val, test in counts:
        lines.append(f"  {label:<{width}}{grouped(train):>10}{grouped(val):>12}{grouped(test):>10}")
    return lines


def cached(prune_days: float | None = None) -> list[str]:
    """Return what is in the cache of decoded photographs, line by line; what was not used for some days is removed."""
    from cnnbench.data.packs import cache_dir, prune, stocks

    try:
        freed = [] if prune_days is None else [f"removed: {grouped(prune(prune_days) / 1e6)} MB"]
        found = stocks()
    except OSError as error:
        raise UserError(f"{cache_dir()}: {error.filename} cannot be removed or read: {error.strerror}") from error
    rows = []
    for one in found:
        images = "of an earlier version" if one.images is None else counted(one.images, "image")
        rows.append(
            (one.name, f"{images}, {grouped(one.size / 1e6)} MB, used {datetime.fromtimestamp(one.used):%Y-%m-%d}")
        )
    heading = f"decoded photographs in {cache_dir()}: {grouped(sum(one.size for one in found) / 1e6)} MB"
    hint = "(CNNBENCH_CACHE=FOLDER names another folder)"
    return [*freed, heading, hint, *columns(tuple(rows), indent=26)]


def days(text: str) -> float:
    """Return a number of days. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ArgumentTypeError(f"'{text}' is no number of days")
    return number


def bring_files(name: str, origin: Path, root: Path, verify: bool) -> list[str]:
    """Copy the files of a data set to where they are looked for, and return what was done, line by line."""
    from cnnbench.data.files import import_files, source_of
    from cnnbench.data.published import import_photographs, published_of
    from cnnbench.registry import DATASETS

    source, published = source_of(name), published_of(name)
    if published is not None:
        lines = import_photographs(published, origin, root)
        return [f"{published.title} in {root / published.folder}:", *(f"  {line}" for line in lines)]
    if source is None:
        is_folder = DATASETS[name].facts.get("photographs")
        reads = "reads photographs where data.folder=FOLDER says" if is_folder else "needs no files"
        raise UserError(f"'{name}' {reads}: there is nothing to prepare.")
    lines = import_files(source, origin, root, verify)
    return [f"{source.title} in {root / source.folder}:", *(f"  {line}" for line in lines)]


def _root(settings: Sequence[str], *also: str) -> tuple[Path, str | None]:
    """Return the folder of all data sets, and the value of another key. Raises UserError for any other setting."""
    from cnnbench.data.files import data_root

    others, given = split_key_values(settings, "data.root", "dataset.root", *also)
    if others:
        keys = ", ".join(f"{key}=FOLDER" for key in ("data.root", *also))
        raise UserError(f"{listed(others)}: only {keys} and plugins=FILE have an effect here.")
    folder = given.pop(also[0], None) if also else None
    return data_root(next(iter(given.values()), None)), folder


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
            "--from",
            dest="origin",
            type=path,
            metavar="FOLDER",
            help="prepare: the folder or archive with the files, or one above",
        ),
        Argument(
            "--prune", type=days, metavar="DAYS", help="cache: remove what was not used for so long; 0: everything"
        ),
        Argument("--unverified", action="store_true", help="prepare: take files that are not the originals too"),
        JSON,
    ),
    _run,
)
