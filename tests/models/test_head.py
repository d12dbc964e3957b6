"""What the parts of a network are called, for every network of the catalogue; heads of one's own."""

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import yaml
from torch import Tensor, nn

from cnnbench.config.compose import Composer
from cnnbench.config.schema import HeadConfig
from cnnbench.data.images import DataSpec
from cnnbench.errors import SettingError, UserError
from cnnbench.models.build import build_network, check_network, count_parameters, pass_through
from cnnbench.models.head import NamedParts, is_below, trace_head
from cnnbench.registry import MODELS, Selection
from cnnbench.training.plan import plan_run
from tests.conftest import SMALL_FORMS
from tests.models.test_models import TEXTS, count, preset, spec
from tests.support.options import side_for, walked
from tests.support.selection import everyday

HEADS = {
    "alexnet": "classifier.6",
    "vgg16": "classifier.6",
    "squeezenet1_0": "classifier.1",
    "resnet18": "fc",
    "densenet121": "classifier",
    "mobilenet_v3_small": "classifier.3",
    "efficientnet_b0": "classifier.1",
    "shufflenet_v2_x0_5": "fc",
    "convnext_tiny": "classifier.2",
    "vit_b_32": "heads.head",
    "swin_t": "head",
    "maxvit_t": "classifier.5",
    "regnet_x_400mf": "fc",
}
USUAL = ("vgg16", "squeezenet1_0", "resnet18", "vit_b_32", "regnet_x_400mf")
NAMING_FEATURES = ("alexnet", "conv_encoder", "embedding_net", "googlenet", "lenet", "minialexnet", "resnet", "vgg")


def small_settings(name: str) -> dict:
    words = [word.removeprefix("model.") for word in SMALL_FORMS.get(name, ()) if word.startswith("model.")]
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def traced(selection: Selection, on: DataSpec, device: str = "meta") -> NamedParts:
    return trace_head(pass_through(selection, on, device), on)


@pytest.fixture
def registered():
    """Return a function that registers a network for the time of a test, and returns what selects it."""

    def register(make: Callable[[DataSpec], nn.Module]) -> Selection:
        MODELS.register("mine")(make)
        return Selection("mine", {})

    yield register
    MODELS.components.pop("mine", None)


@pytest.mark.parametrize("name", walked("model"))
def test_every_option_has_a_head_that_gives_its_outputs_and_features_before_it(name):
    on = spec(3, 96 if name in SMALL_FORMS else side_for(name, at_least=96), 7)
    network = pass_through(preset(name, **small_settings(name)), on, "meta")
    parts = trace_head(network, on)
    if name not in TEXTS and [network.get_submodule(layer).weight.shape[0] for layer in parts.output_layers] != [7]:
        pytest.skip("its outputs are those of no layer")
    (head,) = parts.output_layers
    layer = network.get_submodule(head)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    assert layer.weight.shape[0] == 7
    names = list(network.state_dict())
    features, rest = parts.select("features", names), parts.select("all_but_head", names)
    of_head = {name for name in names if name.startswith(f"{head}.")}
    assert of_head - {f"{head}.bias"} == {f"{head}.weight"}
    assert parts.select("head", names) == of_head
    assert rest == set(names) - of_head
    assert features <= rest
    convolutions = {name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)} - {head}
    assert {f"{name}.weight" for name in convolutions} <= features
    assert bool(features) == bool(convolutions)


@pytest.mark.parametrize("name", [name for name in TEXTS if name.startswith(NAMING_FEATURES)])
def test_features_of_our_own_networks_are_their_module_of_that_name(name):
    selection, on = preset(name, **small_settings(name)), spec(3, 96, 7)
    network = pass_through(selection, on, "meta")
    names = list(network.state_dict())
    features = {name for name in names if name.removeprefix("encoder.").startswith("features.")}
    assert trace_head(network, on).select("features", names) == features


@pytest.mark.parametrize("architecture", everyday(HEADS, USUAL))
def test_the_head_of_torchvisions_networks_is_found(architecture):
    device = "cpu" if architecture.startswith("regnet") else "meta"  # it computes its widths with tensors
    parts = traced(preset("torchvision", architecture=architecture), spec(3, 224, 7), device)
    assert parts.head == parts.output_layers == (HEADS[architecture],)


def test_auxiliary_classifiers_have_heads_and_are_no_features():
    selection = preset("torchvision", architecture="googlenet", auxiliary=True)
    parts = traced(selection, spec(3, 96, 7))
    assert parts.output_layers == ("fc",)
    assert parts.head == ("fc", "aux1.fc2", "aux2.fc2")
    names = list(pass_through(selection, spec(3, 96, 7), "meta").state_dict())
    features = parts.select("features", names)
    assert not [name for name in features if is_below(name, ("aux1", "aux2", "fc"))]
    assert parts.select("all_but_head", names) - features == {
        name for name in names if is_below(name, ("aux1.conv", "aux1.fc1", "aux2.conv", "aux2.fc1"))
    }


NAMES = ["layer1.0.weight", "layer1.1.weight", "layer10.weight", "fc.weight", "fc.bias"]
WORDS = {
    "layer1": {"layer1.0.weight", "layer1.1.weight"},
    "layer1.1": {"layer1.1.weight"},
    "layer1*": {"layer1.0.weight", "layer1.1.weight", "layer10.weight"},
    "layer?.0": {"layer1.0.weight"},
    "*.bias": {"fc.bias"},
    "fc.weight": {"fc.weight"},
    "fc.": set(),
    "layer": set(),
    "head": {"fc.weight", "fc.bias"},
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_stands_for_modules_with_all_below_them(word):
    assert NamedParts(output_layers=("fc",)).select(word, NAMES) == WORDS[word]


class OutOfOrder(nn.Module):
    """Layers that are defined in another order than they run, a hidden one as wide as the outputs."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.scores = nn.Linear(num_outputs, num_outputs, bias=False)
        self.hidden = nn.Linear(4, num_outputs)
        self.norm = nn.BatchNorm1d(num_outputs)
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images).relu()
        return self.scores(self.norm(self.hidden(maps.mean((2, 3))))).log_softmax(1)


def test_the_head_of_a_network_of_ones_own_is_what_runs_last_whatever_its_name_and_size(registered):
    parts = traced(registered(lambda spec: OutOfOrder(spec.num_outputs)), spec(3, 8, 7))
    assert parts.head == ("scores",)
    assert set(parts.dense_and_aux) == {"scores", "norm", "hidden"}


class NeedsValues(OutOfOrder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * (2.0 if images.sum().item() > 0 else 1.0)


@pytest.mark.parametrize("kind", [OutOfOrder, NeedsValues])
def test_tracing_changes_neither_the_network_nor_the_generator_also_where_it_looks_at_values(kind):
    network = nn.Sequential(OrderedDict(dropped=nn.Dropout(0.5), rest=kind(7))).eval()
    network.rest.norm.train()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    state = torch.get_rng_state()
    with torch.no_grad():
        assert trace_head(network, spec(3, 8, 7)).head == ("rest.scores",)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())


class Headless(nn.Module):
    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, num_outputs))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) @ self.weight


def test_a_head_that_cannot_be_found_is_said(registered):
    selection = registered(lambda spec: Headless(spec.num_outputs))
    parts = traced(selection, spec(3, 8, 7))
    assert parts.head == ()
    for word in ("head", "all_but_head"):
        with pytest.raises(UserError, match=f"'{word}': no Linear or Conv2d of this network gives its outputs"):
            parts.select(word, ["weight"])
    with pytest.raises(SettingError, match=r"head\.units=\[4\]  no Linear or Conv2d gives the network's outputs"):
        check_network(selection, spec(3, 8, 7), HeadConfig(units=[4]))


# Heads of one's own ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lenet", "mlp", "resnet20_cifar", "minialexnet_v4"])
def test_a_head_of_its_own_is_put_in_the_place_of_the_last_layer(name):
    on = spec(1, 32, 7)
    plain, headed = preset(name), HeadConfig(units=[16, 8], dropout=0.25)
    torch.manual_seed(0)
    before = build_network(plain, on).state_dict()
    torch.manual_seed(0)
    network = build_network(plain, on, headed).eval()
    layers = network.head.linear
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.25, 0.25]
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert trace_head(network, on) == trace_head(build_network(plain, on), on)
    after = network.state_dict()
    kept = [name for name in before if not name.startswith("head.linear.")]
    assert all(torch.equal(before[name], after[name]) for name in kept)


def test_a_head_that_is_a_convolution_is_replaced_by_convolutions():
    selection, on = preset("torchvision", architecture="squeezenet1_1"), spec(3, 64, 7)
    network = check_network(selection, on, HeadConfig(units=[16]))
    convolutions = [layer for layer in network.classifier[1] if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(1, 1), (1, 1)]
    assert [layer.out_channels for layer in convolutions] == [16, 7]


def test_without_units_the_head_stays_as_it_is():
    plain, on = preset("lenet"), spec(1, 28, 10)
    assert count_parameters(build_network(plain, on, HeadConfig()))["total"] == count(plain, on)


@pytest.mark.parametrize("architecture", ["squeezenet1_0", "googlenet", "resnet18"])
@pytest.mark.parametrize("units", [[], [16]])
def test_a_head_may_begin_as_layers_of_torch_do(architecture, units):
    settings = {"auxiliary": True} if architecture == "googlenet" else {}
    selection, on = preset("torchvision", architecture=architecture, **settings), spec(3, 224, 101)
    torch.manual_seed(0)
    network = build_network(selection, on, HeadConfig(units=units, init="torch"))
    torch.manual_seed(0)
    before = build_network(selection, on, HeadConfig(units=units)).state_dict()
    head = trace_head(network, on).head
    assert len(head) == (3 if architecture == "googlenet" else 1)
    other = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
    assert all(is_below(name, head) for name in other)
    for name in head:
        layer = [layer for layer in network.get_submodule(name).modules() if isinstance(layer, nn.Linear | nn.Conv2d)][
            -1
        ]
        bound = layer.weight[0].numel() ** -0.5  # uniform between that and its negative
        assert len(layer.weight) == 101
        assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)
        assert 0 < layer.bias.abs().max() <= bound
        assert layer.weight.abs().max() <= bound


def test_minialexnet_pools_to_a_side_of_ones_choice():
    assert count(preset("minialexnet", pool_to=4), spec(3, 224, 8)) == 10_898_600
    assert count(preset("minialexnet", pool_to=4), spec(3, 96, 8)) == 10_898_600
    assert count(preset("minialexnet"), spec(3, 32, 100)) == 10_992_900


def test_a_head_is_part_of_a_configuration():
    composer = Composer()
    config = plan_run(composer, ["head.units=[16,8]", "head.dropout=0.5"]).config
    assert config.head == HeadConfig(units=[16, 8], dropout=0.5)
    assert plan_run(composer, []).config.head == HeadConfig()
