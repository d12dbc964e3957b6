"""`cnnbench options`: the options of every group of settings, one per line.

The files of `conf/` are read as text, which is fast. Only of the group `model` networks are built, without weights,
to be measured.
"""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import entry_points
from itertools import dropwhile, takewhile
from typing import TYPE_CHECKING, Any

from cnnbench.cli.catalog import HOMES, config_folders, groups_in, options_in, without_a_file
from cnnbench.cli.parse import JSON, Argument, Verb, say, say_json
from cnnbench.errors import UserError, closest, did_you_mean, grouped, listed

if TYPE_CHECKING:
    from cnnbench.data.images import DataSpec

REGISTERED = ("logger", "metric")  # groups that have no files
PHOTOGRAPH = 224  # side of the images on which networks are measured that do not work on small ones
ABOUT = """\
Lists what can be chosen in each group, one per line: cnnbench GROUP=OPTION.

  cnnbench options                       everything
  cnnbench options data                  the data sets
  cnnbench options model                 networks, and how large they are
  cnnbench options model 'mini*'         names that match, or contain this
  cnnbench options model --data mnist    networks, measured on these images
  cnnbench options model plugins=my_net.py
  cnnbench options logger                loggers; likewise metric

The group model shows, for each network, the number of parameters, the size of
the images for which they were counted (cropped if a preset says so), and the
side of the smallest image that it accepts.
"""


@dataclass(frozen=True)
class Option:
    """An option of a group. name: as typed after GROUP=."""

    group: str
    name: str
    summary: str

    def cells(self) -> list[str]:
        """Return the option as a row of a table."""
        return [self.name, self.summary]


@dataclass(frozen=True)
class Network(Option):
    """An option of the group `model`, measured; None if that was not possible.

    images: channels, height and width on which it is measured. smallest: side of the smallest square images.
    """

    images: tuple[int, int, int]
    classes: int
    parameters: int | None = None
    smallest: int | None = None

    def cells(self) -> list[str]:  # noqa: D102
        parameters = "-" if self.parameters is None else grouped(self.parameters)
        smallest = "-" if self.smallest is None else str(self.smallest)
        return [self.name, parameters, "x".join(map(str, self.images)), smallest, self.summary]


def _run(flags: Namespace) -> None:
    words = ["data" if word == "dataset" else word for word in flags.words[:1]] + flags.words[1:]
    if len(words) > 2:
        raise UserError(f"takes a group and a word at most, not {listed(words)}")
    if flags.data and words and words[0] != "model":
        raise UserError("--data measures networks: it is for the group model")
    folders = config_folders(flags.config_dir)
    groups = groups_in(folders)
    known = [*groups, *REGISTERED]
    if words and words[0] not in known:
        meant = {option: f"{group} {option}" for group in groups for option in options_in(folders, group)}
        hint = did_you_mean(words[0], meant | {group: group for group in known})
        raise UserError(
            f"no group is called '{words[0]}'{f'{hint} There' if hint else '; there'} are: {listed(known)}."
        )
    pattern = words[1].lower() if len(words) > 1 else ""
    chosen: list[Option] = []
    for group in words[:1] or (known if flags.plugins else groups):
        texts = {name: path.read_text(encoding="utf-8") for name, path in options_in(folders, group).items()}
        everything = _options_of(group, texts, flags.plugins)
        options = [one for one in everything if pattern in one.name.lower() or fnmatch(one.name.lower(), pattern)]
        if group == "model" and options and (words or flags.data):
            from cnnbench.plugins import register_everything

            register_everything(flags.plugins)
            spec = _spec_of(flags.data, flags.config_dir)
            options = [_measured(option, texts.get(option.name, ""), spec) for option in options]
        chosen += options
    if not chosen and not pattern:
        raise UserError(
            "no metric is registered; plugins=FILE adds yours. Those of a task are measured without asking."
        )
    if not chosen:
        guess = closest(pattern, [one.name for one in everything])
        hint = f"did you mean '{guess}'?" if guess else "without it all of them are listed."
        raise UserError(f"no option of {listed(words[:1])} matches '{pattern}'; {hint}")
    if flags.json:
        say_json([asdict(option) for option in chosen])
    else:
        say(*_lines(chosen))


def _options_of(group: str, texts: Mapping[str, str], plugins: Sequence[str]) -> list[Option]:
    options = [Option(group, name, _headline(text)) for name, text in texts.items()]
    is_described = group not in HOMES or all(option.summary for option in options)
    is_complete = is_described and group not in REGISTERED and not without_a_file(group, texts.values())
    if not plugins and is_complete and not entry_points(group="cnnbench.plugins"):
        return options  # nothing has to be imported

    from cnnbench.plugins import REGISTRIES, register_everything

    register_everything(plugins)
    registry = next((one for one in REGISTRIES if one.group == group), None)
    nodes = {name: _node(group, _content(group, name, text)) for name, text in texts.items()}
    components = {name: str(node.get("name")) for name, node in nodes.items()}
    summaries = {} if registry is None else {name: registry[name].summary() for name in registry}
    options = [
        replace(option, summary=option.summary or summaries.get(components[option.name], "")) for option in options
    ]
    # The options of `augmentation` are lists of components.
    named = {key for node in nodes.values() for key in node} if group == "augmentation" else set(components.values())
    options += [Option(group, name, summaries[name]) for name in summaries if name not in named and name not in texts]
    return sorted(options, key=lambda option: option.name)


def _headline(text: str) -> str:
    """Return the first sentence of a file's comment that describes it; an experiment opens with its command."""
    comment = [line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    described = dropwhile(lambda line: not line or line.startswith(("@package", "cnnbench ")), comment)
    return re.split(r"(?<=\.) ", " ".join(takewhile(bool, described)), maxsplit=1)[0]


def _content(group: str, name: str, text: str) -> dict[str, Any]:
    import yaml

    from cnnbench.config.growth import load_yaml

    try:
        content = load_yaml(text) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{group}/{name}.yaml cannot be read: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _node(group: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file sets in its own group; a preset may set keys of others too."""
    node = content.get(group, content)
    return dict(node) if isinstance(node, Mapping) else {}


def _measured(option: Option, text: str, spec: "DataSpec") -> Network:
    """Return a network measured on these images, cropped if its file says so."""
    from cnnbench.data.prepare import crop_size
    from cnnbench.models.build import count_parameters, pass_through, smallest_side, works
    from cnnbench.registry import MODELS, Selection

    content = _content("model", option.name, text)
    settings = _node("model", content)
    name = str(settings.pop("name", option.name))
    crop = content.get("data", {}).get("crop")
    height, width = crop_size(spec.height, spec.width, crop)
    spec = replace(spec, height=height, width=width)
    network = Network("model", option.name, option.summary, (spec.channels, height, width), spec.num_classes)
    if name not in MODELS:
        return replace(network, summary=f"{option.summary} (nothing is registered as '{name}')")
    settings = MODELS[name].defaults() | settings
    missing = [key for key in MODELS[name].schema.model_fields if settings.get(key, "???") == "???"]
    if missing:
        return replace(network, summary=f"{option.summary} (needs {' '.join(f'model.{key}=…' for key in missing)})")
    selection = Selection(name, settings)
    smallest = smallest_side(lambda side: works(selection, replace(spec, height=side, width=side)))
    if smallest is None:
        return network
    if smallest > min(height, width):  # for photographs
        side = max(smallest, PHOTOGRAPH)
        spec = replace(spec, height=side, width=side)
        network = replace(network, images=(spec.channels, side, side))
    parameters = count_parameters(pass_through(selection, spec, "meta"))["total"]
    return replace(network, parameters=parameters, smallest=smallest)


def _spec_of(data: str | None, config_dir: str | None) -> "DataSpec":
    from cnnbench.data.images import DataSpec
    from cnnbench.data.prepare import prepare_local
    from cnnbench.training.plan import plan_words

    if data is None:
        return DataSpec(3, 32, 32, tuple(str(index) for index in range(10)))
    return prepare_local(plan_words([f"data={data}"], config_dir).config.data).spec


def _lines(options: Sequence[Option]) -> list[str]:
    lines = []
    for group in dict.fromkeys(option.group for option in options):
        rows = [option.cells() for option in options if option.group == group]
        first = next(option for option in options if option.group == group)
        if isinstance(first, Network):
            classes = f"on {first.classes} classes"
            rows.insert(0, [f"model= ({classes})", "parameters", "image size", "smallest", "description"])
        else:
            lines.append("task.metrics=" if group == "metric" else f"{group}=")
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            indent = "" if isinstance(first, Network) and number == 0 else "  "
            width = widths[0] + 2 - len(indent)
            middle = [cell.rjust(size) for cell, size in zip(row[1:-1], widths[1:-1], strict=True)]
            lines.append(indent + "  ".join([row[0].ljust(width), *middle, row[-1]]).rstrip())
        lines.append("")
    return lines[:-1]


def _groups() -> list[str]:
    return [*groups_in(config_folders(None)), *REGISTERED]


VERB = Verb(
    "options",
    ABOUT,
    (
        Argument(
            "words", nargs="*", metavar="GROUP WORD", complete=_groups, help="a group; part of a name, or a pattern"
        ),
        Argument("--data", metavar="NAME", help="images to measure on; default: 3x32x32, 10 classes"),
        JSON,
        Argument("--config-dir", metavar="FOLDER", help="your own YAML files, in folders named after groups"),
    ),
    _run,
)
