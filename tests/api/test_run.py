"""What a run can do: give its results and networks, predict, evaluate, explain, export, report."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cnnbench import api, load_run
from cnnbench.errors import UserError
from tests.api.conftest import tiny

DATA = ["synthetic", "data.num_train=72", "data.num_test=20", "data.num_classes=3", "data.image_size=16"]


def test_a_run_gives_its_settings_and_results(run):
    assert run.config.model.name == "lenet"
    assert run.result == json.loads((run.path / "result.json").read_text())
    rows = run.metrics
    assert set(rows["row"]) == {"step", "epoch"}
    assert rows[rows["row"] == "epoch"]["epoch"].tolist() == [1, 2, 3]
    assert run.epoch_of("best") == run.result["checkpoint"]["epoch"]
    assert run.epoch_of("last") == 3
    assert "completed" in repr(run)


def test_a_network_is_loaded_without_the_data(run, monkeypatch):
    monkeypatch.setattr("cnnbench.analysis.run.setup", lambda _: pytest.fail("data are not needed"))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    network = run.model()
    assert not network.training
    assert torch.equal(torch.random.get_rng_state(), before)
    content = torch.load(run.path / "checkpoints" / "step-000000015.pt", weights_only=True)
    assert all(torch.equal(weight, content["best"]["weights"][name]) for name, weight in network.state_dict().items())
    last = run.model("last").state_dict()
    assert all(torch.equal(weight, content["network"][name]) for name, weight in last.items())


def test_predictions_have_the_accuracy_of_the_result(run):
    images = run.data("test")
    probabilities = run.predict(images)
    assert probabilities.sum(1).tolist() == pytest.approx([1.0] * 20)
    accuracy = (probabilities.argmax(1) == images.labels).double().mean().item()
    assert accuracy == pytest.approx(run.result["test"]["accuracy"])
    assert len(run.batches("val")) == len(run.data("val")) == 7


def test_a_run_is_evaluated_as_its_result_says(run):
    report = run.evaluate()
    assert report.metrics == {name: value for name, value in run.result["test"].items() if name != "samples"}
    assert isinstance(report.tables["classes"], pd.DataFrame)
    assert run.evaluate("val", "last").metrics.keys() == {"loss", "accuracy", "ece", "brier"}
    assert run.evaluate(data=DATA).metrics["loss"] > 0


def test_figures_of_a_run_are_shown(run):
    explanation = run.explain(what="kernels,activations")
    assert [picture.name.partition("-")[0] for picture in explanation] == ["activations", "activations", "kernels"]
    html = explanation._repr_html_()
    assert html.count('src="data:image/png;base64,') == len(explanation)
    assert explanation[0]._repr_png_().startswith(b"\x89PNG")
    assert not (run.path / "explanation").exists()


def test_all_figures_are_drawn_where_none_is_named_and_what_is_left_out_is_said(run, monkeypatch):
    monkeypatch.setattr("cnnbench.analysis.explanation.pictures.tsne_scatter", lambda *_, **__: None)  # too few images
    explanation = run.explain(split="val")
    assert len(explanation) > 4
    assert len(explanation.left_out) == 1
    assert "left out: tsne: val has" in explanation._repr_html_()


def mapped(run, step):
    return run.map(run.model(), run.batches("val"), lambda network, batch: step(network(batch.images)))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda run: run.explain(what="kernel"), "'kernel' is not drawn; did you mean 'kernels'"),
        (lambda run: run.explain("nowhere.png"), r"nowhere\.png: no such file or folder"),
        (lambda run: run.explain(label="cat"), "no such class"),
        (lambda run: run.export("onxn"), "'onxn' is no format; did you mean 'onnx'"),
        (lambda run: run.evaluate(which="bets"), "no checkpoint 'bets'"),
        (lambda run: run.evaluate("tset"), "there are no tset images; choose another split: 'train', 'val', 'test'"),
        (
            lambda run: run.predict(np.zeros((2, 1, 16, 16), "uint8")),
            r"these are uint8 of shape \(2, 1, 16, 16\); torch",
        ),
        (
            lambda run: run.predict([torch.zeros(1, 16, 16)]),
            "these are a list; .*torch.stack of a list",
        ),
        (lambda run: run.predict(3), "images are files and folders, and these are a int"),
        (lambda run: run.explain(run.data("val").take(torch.arange(2))), r"these are torch.uint8 .*split and index"),
        (lambda run: mapped(run, lambda scores: 0.5), "one tensor with a row per image, and not a float"),
        (lambda run: mapped(run, lambda scores: (scores, scores)), "row per image, and not a tuple"),
        (lambda run: mapped(run, lambda scores: scores.numpy()), r"row per image, and not float32 of shape \(7, 3\)"),
        (lambda run: mapped(run, lambda scores: scores.sum()), r"row per image, and not torch.float32 of shape \(\)"),
        (lambda run: run.data("valid"), "'valid' is not a split; there are train, val and test"),
    ],
    ids=[
        "kind",
        "file",
        "class",
        "format",
        "checkpoint",
        "split",
        "array",
        "list",
        "number",
        "explained",
        "mapped to a number",
        "mapped to two",
        "mapped to an array",
        "mapped to a sum",
        "part",
    ],
)
def test_a_mistake_in_a_call_is_one_message(run, mistake, message):
    with pytest.raises(UserError, match=message):
        mistake(run)


def test_image_files_are_predicted_as_their_pixels_are(run, tmp_path):
    pixels = run.data("test").take(torch.arange(2))
    for number, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{number}.png")
    expected = run.predict(pixels)
    assert torch.equal(run.predict([tmp_path / "0.png", str(tmp_path / "1.png")]), expected)
    assert torch.allclose(run.predict(run.data("test"))[:2], expected)  # a batch of another size rounds differently
    assert torch.allclose(run.predict(tmp_path / "1.png"), expected[1:])


@pytest.mark.parametrize(
    "pixels", [torch.zeros(2, 1, 16, 16), torch.zeros(1, 16, 16).byte(), torch.zeros(2, 1, 8, 8).byte()],
    ids=["numbers from 0 to 1", "one image", "another size"],
)  # fmt: skip
def test_what_are_no_images_of_the_run_is_not_predicted(run, pixels):
    shape = re.escape(str(list(pixels.shape)))
    with pytest.raises(UserError, match=rf"^images must be uint8 \[N, 1, 16, 16\], and are {pixels.dtype} {shape}\.$"):
        run.predict(pixels)


def test_a_file_that_cannot_be_used_is_not_passed_over(run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"broken")
    Image.new("L", (16, 16)).save(tmp_path / "whole.png")
    with pytest.raises(UserError, match=r"(?s)^images that cannot be used:\n  .*broken\.png"):
        run.predict(tmp_path)


def test_one_row_of_images_is_images(run):
    images = run.data("test")
    assert torch.equal(images[3].take(torch.tensor([0])), images.take(torch.tensor([3])))
    assert len(list(images)) == len(images)


def test_one_row_is_explained(run):
    explanation = run.explain(what="activations", split="val", index=3)
    layers = [picture.name for picture in explanation]
    assert layers == ["activations-features.conv1-val-3", "activations-features.conv2-val-3"]


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
    assert api.runs()["model"].tolist() == ["mlp"]
    assert api.runs()["epochs"].tolist() == [1]
    assert api.runs(f"{run.path}*")["path"].tolist() == api.runs(run.path)["path"].tolist() == [str(run.path)]
    assert api.runs("mlp")["model.name"].tolist() == ["mlp"], "part of its path"
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        api.runs("nowhere")


def test_a_run_stands_for_its_folder(run):
    assert load_run(run).path == load_run(run.folder).path == run.path
    assert api.plan(resume=run).folder == api.plan(resume=run.folder).folder == run.path
    assert api.runs(run)["path"].tolist() == api.runs([run.folder])["path"].tolist() == [str(run.path)]
