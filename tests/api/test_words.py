"""What is trained, said as a line, as words, as keywords or as a mapping."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cnnbench import api
from cnnbench.config.compose import read_word
from cnnbench.config.values import as_words
from cnnbench.errors import ConfigError, UserError
from tests.api.conftest import tiny
from tests.conftest import TINY


@pytest.mark.parametrize(
    ("words", "settings", "expected"),
    [
        ("data=digits epochs=1", {}, ["data=digits", "epochs=1"]),
        ("data.folder='my photos' a=1", {}, ["data.folder=my photos", "a=1"]),
        (["data=digits"], {"epochs": 1}, ["data=digits", "epochs=1"]),
        ((), {"optimizer.lr": 0.1}, ["optimizer.lr=0.1"]),
        ({"optimizer.lr": 0.1}, {"epochs": 2}, ["optimizer.lr=0.1", "epochs=2"]),
        ((), {"optimizer": {"lr": 0.1, "momentum": 0}}, ["optimizer.lr=0.1", "optimizer.momentum=0"]),
        ((), {"augmentation": {"flip": {}}}, ["augmentation.flip={}"]),
        ((), {"report": False, "threads": None}, ["report=false", "threads=null"]),
        ((), {"model.maps": [4, 8], "x": (1,)}, ["model.maps=[4,8]", "x=[1]"]),
        ((), {"model.maps": "[4,8]"}, ["model.maps=[4,8]"]),
        ((), {"epochs": np.int64(3), "lr": np.float32(0.5), "seed": torch.tensor(3).item()},
         ["epochs=3", "lr=0.5", "seed=3"]),
        ((), {"seed": torch.tensor(3), "model.maps": np.array([4, 8])}, ["seed=3", "model.maps=[4,8]"]),
        ({"model": {"name": "mlp", "units": [8]}}, {"data": {"name": "digits"}},
         ["model=mlp", "model.units=[8]", "data=digits"]),
    ],
)  # fmt: skip
def test_words_keywords_and_mappings_say_the_same(words, settings, expected):
    assert as_words(words, settings) == expected


@pytest.mark.parametrize(
    "value",
    ["photos", "~/photos", "it's (1)", "a=b", "photos\\", "it\\'s (2)\\", "f\u00fcr dich", Path("a,b"), Path("[a]"),
     "a b", 0.1, 1e-5, True, None, [1, 2], ["a b", "c,d", "'"], {"a": [1, None]}, []],
    ids=str,
)  # fmt: skip
def test_hydra_reads_what_was_given(value):
    (word,) = as_words((), {"key": [value]})  # in a list nothing is taken as typed
    expected = str(value) if isinstance(value, Path) else value
    assert read_word(word).value() == [expected]
    if not isinstance(value, dict):
        assert read_word(as_words((), {"key": value})[0]).value() == expected


@pytest.mark.parametrize(
    "values",
    [[0, 1], (0, 1), range(2), np.arange(2), torch.arange(2), pd.Series([0, 1]), (number for number in range(2))],
    ids=lambda values: type(values).__name__,
)
def test_whatever_has_several_values_is_swept_over(values):
    assert as_words((), {"seed": values, "model": {"name": ["mlp", "lenet"]}}, is_grid=True) == [
        "seed=0,1", "model=mlp,lenet",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [nn.ReLU(), nn.ReLU, print], ids=["network", "class", "function"])
def test_an_object_is_no_setting(value):
    with pytest.raises(ConfigError, match=r"model=.*(ReLU|print).* is an object of Python; cnnbench\.register_model"):
        api.plan(model=value)


def test_spaces_around_an_equals_sign_are_seen():
    with pytest.raises(ConfigError) as raised:
        api.plan("data=digits epochs = 3")
    assert [(mistake.given, mistake.problem) for mistake in raised.value.mistakes] == [
        ("epochs", "is not of the form key=value; did you mean 'epochs=…'?"),
        ("=", "is not of the form key=value; type no space before or after '='"),
        ("3", "is not of the form key=value"),
    ]


def test_an_option_and_its_settings_are_said_in_one_mapping():
    model = api.plan(data="digits", model={"name": "mlp", "units": [8]}).config.model
    assert (model.name, model.settings["units"]) == ("mlp", [8])


def test_words_are_one_argument():
    with pytest.raises(TypeError, match="positional"):  # and not taken for a plugin
        api.plan("data=digits", "epochs=3")  # type: ignore[misc]


def test_what_is_no_word_is_refused():
    with pytest.raises(UserError, match=r"^3 is no setting; give words such as 'epochs=3', or keywords: epochs=3\.$"):
        api.plan(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a quote is not closed"):
        api.plan("data.folder='my photos")


def test_every_way_to_say_it_means_the_same_run():
    said = [
        api.plan("data=synthetic epochs=2 optimizer.lr=0.1"),
        api.plan(["data=synthetic"], epochs=2, **{"optimizer.lr": 0.1}),
        api.plan(data="synthetic", epochs=2, optimizer={"lr": 0.1}),
    ]
    assert len({plan.config.identity() for plan in said}) == 1
    assert {plan.command for plan in said} == {"cnnbench data=synthetic epochs=2 optimizer.lr=0.1"}


def test_what_a_command_says_besides_settings_can_be_said_both_ways(finished_once, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("# may register what it wants to")
    for plan in (
        api.plan("epochs=2", plugins=str(plugin), rerun=True, accept_stale=True),
        api.plan(f"epochs=2 rerun=true accept_stale=true plugins={plugin}"),
    ):
        assert (plan.rerun, plan.accept_stale, plan.plugins) == (True, True, (str(plugin),))
    for plan in (api.plan(resume=finished_once), api.plan(f"resume={finished_once}")):
        assert plan.folder == finished_once
    with pytest.raises(ConfigError, match=r"(?s)rerun=maybe *must be true or false.*dry_run=true *is for the command"):
        api.plan("rerun=maybe dry_run=true")


def test_config_dir_adds_options(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("name: mlp\nunits: [3]\nactivation: relu\n")
    assert api.plan(model="tiny", config_dir=tmp_path).config.model.settings["units"] == [3]
    run = tiny("model=tiny", "epochs=1", config_dir=tmp_path)
    assert run.record["choices"]["model"] == "tiny"
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        api.sweep(model="tiny", config_dir="nowhere")


def test_a_list_of_a_sweep_is_a_value_for_each_job(monkeypatch):
    taken: list[Any] = []
    monkeypatch.setattr("cnnbench.api.carry_out_sweep", lambda sweep, *_: (0, taken.append(sweep)))
    api.sweep(TINY, model=["mlp", "lenet"], seed=range(2), **{"model.units": "[5]"})
    (sweep,) = taken
    plans = [sweep.plan(job) for job in sweep.jobs]
    assert [(plan.config.model.name, plan.config.seed) for plan in plans] == [
        ("mlp", 0), ("mlp", 1), ("lenet", 0), ("lenet", 1),
    ]  # fmt: skip
    assert sweep.command.startswith("cnnbench -m data=synthetic")
    with pytest.raises(ConfigError, match=r"jobs=2 *is an argument of its own"):
        api.sweep("model=mlp jobs=2")
    with pytest.raises(ConfigError, match=r"jobs=2 *is for a sweep"):
        api.plan("model=mlp jobs=2")
    with pytest.raises(ConfigError, match="is for one run; to continue a sweep, make the same call again"):
        api.sweep(resume="outputs")
