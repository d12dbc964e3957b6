"""A run opened again, from its folder alone: what it was, what came out, and its network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from cnnbench.config.schema import RunConfig
from cnnbench.config.validate import recorded_config
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batches
from cnnbench.errors import UserError, listed
from cnnbench.models.build import build_network
from cnnbench.registry import TASKS, register_everything
from cnnbench.store import checkpoint
from cnnbench.store.folder import RunFolder
from cnnbench.store.metrics import read_rows
from cnnbench.tasks.base import Task
from cnnbench.training.loop import map_images
from cnnbench.training.resolve import Ready, find_device, preflight
from cnnbench.training.restore import restore
from cnnbench.training.setup import DEFAULT_THREADS, make_parts, plain_batches, set_up_torch

Checkpoint = str | int
"""`tested`: the one that the result is of; `best` on validation, `last`, or the steps after which one was kept."""


class Run:
    """One training, as its folder tells it; made by `load_run`."""

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        self.folder = folder
        self.config = config

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.record.get('status')})"

    @property
    def path(self) -> Path:
        """Return the run's folder."""
        return self.folder.path

    @property
    def record(self) -> dict[str, Any]:
        """Return what `run.json` says: status, times, versions, machine, data."""
        return self.folder.record()

    @property
    def result(self) -> dict[str, Any]:
        """Return what `result.json` says. Raises UserError where the run is not finished."""
        if not self.folder.is_completed:
            raise UserError(f"{self.path} is not finished yet; it is {self.record.get('status')}.")
        return self.folder.result()

    @property
    def metrics(self) -> pd.DataFrame:
        """Return a row a step and a row an epoch, as in `metrics.jsonl`: columns row, epoch, step, loss/train, …"""
        return pd.DataFrame(list(read_rows(self.folder.metrics_file)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, by label."""
        return tuple(self.record["data"]["classes"])

    @cached_property
    def spec(self) -> DataSpec:
        """Return what the data told the network."""
        channels, height, width = self.record["data"]["window"]
        counts = self.folder.split()["images_per_class"]["train"]
        return DataSpec(channels, height, width, self.classes, tuple(counts))

    @cached_property
    def task(self) -> Task:
        """Return what was learnt."""
        task: Task = TASKS.build(self.config.objective(), self.spec)
        return task

    @property
    def tested(self) -> str:
        """Return which checkpoint the result is of, or would be: `best`, or `last` as some recipes want it."""
        has_best = self._content("last")["best"] is not None
        return "best" if self.config.tested == "best" and has_best else "last"

    def named(self, which: Checkpoint) -> Checkpoint:
        """Return a checkpoint by another name than `tested`."""
        return self.tested if which == "tested" else which

    def model(self, which: Checkpoint = "tested") -> nn.Module:
        """Return the network with the weights of a checkpoint, on the processor, in evaluation mode.

        which: where weights are averaged, the average. Raises UserError where there is no such checkpoint.
        """
        which = self.named(which)
        content = self._content(which)
        if which == "best":
            weights = self._best(content)["weights"]
        elif self.config.regularization.average.kind != "none":  # what is averaged may have to be measured on images
            parts = make_parts(self.config, self.ready)
            progress = restore(parts, content)
            return parts.evaluated(progress.step).cpu().eval()
        else:
            weights = content["network"]
        spec = replace(self.spec, outputs=self.task.num_outputs)
        with torch.random.fork_rng(devices=()):
            network = build_network(self.config.network(), spec, self.config.head, self.task)
        network.load_state_dict(weights)
        return network.to(memory_format=torch.channels_last).eval()

    def epoch_of(self, which: Checkpoint = "tested") -> int:
        """Return the epoch of a checkpoint, counted from 1; 0: before the end of the first."""
        which = self.named(which)
        content = self._content(which)
        return int(self._best(content)["epoch"] if which == "best" else content["progress"]["epochs_done"])

    def _content(self, which: Checkpoint) -> dict[str, Any]:
        steps = checkpoint.steps_in(self.folder.checkpoints)
        if not steps:
            raise UserError(f"{self.path} has no checkpoint yet.")
        step = steps[-1] if which in ("best", "last") else which
        if step not in steps:
            kept = listed(["tested", "best", "last", *map(str, steps)])
            raise UserError(f"{self.path} has no checkpoint '{which}'; there are {kept}.")
        return checkpoint.load(self.folder.checkpoints, int(step))

    def _best(self, content: Mapping[str, Any]) -> dict[str, Any]:
        best: dict[str, Any] | None = content["best"]
        if best is None:
            raise UserError(f"{self.path} was never validated, and has no best checkpoint; take 'last'.")
        return best

    @cached_property
    def ready(self) -> Ready:
        """Return the run's data and all that was checked before it began.

        Raises UserError where data or split are no longer those that it was trained on.
        """
        ready = preflight(self.config.model_copy(update={"device": "cpu"}))
        if ready.data.fingerprint != self.record["data"]["fingerprint"]:
            raise UserError(f"{self.path}: the content of its data is another one now; nothing measured on it holds.")
        if ready.data.split.hash() != self.record["split"]:
            raise UserError(f"{self.path}: its images are split otherwise now; nothing measured on them holds.")
        return ready

    def data(self, split: str = "test") -> Images:
        """Return the images of a split as they were read, uint8 [N, C, H, W], by `.take(rows)`, and their `.labels`."""
        images: Images = getattr(self.ready.data, known_split(split))
        return images

    def batches(self, split: str = "test") -> Batches:
        """Return the batches of a split as the network sees them, without augmentation."""
        return plain_batches(self.ready, known_split(split))

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Return channels, height and width of the images, before the window is cut; older runs do not say it.

        Raises UserError where only the data can tell, and are not there.
        """
        said, config = self.record["data"].get("size"), self.config.data
        if said:
            return said[0], said[1], said[2]
        if config.crop is None:
            return self.spec.channels, self.spec.height, self.spec.width
        if config.image_size:
            return self.spec.channels, config.image_size, config.image_size
        return self.data("test").size

    def batches_of(self, images: Tensor) -> Batches:
        """Return images like those of `data`, uint8 [N, C, H, W], as the network sees them, on the processor."""
        labels, data = torch.zeros(len(images), dtype=torch.int64), self.record["data"]
        device = torch.device("cpu")
        return Batches(Images(images, labels), self.spec, tuple(data["mean"]), tuple(data["std"]), device)

    def predict(self, images: Tensor, which: Checkpoint | nn.Module = "tested") -> Tensor:
        """Return the probability of each class, float32 [N, K], of images like those of `data`, uint8 [N, C, H, W].

        which: a checkpoint, or what `model` returned for one. Raises UserError for a task whose outputs are no classes.
        """
        scores = getattr(self.task, "scores", None)
        if scores is None:
            raise UserError(f"{self.path}: task {self.config.task.name} does not tell classes.")
        network = which if isinstance(which, nn.Module) else self.model(which)
        return map_images(
            network,
            self.batches_of(images),
            lambda network, batch: scores(network(batch.images)).softmax(1),
            self.config,
        )

    def set_up(self) -> torch.device:
        """Make arithmetic what it was in the training, and return the device that there is for it."""
        device = find_device("auto" if self.config.device.startswith("cuda") else self.config.device)
        set_up_torch(device, self.config, self.record.get("threads") or DEFAULT_THREADS)
        return device


def known_split(name: str) -> str:
    """Return the name of a split. Raises UserError for any other."""
    if name not in ("train", "val", "test"):
        raise UserError(f"'{name}': there are the splits train, val and test.")
    return name


def load_run(path: str | Path, plugins: Sequence[str] = ()) -> Run:
    """Return the run in a folder.

    plugins: Python files that register what it was made with. Raises UserError where there is no run.
    """
    register_everything(plugins)
    folder = RunFolder.open(Path(path))
    return Run(folder, recorded_config(folder))


def runs(pattern: str = "outputs/**", plugins: Sequence[str] = ()) -> pd.DataFrame:
    """Return a row for each run among the folders that fit a pattern: where, status, what was chosen, what came out.

    Settings have their dotted names, results those like `accuracy/test`; `plugins` as in `load_run`.
    """
    from cnnbench.config.values import flat

    register_everything(plugins)
    rows = []
    start = Path(Path(pattern).anchor)
    for record in sorted(start.glob(f"{Path(pattern).relative_to(start)}/run.json")):
        folder = RunFolder(record.parent)
        row: dict[str, Any] = {"path": str(folder.path), "status": folder.record().get("status")}
        row |= flat(folder.config())
        if folder.is_completed:
            result = folder.result()
            row |= {
                f"{name}/{split}": value
                for split in ("train", "val", "test")
                for name, value in result.get(split, {}).items()
            }
            row |= {"parameters": result["parameters"]["total"], "seconds": result["seconds"]["train"]}
        rows.append(row)
    return pd.DataFrame(rows)


def train(overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Run:
    """Train, or continue, what `cnnbench …` would with these words, and return the run; a finished one is only opened.

    Raises UserError for a mistake, TrainingError where training fails.
    """
    from cnnbench.config.compose import open_composer
    from cnnbench.store.folder import find_runs, outputs_dir
    from cnnbench.training.plan import plan_run
    from cnnbench.training.trainer import carry_out

    register_everything(plugins)
    with open_composer() as composer:
        composer.add_missing_options()
        plan = replace(plan_run(composer, list(overrides)), plugins=tuple(plugins))
    carry_out(plan)
    return load_run(find_runs(outputs_dir(), plan.config.identity())[-1].path, plugins)
