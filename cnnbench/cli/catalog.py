"""What can be typed, read from files as text: groups, options, settings, what is registered; nothing is imported."""

import ast
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import escape, glob
from itertools import pairwise
from pathlib import Path

from cnnbench.config.hints import SWITCHES
from cnnbench.config.values import conf_dir
from cnnbench.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
# By group: the package that registers its components, and the decorators that do.
HOMES = {
    "model": ("models", "MODELS.register", "register_model"),
    "data": ("data", "DATASETS.register", "register_dataset"),
    "augmentation": ("augmentation", "AUGMENTATIONS.register", "register_augmentation"),
    "optimizer": ("optim", "OPTIMIZERS.register", "register_optimizer"),
    "scheduler": ("optim", "SCHEDULERS.register", "register_scheduler"),
    "task": ("tasks", "TASKS.register", "register_task"),
}
SELDOM_MEANT = ("checkpoint.", "init.", "freeze.", "head.")  # where other settings have the same name


@dataclass(frozen=True)
class Setting:
    """A setting that stands in a file: its dotted key, its value as text, and the comment that says what it means."""

    key: str
    value: str
    comment: str


def config_folders(own_folder: str | None) -> list[Path]:
    """Return the folders of the configuration files. Raises UserError if the user's own does not exist."""
    if own_folder and not Path(own_folder).is_dir():
        raise UserError(f"--config-dir {own_folder}: there is no such folder")
    return [conf_dir(), *([Path(own_folder)] if own_folder else [])]


def config_dir_in(words: Sequence[str]) -> str | None:
    """Return the value of --config-dir among words that may be invalid."""
    after = (word for before, word in pairwise(words) if before in ("--config-dir", "-cd"))
    joined = (word.partition("=")[2] for word in words if word.startswith("--config-dir="))
    return next(iter([*after, *joined]), None)


def groups_in(folders: Sequence[Path]) -> list[str]:
    """Return the groups that have files."""
    return sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()})


def options_in(folders: Sequence[Path], group: str) -> dict[str, Path]:
    """Return the files of a group by option, in the order of their names."""
    files = {
        path.relative_to(folder / group).with_suffix("").as_posix(): path
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
    }
    return dict(sorted(files.items()))


def all_options(own_folder: str | None = None) -> dict[str, list[str]]:
    """Return the options of every group: those of files, and components that have none."""
    folders = config_folders(own_folder)
    registered = {group: registered_in(group) for group in HOMES}
    return {group: sorted({*options_in(folders, group), *registered.get(group, {})}) for group in groups_in(folders)}


def general_settings() -> list[Setting]:
    """Return the settings that do not depend on what is chosen, with their defaults."""
    top, shared, regularization = (
        (conf_dir() / name).read_text(encoding="utf-8")
        for name in ("config.yaml", "shared.yaml", "regularization/none.yaml")
    )
    return [
        *settings_of(re.split(r"(?m)^(?=epochs:)", top, maxsplit=1)[-1]),  # after the list of defaults
        *settings_of(regularization, "regularization."),
        *settings_of(shared),
    ]


def run_folders() -> list[str]:
    """Return the words that name a run: the folder of each, as typed, and `last`."""
    outputs = os.environ.get("CNNBENCH_OUTPUTS") or "outputs"
    runs = sorted(os.path.dirname(path) for path in glob(f"{escape(outputs)}/*/*/*/run.json"))
    return [*runs, "last"] if runs else []


def sweeps() -> list[str]:
    """Return the folders of all sweeps, as typed; of earlier versions, their files."""
    outputs = os.environ.get("CNNBENCH_OUTPUTS") or "outputs"
    folders = [os.path.dirname(path) for path in glob(f"{escape(outputs)}/sweeps/*/sweep.json")]
    return sorted([*folders, *glob(f"{escape(outputs)}/sweeps/*.json")])


def all_keys() -> list[str]:
    """Return the groups and the settings of all options and of none; of similar keys, the likeliest first."""
    of_groups = [
        f"{group}.{setting}" for group in HOMES for settings in registered_in(group).values() for setting in settings
    ]
    general = [setting.key for setting in general_settings()]
    general.sort(key=lambda key: key.startswith(SELDOM_MEANT))
    return list(dict.fromkeys([*groups_in([conf_dir()]), *general, *of_groups]))


def words_alone() -> set[str]:
    """Return words that mean a setting although no `=` is in them, such as `lenet` or `lr`."""
    groups = all_options()
    named = [*(option for options in groups.values() for option in options), *all_keys()]
    return {*SWITCHES, *groups, *named, *(name.replace("/", ".").rpartition(".")[2] for name in named)}


def settings_of(text: str, prefix: str = "") -> list[Setting]:
    """Return the settings of a YAML file; a key above others has no value, and is listed if it has a comment."""
    settings: list[Setting] = []
    above: list[tuple[int, str]] = []  # indentation and name of the keys above
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = re.fullmatch(r"( *)(\w+):(?: +([^#]*?))?(?: *# *(.*))?", line)
        if match is None:
            continue
        indent, name, value, comment = len(match[1]), match[2], match[3] or "", match[4] or ""
        above = [(depth, key) for depth, key in above if depth < indent]
        key = prefix + ".".join([*(key for _, key in above), name])
        has_more = number + 1 < len(lines) and len(lines[number + 1]) - len(lines[number + 1].lstrip()) > indent
        above.append((indent, name))
        if not has_more or comment:
            settings.append(Setting(key, "" if has_more else value, comment))
    return settings


def registered_in(group: str, plugins: Iterable[Path] = ()) -> dict[str, list[str]]:
    """Return the settings of each component of a group that cnnbench or a plugin registers, by its name."""
    package, *decorators = HOMES[group]
    found: dict[str, list[str]] = {}
    for path in [*sorted((PACKAGE / package).glob("*.py")), *plugins]:
        text = path.read_text(encoding="utf-8")
        if any(f"{decorator}(" in text for decorator in decorators):
            found |= dict(_registered_by(ast.parse(text), tuple(decorators)))
    return found


def without_a_file(group: str, texts: Iterable[str]) -> list[str]:
    """Return what cnnbench registers in a group and none of its files, given as text, names."""
    key = r"^(\S+):" if group == "augmentation" else r"^ *name: (\S+)"  # an option lists its augmentations
    stated = set(re.findall(key, "\n".join(texts), re.MULTILINE))
    return sorted(set(registered_in(group) if group in HOMES else ()) - stated)


def _registered_by(tree: ast.Module, decorators: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and call.args and ast.unparse(call.func).endswith(decorators):
                yield ast.literal_eval(call.args[0]), _settings_of_factory(node)


def _settings_of_factory(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """Return the parameters of a function, or of a class's own `__init__`, that have a default or stand after `*`."""
    functions = [node] if isinstance(node, ast.FunctionDef) else [one for one in node.body if _is_init(one)]
    parameters = [one.args for one in functions if isinstance(one, ast.FunctionDef)]
    return [
        parameter.arg
        for one in parameters
        for parameter in (*one.args[len(one.args) - len(one.defaults) :], *one.kwonlyargs)
    ]


def _is_init(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"
