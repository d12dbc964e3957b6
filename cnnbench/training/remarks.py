"""Remarks: what works, and is often not what was meant.

Each is one function, on a training before its first step (below) or on what came of it (`remarks_after`). All of them
are printed, and stand in `run.json`, in `result.json` and on the page.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.config.validate import as_word
from cnnbench.config.values import flat
from cnnbench.data.image_files import first_names
from cnnbench.data.loader import Batch
from cnnbench.data.prepare import PreparedData
from cnnbench.registry import DATASETS, MODELS
from cnnbench.tasks.base import Task, first_batch

NUM_IMAGES = 8  # that a network is tried on
USUAL_MOMENTUM = 0.9  # needs no remark
UPSIDE_DOWN = 90.0  # degrees: rotated further, an image is nearer to standing on its head
STRETCHED = 1024.0  # a power of two: multiplied and divided by it, weights are what they were


@dataclass(frozen=True)
class Remark:
    """about: the setting, or the part of a run, that it comes from. text: what it says."""

    about: str
    text: str

    def record(self) -> dict[str, str]:
        """Return what is kept of it in JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A training before its first step. network: a copy, on the processor; checks leave its weights as they are."""

    config: RunConfig
    task: Task
    data: PreparedData
    network: nn.Module

    @cached_property
    def batch(self) -> Batch:
        """The first training images."""
        return first_batch(self.data, torch.arange(min(NUM_IMAGES, len(self.data.train))))


BeforeTraining = Callable[[Trial], Iterator[Remark]]
_BEFORE: list[BeforeTraining] = []


def before_training(check: BeforeTraining) -> BeforeTraining:
    """Add a function to what is asked before a training."""
    _BEFORE.append(check)
    return check


def remarks_before(trial: Trial) -> tuple[Remark, ...]:
    """Return what there is to say of a training before its first step."""
    with torch.random.fork_rng(devices=()), torch.no_grad():
        return tuple(remark for check in _BEFORE for remark in check(trial))


# Settings -------------------------------------------------------------------------------------------------------------


@before_training
def high_momentum(trial: Trial) -> Iterator[Remark]:
    """Yield the effective learning rate where momentum makes it much higher."""
    settings = trial.config.optimizer.settings
    momentum = settings.get("momentum", 0.0)
    if momentum > USUAL_MOMENTUM:
        rate = settings["lr"] / (1 - momentum)
        text = f"with momentum {momentum}, the effective learning rate is lr / (1 - momentum) = {rate:.3g}"
        yield Remark("optimizer.momentum", text)


@before_training
def frozen_at_random(trial: Trial) -> Iterator[Remark]:
    """Yield that layers are frozen which never learnt anything."""
    config = trial.config
    if config.freeze.what and config.source is None and config.init.experiment is None and config.parent is None:
        yield Remark("freeze.what", "frozen layers are randomly initialised: nothing is loaded; see init")


@before_training
def other_statistics(trial: Trial) -> Iterator[Remark]:
    """Yield that images are prepared otherwise than for the weights, or for weights that are not loaded."""
    config = trial.config
    begins_anywhere = config.source or config.init.experiment or config.parent
    if config.init.weights:
        published = MODELS[config.model.name].facts["pretrained"](config.model.settings).recipe
        values = flat(config.to_dict())
        other = " ".join(as_word(key, value) for key, value in published.items() if values.get(key) != value)
        if other:
            yield Remark("init.weights", f"the published weights were trained on other inputs: {other}")
    if config.data.statistics == "imagenet" and not begins_anywhere:
        text = (
            "images are normalised as for published weights, and none are loaded: data.statistics=own takes mean and "
            "deviation of the training images, init.weights=imagenet loads weights"
        )
        yield Remark("data.statistics", text)


@before_training
def classes_without_images(trial: Trial) -> Iterator[Remark]:
    """Yield the classes that cannot be learnt."""
    spec = trial.data.spec
    empty = [name for name, count in zip(spec.classes, spec.counts, strict=False) if not count]
    if not empty or not trial.task.is_classifier:
        return
    is_balanced = trial.config.task.settings.get("class_weights") == "balanced"
    weight = "; task.class_weights=balanced gives weights to the others" if is_balanced else ""
    named = f"class '{empty[0]}' has" if len(empty) == 1 else f"classes {first_names(map(repr, empty))} have"
    yield Remark("data", f"{named} no training image, and cannot be learnt{weight}")


@before_training
def images_of_ones_own(trial: Trial) -> Iterator[Remark]:
    """Yield that a plugin's images for evaluation are among those to train on, or that its pixels are as good as black.

    Photographs are checked when they are read, and published images are what they are.
    """
    data, name = trial.data, trial.config.data.name
    if not DATASETS[name].is_from_plugin:
        return
    same = {"test": data.copied, "validation": torch.isin(data.hashes["val"], data.hashes["train"])}
    counts = [f"{int(are.sum())} of {len(are)} {part} images" for part, are in same.items() if are.any()]
    if counts:
        text = "are among the training images, pixel for pixel, so that knowing them by heart counts; keep one of each"
        yield Remark("data", f"{' and '.join(counts)} {text}")
    if int(data.train.take(torch.arange(min(NUM_IMAGES, len(data.train)))).max()) == 1:
        text = "pixels are 0 and 1, of 0 to 255: numbers from 0 to 1 become pixels by (255 * x).round().to(torch.uint8)"
        yield Remark("data", text)


@before_training
def balanced_twice(trial: Trial) -> Iterator[Remark]:
    """Yield that two settings make up for the same imbalance."""
    weights, sampling = trial.config.task.settings.get("class_weights", "none"), trial.config.data.sampling
    if weights != "none" and sampling != "natural":
        text = (
            "classes are weighted twice: images are drawn by data.sampling, and their losses multiplied by "
            "task.class_weights; one of them is enough"
        )
        yield Remark("task.class_weights", text)


@before_training
def rotated_upside_down(trial: Trial) -> Iterator[Remark]:
    """Yield that images are rotated until they can show another class."""
    data = trial.config.data.name
    if "vertical_flip" not in DATASETS[data].facts["breaks_labels"]:
        return
    for part in trial.config.augmentation:
        degrees = part.settings.get("degrees", 0.0)
        if degrees > UPSIDE_DOWN:
            text = (
                f"rotates images by up to {degrees:g} degrees: upside down, an image of '{data}' can show another "
                "class (a 6 becomes a 9), or what no test image shows"
            )
            yield Remark(f"augmentation.{part.name}", text)


# Networks -------------------------------------------------------------------------------------------------------------


@before_training
def dropout_before_norm(trial: Trial) -> Iterator[Remark]:
    """Yield that batch norm takes its statistics with dropout."""
    layers = [layer for layer in trial.network.modules() if not list(layer.children())]
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if any(isinstance(first, nn.Dropout) and isinstance(second, norms) for first, second in pairwise(layers)):
        text = (
            "dropout comes right before batch norm: its statistics are taken with dropout, and used without it "
            "(Li et al. 2018, arXiv:1801.05134)"
        )
        yield Remark("model", text)


@before_training
def probabilities_for_scores(trial: Trial) -> Iterator[Remark]:
    """Yield that a classifier returns probabilities, of which the loss takes the softmax or sigmoid once more."""
    if not trial.task.is_classifier:
        return
    last_layer = list(trial.network.parameters())[-2:]
    for weight in last_layer:  # scores grow with them, probabilities cannot
        weight.mul_(STRETCHED)
    outputs = trial.network.eval()(trial.batch.images)
    for weight in last_layer:
        weight.div_(STRETCHED)
    if not isinstance(outputs, Tensor) or not bool(((outputs >= 0) & (outputs <= 1)).all() & (outputs > 0).any()):
        return
    sums = outputs.sum(1)
    end = "softmax" if outputs.shape[1] > 1 and torch.allclose(sums, torch.ones_like(sums)) else "sigmoid"
    yield Remark("model", f"the network ends in a {end}; the loss applies its own: leave it out, or learning is slow")


@before_training
def random_in_evaluation(trial: Trial) -> Iterator[Remark]:
    """Yield that a network drops out in evaluation, or draws something else."""
    network = trial.network.eval()
    first, second = (trial.task.eval_step(network, trial.batch) for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True):
        text = (
            "in evaluation mode the network measures the same images differently each time, so every metric depends on "
            "chance; dropout has to end with training: functional.dropout(…, training=self.training), or nn.Dropout"
        )
        yield Remark("model", text)
