"""Small runs, networks and tasks to explain."""

from pathlib import Path
from types import SimpleNamespace

import torch

from cnnbench.analysis.explanation.explainer import Explainer
from cnnbench.analysis.predict import images_from_split
from cnnbench.analysis.run import Run
from tests.support.training import SMALL, prepared

ONCE = (*SMALL, "epochs=1", "data.num_test=40")
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


def untrained(*words: str) -> Explainer:
    """Return two images and a network with its initial weights, without the folder of a run."""
    training = prepared(*SMALL, *words)
    record = {"data": {"mean": training.data.mean, "std": training.data.std, "classes": training.data.spec.classes}}
    run = Run(SimpleNamespace(path=Path(), record=lambda: record), training.config)
    vars(run).update(training=training, spec=training.data.spec)  # in place of what it would read
    inputs = images_from_split(run, "test", [0, 1])
    return Explainer(run, "last", training.network.eval(), torch.device("cpu"), inputs, "test")
