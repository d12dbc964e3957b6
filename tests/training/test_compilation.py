"""`compile=true`: whole batches are trained by compiled code, and everything else is the network as it was written."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from cnnbench.training.compilation import compiled
from cnnbench.training.loop import Progress, fit
from tests.conftest import only_run
from tests.support.interruption import assert_same, finished, go, kill, outcome_of
from tests.support.training import SMALL, Recorder, plan_of, prepared, same, trained, weights_of

WORDS = (
    *SMALL, "model=lenet_v2", "regularization.dropout=0.3", "regularization.batchnorm=true", "accumulate=3",
    "regularization.l2=0.001", "regularization.clip.norm=1.0", "regularization.average.kind=ema",
    "freeze.what=features", "freeze.epochs=1",
)  # fmt: skip


@pytest.fixture
def calls(monkeypatch):
    """Compile to what was written, without a C++ compiler; return what is compiled and called, as it happens."""
    happened = []

    def backend(graph, inputs, **options):
        assert all(isinstance(value, torch.Tensor) for value in inputs), "for one size, which is no input"
        happened.append("compiled")

        def call(*inputs):
            happened.append("called")
            return graph(*inputs)

        return call

    monkeypatch.setattr("cnnbench.training.compilation.BACKEND", backend)
    monkeypatch.setenv("CXX", sys.executable)
    return happened


def test_steps_of_whole_batches_call_what_was_compiled_before_the_first_one(calls, capsys):
    training = prepared(*WORDS, "compile=true")
    before = weights_of(training)
    training = compiled(training)
    assert same(weights_of(training), before)
    assert calls.count("compiled") == 2 * 2, "of two sizes, frozen at first and not"
    assert calls.count("called") == 2 * 3
    assert "  compiled the network in " in capsys.readouterr().out
    calls.clear()
    progress = Progress()
    fit(training, progress, Recorder())
    assert calls == ["called"] * 3 * 4 * 3, "three epochs of four whole batches, in parts of 6, 5 and 5; no validation"
    uncompiled, _, expected = trained(*WORDS)
    assert same(weights_of(training), weights_of(uncompiled))
    assert same(training.evaluated(15).state_dict(), uncompiled.evaluated(15).state_dict())
    assert progress.scores == expected.scores


def test_the_ninth_network_of_a_class_in_a_process_is_compiled_too(calls):
    training = prepared(*SMALL, "compile=true")
    for width in range(1, 10):
        network = nn.Sequential(nn.Flatten(), nn.Linear(256, width), nn.Linear(width, 3))
        compiled(replace(training, network=network))
    assert calls.count("compiled") == 9


def test_what_cannot_be_compiled_is_one_sentence(cnnbench, outputs, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    ended = cnnbench(*SMALL, "compile=true")
    assert ended.code == 2
    assert "compile=true" in ended.err
    assert "needs a C++ compiler, and there is no 'no-such-compiler'; install g++" in ended.err
    assert not list(outputs.rglob("run.json"))

    def backend(*_, **options):
        raise RuntimeError(
            "C++ compile error\n\nx.cpp:1: fatal error: Python.h: No such file or directory\nof many lines"
        )

    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr("cnnbench.training.compilation.BACKEND", backend)
    ended = cnnbench(*SMALL, "compile=true")
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert "compile=true: torch cannot compile 'lenet' here: " in line
    assert "fatal error: Python.h: No such file or directory. compile=false" in line
    assert json.loads((only_run(outputs) / "run.json").read_text())["status"] == "failed"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_code_gives_the_same_bits_after_a_kill_and_nearly_those_of_the_network(tmp_path, outputs, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = (*WORDS, "compile=true")
    unbroken = finished(words, tmp_path / "unbroken")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "another-cache"))
    kill(plan_of(*words), after_step=8, saves_every=3)
    assert go(*words) == 0
    assert_same(only_run(outputs), outcome_of(unbroken))
    assert not any("_orig_mod" in name for name in outcome_of(unbroken)["checkpoint"]["network"])
    plain = [word for word in WORDS if "dropout" not in word]
    training = compiled(prepared(*plain, "compile=true"))
    fit(training, Progress(), Recorder())
    written = weights_of(trained(*plain)[0])
    assert all(torch.allclose(values, written[name], atol=1e-4) for name, values in weights_of(training).items())
