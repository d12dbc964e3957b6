"""What each format writes, read as those do who do not have this package."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnbench
from cnnbench.analysis.export import formats
from cnnbench.analysis.export.deployed import Deployed
from tests.support.exporting import CASES, FORMATS, LIGHT, OUTPUTS, by_hand, file_of, used
from tests.support.interruption import read

# Tracing takes most of the time: each format that is traced with two kinds of network; all pairs: `pytest -m thorough`.
TRACED = {
    ("onnx", "classification"),
    ("onnx", "siamese"),
    ("torch_export", "autoencoder"),
    ("torch_export", "one output"),
}
PAIRS = [
    pytest.param(*form.values, case, marks=[*form.marks, *([pytest.mark.thorough] if is_left else [])])
    for form in FORMATS
    for case in CASES
    for is_left in [form is not LIGHT and (*form.values, case) not in TRACED]
]


@pytest.mark.parametrize(("form", "case"), PAIRS)
def test_a_file_computes_what_the_network_does_and_holds_its_description(form, case, copy_of, export):
    run = copy_of(*CASES[case])
    done = export(run, "--format", form)
    assert (done.code, done.err) == (0, "")
    path = file_of(run, form)
    answer, said = used(form, path)
    opened = cnnbench.load_run(run)
    images = opened.data("test").take(torch.arange(20))
    for number in (1, 2, 20):
        expected = by_hand(run, images[:number])
        assert torch.allclose(answer(images[:number]), expected, atol=1e-5), number
    name, shape = OUTPUTS[case]
    assert read(Path(f"{path}.json")) == said
    assert said["output"] == said["output"] | {"name": name, "shape": shape, "dtype": "float32"}
    channels = 3 if case == "classification" else 1
    assert said["pixels"] == {"dtype": "uint8", "channels": channels, "height": 20, "width": 20}
    assert (said["window"], said["classes"]) == ([17, 17], list(opened.classes))
    record = opened.record
    assert (said["mean"], said["std"]) == (record["data"]["mean"], record["data"]["std"])
    assert said["run"]["identity"] == record["identity"]
    assert (said["run"]["checkpoint"], said["run"]["epoch"]) == ("best", opened.epoch_of("best"))
    assert (said["task"], said["cnnbench"]) == (opened.config.task.name, cnnbench.__version__)
    number = len(opened.data("test"))
    assert said["verified"] == {"on": "the test split", "images": number, "greatest_difference_allowed": 1e-4}
    assert f"at most, on {number} images of the test split" in done.out
    assert f"pixels, uint8 [N, {channels}, 20, 20]" in done.out
    assert sorted(path.parent.iterdir()) == [path, Path(f"{path}.json")]
    for place in (Path(cnnbench.__file__).parent, Path(torch.__file__).parent, run):
        assert str(place).encode() not in path.read_bytes()
    known: dict[str, Any] = {}
    exec(done.out.partition("\n\n")[2], known)
    assert list(known[name].shape) == [2, *shape]


@pytest.mark.parametrize("form", FORMATS)
def test_any_checkpoint_is_exported_as_it_is_evaluated(form, run, export):
    images = cnnbench.load_run(run).data("test").take(torch.arange(9))
    for which in ("last", "15"):
        assert export(run, "--format", form, "--checkpoint", which).code == 0
        answer, said = used(form, file_of(run, form, which))
        assert torch.allclose(answer(images), by_hand(run, images, "last"), atol=1e-5)
        assert (str(said["run"]["checkpoint"]), said["run"]["epoch"]) == (which, 3)
    done = export(run, "--format", form, "--checkpoint", "7")
    assert (done.code, "has no checkpoint '7'" in done.err) == (2, True)


@pytest.mark.parametrize("form", [LIGHT])
def test_weights_are_those_of_the_network_by_name(form, run, export):
    from safetensors.torch import load_file

    assert export(run, "--format", form).code == 0
    weights, network = load_file(file_of(run, form)), cnnbench.load_run(run).model()
    assert {name: tensor.tolist() for name, tensor in weights.items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("form", [LIGHT])
def test_shared_and_strided_weights_are_written_too(form):
    from safetensors.torch import load

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4)).to(memory_format=torch.channels_last)
    network[2].weight = network[1].weight
    network[1].bias = nn.Parameter(torch.zeros(4, 2)[:, 0])
    state = network.state_dict()
    weights = load(formats.FORMATS[form].write(Deployed(network, (3, 8, 8), (8, 8), (0.0,), (1.0,)), {}))
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)


@pytest.mark.parametrize("form", FORMATS[1:])
def test_a_network_that_cannot_be_traced_is_refused_with_the_reason(form, run, export, monkeypatch):
    forward = Deployed.forward

    def undecided(self: Deployed, pixels: Tensor) -> Tensor:
        return forward(self, pixels) if pixels.sum() > 0 else torch.zeros(len(pixels), 3)

    monkeypatch.setattr(Deployed, "forward", undecided)
    done = export(run, "--format", form)
    assert (done.code, f"--format {form}: cannot hold this network: " in done.err) == (2, True)
    assert not (run / "export").exists()


@pytest.mark.parametrize("package", formats.FORMATS["onnx"].packages)
def test_a_missing_package_is_named(package, run, export, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    done = export(run, "--format", "onnx")
    assert (done.code, package in done.err) == (2, True)
    assert "pip install 'cnnbench[onnx]'" in done.err
