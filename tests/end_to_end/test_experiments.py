"""Every experiment trains on tiny data in the original's layout, and has the parameters that its source counts.

Its parents are trained before it, and published weights are random ones. `cnnbench help experiments` lists what runs.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench.cli.catalog import PACKAGE
from cnnbench.config.compose import Composer
from cnnbench.config.values import conf_dir
from cnnbench.data.images import DataSpec
from cnnbench.models.build import build_network, count_parameters
from cnnbench.models.head import trace_head
from cnnbench.optim.freezing import plan_freezing
from cnnbench.registry import TASKS
from cnnbench.store.lookup import finished_runs_of
from cnnbench.training.plan import plan_run
from tests.conftest import only_run
from tests.support.archives import write_set
from tests.support.photographs import write_classes, write_pets, write_scenes
from tests.support.selection import everyday

CONF = conf_dir() / "experiment"
EXPERIMENTS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))

FEW = (
    "epochs=2",
    "batch_size=5",
    "threads=1",
    "device=cpu",
    "report=false",
    "regularization.early_stopping.patience=null",
)
SMALL_ALEXNET = ("data.image_size=67", "model.maps=[4,8,8,8,8]", "model.units=[16,16]")
SMALL_PHOTOGRAPHS = ("data.image_size=40", "data.crop=32")
SMALL_CALTECH = (*SMALL_PHOTOGRAPHS, "augmentation.resized_crop.side=40")

# What makes each small enough, by the beginning of its name: the longest that fits counts.
SMALL: dict[str, tuple[str, ...]] = {
    "ablation/": ("data.verify=false",),
    "ablation/regularizers": ("data.subset.first=20", "data.verify=false"),
    "architectures/vgg16_caltech101": (*SMALL_CALTECH, "model.width=4", "model.units=[16]"),
    "architectures/vgg16_caltech101_tuned": (*SMALL_CALTECH, "model.architecture=squeezenet1_1"),
    "cnn_lab/": ("data.verify=false",),
    "cnn_lab/alexnet_eight_scenes": ("data.image_size=70", "data.crop=64"),
    "cnn_lab/eight_scenes": (*SMALL_PHOTOGRAPHS,),
    "keras_notes/": ("data.verify=false",),
    "keras_notes/alexnet_fashion": ("data.verify=false", *SMALL_ALEXNET),
    "keras_notes/googlenet_fashion": ("data.verify=false", "data.image_size=16"),
    "keras_notes/resnet_fashion": ("data.verify=false", "model.width=4"),
    "keras_notes/xception_cats_dogs": (
        *SMALL_PHOTOGRAPHS, "model.architecture=mobilenetv3_small_050", "freeze.epochs=1",
    ),
    "regularization_lab/": ("data.verify=false", "data.subset.first=20"),
    **{
        f"regularization_lab/{mlp}": ("data.verify=false", "data.subset.first=20", "scheduler.every=1")
        for mlp in ("mlp_", "mlps")
    },
    "regularization_lab/alexnet": ("data.verify=false", "data.image_size=64"),
    "transfer_lab/": SMALL_PHOTOGRAPHS,
    "transfer_lab/caltech101_alexnet": ("data.image_size=70", "data.crop=64"),
    "transfer_lab/caltech101_vgg16": (*SMALL_PHOTOGRAPHS, "model.architecture=squeezenet1_1"),
    **{f"transfer_lab/{name}": ("data.verify=false",) for name in ("autoencoder", "conv_autoencoder", "exercise")},
    "transfer_lab/siamese_mnist": ("data.verify=false", "data.val_fraction=0"),
    "transfer_lab/triplet_mnist": ("data.verify=false", "data.val_fraction=0"),
}  # fmt: skip


def small_form_of(experiment: str) -> tuple[str, ...]:
    return SMALL[max((start for start in SMALL if experiment.startswith(start)), key=len)]


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
        write_set(root, name)
    for name in ("BACKGROUND_Google", "Faces", "ant"):  # as many as the balanced choice of a class takes
        write_classes(root / "caltech101" / "101_ObjectCategories", {name: 31}, first=len(name) * 100, suffix=".jpg")
    write_scenes(root)
    write_pets(root)
    return root


@pytest.fixture(scope="module", autouse=True)
def published_weights() -> Iterator[None]:
    """Let published weights be random ones of the same layout, without a download."""
    import torchvision.models as zoo

    architectures = {zoo.get_model_weights(name): name for name in zoo.list_models(module=zoo)}

    def drawn(weights: zoo.WeightsEnum, **_: Any) -> Mapping[str, Any]:
        options = {"init_weights": False} if type(weights) is zoo.GoogLeNet_Weights else {}
        return zoo.get_model(architectures[type(weights)], weights=None, **options).state_dict()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo.WeightsEnum, "get_state_dict", drawn)
        if find_spec("timm"):
            import timm

            create = timm.create_model
            patch.setattr(timm, "create_model", lambda name, pretrained, **more: create(name, **more))
        yield


# One of each kind: they train for a second or two. All of them: `pytest -m thorough`.
EVERYDAY = ("ablation/regularizers", "cnn_lab/eight_scenes", "cnn_lab/lenet_color_cifar100",
            "keras_notes/xception_cats_dogs", "transfer_lab/exercise2", "transfer_lab/triplet_mnist")  # fmt: skip


@pytest.mark.parametrize("experiment", everyday(EXPERIMENTS, EVERYDAY))
def test_every_experiment_trains_on_tiny_data(experiment, cnnbench, outputs, tiny_data):
    if experiment == "keras_notes/xception_cats_dogs":
        pytest.importorskip("timm")
    composer = Composer()
    for link in chain_of(composer, experiment):
        words = [f"experiment={link}", *FEW, *small_form_of(link), f"data.root={tiny_data}"]
        words = composer.expand(words)[-1]  # the last job, of a sweep
        ended = cnnbench(*words)
        assert ended.code == 0, ended.err
    config = plan_run(composer, words).config
    result = json.loads((finished_runs_of(outputs, experiment)[-1].result_file).read_text())
    assert [reference["value"] for reference in result["references"]] == [
        reference.value for reference in config.references if reference.split in result
    ]
    for reference in result["references"]:
        assert reference["ours"] == result[reference["split"]][reference["metric"]]
        assert f"published   {reference['metric']}/{reference['split']} {reference['value']:g}" in ended.out
    assert "epochs=2" in result["departures"]
    begins = config.source is not None or bool(config.init.weights)
    assert ("initial weights: " in ended.out) == begins


def chain_of(composer: Composer, experiment: str) -> list[str]:
    """Return an experiment, after those that it begins with."""
    above = composer.compose([f"experiment={experiment}"]).values["init"]["experiment"]
    return [*(chain_of(composer, above) if above else []), experiment]


def how_it_ran(experiment: str) -> str:
    """Return how an experiment has run: really, where its header says what came out, else as it does here."""
    header = (CONF / f"{experiment}.yaml").read_text(encoding="utf-8").partition("\ndefaults:")[0]
    ours = " ".join(line.lstrip("# ") for line in header.partition("# Ours")[2].splitlines())
    if ours and "not measured yet" not in ours:
        return "really" + (f", shortened to {found[1]}" if (found := re.search(r"with (epochs=\d+)", ours)) else "")
    return f"on stand-ins, `{' '.join(word for word in small_form_of(experiment) if word != 'data.verify=false')}`"


def test_the_page_of_experiments_lists_all_of_them_and_how_they_ran():
    page = (PACKAGE / "docs" / "experiments.md").read_text(encoding="utf-8")
    table = page.partition("|---|---|\n")[2].splitlines()
    assert table == [f"| `{experiment}` | {how_it_ran(experiment).replace(', ``', '')} |" for experiment in EXPERIMENTS]


def test_a_run_that_goes_on_from_an_experiment_still_says_what_was_done_otherwise(cnnbench, outputs, tiny_data):
    words = (
        "epochs=1",
        "batch_size=5",
        "data.verify=false",
        f"data.root={tiny_data}",
        "threads=1",
        "device=cpu",
        "report=false",
    )
    assert cnnbench("experiment=cnn_lab/lenet_mnist", *words).code == 0
    run = only_run(outputs)
    ended = cnnbench(f"resume={run}", "epochs=2")
    assert ended.code == 0, ended.err
    (longer,) = (path for path in run.parent.iterdir() if path != run)
    departures = json.loads((longer / "result.json").read_text())["departures"]
    assert sorted(departures) == ["batch_size=5", "data.verify=false", "epochs=1", "epochs=2"]
    assert f"deviates    {', '.join(departures)}" in ended.out


# Channels, side of the crop, classes; parameters in all, and those that are trained from the first step on.
COUNTS = {
    "architectures/vgg16_caltech101": (3, 224, 102, 134_678_438, 134_678_438),
    "architectures/vgg16_caltech101_tuned": (3, 224, 102, 135_335_590, 1_075_046),
    "cnn_lab/alexnet_eight_scenes": (3, 224, 8, 57_036_616, 57_036_616),
    "cnn_lab/eight_scenes": (3, 224, 8, 10_898_600, 10_898_600),
    "cnn_lab/lenet_color_cifar100": (3, 32, 100, 382_628, 382_628),
    "cnn_lab/lenet_mnist": (1, 28, 10, 44_426, 44_426),
    "cnn_lab/lenet_v2_mnist": (1, 28, 10, 44_426, 44_426),
    "cnn_lab/minialexnet_cifar100": (3, 32, 100, 10_992_900, 10_992_900),
    "cnn_lab/minialexnet_v2_cifar100": (3, 32, 100, 10_992_900, 10_992_900),
    "cnn_lab/minialexnet_v3_cifar100": (3, 28, 100, 7_322_884, 7_322_884),
    "cnn_lab/minialexnet_v4_cifar10": (3, 28, 10, 7_241_866, 7_241_866),
    "cnn_lab/minialexnet_v4_cifar100": (3, 28, 100, 7_334_116, 7_334_116),
    "cnn_lab/mlp_mnist": (1, 28, 10, 50_890, 50_890),
    "keras_notes/alexnet_fashion": (1, 227, 10, 58_301_834, 58_301_834),
    "keras_notes/lenet_fashion": (1, 28, 10, 61_706, 61_706),
    "keras_notes/mlp_fashion": (1, 28, 10, 266_610, 266_610),
    "regularization_lab/alexnet_mnist_all": (3, 224, 10, 57_044_810, 57_044_810),
    "regularization_lab/alexnet_mnist_dense": (3, 224, 10, 57_044_810, 54_575_114),
    "regularization_lab/alexnet_mnist_head": (3, 224, 10, 57_044_810, 40_970),
    "regularization_lab/mlp": (1, 28, 10, 468_874, 468_874),
    "regularization_lab/mlp_batchnorm": (1, 28, 10, 469_898, 469_898),
    "transfer_lab/autoencoder_mnist": (1, 28, 10, 468_368, 468_368),
    "transfer_lab/caltech101_alexnet": (3, 224, 101, 57_417_637, 57_417_637),
    "transfer_lab/caltech101_googlenet": (3, 224, 101, 10_240_463, 10_240_463),
    "transfer_lab/caltech101_resnet18": (3, 224, 101, 11_228_325, 11_228_325),
    "transfer_lab/caltech101_squeezenet": (3, 224, 101, 787_237, 787_237),
    "transfer_lab/caltech101_vgg16": (3, 224, 101, 134_674_341, 134_674_341),
    "transfer_lab/conv_autoencoder_mnist": (1, 28, 10, 3_221, 3_221),
    "transfer_lab/exercise2": (1, 28, 10, 3_582, 3_582),
    "transfer_lab/exercise2_scratch": (1, 28, 10, 3_582, 3_582),
    "transfer_lab/exercise3": (1, 28, 10, 351_306, 351_306),
    "transfer_lab/exercise34_scratch": (1, 28, 10, 351_306, 351_306),
    "transfer_lab/exercise4": (1, 28, 10, 351_306, 351_306),
    "transfer_lab/siamese_mnist": (1, 28, 10, 350_016, 350_016),
    "transfer_lab/triplet_mnist": (1, 28, 10, 350_016, 350_016),
}


@pytest.mark.parametrize("experiment", COUNTS)
def test_an_experiment_has_the_parameters_that_its_source_counts(experiment, composer: Composer):
    channels, side, num_classes, total, trainable = COUNTS[experiment]
    words = composer.expand([f"experiment={experiment}", "init.weights=null", "init.experiment=null"])[-1]
    config = plan_run(composer, words).config
    spec = DataSpec(channels, side, side, tuple(map(str, range(num_classes))))
    task = TASKS.build(config.objective(), spec=spec)
    spec = replace(spec, outputs=task.num_outputs)
    with torch.device("meta"):
        network = build_network(config.network(), spec, config.head, task)
    plan_freezing(config, network, trace_head(network, spec)).set_train_mode(network, 1)
    assert count_parameters(network) == {"total": total, "trainable": trainable}
