"""A published network sees an image as it was published: compared with torchvision's own pipeline, weights invented."""

import copy
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.models as zoo
from PIL import Image
from torch import Tensor, nn

import cnnbench
from cnnbench.analysis.loading import load_run
from cnnbench.analysis.predict import Predictor
from cnnbench.data.decode import decode
from cnnbench.export.formats import network_in
from cnnbench.models.timm import pretrained as timms
from cnnbench.models.torchvision import pretrained
from cnnbench.training.init import load_initial_weights
from tests.conftest import TINY
from tests.support.interruption import finished
from tests.support.photographs import write_classes
from tests.support.selection import everyday
from tests.support.training import plan_of, prepared

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_b1", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32",
    "wide_resnet50_2",
)  # fmt: skip
USUAL = ("resnet18", "googlenet", "efficientnet_b0")  # inputs of every kind
SCALED = ("googlenet", "inception_v3")


def picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """Write something smooth, as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


@lru_cache
def invented(architecture: str) -> nn.Module:
    """Return a network with batch-norm statistics like those of real weights, so that its input matters."""
    settings = {"init_weights": False, "transform_input": True} if architecture in SCALED else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: nn.Module = zoo.get_model(architecture, **settings)
        side = zoo.get_model_weights(architecture).DEFAULT.transforms().crop_size[0]
        images = nn.functional.interpolate(torch.randn(4, 3, 9, 9), (side, side), mode="bilinear")
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        with torch.no_grad():
            # Of weights that were drawn, some networks make next to nothing, or infinitely much.
            for layer in network.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d) and not isinstance(network, zoo.GoogLeNet | zoo.Inception3):
                    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
                network.train()(images)
            last = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
            last.weight *= 3 / network.eval()(images).std(0).mean()
    return network


def publish(network: nn.Module, monkeypatch) -> None:
    state = copy.deepcopy(network.state_dict())
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *_, **__: state)


def as_published(architecture: str, path: Path) -> Tensor:
    transforms = zoo.get_model_weights(architecture).DEFAULT.transforms()
    images: Tensor = transforms(Image.open(path)).unsqueeze(0)
    return images


# Predict --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(400, 300), (301, 457)])
def test_every_network_is_shown_the_pixels_of_torchvisions_own_pipeline(size, tmp_path, monkeypatch):
    path, seen = picture(tmp_path / "photo.png", *size), []

    class Watching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.mean((2, 3))

    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: Watching())
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *_, **__: {})
    different = []
    for name in zoo.list_models(module=zoo):
        predictor = Predictor.of_torchvision(name)
        predictor.predict(predictor.decode(path).unsqueeze(0))
        expected = as_published(name, path)
        if seen[-1].shape != expected.shape or not torch.allclose(seen[-1], expected, rtol=0, atol=1e-5):
            different.append(name)
    assert different == []
    assert len(seen) >= 80


@pytest.mark.parametrize("architecture", everyday(FAMILIES, USUAL))
def test_probabilities_are_those_of_torchvision(architecture, tmp_path, monkeypatch):
    path, network = picture(tmp_path / "photo.png", 400, 300), invented(architecture)
    publish(network, monkeypatch)
    with torch.inference_mode():
        expected = network(as_published(architecture, path)).softmax(1)
    predictor = Predictor.of_torchvision(architecture)
    found = predictor.predict(predictor.decode(path).unsqueeze(0))
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)  # one value of a pixel in 255 makes more
    assert expected.std() > 1e-4, "and not all alike"


# Training, evaluation, export -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return photographs, none of them of the size that a network sees."""
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            picture(tmp_path / "photos" / name / f"{index}.png", 400 + 10 * index, 300, 10 * number + index)
    return tmp_path / "photos"


def words_for(architecture: str, folder: Path) -> tuple[str, ...]:
    transforms = zoo.get_model_weights(architecture).DEFAULT.transforms()
    size = (f"data.image_size={transforms.resize_size[0]}", f"data.crop={transforms.crop_size[0]}")
    data = ("data=image_folder", f"data.folder={folder}", *size, "data.test_fraction=0.5", "data.val_fraction=0")
    return (
        *data, "model=torchvision", f"model.architecture={architecture}", "init.weights=imagenet", "epochs=1",
        "batch_size=4", "threads=1", "device=cpu", "report=false",
    )  # fmt: skip


@pytest.mark.parametrize("architecture", everyday(FAMILIES, ("efficientnet_b0",)))
def test_training_shows_images_as_published(architecture, folder, monkeypatch):
    publish(invented(architecture), monkeypatch)
    training = prepared(*words_for(architecture, folder))
    load_initial_weights(training)
    settings = {
        "num_classes": 2,
        **({"init_weights": False, "transform_input": True} if architecture in SCALED else {}),
    }
    published = zoo.get_model(architecture, **settings)
    published.load_state_dict(training.network.state_dict(), strict=False)
    files = training.data.test.files()
    assert files is not None
    batch = next(iter(training.batches("test").epoch(torch.arange(len(files)), len(files))))
    expected = torch.cat([as_published(architecture, Path(file)) for file in files])
    side = zoo.get_model_weights(architecture).DEFAULT.transforms()
    if (side.resize_size[0] - side.crop_size[0]) % 4 == 0:  # else the centres of two crops are a pixel apart
        assert torch.allclose(batch.images, expected, rtol=0, atol=1e-5)
    with torch.inference_mode():
        found, right = training.network.eval()(batch.images), published.eval()(batch.images)
    assert torch.allclose(found, right, rtol=0, atol=1e-3 * float(right.std()))


def test_what_was_trained_so_is_evaluated_predicted_and_exported_so(folder, tmp_path, monkeypatch):
    publish(invented("googlenet"), monkeypatch)
    words = ("data.image_size=64", "data.crop=56", "data.interpolation=bicubic", "tested=last")
    given = [word for word in words_for("googlenet", folder) if not word.startswith(("data.image_size", "data.crop"))]
    run = load_run(finished((*given, *words[:3]), tmp_path / "outputs"))
    network, path = run.model(), folder / "cat" / "0.png"
    assert network.transform_input
    pixels = decode(path, 64, 3, "crop", interpolation="bicubic").permute(2, 0, 1)
    assert not torch.equal(pixels, decode(path, 64, 3, "crop").permute(2, 0, 1))
    assert torch.equal(run.decode(path), pixels)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = (((pixels[:, 4:60, 4:60] / 255 - mean) / std) * 2 * std + 2 * mean - 1).unsqueeze(0)
    network.transform_input = False
    with torch.inference_mode():
        expected = network(images).softmax(1)  # of pixels from -1 to 1
    assert torch.allclose(run.predict(path), expected, atol=1e-5)
    assert run.evaluate().metrics["loss"] == pytest.approx(run.result["test"]["loss"])
    exported = network_in(run.export("safetensors"))
    assert torch.allclose(exported(pixels.unsqueeze(0)), expected, atol=1e-5)


def test_an_export_says_how_files_are_resized(tmp_path):
    folder = write_classes(tmp_path / "classes", {"cat": 8, "dog": 8})
    words = (f"data.folder={folder}", "data.image_size=20", "data.crop=16", "data.interpolation=bicubic")
    run = finished(
        ("data=image_folder", *words, "model=lenet", "epochs=1", "batch_size=4", "report=false", "device=cpu"),
        tmp_path / "outputs",
    )
    cnnbench.load_run(run).export("safetensors", tmp_path / "net.safetensors")
    described = (tmp_path / "net.safetensors.json").read_text()
    assert '"interpolation": "bicubic"' in described
    assert "resized, bicubic with antialiasing" in described


# Settings -------------------------------------------------------------------------------------------------------------

OLD_IDENTITY = "6a405b7d51f7acdb"  # of a run as it was before there were these settings
SMALL = (*TINY, "data.channels=3", "data.image_size=32", "model=torchvision", "init.weights=imagenet")
RECIPES = {
    "resnet18": ("imagenet", "bilinear", False),
    "googlenet": ("imagenet", "bilinear", True),
    "efficientnet_b0": ("imagenet", "bicubic", False),
    "efficientnet_v2_l": ("half", "bicubic", False),
}


@pytest.mark.parametrize("architecture", RECIPES)
def test_published_weights_set_what_nobody_has_set(architecture):
    plan = plan_of(*SMALL, f"model.architecture={architecture}")
    data, settings = plan.config.data, plan.config.model.settings
    assert (data.statistics, data.interpolation, settings["transform_input"]) == RECIPES[architecture]
    assert plan.origins["data.statistics"] == "published weights"
    without = plan_of(*SMALL[:-1], f"model.architecture={architecture}").config
    assert (without.data.statistics, without.data.interpolation) == ("own", "bilinear")


def test_what_is_typed_wins_and_is_the_run_that_it_always_was():
    typed = ("data.statistics=own", "data.interpolation=bilinear", "model.transform_input=false")
    plan = plan_of(*SMALL, "model.architecture=googlenet", *typed)
    assert (plan.config.data.statistics, plan.config.model.settings["transform_input"]) == ("own", False)
    assert plan.config.identity().startswith(OLD_IDENTITY)
    training = prepared(*SMALL, "model.architecture=googlenet", "batch_size=15", *typed)
    assert [remark.text for remark in training.remarks if "published" in remark.text] == [
        "the published weights were trained on other inputs: data.statistics=imagenet model.transform_input=true"
    ]
    assert plan_of(*SMALL, "model.architecture=googlenet").config.identity() != plan.config.identity()


def test_images_that_are_not_resized_have_no_interpolation():
    words = [word for word in SMALL if not word.startswith("data.image_size")]
    assert plan_of(*words, "model.architecture=efficientnet_b0").config.data.interpolation == "bilinear"


def test_statistics_of_three_channels_are_not_set_for_gray_images(cnnbench, monkeypatch):
    publish(SimpleNamespace(state_dict=dict), monkeypatch)  # type: ignore[arg-type]
    words = [word for word in SMALL if not word.startswith("data.channels")]
    ended = cnnbench(*words, "data.channels=1", "model.architecture=resnet18")
    assert "data.statistics=imagenet" not in ended.err
    ended = cnnbench(*words, "data.channels=1", "model.architecture=resnet18", "data.statistics=imagenet")
    assert "data.statistics=imagenet  is for 3 channels, the images have 1; set data.channels=3" in ended.err


TIMMS = {
    "legacy_xception": ("half", "bicubic"),
    "resnet50.tv_in1k": ("imagenet", "bilinear"),
    "vit_base_patch32_clip_224.openai_ft_in1k": (
        [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]],
        "bicubic",
    ),
}


@pytest.mark.parametrize("architecture", TIMMS)
def test_timms_networks_have_statistics_of_their_own(architecture):
    words = (*SMALL[:-2], "model=timm", f"model.architecture={architecture}", "init.weights=imagenet")
    data = plan_of(*words).config.data
    assert (data.statistics, data.interpolation) == TIMMS[architecture]
    recipe = timms({"architecture": architecture}).recipe
    assert recipe == dict(zip(("data.statistics", "data.interpolation"), TIMMS[architecture], strict=True))


def test_mean_and_deviation_can_be_typed(cnnbench):
    words = (*SMALL[:-2], "model=lenet", "data.num_train=80")
    data = prepared(*words, "data.statistics=[[0.1,0.2,0.3],[0.4,0.5,0.6]]").data
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for wrong in ("[[0.1,0.2,0.3],[0.4,0.5,0]]", "[[0.1,0.2,0.3],[0.4]]"):
        assert (
            "must be two lists of the same length, means and deviations"
            in cnnbench(*words, f"data.statistics={wrong}").err
        )


@pytest.mark.parametrize("words", ["model.architecture=resnet18", "model.architecture=googlenet data.channels=1"])
def test_scaling_of_the_input_is_refused_elsewhere(words, cnnbench):
    ended = cnnbench(*SMALL[:-1], "model.transform_input=true", *words.split())
    assert "model.transform_input=true  is for googlenet and inception_v3 on images with three channels" in ended.err


def test_interpolation_needs_something_to_resize(cnnbench):
    ended = cnnbench(*TINY, "model=lenet", "data.interpolation=bicubic", "data.image_size=null")
    assert "data.interpolation=bicubic  has no effect without data.image_size" in ended.err
    assert pretrained({"architecture": "resnet18"}).recipe["data.interpolation"] == "bilinear"
