"""Networks of timm, where it is installed."""

import sys

import pytest
import torch

from cnnbench.config.schema import HeadConfig
from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError, UserError
from cnnbench.models.build import build_network, check_network, count_parameters, pass_through
from cnnbench.models.head import trace_head
from cnnbench.models.timm import pretrained
from cnnbench.plugins import register_everything
from cnnbench.registry import Selection
from cnnbench.training.init import load_initial_weights
from tests.conftest import TINY, only_run
from tests.optim.test_freezing import plan
from tests.support.interruption import go, read
from tests.support.selection import everyday
from tests.support.training import prepared

register_everything()

SMALL = (*TINY, "data.channels=3", "data.image_size=32", "model=timm", "model.architecture=mobilenetv3_small_050")
HEADS = {
    "legacy_xception": "fc",
    "resnet18": "fc",
    "vgg11": "head.fc",
    "convnext_atto": "head.fc",
    "efficientnet_b0": "classifier",
    "dpn48b": "classifier",
    "vit_tiny_patch16_224": "head",
}


def spec(channels: int, side: int, num_classes: int) -> DataSpec:
    return DataSpec(channels, side, side, tuple(map(str, range(num_classes))))


def timm(architecture: str) -> Selection:
    return Selection("timm", {"architecture": architecture})


@pytest.mark.parametrize("architecture", everyday(HEADS, ("legacy_xception", "vgg11", "vit_tiny_patch16_224")))
def test_the_head_of_timms_networks_is_found(architecture):
    on = spec(3, 224, 7)
    assert trace_head(pass_through(timm(architecture), on, "meta"), on).head == (HEADS[architecture],)


@pytest.mark.parametrize("channels", [1, 3])
def test_xception_is_built_for_the_channels_and_classes_of_the_data(channels):
    network = pass_through(timm("legacy_xception"), spec(channels, 299, 7), "meta")
    assert network.fc.out_features == 7
    assert network.conv1.in_channels == channels
    if channels == 3:
        published = pass_through(timm("legacy_xception"), spec(3, 299, 1000), "meta")
        assert count_parameters(published)["total"] == 22_855_952


def test_it_takes_a_head_of_its_own():
    network = build_network(timm("mobilenetv3_small_050"), spec(3, 32, 7), HeadConfig(units=[16], dropout=0.5)).eval()
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert [type(layer).__name__ for layer in network.classifier] == ["Linear", "ReLU", "Dropout", "Linear"]


def test_it_trains_all_but_frozen(outputs):
    assert go(*SMALL, "freeze.what=all_but_head", "epochs=1") == 0
    trained = read(only_run(outputs) / "result.json")["parameters"]["trainable"]
    assert trained == 1024 * 3 + 3


REFUSED = {"legacy_xeption": "did you mean 'legacy_xception'?", "unheard of": "timm.list_models() names all of them"}


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_architecture_that_there_is_not_is_refused(architecture):
    with pytest.raises(ConfigError) as refused:
        check_network(timm(architecture), spec(3, 32, 7))
    assert f"timm has no such network; {REFUSED[architecture]}" in str(refused.value)


def test_without_the_library_it_says_what_to_install(monkeypatch, cnnbench):
    monkeypatch.setitem(sys.modules, "timm", None)
    ended = cnnbench(*SMALL)
    assert ended.code == 2
    assert "model=timm  needs a library that is not installed: pip install 'cnnbench[timm]'" in ended.err


@pytest.mark.parametrize(
    ("architecture", "tag", "where"),
    [
        ("legacy_xception", "tf_in1k", r"https://github\.com/.*/xception-43020ad28\.pth"),
        ("mobilenetv3_small_050", "lamb_in1k", r"huggingface\.co/timm/.*lamb_in1k/resolve/main/model\.safetensors"),
    ],
)
def test_published_weights_that_cannot_be_fetched_say_where_they_are(monkeypatch, architecture, tag, where):
    def no_network(*_, **__):
        raise OSError("no network")

    source = pretrained({"architecture": architecture})
    assert source.description == f"timm {architecture}.{tag}"
    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(
        UserError, match=rf"{where} cannot be downloaded \(no network\); get it elsewhere, and give init\.file=FILE"
    ):
        source.load()


def test_published_weights_are_started_from(monkeypatch):
    import timm as library

    torch.manual_seed(1)
    published = library.create_model("mobilenetv3_small_050")
    words = (*SMALL, "data.num_train=80", "init.weights=imagenet")
    training = prepared(*words)
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: published)
    load_initial_weights(training)
    begins = training.network.state_dict()
    differing = {name for name, tensor in published.state_dict().items() if not torch.equal(tensor, begins[name])}
    assert differing == {"classifier.weight", "classifier.bias"}


def test_a_network_without_published_weights_is_refused():
    with pytest.raises(ConfigError, match=r"timm has none of 'convnext_atto_rms'; init\.file takes a file"):
        plan(*SMALL[:-1], "model.architecture=convnext_atto_rms", "init.weights=imagenet")
