"""What a notebook shows, and what its cells define."""

import importlib
import linecache
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cnnbench
from cnnbench import api, load_run, plugins
from cnnbench.analysis.explanation.pictures import Explanation, Picture
from cnnbench.data.images import ImageData, Images
from cnnbench.errors import TrainingError, UserError
from cnnbench.registry import DATASETS, MODELS
from cnnbench.store.files import write_json
from cnnbench.store.provenance import typed_code
from cnnbench.tasks.figures import image_grid
from tests.api.conftest import tiny, weights
from tests.conftest import TINY
from tests.support.photographs import photograph, write_classes
from tests.support.training import same


def test_a_notebook_shows_the_message_alone():
    with pytest.raises(UserError) as raised:
        api.train(data="digits", epoch=3)
    (shown,) = raised.value._render_traceback_()
    assert shown == (
        "ConfigError: 1 mistake in the configuration, nothing was started:\n"
        "  epoch=3  no such key; did you mean 'epochs'?"
    )
    assert TrainingError("diverged")._render_traceback_() == ["TrainingError: diverged"]


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
    shown = [load_run(hostile)._repr_html_(), Explanation((picture,), (HOSTILE,))._repr_html_()]
    report = load_run(hostile).evaluate()
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
    assert "confusion" in report.figures
    assert repr(report.tables) == "OnDemand('metrics', 'classes', 'confusion', 'calibration', 'predictions')"
    assert "tables: <code>metrics, classes, confusion, calibration, predictions</code>" in report._repr_html_()


CELL = """
@register_model("mine")
class Mine(nn.Module):
    def __init__(self, spec, *, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, width), nn.Linear(width, spec.num_outputs))

    def forward(self, images):
        return self.layers(images)
"""


def run_cell(text: str, tmp_path: Path, has_source: bool = True) -> None:
    """Define what a cell of a notebook does: in `__main__`, with source that Python can look up, or without."""
    path = tmp_path / f"cell_{len(list(tmp_path.glob('cell_*')))}.py"
    if has_source:
        path.write_text(text)
    names = {"__name__": "__main__", "nn": nn, "register_model": cnnbench.register_model}
    exec(compile(text, str(path), "exec"), names)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("self.layers(images)", "2 * self.layers(images)"),  # what is computed
        ("return self", "return [2 * self.layers(one) for one in images] or self"),  # in code within code
        ("nn.Linear(width, ", "nn.LazyLinear("),  # a name
        ("width: int = 4", "width: int = 5"),  # what is no part of a run's identity
    ],
)
def test_a_model_without_source_counts_as_code_by_what_it_does(tmp_path, before, after):
    run_cell(CELL, tmp_path, has_source=False)
    config = api.plan(TINY, model="mine").config
    first = typed_code(config)
    run_cell(f"# elsewhere\n\n{CELL}", tmp_path / "..", has_source=False)
    assert typed_code(config) == first
    run_cell(CELL.replace(before, after), tmp_path, has_source=False)
    assert typed_code(config) != first


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


def test_a_run_of_a_cell_that_is_not_there_any_more_asks_for_it(tmp_path):
    run_cell(CELL, tmp_path)
    run = tiny("model=mine", "epochs=1")
    del MODELS.components["mine"]
    with pytest.raises(UserError, match=r"^model 'mine': run the cell that defines it first\.\n(?s:.*)no such model"):
        load_run(run.path)


def test_a_run_without_its_folder_says_so(run):
    shutil.rmtree(run.path)
    assert repr(run) == f"Run('{run.path}', removed)"
    assert run._repr_html_() is None
    for look in (lambda: run.result, lambda: run.metrics, run.model, run.evaluate, run.report):
        with pytest.raises(UserError, match=r"^/.*/run: this run folder was removed or renamed\.$"):
            look()


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


def test_a_run_opened_again_has_the_plugins_that_were_imported(tmp_path, capsys):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    run = tiny("model=of_a_file", "epochs=1", plugins=str(path))
    path.write_text(PLUGIN.replace("Flatten()", "Flatten(1)"))  # and this process has the code of before
    load_run(run.path).model()
    assert "warning" not in capsys.readouterr().err
    load_run(run.path, plugins=str(path)).model()
    assert "plugin.py changed since the training" in capsys.readouterr().err


def test_a_plugin_in_the_place_of_another_one_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    run = tiny("model=of_a_file", "epochs=1", plugins=f"{tmp_path}/plugin.py")
    del MODELS.components["of_a_file"]  # as in another process
    monkeypatch.setattr(plugins, "_imported", {})
    (tmp_path / "other.py").write_text(PLUGIN.replace("Flatten()", "Flatten(1)"))
    load_run(run.path, plugins=f"{tmp_path}/other.py").model()
    assert "plugin.py (not given, but other.py) changed since the training" in capsys.readouterr().err


def test_a_plugin_can_be_imported_as_a_module_as_well(tmp_path, monkeypatch, capsys):
    (tmp_path / "of_both_kinds.py").write_text(PLUGIN)
    run = tiny("model=of_a_file", "epochs=1", plugins=f"{tmp_path}/of_both_kinds.py")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("of_both_kinds")
    assert MODELS["of_a_file"].factory.__module__ == "of_both_kinds"
    again = load_run(run.path, plugins=f"{tmp_path}/of_both_kinds.py")
    assert same(weights(again), weights(run))
    assert "warning" not in capsys.readouterr().err


DATA_CELL = """
@register_dataset("ours")
def ours(root):
    pixels = torch.from_numpy(numpy.load({file!r}) if {file!r} else arrays)
    labels = torch.arange(len(pixels)) % 2
    return ImageData(Images(pixels[:40], labels[:40]), Images(pixels[40:], labels[40:]), ("even", "odd"))
"""
DRAWN = np.random.default_rng(0).integers(2, 256, (50, 1, 16, 16), dtype=np.uint8)


class _Changing:
    """A data set that is another one after `change`, and the words that choose it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.arrays = kind, folder, DRAWN.copy()
        self.words = "data=ours data.image_size=16 data.crop=null"
        if kind == "photographs":
            write_classes(folder / "photos", {"cat": 12, "dog": 12})
            self.words = f"data=image_folder data.folder={folder / 'photos'} data.image_size=20 data.crop=16"
        else:
            np.save(folder / "images.npy", DRAWN)
            self._run_cell(DATA_CELL)

    def change(self) -> None:
        np.save(self.folder / "images.npy", 255 - DRAWN)
        if self.kind == "array":
            self.arrays[:] = 255 - self.arrays
        elif self.kind == "cell":
            self._run_cell(DATA_CELL.replace("pixels[", "255 - pixels["))
        elif self.kind == "photographs":
            photograph(self.folder / "photos" / "cat" / "new.png", seed=99)

    def _run_cell(self, text: str) -> None:
        path = self.folder / "cell.py"
        path.write_text(text.format(file=str(self.folder / "images.npy") if self.kind == "file" else ""))
        names = {"register_dataset": cnnbench.register_dataset, "torch": torch, "numpy": np, "arrays": self.arrays}
        names |= {"__name__": "__main__", "Images": Images, "ImageData": ImageData}
        linecache.checkcache()
        exec(compile(path.read_text(), str(path), "exec"), names)


@pytest.mark.parametrize("kind", ["array", "file", "cell", "photographs"])
def test_data_that_changed_since_the_last_training_are_seen(kind, tmp_path):
    data = _Changing(kind, tmp_path)
    words = f"{data.words} model=mlp epochs=1 batch_size=4 report=false threads=1"
    train = partial(api.train, words, progress="quiet")
    first = train()
    assert first.record["data"]["fingerprint"] == train().record["data"]["fingerprint"]
    loaded = load_run(first.path)
    data.change()
    with pytest.raises(UserError, match=r"data changed"):
        load_run(first.path).data("test")
    with pytest.raises(UserError, match=r"have changed since|1 file new"):
        train()
    other = train(seed=1)
    assert other.record["data"]["fingerprint"] != first.record["data"]["fingerprint"]
    assert train(rerun=True).path != first.path
    with pytest.raises(UserError, match=r"data changed"):
        loaded.evaluate()


def test_a_training_reads_its_data_once(tmp_path, monkeypatch):
    read, build = [], DATASETS.build
    monkeypatch.setattr(DATASETS, "build", lambda *given, **more: read.append(1) or build(*given, **more))
    run = tiny("model=mlp", "epochs=2", on_epoch=lambda run, row: run.data("val"))
    run.data("test")
    assert len(read) == 1


def test_other_images_that_changed_are_measured(run, tmp_path):
    folder = write_classes(tmp_path / "photos", dict.fromkeys(run.classes, 3))
    words = f"image_folder data.folder={folder} data.channels=1 data.image_size=16 data.crop=16"
    assert len(run.evaluate(data=words).tables["predictions"]) == 9
    photograph(folder / run.classes[0] / "new.png", seed=99)
    assert len(run.evaluate(data=words).tables["predictions"]) == 10
