"""`cnnbench completion`: what a shell calls when Tab is pressed. Reads files as text, and imports nothing heavy."""

import os
import shlex
from argparse import Namespace
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path

from cnnbench.cli import catalog
from cnnbench.cli.parse import VERBS, Argument, Verb, say, verb_named
from cnnbench.config.hints import SWITCHES

ABOUT = """\
Prints the script for Tab completion of commands, run folders and settings.

  eval "$(cnnbench completion bash)"      in ~/.bashrc
  eval "$(cnnbench completion zsh)"       in ~/.zshrc
  cnnbench completion fish | source       in ~/.config/fish/config.fish
"""
LINE = "CNNBENCH_COMPLETE"
"""The variable in which a shell passes the line up to the cursor."""

SCRIPTS = {
    "bash": """\
_cnnbench() {
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} typed
    typed=${line##*[[:space:]]}
    COMPREPLY=($(CNNBENCH_COMPLETE=$line "$1" completion bash 2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
    # What comes before `=` is a word of its own for bash.
    [[ $COMP_WORDBREAKS == *=* && $typed == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${typed%"${typed##*=}"}"}")
}
complete -o default -F _cnnbench cnnbench
""",
    "zsh": """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_cnnbench() {
    local -a found
    found=(${(f)"$(CNNBENCH_COMPLETE="${(j: :)words[1,CURRENT]}" $words[1] completion zsh 2>/dev/null)"})
    (( $#found )) || { _files; return }
    compadd -S '' -- ${(M)found:#*[=./]}
    compadd -- ${found:#*[=./]}
}
compdef _cnnbench cnnbench
""",
    "fish": """\
function __cnnbench_complete
    set -l command (commandline -opc)[1]
    set -l found (CNNBENCH_COMPLETE=(commandline -cp | string collect) $command completion fish 2>/dev/null)
    if set -q found[1]
        string join \\n -- $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c cnnbench -f -a '(__cnnbench_complete)'
""",
}
VALUES = dict.fromkeys(SWITCHES, ("true", "false"))


def completions(line: str) -> list[str]:
    """Return what the last word of a line may become; empty: names of files, as far as this program can tell."""
    try:
        words = shlex.split(line)[1:]
    except ValueError:  # within quotes
        return []
    if not words or line[-1:].isspace():
        words.append("")
    *before, current = words
    if not before:
        verbs = [verb for verb in VERBS if verb.startswith(current)]
        return [*verbs, *_settings(current, before), *_flags(verb_named("train"), current)]
    name = before[0] if before[0] in VERBS else "train"
    verb = verb_named(name)
    flag = next((one for one in verb.arguments if one.is_flag and one.takes_value and before[-1] in one.names), None)
    if flag is not None:
        return _of_argument(flag, current)
    if current.startswith("-"):
        return _flags(verb, current)
    if name in ("train", "resume") and (name == "train" or len(before) > 1):
        return _settings(current, before)
    positionals = [one for one in verb.arguments if not one.is_flag]
    place = sum(not word.startswith("-") for word in before[1:])
    found = _of_argument(positionals[min(place, len(positionals) - 1)], current) if positionals else []
    return [*found, *(["plugins="] if verb.takes_plugins and current and "plugins=".startswith(current) else [])]


def _of_argument(argument: Argument, current: str) -> list[str]:
    choices: Iterable[str] = argument.settings.get("choices", ())
    found = argument.complete() if argument.complete is not None else choices
    return [one for one in found if one.startswith(current)]


def _flags(verb: Verb, current: str) -> list[str]:
    names = [name for one in verb.arguments if one.is_flag for name in one.names]
    return [name for name in [*names, "--help"] if current and name.startswith(current)]


def _settings(current: str, before: Sequence[str]) -> list[str]:
    """Return groups with their options, and keys, some with values."""
    key, equals, value = current.partition("=")
    folders = catalog.config_folders(catalog.config_dir_in(before))
    if not equals:
        groups = [f"{group}=" for group in catalog.groups_in(folders)]
        keys = [f"{one}=" for one in _keys(folders, before)]
        controls = [f"{one}=" for one in (*VALUES, "resume", "plugins")]
        found = [one for one in dict.fromkeys([*groups, *keys, *controls]) if one.startswith(current)]
        return [one for one in found if current or "." not in one]  # those of sections are too many to start with
    if key in ("resume", "init.run"):
        values: Iterable[str] = catalog.run_folders()
    elif key == "plugins":
        values = sorted(glob("*.py"))
    elif key in catalog.groups_in(folders):
        values = [*catalog.options_in(folders, key), *_of_plugins(key, before)]
    else:
        values = VALUES.get(key, ())
    done = value[: value.rfind(",") + 1]  # of a sweep: model=lenet,mlp
    return [f"{key}={done}{one}" for one in values if f"{done}{one}".startswith(value)]


def _keys(folders: Sequence[Path], before: Sequence[str]) -> list[str]:
    """Return the keys of all options, and those of what is chosen, typed or by default."""
    keys = [setting.key for setting in catalog.general_settings() if setting.value]
    chosen = {"model": "lenet", "data": "digits", "optimizer": "sgd", "scheduler": "cosine", "task": "classification"}
    chosen |= {key: value for key, _, value in (word.partition("=") for word in before) if key in catalog.HOMES}
    for group, option in chosen.items():
        path = catalog.options_in(folders, group).get(option)
        settings = catalog.settings_of(path.read_text(encoding="utf-8")) if path is not None else []
        own = [one.key.removeprefix(f"{group}.") for one in settings]
        name = next((one.value for one in settings if one.key in ("name", f"{group}.name")), option)
        registered = catalog.registered_in(group, _plugins(before)).get(name, [])
        keys += [f"{group}.{key}" for key in (*own, *registered) if key not in ("name", "defaults")]
    return keys


def _plugins(before: Sequence[str]) -> list[Path]:
    words = [word.partition("=")[2] for word in before if word.startswith("plugins=")]
    files = [Path(name).expanduser() for word in words for name in word.split(",")]
    return [path for path in files if path.is_file()]


def _of_plugins(group: str, before: Sequence[str]) -> list[str]:
    plugins = _plugins(before)
    if group not in catalog.HOMES or not plugins:
        return []
    return sorted(set(catalog.registered_in(group, plugins)) - set(catalog.registered_in(group)))


def _run(flags: Namespace) -> None:
    if LINE in os.environ:
        say(*completions(os.environ[LINE]))
    else:
        say(SCRIPTS[flags.shell].rstrip("\n"))


VERB = Verb(
    "completion",
    ABOUT,
    (Argument("shell", choices=tuple(SCRIPTS), metavar="|".join(SCRIPTS), help="the shell that will read it"),),
    _run,
    takes_plugins=False,
)
