"""Suggestions for messages: what to type instead of a word that is not valid."""

import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnbench.config.values import FREE_TEXT, PATHS
from cnnbench.errors import closest, listed, shortened

MAX_LISTED = 12  # options that a message names
QUOTES = "[“”„‟‘’‚‛«»]"
DASHES = "[‐‑‒–—―−]"  # that a word processor writes for `-`

SWITCHES = (
    "rerun",
    "dry_run",
    "lr_find",
    "accept_stale",
    "fail_fast",
    "retry_failed",
)  # what to do, in place of a setting: true or false

# Settings as other programs call them, and what to type here; {} is the value that was typed.
ELSEWHERE = {
    "amp": "precision=bf16",
    "arch": "model={}",
    "architecture": "model={}",
    "augment": "augmentation={}",
    "batch": "batch_size={}",
    "batch_norm": "regularization.batchnorm=true",
    "ckpt": "init.run=RUN",
    "cuda": "device=cuda",
    "data_dir": "data.root={}",
    "early_stopping": "regularization.early_stopping.patience=5",
    "gpu": "device=cuda:{}",
    "gpus": "device=cuda",
    "learning_rate": "optimizer.lr={}",
    "lr_scheduler": "scheduler={}",
    "max_steps": "epochs=N",
    "mixed_precision": "precision=bf16",
    "net": "model={}",
    "network": "model={}",
    "output": "CNNBENCH_OUTPUTS={} cnnbench …",
    "output_dir": "CNNBENCH_OUTPUTS={} cnnbench …",
    "outputs": "CNNBENCH_OUTPUTS={} cnnbench …",
    "pretrained": "init.weights=imagenet model=torchvision model.architecture=resnet18",
    "seeds": "-m seeds={} to run seed=0,1,… one after the other, or seed=NUMBER for one run",
    "steps": "epochs=N",
    "workers": "num_workers={}",
}


VERBS_ELSEWHERE = {
    "compare": "cnnbench report RUN RUN",
    "show": "cnnbench report RUN",
    "test": "cnnbench evaluate RUN",
    **dict.fromkeys(
        ("delete", "remove", "rm"), "cnnbench list --prune to see what can be removed, or delete the run's folder"
    ),
}


def meant_by_key(key: str, value: str, keys: Sequence[str]) -> str:
    """Return "; did you mean 'epochs'?", or what else to type, for a key that does not exist; empty: nothing is close.

    keys: all that exist, dotted; of those that end in the same name the first is meant.
    """
    if key in ELSEWHERE:
        return f"; type {as_typed(key, value, keys)}"
    found = closest_key(key, keys)
    return f"; did you mean '{found}'?" if found else ""


def as_typed(key: str, value: str, keys: Sequence[str]) -> str:
    """Return a setting as it is typed, under the name that it has here."""
    if key == "gpu" and not value.isdigit():
        key = "gpus"
    if key in ELSEWHERE:
        return ELSEWHERE[key].format(value or "…")
    if key in SWITCHES:
        return f"{key}={value or 'true'}"
    return f"{closest_key(key, keys) or key}={value or '…'}"


def closest_key(key: str, keys: Sequence[str]) -> str:
    """Return the key that one of the wrong section, or one misspelt, stands for; empty: nothing is close."""
    section, _, leaf = key.rpartition(".")
    alike = [one for one in keys if one.rpartition(".")[2] == leaf]
    if f"regularization.{leaf}" in alike and not section:  # a network may have its own, which only it takes
        return f"regularization.{leaf}"
    if alike:
        return closest(key, alike) or alike[0]
    leaves = {one.rpartition(".")[2]: one for one in reversed(keys) if one.rpartition(".")[0] == section}
    if leaves:
        return leaves.get(closest(leaf, leaves), "")
    return closest(key, [one for one in keys if ("." in one) == bool(section)])


def as_setting(flag: str, following: str, keys: Sequence[str]) -> str:
    """Return `--batch-size 64` as it is typed here, batch_size=64; empty: there is no such key."""
    name, _, value = flag.lstrip("-").partition("=")
    value = value or following * ("=" not in following and not following.startswith("-"))
    setting = as_typed(name.replace("-", "_"), value, keys)
    return setting if setting.partition("=")[0] in (*keys, *SWITCHES) else ""


def as_settings(unknown: Sequence[str], words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return those unknown flags among the words that are settings here, as they are typed."""
    following = dict(zip(words, [*words[1:], ""], strict=True))
    dashed = [word for word in unknown if re.match(r"--|-\w\w", word)]
    return [one for word in dashed if (one := as_setting(word, following[word], keys))]


def with_point(word: str) -> str:
    """Return `optimizer.lr=0.1` for a word with a decimal comma, `optimizer.lr=0,1`; empty: it has none."""
    found = re.fullmatch(r"(.+=-?)(\d{1,3}(?:\.\d{3})+|\d+),(\d+)", word)
    return f"{found[1]}{found[2].replace('.', '')}.{found[3]}" if found else ""


def without_dashes(words: Sequence[str], flags: Collection[str], keys: Sequence[str]) -> list[str]:
    """Return words with `epochs=3` for `--epochs 3`, which is none of the flags."""
    typed, rest = [], [*words, ""]
    while len(rest) > 1:
        word, following = rest.pop(0), rest[0]
        is_flag = word[:2] != "--" or word.partition("=")[0] in flags
        setting = "" if is_flag else as_setting(word, following, keys)
        if setting and following and "=" not in word and setting.endswith(following):
            rest.pop(0)
        typed.append(setting or word)
    return typed


def why_unread(word: str, is_swept: bool = False) -> str:
    """Return what is wrong with a word that Hydra cannot read; empty where that is not clear. is_swept: after -m."""
    key, _, value = word.partition("=")
    if begin := re.match(r"[^\w=+~]+(?=\w)", word):
        return f"begins with '{begin[0]}'; type {word[begin.end() :]}"
    if re.fullmatch(r"\(?[\w.]+((\s*[,;]\s*|\s+)[\w.]+)+\)?", value):
        values = re.sub(r"[,;\s]+", ",", value.strip("()"))
        listed_as = "after -m, values are separated by commas: {}={}" if is_swept else "a list is typed '{}=[{}]'"
        return f"cannot be read; {listed_as.format(key, values)}"
    for opening, closing in ("[]", "()", "{}") if key else ():
        if value.count(opening) != value.count(closing):
            is_open = value.count(opening) > value.count(closing)
            return f"has a '{opening}' that is not closed" if is_open else f"has a '{closing}' that nothing opens"
    settings = re.split(r"[,;\s]+(?=[a-z][\w./]*=)", word)
    if len(settings) > 1:
        return f"has several settings in one word; type spaces between them: {' '.join(settings)}"
    if key and re.search(r"(^|[,(\[])\s*,|,\s*($|[)\]])", value):
        return "has an empty value before or after a comma; null stands for none"
    is_text = re.fullmatch(r"[\w./]+", key) and value and '"' not in value
    return f"cannot be read; as text it is typed '{key}=\"{value}\"'" if is_text else ""


def retyped(words: Sequence[str], alone: Callable[[], Collection[str]] | None, trains: bool = False) -> list[str]:
    """Return words without the spaces around `=` and in values, the dashes and the quotes of a text for people.

    alone: words that are no part of a text before them; None: others follow settings too. What names a file stays.
    """
    meant, is_swept = [""], False
    for word in words:
        key, equals, value = meant[-1].partition("=")
        is_bare, is_text = "=" not in word[1:] and word[:1] != "-", key in (*FREE_TEXT, *PATHS)
        has_comma = bool(equals) and not is_text and (value[-1:] == "," or word[:1] == ",")
        if (word[:1] == "=" and key[:1] not in ("", "-") and not equals) or (equals and not value and is_bare):
            meant[-1] += word
        elif has_comma and is_bare:
            meant[-1] += word
            is_swept |= trains and key != "plugins" and value[:1] != "["
        elif equals and is_text and is_bare and alone is not None and word not in alone():
            meant[-1] += f" {word}"
        else:
            meant[-1:] = [meant[-1].rstrip(",") if has_comma else meant[-1], word]
    typed = [word if word in words and word.partition("=")[0] in FREE_TEXT else _plain(word) for word in meant[1:]]
    return ["-m", *typed] if is_swept and not {"-m", "--multirun"} & {*typed} else typed


def _plain(word: str) -> str:
    """Return a word with the dashes and quotes of a keyboard."""
    key, _, value = word.partition("=")
    if os.path.exists(value or key):
        return word
    plain = re.sub(rf"(?<=[=,\[]){DASHES}(?=[\d.])", "-", re.sub(rf"(^|=){QUOTES}|{QUOTES}$", r"\1", word))
    flag = re.fullmatch(rf"-*{DASHES}[-{DASHES[1:]}*(\w.*)", plain)
    return plain if flag is None else f"{'-' * (1 + (len(flag[1]) > 1))}{flag[1]}" if "=" not in plain else flag[1]


def meant_by_word(
    word: str, following: str, options: Mapping[str, Sequence[str]], keys: Sequence[str], verbs: Collection[str] = ()
) -> str:
    """Return "; did you mean 'model=lenet'?", or what else to type, for a word without `=`; empty: nothing is close.

    following: the word after it, as in `epochs 3`. options: by group. verbs: where one was expected.
    """
    switch = word.replace("-", "_")
    if word == "last" or os.path.isfile(f"{word}/run.json"):
        return f"; a run is continued with cnnbench resume {word}"
    if switch in SWITCHES:
        return f"; did you mean '{switch}=true'?"
    if verbs and word in VERBS_ELSEWHERE:
        return f"; type {VERBS_ELSEWHERE[word]}"
    if word in options:
        if following in options[word]:
            return f"; type {word}={following}"
        return f"; type {word}=OPTION, one of those that cnnbench options {word} lists"
    key = word if word in keys else next((one for one in keys if one.endswith(f".{word}")), "")
    settings = {f"{group}={option}": option for group, names in options.items() for option in names}
    meant = [setting for setting, option in settings.items() if word in (option, option.rpartition("/")[2])]
    meant += [f"{key}={following or '…'}"] * bool(key)
    if not meant:
        begun = [verb for verb in verbs if verb.startswith(word)]
        close = begun[0] if len(begun) == 1 else closest(word, [*verbs, *settings.values(), *keys])
        meant = [setting for setting, option in settings.items() if option == close]
        meant += [f"{close}={following or '…'}"] * (close in keys) + [close] * (close in verbs)
    return f"; did you mean {' or '.join(repr(one) for one in meant)}?" if meant else ""


def no_such_choice(word: str, known: Sequence[str]) -> str:
    """Return what is wrong with a word that is none of a few, and what to type."""
    meant = closest(shortened(word), known) or next(filter(word.startswith, known), "")
    hint = f"did you mean '{meant}'?" if meant else f"there are {listed(known)}."
    return f"there is no '{shortened(word)}'; {hint}"


def no_such_option(group: str, option: str, options: Sequence[str]) -> str:
    """Return what is wrong with an option that does not exist, and what to type."""
    found = next((one for one in options if one.rpartition("/")[2] == option), "") or closest(option, options)
    if found:
        return f"no such {group}; did you mean '{found}'?"
    if Path(f"{option}.py").is_file():
        return f"no such {group}; type plugins={option}.py too"
    if group == "data" and Path(option).is_dir():
        return f"no such data; for photographs of your own: data=image_folder data.folder={option}"
    is_short = len(options) <= MAX_LISTED
    known = f"there are {listed(options)}" if is_short else f"cnnbench options {group} lists all {len(options)}"
    is_extended = group not in ("regularization", "experiment", "debug")
    return f"no such {group}; {known}{'; plugins=FILE adds those of your own' if is_extended else ''}"


def several_values(word: str, values: Sequence[Any], accepts: Callable[[str, Any], bool]) -> str:
    """Return what to type in place of a word with several values, which only a sweep takes.

    accepts: tells whether a setting may have a value.
    """
    key, _, text = word.partition("=")
    if values and accepts(key, values) and not accepts(key, values[0]):
        return f"is no list; type '{key}=[{text}]'"
    one = f"; one path with a comma is typed '{key}=\"…\"'" if key in PATHS else ""
    if (number := with_point(word)) and accepts(key, float(number.partition("=")[2])):
        one = f"; one number has a point: {number}"
    return f"has several values; put -m before it to run each of them{one}"


def retyped_as(word: str, schema: Mapping[str, Any]) -> str:
    """Return how to type a list of one, or as text what is read as something else, as `nan`; empty: neither.

    schema: of the value, in terms of JSON schema.
    """
    key, _, text = word.partition("=")
    kinds = [one.get("type") for one in schema.get("anyOf", [schema]) if "pattern" not in one]
    if not re.fullmatch(r"[\w.+-]+", text):
        return ""
    if "array" in kinds and text not in ("null", "true", "false"):
        return f"; a list of one is typed '{key}=[{text}]'"
    return f"; as text it is typed '{key}=\"{text}\"'" if "string" in kinds else ""


def wrong_entry(kind: str, place: Sequence[int | str]) -> str:
    """Return what is wrong with one of several settings in braces; empty: a value has another mistake.

    kind, place: of it, as pydantic says them.
    """
    if len(place) < 2 or not isinstance(place[0], int):
        return ""
    ways = {"missing": "lacks", "extra_forbidden": "has an unknown"}
    return f"; entry {place[0] + 1} {ways.get(kind, 'has a wrong')} '{place[-1]}'"


def several_options(group: str, options: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Return what to type in place of a list of options; settings: of all of them, by dotted key in the group."""
    if group not in ("regularization", "augmentation"):
        return f"takes one option; to run each of them: -m {group}={','.join(options)}"
    words = (
        f"{group}.{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()
    )
    return f"takes one option; type the settings of each: {' '.join(words)}"


def closest_path(path: str | Path, *others: str) -> str:
    """Return a path with the most similar name of those next to it, or of others; empty: none is close."""
    path = Path(path)
    folder = path.expanduser().parent
    found = closest(path.name, [*others, *(os.listdir(folder) if folder.is_dir() else ())])
    return str(path.with_name(found)) if found else ""
