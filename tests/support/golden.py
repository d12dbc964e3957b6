"""Three trainings whose weights are known to the last bit, and two run folders of an earlier version.

`python -m tests.support.golden` records weights again: only where a change of what is computed is meant. The folders
below tests/golden/runs/ stay as they are: they are what users have on their disks.
"""

import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"
RUNS = GOLDEN / "runs"

DATA = (
    "data=synthetic", "data.num_train=80", "data.num_test=20", "data.num_classes=3", "data.image_size=20",
    "batch_size=16", "epochs=3", "threads=1", "device=cpu", "report=false",
)  # fmt: skip
# Everything that computes, has a state or draws: what is not on here is on in one of the other two.
CLASSIFIER = (
    *DATA, "data.crop=16", "data.label_noise=0.1", "data.sampling=balanced",
    "model=minialexnet", "model.maps=[4,8,8,8,8]", "model.units=[16,16]", "head.units=[8]", "head.dropout=0.1",
    "augmentation=strong", "augmentation.jitter.brightness=0.2", "augmentation.blur.p=0.5",
    "augmentation.blur.sigma=[0.5,1.0]", "augmentation.blur.kernel_size=3",
    "optimizer=adamw", "optimizer.weight_decay=0.01", "optimizer.decay_norm_and_bias=false",
    "optimizer.layer_decay=0.9", "scheduler=cosine", "scheduler.warmup=2", "scheduler.warmup_unit=step",
    "regularization.dropout=0.2", "regularization.batchnorm=true", "regularization.label_smoothing=0.1",
    "regularization.l1=0.0001", "regularization.clip.norm=1.0", "regularization.average.kind=ema",
    "regularization.average.decay=0.9", "regularization.early_stopping.patience=2", "accumulate=2",
    "checkpoint.keep=1", "checkpoint.every_seconds=0",
)  # fmt: skip
TRIPLET = (
    *DATA, "task=triplet", "task.mining=semihard", "task.show_every=null", "model=embedding_net", "model.maps=[4,8]",
    "model.units=[16]", "model.dimensions=4", "augmentation=flip", "optimizer=muon", "scheduler=one_cycle",
    "regularization.average.kind=swa", "regularization.average.start=0.5",
)  # fmt: skip
PRETRAINED = (*DATA, "model=resnet20_cifar", "model.width=4", "epochs=1")
TRANSFER = (
    *PRETRAINED, "data.num_classes=4", "epochs=3", "freeze.what=features", "freeze.epochs=1", "freeze.then_lr=0.1",
    "optimizer.lr_scale.head=2", "scheduler=plateau", "scheduler.patience=1",
)  # fmt: skip
TRAININGS: dict[str, Sequence[str]] = {"classifier": CLASSIFIER, "triplet": TRIPLET, "transfer": TRANSFER}


def environment() -> dict[str, str]:
    """Return what bits depend on besides the code: the same bits are promised where it is the same."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    maker = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), platform.processor()
    )
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "instructions": f"{capability} {maker}"}  # oneDNN and MKL ask for both


def recorded(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights that a training ended in, and the environment in which they were recorded."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata())  # noqa: SIM118


def differing(weights: dict[str, Tensor], name: str) -> list[str]:
    """Return which weights differ from those recorded: in any bit, or elsewhere by more than rounding makes of it."""
    expected, recorded_in = recorded(name)
    assert weights.keys() == expected.keys()
    if recorded_in == environment():
        return [key for key in expected if not torch.equal(weights[key], expected[key])]
    return [
        key for key in expected if not torch.allclose(weights[key].float(), expected[key].float(), rtol=0.05, atol=0.02)
    ]


def record(folder: Path) -> None:
    """Train everything below a folder, and write down what it ends in."""
    from tests.end_to_end.test_golden import weights_of_run
    from tests.support.interruption import finished

    before = finished(PRETRAINED, folder / "pretrained")
    for name, words in TRAININGS.items():
        more = [f"init.run={before}"] if name == "transfer" else []
        weights = weights_of_run(finished([*words, *more], folder / name))
        save_file(weights, GOLDEN / f"{name}.safetensors", environment())
    print(json.dumps(environment()))


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as scratch:
        record(Path(scratch))
