"""What a run can do: evaluate, explain, export, report."""

import pandas as pd
import pytest

from cnnbench import api
from cnnbench.errors import UserError
from tests.api.conftest import tiny

DATA = ["synthetic", "data.num_train=72", "data.num_test=20", "data.num_classes=3", "data.image_size=16"]


def test_a_run_is_evaluated_as_its_result_says(run):
    report = run.evaluate()
    assert report.metrics == {name: value for name, value in run.result["test"].items() if name != "samples"}
    assert isinstance(report.tables["classes"](), pd.DataFrame)
    assert run.evaluate("val", "last").metrics.keys() == {"loss", "accuracy", "ece"}
    assert run.evaluate(data=DATA).metrics["loss"] > 0


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


def test_runs_are_found_wherever_they_are_written(run):
    tiny("model=mlp", "epochs=1")
    assert api.runs()["epochs"].tolist() == [1]
    assert api.runs(f"{run.path.parent}/*")["path"].tolist() == [str(run.path)]
