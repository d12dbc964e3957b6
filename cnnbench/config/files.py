"""The YAML files that Hydra composes: read once, under both names of `data`, and harmless."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.default_element import GroupDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError
from yaml import MarkedYAMLError, YAMLError

from cnnbench.config.growth import check_yaml
from cnnbench.config.hints import no_such_option
from cnnbench.config.schema import GROUPS, OVERLAYS, SECTIONS
from cnnbench.errors import UserError, did_you_mean, shortened

NO_FILE = "structured://"  # Hydra's path of an option that is kept in memory
# `${optimizer.lr}` takes the value of another setting. `${oc.env:HOME}` is a function, and would write what it finds
# in the environment into configurations, event files and pages that are passed on. Functions can be nested, even in
# their own names, so nothing but a plain reference passes.
PLAIN_REFERENCE = re.compile(r"\$\{[\w.\[\]-]+\}")
REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*(\$\{.*)", re.DOTALL)  # a backslash makes it text, two do not

REFUSED = "is refused: a setting may refer to another one, as in ${optimizer.lr}, and to nothing else"


def outside_reference(value: Any) -> str:
    """Return the first reference in a value, however nested, to more than another setting; empty: there is none."""
    for text in _texts(value):
        if found := REFERENCE.search(PLAIN_REFERENCE.sub("", text)):
            return found[1]
    return ""


def _check_references(loaded: ConfigResult, config_path: str) -> None:
    content = [OmegaConf.to_container(loaded.config, resolve=False), *map(vars, loaded.defaults_list or ())]
    if found := outside_reference(content):
        raise UserError(f"{config_path}.yaml in {loaded.path.removeprefix('file://')}: {shortened(found)} {REFUSED}.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.items() for part in each for text in _texts(part))
    elif isinstance(value, list):
        yield from (text for each in value for text in _texts(each))


def check_folder(folder: str) -> None:
    """Raise UserError where a folder of one's own YAML files is not there, or is that of one group."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder")
    groups = {*GROUPS, *SECTIONS, *OVERLAYS, "dataset"}
    if path.name in groups and any(path.glob("*.yaml")) and not any((path / group).is_dir() for group in groups):
        raise UserError(
            f"--config-dir {folder}: give the folder that holds {path.name}/: {os.path.relpath(path.parent)}"
        )


# Files as they were parsed, by path, time of the last change and size: parsing is most of what composing costs.
_PARSED: dict[tuple[str, tuple[int, ...]], ConfigResult] = {}


class OptionFiles(ConfigRepository):
    """The YAML files of all options, each parsed once in a process, in which `dataset` means `data`.

    Loading one raises UserError if it refers to anything but other settings.
    """

    def __deepcopy__(self, _: Any) -> "OptionFiles":
        return self  # Hydra copies its repository for every composition

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return what a file says, to be read and not changed; None: there is no such file."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            return None
        path = config_path if source.is_config(config_path) else _by_other_name(config_path)
        if source.scheme() == "structured":
            return self._parse(path)
        file = Path(source.path, f"{path.removesuffix('.yaml')}.yaml")
        status = file.stat() if source.scheme() == "file" else None  # else it is one of Hydra's own
        key = str(file), (status.st_mtime_ns, status.st_size) if status else ()
        if key not in _PARSED:
            try:
                text = file.read_text(encoding="utf-8") if status else ""
                check_yaml(text)
                parsed = self._parse(path)
            except MarkedYAMLError as error:
                line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
                raise UserError(f"{file} cannot be read: {error.problem}{line}") from error
            except (OSError, ValueError, YAMLError) as error:
                raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
            group = config_path.partition("/")[0]
            find = self._problems if group in OVERLAYS else partial(_nested_in_itself, group)
            for part, problem in find(parsed) if status else ():
                lines = [f":{number}" for number, line in enumerate(text.splitlines(), 1) if part and part in line]
                raise UserError(f"{file}{(*lines, '')[0]}: {problem}")
            _PARSED[key] = parsed
        return _PARSED[key]

    def said_of(self, error: Exception, options: Sequence[str]) -> str:
        """Return what is wrong in words; of a reference to no setting, in which of the files, and in which line."""
        if not isinstance(error, InterpolationKeyError):
            return shortened(" ".join(str(error).split("\n")[:2]))
        name = str(error).split("'")[1]
        for option, loaded in zip(options, map(self.load_config, options), strict=True):
            file = Path(loaded.path.removeprefix("file://"), f"{option}.yaml") if loaded is not None else Path()
            for number, line in enumerate(file.read_text("utf-8").splitlines() if file.is_file() else (), 1):
                if f"${{{name}}}" in line:
                    return f"{file}:{number}: {shortened(line.strip())}: there is no setting '{name}' to refer to"
        return f"there is no setting '{name}' to refer to"

    def _problems(self, loaded: ConfigResult) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a file that sets keys of all groups: a part of the line, and what to write there."""
        if loaded.header.get("package") != "_global_" or not isinstance(loaded.config, DictConfig):
            yield "", "its first line must be '# @package _global_', and the next ones set keys: epochs: 3"
            return
        groups = self.get_group_options("", ObjectType.GROUP)
        for default in loaded.defaults_list or ():
            name, option = default.get_name() or "", ""
            if isinstance(default, GroupDefault):
                name, option = str(default.group).lstrip("/"), str(default.value)
                known = self.get_group_options(name) if name in groups else []
                if name not in groups:
                    yield name, f"there is no group '{name}'{did_you_mean(name, groups)}"
                elif not default.override or not str(default.group).startswith("/"):
                    yield option, f"an option is chosen by '- override /{name}: {option}'"
                elif option not in known and "/" not in option and default.value is not None:
                    yield option, f"{option}: {no_such_option(name, option, known)}"
            elif " " in name:
                yield name, "an option is chosen by '- override /GROUP: OPTION', with a colon and a space"
        for key, value in {str(key): value for key, value in loaded.config.items_ex(resolve=False)}.items():
            if value is None and re.search("[:=]", key):
                yield key, f"'{key}' sets nothing; write '{re.sub('[:=]', ': ', key, count=1)}'"
            elif key in groups and isinstance(value, str):
                yield value, f"an option is chosen in the list of defaults: '- override /{key}: {value}'"

    def _parse(self, config_path: str) -> ConfigResult:
        found = super().load_config(config_path)
        assert found is not None
        if found.path != NO_FILE and not config_path.startswith("hydra"):
            _check_references(found, config_path)
        return _renamed(found)

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        """Return the options of a group, or the groups in it, under either name of `data`."""
        groups = {group_name, _by_other_name(group_name)}
        return sorted(
            {name for source in self.sources for group in groups for name in _listed(source, group, results_filter)}
        )

    def _find_object_source(self, config_path: str, object_type: ObjectType | None) -> ConfigSource | None:
        found = super()._find_object_source(config_path, object_type)
        other = _by_other_name(config_path)
        return found if found or other == config_path else super()._find_object_source(other, object_type)


def _nested_in_itself(group: str, loaded: ConfigResult) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a file of a group whose settings stand below the name of the group."""
    config = loaded.config if loaded.header.get("package") is None else None
    if isinstance(config, DictConfig) and isinstance(config.get(group), DictConfig):
        yield (
            f"{group}:",
            f"write the settings of {group} without '{group}:' above them, or '# @package _global_' first",
        )


def _listed(source: ConfigSource, group: str, kind: ObjectType | None) -> list[str]:
    if source.scheme() != "file":
        return source.list(group, kind) if source.is_group(group) else []
    # Hydra's list asks for the real path of every file, twice: 40 ms for those of `conf/`, a third of all composing.
    folder = Path(source.path, group)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if kind is ObjectType.GROUP:
        return [file.name for file in files if file.is_dir() and file.name != "__pycache__"]
    return [file.stem for file in files if file.suffix == ".yaml" and file.is_file()]


def _by_other_name(path: str) -> str:
    return re.sub(r"^data(?=/|$)", "dataset", path)


def _renamed(loaded: ConfigResult) -> ConfigResult:
    """Return what a file says, with `data` where it says `dataset`: as a key of its own, or among its defaults."""
    for default in loaded.defaults_list or ():
        if isinstance(default, GroupDefault) and default.group is not None:
            default.group = re.sub(r"^(/?)dataset$", r"\1data", default.group)
    config = loaded.config
    if isinstance(config, DictConfig) and "dataset" in config:
        with open_dict(config):
            config["data"] = OmegaConf.merge(config.get("data") or {}, config.pop("dataset"))
    return loaded
