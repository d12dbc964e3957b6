"""What notebooks and scripts call, what it shows there, and that it leaves the process as it was."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.backends import cuda, cudnn, mkldnn

import cnnbench
from cnnbench import api
from cnnbench.analysis.explanation.pictures import Explanation, Picture
from cnnbench.analysis.run import Run
from cnnbench.config.compose import read_word
from cnnbench.config.values import as_words
from cnnbench.data.images import Images
from cnnbench.errors import ConfigError, ExitCode, Stopped, TrainingError, UserError
from cnnbench.plugins import REGISTRIES
from cnnbench.store.files import write_json
from cnnbench.store.provenance import typed_code
from cnnbench.tasks.figures import image_grid
from cnnbench.training.signals import SIGNALS
from tests.conftest import TINY, latest
from tests.support.interruption import rows_of
from tests.support.training import same

DROPOUT = (*TINY, "model=minialexnet_v2", "data.image_size=32")  # a network that draws from torch's own generator


@pytest.fixture(autouse=True)
def nothing_is_registered() -> Iterator[None]:
    before = [(registry, dict(registry.components)) for registry in REGISTRIES]
    yield
    for registry, components in before:
        registry.components = components


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(tmp_path_factory.mktemp("finished")))
        torch.set_num_threads(1)
        return api.train([*TINY, "model=lenet"], progress="quiet").path


@pytest.fixture
def run(finished_once, tmp_path) -> Run:
    return api.load_run(shutil.copytree(finished_once, tmp_path / "run"))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.model("last").state_dict()


def tiny(*words: str, **options: Any) -> Run:
    return api.train(latest([*TINY, *words]), progress="quiet", **options)


# What is there --------------------------------------------------------------------------------------------------------


def test_the_names_of_the_package_are_its_api():
    assert dir(cnnbench) == sorted([*cnnbench.__all__, "__version__"])
    assert all(getattr(cnnbench, name) is not None for name in cnnbench.__all__)
    documented = cnnbench.__doc__ or ""
    names = {"register_…" if name.startswith("register_") else name for name in cnnbench.__all__}
    assert [name for name in names if not re.search(rf"\b{name}", documented)] == []
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        _ = cnnbench.trane  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import cnnbench; dir(cnnbench); cnnbench.__all__; "
        "print({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "{'cnnbench'}"


def test_types_are_shipped():
    assert (Path(cnnbench.__file__).parent / "py.typed").is_file()


# How it is said -------------------------------------------------------------------------------------------------------


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
    plugin.write_text("")
    for plan in (
        api.plan("epochs=2", str(plugin), rerun=True, accept_stale=True),
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
    monkeypatch.setattr("cnnbench.api.carry_out_all", lambda *arguments: taken.append(arguments))
    api.sweep(TINY, model=["mlp", "lenet"], seed=range(2), **{"model.units": "[5]"})
    (plans, *_, command), *_ = taken
    assert [(plan.config.model.name, plan.config.seed) for plan in plans] == [
        ("mlp", 0), ("mlp", 1), ("lenet", 0), ("lenet", 1),
    ]  # fmt: skip
    assert command.startswith("cnnbench -m data=synthetic")
    with pytest.raises(ConfigError, match="is for one run; to go on with a sweep, call the same again"):
        api.sweep(resume="outputs")


def test_a_sweep_that_was_stopped_is_not_returned_as_if_it_were_done(monkeypatch):
    monkeypatch.setattr("cnnbench.api.carry_out_all", lambda *_: ExitCode.STOPPED)
    with pytest.raises(Stopped, match="call the same again"):
        api.sweep(TINY, model="mlp")


# Mistakes and ends ----------------------------------------------------------------------------------------------------


def test_a_notebook_shows_the_message_alone():
    with pytest.raises(UserError) as raised:
        api.train(data="digits", epoch=3)
    (shown,) = raised.value._render_traceback_()
    assert shown == (
        "ConfigError: 1 mistake in the configuration, nothing was started:\n"
        "  epoch=3  no such key; did you mean 'epochs'?"
    )
    assert TrainingError("diverged")._render_traceback_() == ["TrainingError: diverged"]


def test_a_training_that_was_stopped_is_not_returned_as_if_it_were_done():
    words = ("model=mlp", "epochs=2")
    told = r"^paused after step 1; the last checkpoint, of step 1, is kept\.\nTo go on, call the same"
    with pytest.raises(Stopped, match=told) as end:
        tiny(*words, max_minutes=1e-9)
    assert end.value.run is not None
    assert end.value.run.record["status"] == "paused"
    with pytest.raises(UserError, match="is not finished yet"):
        _ = end.value.run.result
    assert tiny(*words).path == end.value.run.path
    assert tiny(*words).result["epochs"] == 2


def test_ctrl_c_stops_at_a_checkpoint():
    def press(_run: Run, _row: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match="paused after step"):
        tiny("model=mlp", on_epoch=press)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_function_is_called_after_each_epoch_and_can_stop_the_training():
    seen: list[tuple[Path, int, float]] = []

    def look(run: Run, row: Any) -> None:
        assert len(run.metrics.query("row == 'epoch'")) == row["epoch"]
        seen.append((run.path, row["epoch"], row["loss/val"]))
        if row["epoch"] == 2:
            raise Stopped

    with pytest.raises(Stopped, match="paused after step 10"):
        tiny("model=lenet", on_epoch=look)
    run = tiny("model=lenet", on_epoch=look)
    rows = [row for row in rows_of(run.path) if row["row"] == "epoch"]
    assert seen == [(run.path, row["epoch"], row["loss/val"]) for row in rows]
    assert len(seen) == 3


def test_an_error_in_that_function_is_its_own():
    with pytest.raises(ZeroDivisionError):
        tiny("model=mlp", on_epoch=lambda _run, _row: 1 // 0)
    assert api.runs()["status"].tolist() == ["failed"]


# What is printed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "has_lines", "has_bar", "has_summary"),
    [("quiet", False, False, False), ("lines", True, False, True), ("bar", True, True, True),
     ("auto", True, False, True)],
)  # fmt: skip
def test_a_training_shows_as_much_as_it_is_asked_to(capfd, progress, has_lines, has_bar, has_summary):
    api.train(TINY, model="mlp", progress=progress)
    printed = capfd.readouterr()
    assert ("  epoch 3/3  loss" in printed.out) == has_lines
    assert (" left" in printed.err) == has_bar
    assert ("checkpoint  epoch" in printed.out) == has_summary
    assert bool(printed.out) == has_summary
    assert bool(printed.err) == has_bar


def test_how_much_is_printed_is_one_of_four():
    with pytest.raises(UserError, match=r"^progress='loud': must be one of 'auto', 'bar', 'lines', 'quiet'"):
        api.train(TINY, model="mlp", progress="loud")  # type: ignore[arg-type]
    assert api.runs().empty


def test_the_processes_of_a_sweep_are_as_quiet(capfd):
    assert len(api.sweep(TINY, model="mlp", seed=[0, 1], progress="quiet")) == 2
    assert capfd.readouterr().out == ""


def test_what_changed_since_is_said_in_any_case(capsys):
    run = tiny("model=mlp")
    write_json(run.path / "run.json", run.record | {"code": {"cnnbench/models/plain.py": "other"}})
    capsys.readouterr()
    tiny("model=mlp")
    printed = capsys.readouterr()
    assert not printed.out
    assert "note: made with other code: " in printed.err


# The process it runs in -----------------------------------------------------------------------------------------------


def state_of_process() -> dict[str, Any]:
    """Return what belongs to the process, or to its user."""
    parts = (cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)  # type: ignore[attr-defined]
    return {
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "precision": (torch.get_float32_matmul_precision(), *(part.fp32_precision for part in parts)),
        "signals": {number: signal.getsignal(number) for number in SIGNALS},
        "environment": dict(os.environ),
        "directory": Path.cwd(),
    }


@pytest.fixture
def own_settings() -> Iterator[None]:
    """Settings of a user's own, none of which is torch's default."""
    torch.manual_seed(11)
    random.seed(12)
    np.random.seed(13)
    torch.rand(3)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = True
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    with torch.no_grad():
        yield
    signal.signal(signal.SIGUSR1, before)
    cudnn.benchmark = False
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)


def in_thread(function: Callable[[], Run]) -> Run:
    """Return what a function returns in a thread of its own."""
    results: list[Run] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    (result,) = results
    return result


def diverged() -> None:
    with pytest.raises(TrainingError):
        tiny("model=mlp", "optimizer.lr=1e30")


def refused() -> None:
    with pytest.raises(UserError):
        tiny("model=mlp", "batch_size=5000")


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize(
    "use",
    [
        lambda _: tiny(*DROPOUT, "epochs=1"),
        lambda _: in_thread(lambda: tiny(*DROPOUT, "epochs=1")),
        lambda _: diverged(),
        lambda _: refused(),
        lambda _: api.sweep(TINY, model="mlp", epochs=1, seed=[0], progress="quiet"),
        lambda run: run.model(),
        lambda run: run.data("val"),
        lambda run: run.evaluate(),
        lambda run: run.explain(what="kernels,gallery"),
        lambda run: run.export("safetensors"),
    ],
    ids=["train", "train in a thread", "diverged", "refused", "sweep", "model", "data", "evaluate", "explain",
         "export"],
)  # fmt: skip
def test_the_process_is_as_it_was(run, use):
    before = state_of_process()
    use(run)
    after = state_of_process()
    assert [key for key in before if before[key] != after[key]] == []


def test_flags_for_a_gpu_are_given_back_too():
    from cnnbench.training.setup import set_up_torch
    from cnnbench.training.torch_state import borrowed_torch

    config = api.plan(TINY).config.model_copy(update={"precision": "tf32"})
    before = state_of_process()
    with borrowed_torch():
        set_up_torch(torch.device("cuda"), config, 2)
        assert cudnn.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
        assert state_of_process() != before
    assert state_of_process() == before


def test_gpus_that_a_training_woke_up_are_seeded_as_their_user_said(monkeypatch):
    from cnnbench.training.torch_state import borrowed_torch

    torch.manual_seed(41)
    awake, seeds = [False], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: awake[0])
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeds.append(seed) if awake[0] else None)
    with borrowed_torch():
        pass
    assert seeds == []
    with borrowed_torch():
        awake[0] = True
        torch.default_generator.manual_seed(5)
    assert seeds == [41]
    states = [torch.zeros(16, dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", seeds.append)
    with borrowed_torch():
        pass
    assert seeds[1] is states


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Return the weights of a training in a process where nobody has set anything."""
    code = f"import cnnbench; print(cnnbench.train({latest(DROPOUT)!r}, progress='quiet').path)"
    environment = os.environ | {"CNNBENCH_OUTPUTS": str(tmp_path_factory.mktemp("alone"))}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return weights(api.load_run(ran.stdout.strip()))


@pytest.mark.usefixtures("own_settings")
def test_the_settings_of_its_user_do_not_change_the_bits_of_a_training(alone):
    assert same(weights(tiny(*DROPOUT)), alone)


def test_a_training_in_a_thread_has_the_same_bits(alone):
    assert same(weights(in_thread(lambda: tiny(*DROPOUT))), alone)


def test_trainings_in_two_threads_take_turns(alone):
    runs: list[Run] = []
    words = (DROPOUT, (*DROPOUT, "seed=1"))
    threads = [threading.Thread(target=lambda some=some: runs.append(tiny(*some))) for some in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first,) = [run for run in runs if run.config.seed == 0]
    assert len(runs) == 2
    assert same(weights(first), alone)


def test_a_training_in_the_midst_of_another_does_not_disturb_it(alone):
    inner: list[Run] = []

    def train_another(run: Run, _row: Any) -> None:
        inner.append(tiny("model=mlp", "seed=3", "epochs=1"))
        torch.rand(7)
        run.data("val")

    assert same(weights(tiny(*DROPOUT, on_epoch=train_another)), alone)
    assert len(inner) == 3


# What a run can do ----------------------------------------------------------------------------------------------------


def test_a_run_is_evaluated_as_its_result_says(run):
    report = run.evaluate()
    assert report.metrics == {name: value for name, value in run.result["test"].items() if name != "samples"}
    assert isinstance(report.tables["classes"](), pd.DataFrame)
    assert run.evaluate("val", "last").metrics.keys() == {"loss", "accuracy", "ece"}
    other = run.evaluate(
        data=[word for word in TINY if word.startswith("data.") and "num_test" not in word][:0] or DATA
    )
    assert other.metrics["loss"] > 0


DATA = ["synthetic", "data.num_train=72", "data.num_test=20", "data.num_classes=3", "data.image_size=16"]


def test_figures_of_a_run_are_shown(run):
    explanation = run.explain(what="kernels,activations")
    assert [picture.name.partition("-")[0] for picture in explanation] == ["activations", "activations", "kernels"]
    html = explanation._repr_html_()
    assert html.count('src="data:image/png;base64,') == len(explanation)
    assert explanation[0]._repr_png_().startswith(b"\x89PNG")
    assert not (run.path / "explanation").exists()


def test_all_figures_are_drawn_where_none_is_named_and_what_is_left_out_is_said(run):
    explanation = run.explain(split="val")
    assert len(explanation) > 4
    assert "augmentation: the run has no augmentation" in explanation.left_out
    assert "left out: augmentation" in explanation._repr_html_()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda run: run.explain(what="kernel"), "'kernel' is not drawn; did you mean 'kernels'"),
        (lambda run: run.explain(what="augmentation"), "augmentation: the run has no augmentation"),
        (lambda run: run.explain("nowhere.png"), r"nowhere\.png: no such file or folder"),
        (lambda run: run.explain(label="cat"), "no such class"),
        (lambda run: run.export("onxn"), "'onxn' is no format; did you mean 'onnx'"),
        (lambda run: run.evaluate(which="bets"), "no checkpoint 'bets'"),
        (lambda run: run.evaluate("tset"), "no such images"),
    ],
    ids=["kind", "not possible", "file", "class", "format", "checkpoint", "split"],
)
def test_a_mistake_in_a_call_is_one_message(run, mistake, message):
    with pytest.raises(UserError, match=message):
        mistake(run)


def test_a_format_without_its_packages_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr("cnnbench.analysis.export.formats.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^onnx needs 'onnx', 'onnxscript', 'onnxruntime': pip install 'cnnbench\[onn"):
        run.export("onnx")


def test_a_run_is_exported_and_reported(run, tmp_path):
    assert run.export("safetensors") == run.path / "export" / "best.safetensors"
    assert run.export("safetensors", tmp_path / "mine.safetensors", "last") == tmp_path / "mine.safetensors"
    page = run.report()
    assert page == run.path / "report.html"
    assert page.read_text().startswith("<!doctype html>")


# What a notebook shows ------------------------------------------------------------------------------------------------

HOSTILE = '<script>alert(1)</script>"&'


def test_a_run_is_shown_with_its_result(run):
    html = run._repr_html_()
    assert "<b>lenet</b> on <b>synthetic</b>, seed 0: completed" in html
    assert f"{run.result['test']['accuracy']:.6f}".rstrip("0") in html
    assert len(html) < 2_000


def test_a_run_that_is_not_finished_is_shown(run):
    (run.path / "result.json").unlink()
    write_json(run.path / "run.json", run.record | {"status": "failed"})
    assert "seed 0: failed" in run._repr_html_()


def test_hostile_names_are_escaped(run, tmp_path):
    write_json(run.path / "run.json", run.record | {"choices": {"model": HOSTILE, "data": HOSTILE}})
    hostile = tmp_path / f"{HOSTILE.replace('/', ':')}"
    run.path.rename(hostile)
    picture = Picture(HOSTILE, HOSTILE, image_grid(torch.zeros(1, 1, 4, 4)))
    shown = [api.load_run(hostile)._repr_html_(), Explanation((picture,), (HOSTILE,))._repr_html_()]
    report = api.load_run(hostile).evaluate()
    object.__setattr__(report, "metrics", {HOSTILE: 1.0})
    object.__setattr__(report, "tables", {HOSTILE: pd.DataFrame})
    for html in (*shown, report._repr_html_()):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert "http" not in html


def test_images_are_shown_small(run):
    images = run.data("val")
    assert repr(images) == "Images(7, 1x16x16, 3 classes)"
    html = images._repr_html_()
    assert html.startswith('<div>Images(7, 1x16x16, 3 classes)</div><img alt="" src="data:image/png;base64,')
    large = Images(torch.randint(256, (40, 3, 300, 200), dtype=torch.uint8), torch.zeros(40, dtype=torch.int64))
    assert len(large._repr_html_()) < 200_000
    assert Images(large.pixels[:0], large.labels[:0])._repr_html_() == "<div>Images(0, 3x300x200, 0 classes)</div>"


def test_an_evaluation_is_shown_in_short(run):
    report = run.evaluate()
    assert len(repr(report)) < 300
    assert "tables: <code>classes, confusion, calibration, predictions</code>" in report._repr_html_()


# Metrics of one's own -------------------------------------------------------------------------------------------------


def error_rate(predictions) -> float:
    """How often the prediction is wrong."""
    return (predictions.probabilities.argmax(1) != predictions.labels).double().mean()  # `float` takes a tensor


def test_a_metric_of_ones_own_is_in_rows_result_evaluation_page_and_terminal(capsys):
    cnnbench.register_metric("error_rate", higher_is_better=False)(error_rate)
    run = api.train(latest([*TINY, "report=true"]), model="lenet", task={"metrics": ["error_rate"]})
    rows = [row for row in rows_of(run.path) if row["row"] == "epoch"]
    assert [row["error_rate/val"] for row in rows] == pytest.approx([1 - row["accuracy/val"] for row in rows])
    result = run.result
    for split in ("train", "val", "test"):
        assert result[split]["error_rate"] == pytest.approx(1 - result[split]["accuracy"])
    assert result["higher_is_better"]["error_rate"] is False
    assert run.evaluate().metrics["error_rate"] == result["test"]["error_rate"]
    assert "error_rate" in (run.path / "report.md").read_text()
    assert re.search(r"epoch 3/3 .* val loss .* val error_rate \d", capsys.readouterr().out)


def test_a_metric_of_ones_own_can_decide_which_epoch_is_best():
    cnnbench.register_metric("minus_loss")(lambda predictions: -float(predictions.probabilities[:, 0].mean()))
    run = tiny("model=lenet", task={"metrics": ["minus_loss"], "watch": "minus_loss"})
    rows = [row for row in rows_of(run.path) if row["row"] == "epoch"]
    best = max(rows, key=lambda row: row["minus_loss/val"])
    assert run.result["checkpoint"]["epoch"] == best["epoch"]
    assert run.result["watched"] == [["minus_loss", True], ["loss", False]]


def test_metrics_change_no_weights(run):
    cnnbench.register_metric("error_rate")(error_rate)
    measured = tiny("model=lenet", task={"metrics": ["error_rate"]})
    assert measured.config.identity() != run.config.identity()
    assert same(weights(measured), weights(run))


def test_the_metric_of_the_readme_is_measured():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    begin = text.index('@cnnbench.register_metric("macro_f1")')
    exec(text[begin : text.index("```", begin)], {"cnnbench": cnnbench})
    assert 0.5 < api.load_run(api.runs()["path"][0]).result["test"]["macro_f1"] < 1


def test_a_metric_without_a_value_is_not_a_number():
    def needs_all_classes(predictions) -> float:
        if len(predictions.labels.unique()) < 3:
            raise ValueError("a class is missing")
        return 1.0

    cnnbench.register_metric("strict")(needs_all_classes)
    run = tiny("model=mlp", "epochs=1", "data.val_fraction=0.03", task={"metrics": ["strict"]})  # two images
    assert run.result["val"]["strict"] is None
    assert run.result["train"]["strict"] == 1.0


def broken(predictions) -> float:
    raise KeyError("cat")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["eror_rate"], "no metric is called 'eror_rate'; did you mean 'error_rate'"),
        (["broken"], r"test_api\.py:\d+: metric 'broken' fails on random predictions: KeyError: 'cat'"),
        (["accuracy"], "'accuracy' is measured already"),
        (["error_rate", "error_rate"], "'error_rate' is measured already"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_in_metrics_is_found_before_anything_is_trained(metrics, message):
    for name, function in (("error_rate", error_rate), ("broken", broken), ("accuracy", error_rate)):
        cnnbench.register_metric(name)(function)
    with pytest.raises(ConfigError, match=message):
        tiny("model=mlp", task={"metrics": metrics})
    assert api.runs().empty


def test_what_is_watched_has_to_be_measured():
    with pytest.raises(ConfigError, match=r"task\.watch=acuracy *is not measured; there are 'accuracy', 'loss'"):
        tiny("model=mlp", task={"watch": "acuracy"})


def test_a_metric_is_checked_when_it_is_registered():
    with pytest.raises(UserError, match=r"a name has letters, digits, _, - and @ only"):
        cnnbench.register_metric("a/b")
    with pytest.raises(UserError, match=r"metric 'x': is a function of `predictions` alone; give 'beta' a default"):

        @cnnbench.register_metric("x")
        def weighted(predictions, beta: float) -> float:
            return beta


# What is typed into a notebook ----------------------------------------------------------------------------------------

CELL = """
@register_model("mine")
class Mine(nn.Module):
    def __init__(self, spec, *, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, width), nn.Linear(width, spec.num_outputs))

    def forward(self, images):
        return self.layers(images)
"""


def run_cell(text: str, tmp_path: Path) -> None:
    """Define what a cell of a notebook does: in `__main__`, with source that Python can look up."""
    path = tmp_path / f"cell_{len(list(tmp_path.glob('cell_*')))}.py"
    path.write_text(text)
    names = {"__name__": "__main__", "nn": nn, "register_model": cnnbench.register_model}
    exec(compile(text, str(path), "exec"), names)


def test_a_cell_can_be_run_again_and_counts_as_code(tmp_path):
    run_cell(CELL, tmp_path)
    config = api.plan(TINY, model="mine").config
    before = typed_code(config)
    assert list(before) == ["model 'mine'"]
    run_cell(CELL, tmp_path)
    assert typed_code(config) == before
    run_cell(CELL.replace("self.layers(images)", "2 * self.layers(images)"), tmp_path)
    assert typed_code(config) != before
    assert typed_code(api.plan(TINY, model="mlp").config) == {}
    assert api.plan(TINY, model="mine").code["model 'mine'"] == typed_code(config)["model 'mine'"]


def test_a_finished_run_says_that_its_cell_was_another(tmp_path, capsys):
    run_cell(CELL, tmp_path)
    before = tiny("model=mine", "epochs=1")
    assert "model 'mine'" in before.record["code"]
    run_cell(CELL.replace("self.layers(images)", "2 * self.layers(images)"), tmp_path)
    assert tiny("model=mine", "epochs=1").path == before.path
    assert capsys.readouterr().err == "note: made with other code: model 'mine'\n"
    assert not same(weights(tiny("model=mine", "epochs=1", rerun=True)), weights(before))


def test_a_sweep_says_that_its_processes_do_not_know_a_cell(tmp_path):
    run_cell(CELL, tmp_path)
    with pytest.raises(UserError, match=r"^model 'mine' is defined in this notebook or script.*plugins=FILE"):
        api.sweep(TINY, model="mine", seed=[0, 1])


PLUGIN = """
from torch import nn
from cnnbench import register_model

@register_model("of_a_file")
def of_a_file(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, spec.num_outputs))
"""


def test_a_plugin_that_was_edited_is_imported_again(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    words = ("model=of_a_file", "epochs=1")
    first = tiny(*words, plugins=path.name if path.parent == Path.cwd() else str(path))
    path.write_text(
        PLUGIN.replace("nn.Flatten()", "nn.AvgPool2d(4), nn.Flatten()").replace("spec.width,", "spec.width // 16,")
    )
    second = tiny(*words, plugins=[str(path)], rerun=True)
    assert first.result["parameters"]["total"] == 256 * 3 + 3
    assert second.result["parameters"]["total"] == 16 * 3 + 3
    assert first.record["code"]["plugin.py"] != second.record["code"]["plugin.py"]


def test_runs_are_found_wherever_they_are_written(run):
    tiny("model=mlp", "epochs=1")
    assert api.runs()["epochs"].tolist() == [1]
    assert api.runs(f"{run.path.parent}/*")["path"].tolist() == [str(run.path)]
