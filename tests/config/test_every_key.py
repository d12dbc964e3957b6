"""Every key of every configuration, mistyped and contradicted: each is reported, and nothing is written."""

from collections.abc import Sequence
from contextlib import suppress

import pytest

from cnnbench.config.compose import Composer
from cnnbench.config.values import FREE_TEXT, PATHS, flat
from cnnbench.errors import UserError
from cnnbench.plugins import register_everything
from cnnbench.training.plan import plan_run
from tests.support.mistakes import mistakes_in
from tests.support.selection import everyday

COMMANDS = {
    "default": (),
    "every augmentation": ("data=cifar10", "augmentation=strong"),
    "large network": ("model=resnet18_cifar", "data=cifar10", "optimizer=adamw", "scheduler=one_cycle"),
    "transfer": (
        "model=torchvision",
        "model.architecture=resnet18",
        "data=cifar10",
        "optimizer=muon",
        "scheduler=step",
    ),
    "autoencoder": ("model=conv_encoder", "task=autoencoder", "data=mnist", "optimizer=adam", "scheduler=plateau"),
    "triplet": ("model=embedding_net", "task=triplet", "data=mnist", "optimizer=rmsprop", "scheduler=cosine_restarts"),
    "photographs": ("data=image_folder", "data.folder=/nowhere", "optimizer=adadelta", "scheduler=polynomial"),
    "lists": ("data=csv", "data.folder=/nowhere", "data.train=train.csv", "optimizer=nadam", "scheduler=multistep"),
}
USUAL = ("transfer", "lists")
NAMES = {"data.name", "model.name", "optimizer.name", "scheduler.name", "task.name", "experiment"}


@pytest.fixture(scope="module")
def opened() -> Composer:
    register_everything()
    return Composer()


@pytest.fixture(scope="module")
def keys(opened) -> dict[str, list[str]]:
    """Return the keys of each command as `--cfg job` shows them, each part once."""
    seen: set[tuple[str, str]] = set()
    found: dict[str, list[str]] = {}
    for name, words in COMMANDS.items():
        values = flat(plan_run(opened, words).config.to_dict())
        parts = {key: (key, str(values.get(f"{key.partition('.')[0]}.name"))) for key in values}
        found[name] = [key for key in values if parts[key] not in seen]
        seen |= set(parts.values())
    return found


def test_the_words_are_many(keys):
    assert sum(len(3 * of_command) for of_command in keys.values()) >= 1000


@pytest.mark.parametrize("name", COMMANDS)
def test_every_mistyped_key_is_reported_in_one_message(name, opened, keys):
    words = [f"{key[:-1]}qq=1" for key in keys[name]]
    mistakes = mistakes_in(opened, *COMMANDS[name], *words, sees_data=False)
    assert set(words) <= set(mistakes)
    assert all(mistakes[word] for word in words)


@pytest.mark.parametrize("name", everyday(COMMANDS, USUAL))
def test_every_value_of_another_kind_is_reported_in_one_message(name, opened, keys):
    typed = {word.partition("=")[0] for word in COMMANDS[name]}
    words = [f"{key}=[{{a: [1]}}]" for key in keys[name] if key not in {*typed, *NAMES, *FREE_TEXT, *PATHS}]
    mistakes = mistakes_in(opened, *COMMANDS[name], *words, sees_data=False)
    assert [word for word in words if not mistakes.get(word)] == []


@pytest.mark.parametrize("name", everyday(COMMANDS, USUAL))
def test_every_value_alone_is_used_or_reported(name, opened, keys):
    """A value that may be right or wrong: whatever it is, there is a plan or a message, and never anything else."""
    for value in ("-1", "null", "[]"):
        words = _apart([f"{key}={value}" for key in keys[name] if key not in NAMES])
        for together in words:
            with suppress(UserError):
                plan_run(opened, [word for word in COMMANDS[name] if not _is_set(word, together)] + together)


def _apart(words: Sequence[str], number: int = 4) -> list[list[str]]:
    return [list(words[start::number]) for start in range(number)]


def _is_set(word: str, words: Sequence[str]) -> bool:
    return any(other.partition("=")[0] == word.partition("=")[0] for other in words)
