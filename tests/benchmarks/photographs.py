"""What photographs cost a batch: `python tests/benchmarks/photographs.py [FOLDER]`.

Kept decoded, with windows of their squares or of whole pictures, and decoded again: by turns in one process, over the
same images in the same order. FOLDER: one folder a class; without it images of 500x375 pixels are generated and saved
as JPEG.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # what the command does

import torch
from PIL import Image

from cnnbench.data.cache import decode_photographs
from cnnbench.data.folders import image_folder
from cnnbench.data.images import DataSpec, Images, Photographs
from cnnbench.data.loader import Batches
from cnnbench.plugins import register_everything
from cnnbench.registry import AUGMENTATIONS, Selection

BATCH = 32


def make(folder: Path, number: int) -> None:
    """Save images of smooth colours in two class folders."""
    draws = torch.Generator().manual_seed(0)
    for index in range(number):
        coarse = torch.rand(1, 3, 24, 32, generator=draws)
        pixels = torch.nn.functional.interpolate(coarse, (375, 500), mode="bicubic").clamp(0, 1).mul(255).byte()
        path = folder / str(index % 2) / f"{index:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[0].permute(1, 2, 0).contiguous().numpy()).save(path, quality=90)


def seconds_an_image(batches: Batches, epoch: int) -> float:
    """Return how long an image of a batch takes on average."""
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(epoch))
    began = time.perf_counter()
    for _ in batches.epoch(order, BATCH, epoch):
        pass
    return (time.perf_counter() - began) / len(batches)


def main() -> None:
    """Measure all by turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    register_everything()
    with tempfile.TemporaryDirectory() as scratch:
        folder = flags.folder
        if folder is None:
            folder = Path(scratch, "synthetic")
            folder.mkdir()
            make(folder, flags.images)
        data = image_folder(folder, folder=str(folder), test_fraction=0.2, fit="crop")
        photographs = data.train[torch.arange(min(len(data.train), flags.images))].pixels
        assert isinstance(photographs, Photographs)
        began = time.perf_counter()
        kept, *_ = decode_photographs(photographs, 256, 3)
        print(f"{len(photographs)} images decoded into the cache in {time.perf_counter() - began:.1f} s")
        whole, *_ = decode_photographs(dataclasses.replace(photographs, fit="whole"), 256, 3)
        again, *_ = decode_photographs(dataclasses.replace(photographs, cache=False), 256, 3)
        augmentations = {
            "crop": {"crop": {"padding": 0}, "flip": {"p": 0.5}},
            "resized_crop": {"resized_crop": {"scale": [0.25, 1.0], "ratio": [0.75, 1.3333]}, "flip": {"p": 0.5}},
        }
        spec, labels = DataSpec(3, 224, 224, data.classes), torch.zeros(len(photographs), dtype=torch.int64)
        sources = {"kept": kept, "kept, whole": whole, "decoded again": again}
        every = {
            f"{name}, {source}": Batches(
                Images(pixels, labels),
                spec,
                (0.5,) * 3,
                (0.25,) * 3,
                torch.device("cpu"),
                {part: AUGMENTATIONS.build(Selection(part, settings)) for part, settings in parts.items()},
            )
            for name, parts in augmentations.items()
            for source, pixels in sources.items()
        }
        rounds = [
            {name: seconds_an_image(part, epoch) for name, part in every.items()} for epoch in range(flags.rounds)
        ]
    for name in every:
        print(f"{name:<28} {1e3 * median(row[name] for row in rounds):8.3f} ms an image (median of {flags.rounds})")


if __name__ == "__main__":
    main()
