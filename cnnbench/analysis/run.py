"""A run opened from its folder: its settings, its result, its data and its network."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.checkpoints import Checkpoint, content_of, validations_of, warn_once
from cnnbench.config.run_config import RunConfig
from cnnbench.config.values import Words, as_words
from cnnbench.data.decode import decode
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batch, Batches
from cnnbench.data.prepare import read_anew
from cnnbench.errors import UserError
from cnnbench.models.build import build_network
from cnnbench.plugins import imported
from cnnbench.registry import TASKS
from cnnbench.store import checkpoint
from cnnbench.store.files import read_rows
from cnnbench.store.folder import RunFolder
from cnnbench.store.provenance import changed_names, plugin_hashes, typed_code
from cnnbench.store.query import RunSummary
from cnnbench.tasks.base import Task
from cnnbench.training.leaks import prepare_unchanged
from cnnbench.training.setup import DEFAULT_THREADS, TrainingSetup, find_device, set_up_torch, setup
from cnnbench.training.state import restore
from cnnbench.training.step import map_images
from cnnbench.training.torch_state import borrowed_torch

if TYPE_CHECKING:
    import pandas as pd

    from cnnbench.analysis.explanation.pictures import Explanation
    from cnnbench.analysis.predict import Pictures
    from cnnbench.tasks.evaluation import EvalReport

Step = Callable[[nn.Module, Batch], Tensor]
"""What to compute of a batch with a network: a row for each image."""
CPU = torch.device("cpu")


class Run:
    """One training, opened by `cnnbench.load_run`; each part is read or built when it is first used."""

    def __init__(self, folder: RunFolder, config: RunConfig, plugins: Sequence[ModuleType] = ()) -> None:
        self._folder, self.plugins = folder, plugins
        self.config = config

    def __repr__(self) -> str:
        status = self.record.get("status") if self.path.is_dir() else "removed"
        return f"Run({str(self.path)!r}, {status})"

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str | None:
        from cnnbench.analysis.notebook import run_as_html

        return run_as_html(self.folder) if self.path.is_dir() else None

    @property
    def path(self) -> Path:
        """Return the run folder."""
        return self._folder.path

    @property
    def folder(self) -> RunFolder:
        """Return the files of the run. Raises UserError where they are not there any more."""
        if not self.path.is_dir():
            raise UserError(f"{self.path}: this run folder was removed or renamed.")
        return self._folder

    @property
    def record(self) -> dict[str, Any]:
        """Return the content of `run.json`: status, times, versions, machine, data."""
        return self.folder.record()

    @property
    def result(self) -> dict[str, Any]:
        """Return the content of `result.json`. Raises UserError if the run is not finished."""
        if not self.folder.is_completed:
            raise UserError(f"{self.path} is not finished yet; its status is {self.record.get('status')}.")
        return self.folder.result()

    @property
    def metrics(self) -> "pd.DataFrame":
        """Return the rows of `metrics.jsonl`, of steps and of epochs: columns row, epoch, step, loss/train, …"""
        import pandas as pd

        return pd.DataFrame(list(read_rows(self.folder.metrics_file)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, by label."""
        return tuple(self.record["data"]["classes"])

    @cached_property
    def spec(self) -> DataSpec:
        """Return what the network was built for: channels, height and width after cropping, and classes."""
        channels, height, width = self.record["data"]["window"]
        counts = self.folder.split()["images_per_class"]["train"]
        return DataSpec(channels, height, width, self.classes, tuple(counts))

    @cached_property
    def task(self) -> Task:
        """Return the task of the training."""
        task: Task = TASKS.build(self.config.objective(), spec=self.spec)
        return task

    # The network ------------------------------------------------------------------------------------------------------

    @property
    def tested(self) -> str:
        """Return which checkpoint the result is of, or would be: `best`, `average` or `last`."""
        summary = RunSummary(self.folder.path)
        with suppress(UserError):  # where the result was changed, the configuration says it as well
            if summary.is_finished:
                return summary.checkpoint_tested
        has_best = content_of(self.folder, "last")["best"] is not None
        best = "best" if self.config.checkpoint.average is None else "average"
        return best if self.config.tested == "best" and has_best else "last"

    def resolve(self, which: Checkpoint) -> Checkpoint:
        """Return the one that was tested for `tested`, and any other checkpoint as it is."""
        return self.tested if which == "tested" else which

    @cached_property
    def changed_plugins(self) -> list[str]:
        """Return the names of the plugins of the training that are other code now, or are not given."""
        code = self.record.get("code", {})
        before = {name: hashed for name, hashed in code.items() if not name.startswith("cnnbench/")}
        now = plugin_hashes([*self.plugins, *imported()]) | typed_code(self.config)
        others = sorted({one.file for one in self.config.components() if one.is_from_plugin} - before.keys())
        lost = f"not given, but {', '.join(others)}" if others else "not given"
        return [name if name in now else f"{name} ({lost})" for name in changed_names(before, now) if name in before]

    @borrowed_torch()
    def model(self, which: Checkpoint = "tested") -> nn.Module:
        """Return the network with the weights of a checkpoint (averaged ones, if the run averages weights).

        It is on the CPU and in evaluation mode. Raises UserError if there is no such checkpoint.
        """
        which = self.resolve(which)
        if self.changed_plugins:
            names = ", ".join(self.changed_plugins)
            warn_once(f"{self.folder.shown_path}: {names} changed since the training; the code as it is now is used")
        content = content_of(self.folder, which)
        kept = validations_of(self.folder, self.config.checkpoint, content, which)
        if which == "average":
            with checkpoint.fitting(self.folder.checkpoints):
                states = [one["weights"] for one in kept]
                return self.training.averaged(states, max(one["step"] for one in kept)).cpu().eval()
        if kept:
            weights = kept[0]["weights"]
        elif self.config.regularization.average.kind != "none":  # batch norm may have to be measured again on images
            with checkpoint.fitting(self.folder.checkpoints):
                progress = restore(self.training, content)
            return self.training.evaluated(progress.step).cpu().eval()
        else:
            weights = content["network"]
        spec = replace(self.spec, outputs=self.task.num_outputs)
        network = build_network(self.config.network(), spec, self.config.head, self.task)
        with checkpoint.fitting(self.folder.checkpoints):
            network.load_state_dict(weights)
        return network.to(memory_format=torch.channels_last).eval()

    def epoch_of(self, which: Checkpoint = "tested") -> int:
        """Return the epoch of a checkpoint, counted from 1; 0 before the end of the first."""
        which = self.resolve(which)
        content = content_of(self.folder, which)
        kept = validations_of(self.folder, self.config.checkpoint, content, which)
        with checkpoint.fitting(self.folder.checkpoints):
            return int(max(one["epoch"] for one in kept) if kept else content["progress"]["epochs_done"])

    # Its data ---------------------------------------------------------------------------------------------------------

    @cached_property
    @borrowed_torch()
    def training(self) -> TrainingSetup:
        """Return the setup of the training, with its data, as before its first step, on the CPU.

        Raises UserError if the data or their split have changed since.
        """
        on_cpu = {"device": "cpu", "precision": "fp32"}  # tf32 and fp16 are a GPU's; nothing is trained here
        return setup(self.config.model_copy(update=on_cpu), prepared=partial(prepare_unchanged, self.folder))

    def data(self, split: str = "test") -> Images:
        """Return the images of a split before cropping: pixels, uint8 [N, C, H, W], by `.take(rows)`, and `.labels`."""
        if split not in ("train", "val", "test"):
            raise UserError(f"'{split}' is not a split; there are train, val and test.")
        images: Images = getattr(self.training.data, split)
        return images

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Return channels, height and width of the images before cropping.

        Raises UserError for a run of an older version that did not record them, where its data are needed and missing.
        """
        recorded, config = self.record["data"].get("size"), self.config.data
        if recorded:
            return recorded[0], recorded[1], recorded[2]
        if config.crop is None:
            return self.spec.channels, self.spec.height, self.spec.width
        if config.image_size:
            return self.spec.channels, config.image_size, config.image_size
        return self.data("test").size

    @property
    def fit(self) -> str:
        """Return how an image file is made square: `crop` or `stretch`, see `decode`."""
        return "stretch" if self.config.data.settings.get("fit") == "stretch" else "crop"

    def decode(self, path: Path) -> Tensor:
        """Return the pixels of an image file, uint8 [C, side, side], as in the training. Raises Undecodable."""
        channels, _, side = self.size
        data = self.config.data
        return decode(path, side, channels, self.fit, data.bits, data.interpolation).permute(2, 0, 1)

    def batches(self, split: str = "test") -> Batches:
        """Return the batches of a split as the network sees them, without augmentation."""
        return self.batches_of(self.data(split))

    def batches_of(self, images: Tensor | Images, device: torch.device = CPU) -> Batches:
        """Return images before cropping, uint8 [N, C, H, W], as the network sees them."""
        if isinstance(images, Tensor):
            images = Images(images, torch.zeros(len(images), dtype=torch.int64))
        data = self.record["data"]
        mean, std = tuple(data["mean"]), tuple(data["std"])
        return Batches(images, self.spec, mean, std, device, seed=self.config.seed)

    # Both together ----------------------------------------------------------------------------------------------------

    def map(self, network: nn.Module, batches: Batches, step: Step) -> Tensor:
        """Return what a step computes of every image with a network of the run, float32 [N, …], on the CPU.

        step: from the network and a batch to one tensor with a row for each image. Raises UserError for anything else.
        """
        return map_images(network, batches, step, self.config)

    def predict(self, images: "Pictures", which: Checkpoint | nn.Module = "tested") -> Tensor:
        """Return the probability of each class, float32 [N, K].

        images: image files and folders; or pixels before cropping, like those of `data`, uint8 [N, C, H, W]. which: a
        checkpoint, or a network from `model`. Raises UserError if the task does not predict classes.
        """
        from cnnbench.analysis.predict import pixels_of

        scores = self.task.scores
        if scores is None:
            way = "run.map(run.model(), run.batches(), …) returns what the network does: cnnbench help python"
            raise UserError(f"{self.path}: task {self.config.task.name} does not predict classes; in Python, {way}.")
        network = which if isinstance(which, nn.Module) else self.model(which)
        batches = self.batches_of(pixels_of(self, images))
        return self.map(network, batches, lambda network, batch: scores(network(batch.images)).softmax(1))

    # As the commands do -----------------------------------------------------------------------------------------------

    @borrowed_torch()
    def evaluate(
        self, split: str = "test", which: Checkpoint = "tested", data: Words = (), calibrate: bool = False
    ) -> "EvalReport":
        """Return metrics, tables and figures of the network on a split, as `cnnbench evaluate`.

        data: other images, as words: `"image_folder data.folder=photos"`. calibrate: `.calibrated` is the same with a
        temperature, fitted on validation. `.write(FOLDER)` makes files of it.
        """
        from cnnbench.analysis.evaluate import evaluate_and_record

        if data:
            read_anew()
        return evaluate_and_record(self, split, self.resolve(which), as_words(data, {}), calibrate)

    @borrowed_torch()
    def explain(self, images: str | Path | Sequence[str | Path] = (), **options: Any) -> "Explanation":
        """Return figures of what the network looks at, as `cnnbench explain`: a notebook shows them.

        images: files and folders. options: what="gradcam,kernels", split, index, which, layer, filter, label.
        """
        from cnnbench.analysis.explanation.pictures import explain_run

        return explain_run(self, images, **options)

    @borrowed_torch()
    def export(self, form: str, out: str | Path | None = None, which: Checkpoint = "tested") -> Path:
        """Write the network as `onnx`, `torch_export` or `safetensors`, as `cnnbench export`, and return the file."""
        from cnnbench.analysis.export.formats import usable
        from cnnbench.analysis.export.verified import export_run

        return export_run(self, self.resolve(which), usable(form), None if out is None else Path(out)).path

    def report(self) -> Path:
        """Write the page of the run again, as `cnnbench report`, and return its file."""
        from cnnbench.analysis.reports.single import page_of

        return page_of(self.folder).write(self.path)

    def prepare_device(self) -> torch.device:
        """Set up arithmetic as in the training (threads, precision), and return the device that is available for it."""
        name = "auto" if self.config.device.startswith("cuda") else self.config.device
        device = find_device(self.config.model_copy(update={"device": name, "precision": "fp32"}))
        set_up_torch(device, self.config, self.record.get("threads") or DEFAULT_THREADS)
        return device
