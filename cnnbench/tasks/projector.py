"""Embeddings in files: for TensorBoard's projector, and as arrays."""

import re
import shutil
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.data.loader import Batch, Batches
from cnnbench.errors import writing_to
from cnnbench.store.files import check_writable, make_folder, write_atomically
from cnnbench.tasks.context import EvalContext

LARGEST_SPRITE = 8192  # side of the picture that holds the images of all points; browsers take no larger one


def write_embeddings(context: EvalContext, embeddings: Tensor, labels: Tensor) -> None:
    """Write embeddings of the held-out split, float32 [N, D], for TensorBoard's projector, with images and classes."""
    from torch.utils.tensorboard import SummaryWriter

    split = context.held_out
    folder = context.folder / "embeddings" / (split if split == "test" else f"{split}-epoch-{context.epoch:04}")
    with writing_to(folder):
        if folder.exists():  # of the same epoch, before the run was interrupted
            shutil.rmtree(folder)
    check_writable(folder)  # else the writer would find out in a thread of its own, and end that with a traceback
    images = thumbnails(context, context.splits[split])
    images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    rounded = np.round(embeddings.double().numpy(), 4)  # as text they would take three times the space otherwise
    with writing_to(folder):
        # A writer for each: a second one for the same folder does not know what the first has written.
        writer = SummaryWriter(str(folder))
        writer.add_embedding(rounded, class_names(labels, context.data.spec.classes), images, tag="codes")
        writer.close()


def thumbnails(context: EvalContext, batches: Batches) -> Tensor:
    """Return square images of a whole split, small enough to fit into one sprite, float32 [N, C, S, S] in [0, 1]."""
    longest = max(context.data.spec.height, context.data.spec.width)
    side = max(1, min(longest, LARGEST_SPRITE // max(1, int(np.ceil(len(batches) ** 0.5)))))

    def shrink(_network: nn.Module, batch: Batch) -> Tensor:
        images = context.pixels(batch.images)
        if images.shape[2:] == (side, side):
            return images
        return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)

    return context.map_batches(batches, shrink)


def class_names(labels: Tensor, classes: Sequence[str]) -> list[str]:
    """Return the class of each label, without what ends a line or a column of a table."""
    return [re.sub(r"\s", " ", classes[label]) for label in labels.tolist()]


def save_arrays(folder: Path, embeddings: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    """Save embeddings, float32 [N, D], labels, int64 [N], and the names of classes: `embeddings/test.npz`."""
    path = folder / "embeddings" / "test.npz"
    make_folder(path.parent)
    content = BytesIO()
    np.savez_compressed(content, codes=embeddings.numpy(), labels=labels.numpy(), classes=np.array(classes))
    write_atomically(path, content.getvalue())
