"""What is shown before anything is trained: `dry_run=true`, `lr_find=true`, and the short runs of `debug=`."""

import csv
import json
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from cnnbench.training.dry_run import layers_of, operations_per_image
from cnnbench.training.lr_finder import suggestion, try_rates
from tests.conftest import only_run
from tests.support.options import walked, words_for
from tests.support.photographs import write_classes
from tests.support.selection import everyday
from tests.support.training import SMALL, prepared, weights_of


def test_layers_are_listed_in_the_order_in_which_they_compute_with_shapes_and_parameters():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    network[3].requires_grad_(False)
    network.train()
    layers = layers_of(network, torch.zeros(2, 1, 8, 8))
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("0", "Conv2d"), ("1", "ReLU"), ("2", "Flatten"), ("3", "Linear"),
    ]  # fmt: skip
    assert [layer.output for layer in layers] == [(4, 6, 6), (4, 6, 6), (144,), (5,)]
    assert [(layer.parameters, layer.trainable) for layer in layers] == [(40, 40), (0, 0), (0, 0), (725, 0)]
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_operations_are_two_for_every_multiplication_and_addition():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 6 * 6, 5, bias=False))
    expected = 2 * (4 * 6 * 6 * 9) + 2 * (4 * 6 * 6 * 5)
    assert operations_per_image(network, torch.zeros(3, 1, 8, 8)) == expected


def test_a_dry_run_shows_everything_and_leaves_no_run(cnnbench, outputs):
    cropped = ("augmentation=crop_flip", "data.image_size=20", "data.crop=16")
    ended = cnnbench(*SMALL, *cropped, "dry_run=true", "scheduler.warmup=1", "optimizer.momentum=0.95")
    assert ended.code == 0, ended.err
    for shown in (
        "features.conv1", "6x12x12", "parameters; ", "0 frozen", "FLOP forward an image", "3 classes", "pattern 0",
        "network sees 1x16x16", "first loss", "guessing gives 1.0986", "3 epochs of 5 steps: about", "on disk",
        "lr / (1 - momentum) = 1\n",
    ):  # fmt: skip
        assert shown in ended.out, shown
    assert not list(outputs.rglob("run.json"))
    pictures = sorted(path.name for path in outputs.rglob("*.png"))
    assert pictures == ["learning_rate.png", "samples.png"]
    for path in outputs.rglob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def test_a_dry_run_of_a_sweep_shows_its_design_and_checks_every_configuration(cnnbench, outputs, monkeypatch):
    monkeypatch.setattr("cnnbench.training.dry_run._try_steps", lambda training: (1.0, 60.0))
    monkeypatch.setattr("cnnbench.training.dry_run.MOST", 2)
    rates = ",".join(f"0.{number}" for number in range(1, 6))
    ended = cnnbench("-m", *SMALL, "dry_run=true", f"optimizer.lr={rates}", "seed=0,3", "jobs=4")
    first, *lines = ended.out.splitlines()
    assert first == "10 runs of 5 configurations, 4 at a time"
    assert re.fullmatch(r"\[1/5\] lr=0\.1  seed=0,3: about 1 min.*, \d\.\d MB each", lines[0])
    assert lines[2:4] == ["and 3 configurations more", ""]
    assert lines[4].startswith("10 of 10 runs can be carried out; about 2 min 30 s in all")
    ended = cnnbench("-m", *SMALL, "dry_run=true", "seed=0,1", "batch_size=16,99")
    assert ended.code == 2
    assert ended.out.count("exceeds the 72 training images") == 1
    assert "2 of 4 runs can be carried out" in ended.out
    assert not list(outputs.rglob("*.*"))
    ended = cnnbench("-m", *SMALL, "dry_run=true", "seed=0,0")
    assert ended.out.count(" is the same run as cnnbench ") == 1
    assert "2 runs" not in ended.out


BROKEN = """
from torch import nn
from cnnbench.registry import MODELS

@MODELS.register("broken")
def broken(spec, *, is_broken: bool):
    return nn.Sequential(nn.Flatten(), Broken(spec.channels * spec.height * spec.width, spec.num_outputs, is_broken))

class Broken(nn.Linear):
    def __init__(self, inputs, outputs, is_broken):
        super().__init__(inputs, outputs)
        self.is_broken = is_broken

    def forward(self, features):
        if self.is_broken and self.training and len(features) > 8:
            raise AttributeError("no such thing")
        return super().forward(features)
"""


def test_a_dry_run_of_a_sweep_goes_on_after_a_job_whose_network_raises(cnnbench, outputs, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    words = (*SMALL, f"plugins={tmp_path / 'broken.py'}", "model=broken", "model.is_broken=true,false", "dry_run=true")
    ended = cnnbench("-m", *words)
    assert ended.code == 1
    assert "is_broken=true  seed=0\n  AttributeError: no such thing\n[2/2]" in ended.out
    assert "1 of 2 runs can be carried out" in ended.out
    assert re.search(r'broken\.py", line \d+, in forward', ended.err)


def test_a_dry_run_changes_nothing_about_the_run(cnnbench, outputs):
    assert "  1 epoch of 5 steps: about" in cnnbench(*SMALL, "epochs=1", "dry_run=true").out
    assert cnnbench(*SMALL, "epochs=1").code == 0
    assert only_run(outputs).name.startswith("batch_size16")


def test_blended_samples_are_titled_with_both_of_their_classes(cnnbench, monkeypatch):
    titles = []
    monkeypatch.setattr("cnnbench.tasks.figures.save_pairs", lambda path, before, after, given: titles.extend(given))
    assert cnnbench(*SMALL, "dry_run=true", "augmentation=mixup").code == 0
    assert len(titles) == 16
    assert any(" pattern 0, " in title for title in titles)


def test_dropout_right_before_batch_norm_is_remarked_on():
    remark = "dropout comes right before batch norm"
    both = prepared(*SMALL, "model=lenet_v2", "regularization.dropout=0.5", "regularization.batchnorm=true")
    only = prepared(*SMALL, "model=lenet_v2", "regularization.dropout=0.5")
    assert any(remark in said.text for said in both.remarks)
    assert not any(remark in said.text for said in only.remarks)


# The learning-rate range test -----------------------------------------------------------------------------------------


def test_the_suggested_rate_is_where_the_loss_falls_fastest():
    rates = [10**exponent for exponent in range(-6, 2)]
    losses = [2.3, 2.3, 2.2, 1.9, 1.0, 0.9, 1.5, 9.0]
    assert suggestion(rates, losses) == rates[3]
    assert suggestion(rates, losses[::-1][:1] * 8) is None
    assert suggestion(rates[:3], [1.0, 2.0, 3.0]) is None


def test_rates_rise_by_the_same_factor_until_the_loss_diverges():
    training = prepared(*SMALL)
    before = weights_of(training)
    rates, losses = try_rates(training)
    factors = [second / first for first, second in pairwise(rates)]
    assert factors == pytest.approx([factors[0]] * len(factors))
    assert rates[0] == pytest.approx(1e-6)
    assert len(rates) == len(losses) > 50
    assert all(map(math.isfinite, losses))
    assert any(not torch.equal(before[name], tensor) for name, tensor in training.network.state_dict().items())


def test_lr_find_says_a_rate_and_draws_the_curve(cnnbench, outputs):
    ended = cnnbench(*SMALL, "lr_find=true")
    assert ended.code == 0, ended.err
    assert "the loss falls fastest at" in ended.out
    (table,) = outputs.rglob("losses.csv")
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["learning_rate", "loss"]
    assert len(rows) > 50
    assert (table.parent / "losses.png").is_file()
    assert not list(outputs.rglob("run.json"))


@pytest.mark.parametrize("words", [["-m"], ["dry_run=true"]])
def test_lr_find_is_for_one_run(cnnbench, words):
    ended = cnnbench(*words, *SMALL, "lr_find=true")
    assert ended.code == 2
    assert "is for one new run" in ended.err


# Short runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", everyday(("lenet", "lenet_v2", "mlp"), ("lenet_v2",)))
def test_64_images_are_learnt_by_heart(cnnbench, outputs, model):
    ended = cnnbench("debug=overfit", f"model={model}", "threads=1", "device=cpu", "report=false")
    assert ended.code == 0, ended.err
    run = only_run(outputs)
    assert json.loads((run / "result.json").read_text())["train"]["accuracy"] == 1.0
    assert run.name.startswith("overfit")


@pytest.mark.parametrize("model", everyday(walked("model"), ("lenet_v2", "resnet18_cifar", "googlenet_cifar")))
def test_a_few_steps_of_everything_run_with_every_model(cnnbench, model):
    words = words_for("model", model)
    ended = cnnbench("debug=fast", *words, "data=synthetic", "threads=1", "device=cpu", "report=false")
    assert ended.code == 0, ended.err
    assert "2 epochs" in ended.out


@pytest.mark.parametrize(("classes", "used", "steps"), [(2, 2, 2), (10, 10, 4), (102, 10, 4), (1000, 10, 4)])
def test_a_few_steps_are_few_whatever_the_number_of_classes(cnnbench, outputs, classes, used, steps):
    words = (f"data.num_classes={classes}", f"data.num_train={5 * classes}", f"data.num_test={2 * classes}")
    ended = cnnbench("debug=fast", *words, "data=synthetic", "model=mlp", "threads=1", "device=cpu", "report=false")
    assert ended.code == 0, ended.err
    record = json.loads((only_run(outputs) / "run.json").read_text())
    assert record["data"]["images"] == {"train": 3 * used, "val": used, "test": used}
    assert len(record["data"]["classes"]) == used
    assert f"step {steps}:" in ended.out or f"step {steps // 2}:" in ended.out  # the last, or the better one before
    assert ("keeps 102 classes, more than data.subset.max_classes=10" in ended.out) == (classes == 102)


def test_a_few_steps_of_classes_with_few_images(cnnbench, outputs):
    write_classes(Path("own"), {"a": 4, "b": 9})  # of which three train
    words = ("data=image_folder", "data.folder=own", "data.image_size=20", "data.crop=16", "model=mlp", "device=cpu")
    ended = cnnbench("debug=fast", *words, "threads=1", "report=false")
    assert ended.code == 0, ended.err
    images = json.loads((only_run(outputs) / "run.json").read_text())["data"]["images"]
    assert images == {"train": 4, "val": 2, "test": 2}
