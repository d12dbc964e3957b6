"""Runs, networks and tasks that are explained, small ones."""

from types import SimpleNamespace

import torch
from torch import nn

from cnnbench.analysis.explanation.subject import Subject
from cnnbench.analysis.predict import from_split
from cnnbench.analysis.run import Run
from tests.support.training import SMALL, prepared

ONCE = (*SMALL, "epochs=1", "data.num_test=40")
COLOUR = (
    *ONCE, "model=lenet_v2", "model.maps=[4,6]", "model.units=[12]", "data.channels=3", "data.image_size=20",
    "data.crop=16", "augmentation=crop_flip_jitter",
)  # fmt: skip
NETWORKS = {
    "lenet": ("model=lenet", "model.maps=[4,6]", "model.units=[12]"),
    "mlp": ("model=mlp", "model.units=[12]"),
    "resnet": ("model=resnet20_cifar", "model.width=4"),
    "encoder": ("model=embedding_net", "model.maps=[4,6]", "model.units=[12]", "model.dimensions=5"),
}
TASKS = {
    "classification": (),
    "classification by one output": ("task.loss=binary", "data.num_classes=2"),
    "autoencoder": ("task=autoencoder",),
    "siamese": ("task=siamese",),
    "triplet": ("task=triplet",),
}


def of(network: nn.Module, images: torch.Tensor) -> SimpleNamespace:
    """Return what stands for a subject where only its network is looked at."""
    return SimpleNamespace(network=network.eval(), images=images)


def untrained(*words: str) -> Subject:
    """Return two images and a network as it begins, without a folder of a run."""
    training = prepared(*SMALL, *words)
    record = {"data": {"mean": training.data.mean, "std": training.data.std, "classes": training.data.spec.classes}}
    run = Run(SimpleNamespace(record=lambda: record), training.config)
    vars(run).update(ready=training, spec=training.data.spec)  # in place of what it would read
    asked = from_split(SimpleNamespace(run=run, classes=run.classes), "test", "0,1")
    return Subject(run, "last", training.network.eval(), torch.device("cpu"), asked, "test")
