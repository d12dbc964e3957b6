"""Weights as they are found: of another network, wrapped, damaged, or not finite."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cnnbench.errors import UserError
from cnnbench.training.init import initial_weights, load_initial_weights
from tests.conftest import TINY
from tests.support.interruption import finished
from tests.support.training import prepared, same, weights_of

SMALL = (*TINY, "data.num_train=80", "data.channels=3", "data.image_size=32")
LENET = (*TINY, "data.num_train=80", "model=lenet_v2")
RESNET = (*SMALL, "model=torchvision", "model.architecture=resnet34")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Return weights of the network that these tests train, other ones than it draws."""
    return weights_of(prepared(*LENET, "seed=7"))


def saved(content: object, tmp_path: Path, name: str = "weights.pth") -> str:
    torch.save(content, tmp_path / name)
    return f"init.file={tmp_path / name}"


def begins(*words: str) -> dict[str, Tensor]:
    training = prepared(*words)
    load_initial_weights(training)
    return training.network.state_dict()


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as refused:
        initial_weights(prepared(*words))
    return str(refused.value)


# Of another network ---------------------------------------------------------------------------------------------------


def published(architecture: str) -> dict[str, Tensor]:
    import torchvision.models as zoo

    with torch.random.fork_rng():
        torch.manual_seed(1)
        return zoo.get_model(architecture, num_classes=3).state_dict()


def test_a_shallower_network_fits_a_deeper_one_only_where_that_is_asked_for(tmp_path):
    shallow = published("resnet18")
    words = (*RESNET, saved(shallow, tmp_path))
    refused = refusal(*words)
    # Eight more blocks of two convolutions, two batch norms.
    assert "  80 tensors of the network not in it: layer1.2.conv1.weight, layer1.2.bn1.weight, " in refused
    assert refused.endswith("init.partial=true takes what fits, and initialises the rest randomly")
    training = prepared(*words, "init.partial=true")
    record = load_initial_weights(training)
    network = training.network.state_dict()
    assert all(torch.equal(network[name], tensor) for name, tensor in shallow.items())
    assert len(record["reinitialised"]) == 80
    (note,) = (note for note in record["notes"] if note.startswith("init.partial: "))
    assert note.startswith("init.partial: random are layer1.2.conv1.weight, layer1.2.bn1.weight, ")
    assert note.endswith(" and 72 more")


def test_a_deeper_network_fits_a_shallower_one_no_better(tmp_path):
    refused = refusal(*RESNET[:-1], "model.architecture=resnet18", saved(published("resnet34"), tmp_path))
    assert "  80 tensors of it not in the network: layer1.2.conv1.weight, layer1.2.bn1.weight, " in refused
    assert "tensors of the network not in it" not in refused


def test_layers_that_stay_random_and_frozen_are_named(tmp_path, weights):
    words = (*LENET, "freeze.what=features", "init.partial=true")
    without_first = {name: tensor for name, tensor in weights.items() if "conv1" not in name}
    notes = initial_weights(prepared(*words, saved(without_first, tmp_path))).record["notes"]
    assert "init.partial: frozen at random values are features.conv1.weight, features.conv1.bias" in notes
    notes = initial_weights(prepared(*words, saved(weights, tmp_path, "all.pth"))).record["notes"]
    assert not any(note.startswith("init.partial") for note in notes)


def test_a_tensor_of_another_shape_is_left_out_only_where_that_is_asked_for(tmp_path, weights):
    words = (*LENET, "data.channels=3", saved(weights, tmp_path))
    assert "features.conv1.weight: 6x1x5x5 there, 6x3x5x5 here" in refusal(*words)
    record = initial_weights(prepared(*words, "init.partial=true")).record
    assert record["reinitialised"] == {"features.conv1.weight": "of another shape"}


def test_weights_of_which_nothing_fits_are_refused_in_any_case(tmp_path, weights):
    words = (*LENET, saved({"strange": torch.zeros(2), "names": torch.zeros(2)}, tmp_path), "init.partial=true")
    assert f"it has strange, names; the network {', '.join(list(weights)[:8])}" in refusal(*words)


def test_parts_that_a_network_does_not_have_are_left_out(tmp_path, weights):
    more = weights | {"decoder.weight": torch.zeros(2), "aux1.fc.bias": torch.zeros(2)}
    training = prepared(*LENET, saved(more, tmp_path))
    record = load_initial_weights(training)
    assert record["skipped"] == dict.fromkeys(("decoder.weight", "aux1.fc.bias"), "not in this network")
    assert same(training.network.state_dict(), weights)


def test_files_of_old_versions_of_torch_have_no_counters(tmp_path):
    words = (*LENET, "regularization.batchnorm=true")
    weights = weights_of(prepared(*words, "seed=7"))
    old = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(weights)
    assert same(begins(*words, saved(old, tmp_path)), weights)


def test_partial_needs_weights(cnnbench):
    assert (
        "init.partial=true  has no effect without init.run, .experiment, .weights or .file"
        in cnnbench(*LENET, "init.partial=true").err
    )


# Wrapped --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.backbone.", "encoder."]
)
def test_wrapped_networks_are_unwrapped(prefix, tmp_path, weights):
    wrapped = {f"{prefix}{name}": tensor for name, tensor in weights.items()} | {"loss.weight": torch.ones(3)}
    assert same(begins(*LENET, saved(wrapped, tmp_path)), weights)


def test_a_compiled_module_within_a_network_is_unwrapped(tmp_path, weights):
    compiled = {name.replace("features.", "features._orig_mod."): tensor for name, tensor in weights.items()}
    assert same(begins(*LENET, saved(compiled, tmp_path)), weights)


def test_a_head_for_other_classes_stays_below_its_prefix(tmp_path, weights):
    other = weights | {"head.linear.weight": torch.zeros(9, 84), "head.linear.bias": torch.zeros(9)}
    wrapped = {f"module.{name}": tensor for name, tensor in other.items()}
    record = initial_weights(prepared(*LENET, saved(wrapped, tmp_path))).record
    assert record["reinitialised"].keys() == {"head.linear.weight", "head.linear.bias"}
    assert record["skipped"] == {}


def test_two_networks_that_fit_are_not_chosen_from(tmp_path, weights):
    both = {f"{prefix}.{name}": tensor for prefix in ("model", "average") for name, tensor in weights.items()}
    refused = refusal(*LENET, saved(both, tmp_path))
    assert "holds several networks that fit, 'model.', 'average.'; save one of them alone" in refused


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("name", ["weights.pth", "last.ckpt", "pytorch_model.bin", "model_best.pth.tar"])
def test_an_entry_of_a_checkpoint_is_taken(key, name, tmp_path, weights):
    optimizer = {"state": {0: {"step": torch.zeros(1)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {"epoch": 3, key: weights, "optimizer": optimizer}
    assert same(begins(*LENET, saved(content, tmp_path, name)), weights)


def test_several_entries_are_not_chosen_from(tmp_path, weights):
    refused = refusal(*LENET, saved({"state_dict": weights, "state_dict_ema": weights}, tmp_path))
    assert "holds several state dicts, 'state_dict', 'state_dict_ema'; save the one that is meant alone" in refused


def test_a_checkpoint_of_a_run_is_answered_with_its_folder(tmp_path):
    run = finished(LENET, tmp_path)
    file = max((run / "checkpoints").glob("*.pt"))
    assert "is a checkpoint of a run: init.run=FOLDER takes the folder of that run" in refusal(
        *LENET, f"init.file={file}"
    )


# That cannot be used --------------------------------------------------------------------------------------------------

UNUSABLE = {
    b"": "it is empty: copy or download it again",
    b"<!DOCTYPE html>": "it is a web page: download the file itself",
    b"version https://git-lfs.github.com/spec/v1\n": "it is a pointer of Git LFS: git lfs pull fetches the weights",
    b"\x89HDF\r\n\x1a\n": "it is HDF5, as Keras writes; its tensors have other names and axes",
    b"PK\x03\x04 and no more": "it is not complete: copy or download it again",
    b"something else": "torch.save(network.state_dict(), FILE) writes one",
}


@pytest.mark.parametrize("begin", UNUSABLE)
@pytest.mark.parametrize("name", ["weights.pt", "weights.h5"])
def test_a_file_that_cannot_be_used_is_answered_with_what_to_do(begin, name, tmp_path, cnnbench):
    path = tmp_path / name
    path.write_bytes(begin)
    ended = cnnbench(*LENET, f"init.file={path}")
    assert ended.code == 2
    assert UNUSABLE[begin] in ended.err


def test_a_whole_network_is_refused_in_one_sentence(tmp_path):
    refused = refusal(*LENET, saved(nn.Linear(2, 2), tmp_path))
    assert "it asks for torch.nn.modules.linear.Linear, and only tensors and plain values are read" in refused
    assert refused.endswith("torch.save(network.state_dict(), FILE) writes one")
    assert "\x1b" not in refused
    assert len(refused.splitlines()) == 1


def test_a_folder_is_answered_with_the_word_for_runs(tmp_path, cnnbench):
    assert "is a folder; init.run=FOLDER takes that of a run" in cnnbench(*LENET, f"init.file={tmp_path}").err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite_are_refused(value, dtype, tmp_path, weights):
    broken = {name: tensor.clone().to(dtype) for name, tensor in weights.items()}
    broken["dense.linear3.weight"][3, 5] = value
    refused = refusal(*LENET, saved(broken, tmp_path))
    assert (
        "weights are not finite, in dense.linear3.weight: the training that wrote them diverged; take others" in refused
    )


def test_a_head_that_is_not_used_may_be_anything(tmp_path, weights):
    broken = weights | {"head.linear.weight": torch.full((9, 84), float("nan"))}
    assert initial_weights(prepared(*LENET, saved(broken, tmp_path)))
