"""`cnnbench-options`: what can be chosen in every group, a line each.

Files of `conf/` are read as text: a list is there at once. Only networks are built, without weights, to be measured.
"""

import json
import re
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import entry_points
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parse import finish, split_key_values
from cnnbench.config.schema import GROUPS
from cnnbench.config.values import conf_dir
from cnnbench.errors import UserError, did_you_mean, grouped, listed
from cnnbench.plugins import plugin_names

if TYPE_CHECKING:
    from cnnbench.data.images import DataSpec

PHOTOGRAPH = 224  # side of the images that networks are measured on which are too large for small ones
ABOUT = """\
Lists what can be chosen in every group of settings, a line each: cnnbench GROUP=OPTION.

  cnnbench-options                        everything
  cnnbench-options data                   the data sets
  cnnbench-options model 'mini*'          networks whose name fits a pattern, or contains a word
  cnnbench-options model --data mnist     ... measured on the images of a data set that is there
  cnnbench-options model plugins=my_net.py

Of a network it says how many parameters it has, on images of which size (a window, where a preset brings one), and the
side of the smallest image or window that it works on.
"""


@dataclass(frozen=True)
class Option:
    """Something that can be chosen. name: as typed after GROUP=."""

    group: str
    name: str
    summary: str


@dataclass(frozen=True)
class Network(Option):
    """An option of the group `model`, measured; None where it could not be.

    images: channels, height and width that it is measured on. smallest: side of square images that work.
    """

    images: tuple[int, int, int]
    classes: int
    parameters: int | None = None
    smallest: int | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """List what the command line asks for, and exit."""
    parser = ArgumentParser("cnnbench-options", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="GROUP WORD", help="one group; part of a name, or a shell pattern")
    parser.add_argument(
        "--data", metavar="NAME", help="measure networks on this data set; without: 3x32x32, 10 classes"
    )
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder of your own YAML files, laid out like conf/")
    flags = parser.parse_intermixed_args(arguments)
    words, given = split_key_values(flags.words, "plugins")
    if len(words) > 2:
        parser.error(f"takes a group and a word at most, not {listed(words)}")
    if flags.data and words and words[0] != "model":
        parser.error("--data measures networks: it is for the group model")
    finish("cnnbench-options", lambda: _list(words, plugin_names(given.get("plugins", "")), flags))


def _list(words: Sequence[str], plugins: tuple[str, ...], flags: Namespace) -> None:
    own = flags.config_dir
    if own and not Path(own).is_dir():
        raise UserError(f"--config-dir {own}: there is no such folder")
    folders = [conf_dir(), *([Path(own)] if own else [])]
    groups = sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()})
    if words and words[0] not in groups:
        raise UserError(f"no group is called '{words[0]}'{did_you_mean(words[0], groups)} There are: {listed(groups)}.")
    pattern = words[1] if len(words) > 1 else ""
    found: list[Option] = []
    for group in words[:1] or groups:
        files = {name: text for folder in folders for name, text in _texts(folder / group).items()}
        options = [Option(group, name, _headline(text)) for name, text in files.items()]
        undescribed = group in GROUPS and not all(option.summary for option in options)
        if group == "model" or plugins or undescribed or entry_points(group="cnnbench.plugins"):
            options = _with_parts(options, group, files, plugins)
        options = sorted((option for option in options if _fits(option.name, pattern)), key=lambda option: option.name)
        if group == "model" and options:
            whole = _spec_of(flags.data, own)
            options = [_measured(option, files.get(option.name, ""), whole) for option in options]
        found += options
    if not found:
        raise UserError(f"no option of {listed(words[:1])} fits '{pattern}'; without it all of them are listed.")
    if flags.json:
        sys.stdout.write(json.dumps([asdict(option) for option in found], indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(found)) + "\n")


def _texts(folder: Path) -> dict[str, str]:
    """Return the text of every YAML file of a group by its option."""
    paths = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _headline(text: str) -> str:
    """Return the first sentence of a file's comment that describes it; an experiment opens with its command."""
    comment = [line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    described = dropwhile(lambda line: not line or line.startswith(("@package", "cnnbench ")), comment)
    return re.split(r"(?<=\.) ", " ".join(takewhile(bool, described)), maxsplit=1)[0]


def _node(group: str, text: str) -> dict[str, Any]:
    """Return what a file says of its own group; it may say something of others too."""
    import yaml

    content = yaml.safe_load(text) or {}
    node = content.get(group, content)
    return dict(node) if isinstance(node, Mapping) else {}


def _fits(name: str, pattern: str) -> bool:
    return pattern.lower() in name.lower() or fnmatch(name.lower(), pattern.lower())


def _with_parts(
    options: Iterable[Option], group: str, files: Mapping[str, str], plugins: Iterable[str]
) -> list[Option]:
    """Return the options, described by their parts where their files do not, and the parts that have no file."""
    from cnnbench.plugins import register_everything

    register_everything(plugins)
    nodes = {name: _node(group, text) for name, text in files.items()}
    parts = {name: str(node.get("name")) for name, node in nodes.items()}
    said = {part: GROUPS[group][part].summary() for part in GROUPS[group]} if group in GROUPS else {}
    described = [replace(option, summary=option.summary or said.get(parts[option.name], "")) for option in options]
    # The options of `augmentation` are lists of parts.
    named = {part for node in nodes.values() for part in node} if group == "augmentation" else set(parts.values())
    return described + [Option(group, part, said[part]) for part in said if part not in named and part not in files]


def _measured(option: Option, text: str, whole: "DataSpec") -> Network:
    """Return a network measured on these images, or on the window of them that its file brings."""
    import yaml

    from cnnbench.data.prepare import crop_size
    from cnnbench.models.build import count_parameters, pass_through, smallest_side, works
    from cnnbench.registry import MODELS, Selection

    settings = _node("model", text)
    name = str(settings.pop("name", option.name))
    crop = (yaml.safe_load(text) or {}).get("data", {}).get("crop")
    height, width = crop_size(whole.height, whole.width, crop)
    spec = replace(whole, height=height, width=width)
    network = Network("model", option.name, option.summary, (spec.channels, height, width), spec.num_classes)
    if name not in MODELS:
        return replace(network, summary=f"{option.summary} (nothing is registered as '{name}')")
    settings = MODELS[name].defaults() | settings
    lacking = [key for key in MODELS[name].schema.model_fields if settings.get(key, "???") == "???"]
    if lacking:
        return replace(network, summary=f"{option.summary} (needs {' '.join(f'model.{key}=…' for key in lacking)})")
    selection = Selection(name, settings)
    smallest = smallest_side(lambda side: works(selection, replace(spec, height=side, width=side)))
    if smallest is None:
        return network
    if smallest > min(height, width):  # made for photographs
        spec = replace(spec, height=max(smallest, PHOTOGRAPH), width=max(smallest, PHOTOGRAPH))
        network = replace(network, images=(spec.channels, spec.height, spec.width))
    parameters = count_parameters(pass_through(selection, spec, "meta"))["total"]
    return replace(network, parameters=parameters, smallest=smallest)


def _spec_of(data: str | None, own: str | None) -> "DataSpec":
    """Return what a data set tells a network; without one: 3x32x32, 10 classes.

    Raises UserError where its files are not there: nothing is fetched.
    """
    from cnnbench.config.compose import open_composer
    from cnnbench.data.images import DataSpec
    from cnnbench.data.prepare import prepare_local
    from cnnbench.training.plan import plan_run

    if data is None:
        return DataSpec(3, 32, 32, tuple(str(index) for index in range(10)))
    with open_composer([own] if own else []) as composer:
        composer.add_missing_options()
        return prepare_local(plan_run(composer, [f"data={data}"]).config.data).spec


def _lines(options: Sequence[Option]) -> list[str]:
    lines = []
    for group in dict.fromkeys(option.group for option in options):
        rows = [_cells(option) for option in options if option.group == group]
        networks = [option for option in options if isinstance(option, Network)] if group == "model" else []
        if networks:
            classes = f"on {networks[0].classes} classes"
            rows.insert(0, [f"model= ({classes})", "parameters", "on images of", "smallest", "what"])
        else:
            lines.append(f"{group}=")
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            indent = "" if networks and number == 0 else "  "
            width = widths[0] + 2 - len(indent)
            middle = [cell.rjust(size) for cell, size in zip(row[1:-1], widths[1:-1], strict=True)]
            lines.append(indent + "  ".join([row[0].ljust(width), *middle, row[-1]]).rstrip())
        lines.append("")
    return lines[:-1]


def _cells(option: Option) -> list[str]:
    if not isinstance(option, Network):
        return [option.name, option.summary]
    parameters = "-" if option.parameters is None else grouped(option.parameters)
    smallest = "-" if option.smallest is None else str(option.smallest)
    return [option.name, parameters, "x".join(map(str, option.images)), smallest, option.summary]


if __name__ == "__main__":
    main()
