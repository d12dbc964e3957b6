"""Networks that are too large to train in a test: reduced, they learn; and the layers that are their own."""

import json

import pytest
import torch
from torch import nn

from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError, UserError
from cnnbench.models.alexnet import NormAcrossChannels, NormWithinChannels
from cnnbench.models.build import avoid_onednn_bug, build_network, check_network
from cnnbench.models.googlenet import BLOCKS, Inception
from cnnbench.models.resnet import Block, StochasticDepth
from cnnbench.plugins import register_everything
from cnnbench.registry import Selection
from tests.conftest import SMALL_FORMS, TINY, only_run
from tests.support.selection import everyday

register_everything()


def spec(channels: int, side: int, num_classes: int = 4) -> DataSpec:
    return DataSpec(channels, side, side, tuple(str(index) for index in range(num_classes)))


@pytest.mark.parametrize("name", everyday(SMALL_FORMS, [*SMALL_FORMS][::3]))
def test_a_reduced_form_trains_for_an_epoch(cnnbench, outputs, name):
    words = (f"model={name}", "data.channels=3", "data.num_train=40", "epochs=1", "data.val_fraction=0.2")
    ended = cnnbench(*TINY, *words, *SMALL_FORMS[name])
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (only_run(outputs) / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss/train"] for row in rows if row["row"] == "step"]
    assert len(set(losses)) == len(losses) == 2


def test_norm_within_channels_is_the_formula_of_the_source():
    images = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(0))
    slow = torch.empty_like(images)
    for row in range(7):
        for column in range(6):
            around = images[:, :, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            mean = around.square().sum((2, 3)) / 25  # what lies outside counts as 0
            slow[:, :, row, column] = images[:, :, row, column] / (1 + 0.5 * mean) ** 0.75
    assert torch.allclose(NormWithinChannels(5, 0.5, 0.75)(images), slow, atol=1e-6)


@pytest.mark.parametrize("size", [4, 5])
def test_norm_across_channels_on_a_gpu_is_that_of_torch(size):
    images = torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = NormAcrossChannels(size, alpha=0.5, beta=0.75, k=2.0)
    gradients = []
    for forward in (norm, norm.summed):
        leaf = images.clone().requires_grad_()
        out = forward(leaf)
        out.square().sum().backward()
        gradients.append((out, leaf.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-10)


@pytest.mark.parametrize("kernel", [3, 5])
def test_an_inception_block_puts_its_branches_side_by_side(kernel):
    block = Inception(192, BLOCKS["3a"], kernel)
    images = torch.randn(2, 192, 6, 6)
    assert block(images).shape == (2, block.channels, 6, 6) == (2, 64 + 128 + 32 + 32, 6, 6)
    assert torch.equal(block(images)[:, :64], block.one(images))
    assert block.five[1][0].kernel_size == (kernel, kernel)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(("stride", "maps"), [(1, 8), (2, 16)])
def test_a_residual_block_adds_to_what_it_gets(bottleneck, stride, maps):
    block = Block(8, maps, stride, bottleneck, drop=0.0).eval()
    images = torch.randn(2, 8, 6, 6)
    shortcut = block.shortcut(images) if len(block.shortcut) else images
    assert torch.equal(block(images), torch.relu(shortcut + block.residual(images)))
    assert block(images).shape == (2, block.channels, 6 // stride, 6 // stride)
    assert len(block.shortcut) == (0 if stride == 1 and not bottleneck else 2)


def test_stochastic_depth_leaves_out_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, added = StochasticDepth(0.25), torch.ones(4000, 2, 1, 1)
    out = layer(added)
    assert sorted(set(out.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(added), added)


def test_stochastic_depth_grows_from_block_to_block():
    settings = {"blocks": [1, 2, 1], "bottleneck": False, "width": 4, "stem": "cifar", "stochastic_depth": 0.4}
    network = build_network(Selection("resnet", settings), spec(3, 16))
    drops = [layer.p for layer in network.modules() if isinstance(layer, StochasticDepth)]
    assert drops == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_stochastic_depth_of_regularization_reaches_the_network(cnnbench, outputs):
    small = SMALL_FORMS["resnet20_cifar"]
    ended = cnnbench(*TINY, "model=resnet20_cifar", *small, "regularization.stochastic_depth=0.2", "epochs=1")
    assert ended.code == 0, ended.err


def test_a_cifar_stem_keeps_the_size_of_small_images():
    for architecture in ("resnet18", "squeezenet1_0", "googlenet"):
        selection = Selection("torchvision", {"architecture": architecture, "stem": "cifar"})
        network = build_network(selection, spec(1, 32))
        first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
        assert (first.in_channels, first.kernel_size, first.stride) == (1, (3, 3), (1, 1))
        seen = []
        first.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.shape[2:]))
        assert network.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
        assert seen == [(32, 32)]


def test_auxiliary_classifiers_count_three_tenths(monkeypatch):
    from cnnbench.data.loader import Batch
    from cnnbench.tasks.classification import Classification

    task = Classification(spec(3, 32))
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([1, 3]))
    main, other = torch.randn(2, 4), torch.randn(2, 4)
    loss = torch.nn.functional.cross_entropy
    got, sums = task.train_step(lambda _: (main, other), batch)
    expected = loss(main, batch.labels) + 0.3 * loss(other, batch.labels)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    assert sums[1].item() == (main.argmax(1) == batch.labels).sum().item()


REFUSED = {
    "resnet19": "torchvision has no such classification network; did you mean 'resnet1",
    "unheard of": "there are alexnet, ",
}


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_architecture_that_there_is_not_is_refused(architecture):
    with pytest.raises(ConfigError) as refused:
        check_network(Selection("torchvision", {"architecture": architecture}), spec(3, 32))
    assert REFUSED[architecture] in str(refused.value)


def test_auxiliary_classifiers_where_there_are_none_are_refused():
    selection = Selection("torchvision", {"architecture": "resnet18", "auxiliary": True})
    with pytest.raises(UserError, match="'resnet18' has no auxiliary classifiers; googlenet and inception_v3 have"):
        build_network(selection, spec(3, 32))


@pytest.mark.parametrize(("name", "side"), [("alexnet_lrn", 66), ("alexnet_bn", 66)])
def test_for_images_that_are_too_small_for_an_alexnet_the_side_that_works_is_named(name, side):
    settings = {"maps": [4, 8, 8, 8, 8], "units": [16]} | ({"norm": "across"} if name == "alexnet_lrn" else {})
    with pytest.raises(UserError, match=r"needs images of at least 67x67, and sees 66x66"):
        check_network(Selection(name, settings), spec(3, side))
    assert check_network(Selection(name, settings), spec(3, side + 1))


@pytest.mark.parametrize("channels", [4, 8])
def test_strided_pointwise_convolutions_of_few_channels_have_true_gradients_with_channels_last(channels):
    images = torch.randn(16, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = nn.Conv2d(channels, 8, 1, stride=2).double()
    guarded = avoid_onednn_bug(nn.Sequential(nn.Conv2d(channels, 8, 1, stride=2)))
    guarded[0].load_state_dict(plain.float().state_dict())
    plain.double()
    guarded.to(memory_format=torch.channels_last)
    got, expected = guarded(images.to(memory_format=torch.channels_last)), plain(images.double())
    assert torch.allclose(got.double(), expected, atol=1e-5)
    for result in (got, expected):
        result.square().sum().backward()
    assert torch.allclose(guarded[0].weight.grad.double(), plain.weight.grad, rtol=1e-4, atol=1e-4)


def test_other_convolutions_are_left_as_they_are():
    network = nn.Sequential(nn.Conv2d(64, 8, 1, stride=2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, stride=2))
    assert [type(layer) for layer in avoid_onednn_bug(network)] == [nn.Conv2d] * 3


def test_an_architecture_must_be_given(cnnbench):
    ended = cnnbench("model=torchvision")
    assert ended.code == 2
    assert "model.architecture=" in ended.err
    assert "must be given: text" in ended.err
