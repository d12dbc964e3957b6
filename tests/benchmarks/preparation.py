"""What a batch costs before the network sees it: images in memory by augmentation, photographs by their source."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from timing import Works, synchronize, take_turns

from cnnbench.data.cache import decode_photographs
from cnnbench.data.folders import image_folder
from cnnbench.data.images import DataSpec, Images, Photographs, Pixels
from cnnbench.data.loader import Batches
from cnnbench.registry import AUGMENTATIONS, Selection

CPU = torch.device("cpu")
STEPS = 8
RECTANGLES: dict[str, Any] = {"scale": [0.02, 0.33], "ratio": [0.3, 3.3]}
AUGMENTED: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {  # name -> crop, settings of each part
    "gather and normalise only": (32, {}),
    "crop": (28, {"crop": {}}),
    "crop, padding 4": (32, {"crop": {"padding": 4}}),
    "resized_crop": (32, {"resized_crop": {"scale": [0.25, 1.0], "ratio": [0.75, 1.3333]}}),
    "flip": (32, {"flip": {"p": 0.5}}),
    "crop and flip": (28, {"crop": {}, "flip": {"p": 0.5}}),
    "vertical_flip": (32, {"vertical_flip": {"p": 0.5}}),
    "rotation": (32, {"rotation": {"degrees": 15.0}}),
    "affine, all of it": (32, {"affine": {"degrees": 10.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0}}),
    "trivial": (32, {"trivial": {}}),
    "jitter, the first three 0.2": (32, {"jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}}),
    "jitter, hue 0.05": (32, {"jitter": {"hue": 0.05}}),
    "grayscale, of all": (32, {"grayscale": {"p": 1.0}}),
    "blur, 5x5, of all": (32, {"blur": {"sigma": [0.5, 1.5], "kernel_size": 5, "p": 1.0}}),
    "noise, of all": (32, {"noise": {"std": 0.05, "p": 1.0}}),
    "erasing, of all": (32, {"erasing": {"p": 1.0, **RECTANGLES, "value": 0.0}}),
    "erasing, of all, with noise": (32, {"erasing": {"p": 1.0, **RECTANGLES, "value": "random"}}),
    "cutout, of all": (32, {"cutout": {"size": 8, "p": 1.0}}),
    "mixup, of all": (32, {"mixup": {"p": 1.0, "alpha": 0.2}}),
    "cutmix, of all": (32, {"cutmix": {"p": 1.0, "alpha": 1.0}}),
}
PHOTOGRAPHS = {  # 224x224 of images whose shorter side has 256
    "crop, flip": {"crop": {}, "flip": {"p": 0.5}},
    "resized_crop, flip": {"resized_crop": AUGMENTED["resized_crop"][1]["resized_crop"], "flip": {"p": 0.5}},
}


def report_augmentations(rounds: int, device: torch.device = CPU) -> None:
    """Print what a batch costs, the draws of its augmentations included."""
    size = 1024
    pixels, order = torch.randint(256, (STEPS * size, 3, 32, 32), dtype=torch.uint8), torch.randperm(STEPS * size)
    works: Works = {
        name: partial(make_all, batches_of(pixels, crop, parts, device), order, size)
        for name, (crop, parts) in AUGMENTED.items()
    }
    print(f"\n## Preparing a batch of {size} from 3x32x32\n\n| | crop | ms, median |\n|---|---:|---:|")
    for name, spent in take_turns(works, rounds).items():
        print(f"| {name} | {AUGMENTED[name][0]} | {1000 * median(spent) / STEPS:.2f} |", flush=True)


def report_photographs(rounds: int, folder: Path) -> None:
    """Print what an image of a batch costs: kept decoded, as squares or whole pictures, and decoded again."""
    data = image_folder(folder, folder=str(folder), test_fraction=0.2, fit="crop")
    photographs, size = data.train.pixels, 32
    assert isinstance(photographs, Photographs)
    sources = {"kept, squares": {}, "kept, whole": {"fit": "whole"}, "decoded again": {"cache": False}}
    decoded = {name: decode_photographs(replace(photographs, **one), 256, 3)[0] for name, one in sources.items()}
    order = torch.arange(len(photographs))
    works: Works = {
        f"{augmentation} | {source}": partial(make_all, batches_of(pixels, 224, parts), order, size)
        for augmentation, parts in PHOTOGRAPHS.items()
        for source, pixels in decoded.items()
    }
    print(
        f"\n## Preparing photographs, {size} in a batch\n\n| 224x224 | images | ms an image, median |\n|---|---|---:|"
    )
    for name, spent in take_turns(works, rounds).items():
        print(f"| {name} | {1000 * median(spent) / len(order):.2f} |", flush=True)


def batches_of(pixels: Pixels, crop: int, parts: Mapping[str, dict[str, Any]], device: torch.device = CPU) -> Batches:
    images = Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))
    augmentations = {part: AUGMENTATIONS.build(Selection(part, values)) for part, values in parts.items()}
    return Batches(images, DataSpec(3, crop, crop, ("one",)), (0.5,) * 3, (0.25,) * 3, device, augmentations)


def make_all(batches: Batches, order: torch.Tensor, size: int) -> None:
    deque(batches.epoch(order, size), maxlen=0)
    synchronize(batches.device)


def make_photographs(folder: Path, number: int = 320, seed: int = 0) -> None:
    """Save images of smooth colours, 500x375 pixels, as JPEG in two class folders."""
    draws = torch.Generator().manual_seed(seed)
    for index in range(number):
        coarse = torch.rand(1, 3, 24, 32, generator=draws)
        pixels = torch.nn.functional.interpolate(coarse, (375, 500), mode="bicubic").clamp(0, 1).mul(255).byte()
        path = folder / str(index % 2) / f"{index:05d}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels[0].permute(1, 2, 0).contiguous().numpy()).save(path, quality=90)
