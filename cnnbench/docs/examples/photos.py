# photos.py
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from cnnbench.data.images import ImageData, Images
from cnnbench.errors import UserError
from cnnbench.registry import DATASETS


@DATASETS.register("photos")
def photos(root: Path, *, folder: str = "photos", side: int = 32):
    """Photographs in one folder, the class in front of each name: cat_1.jpg, dog_1.jpg."""
    files = sorted((root / folder).glob("*_*.jpg"))
    if not files:
        raise UserError(f"{root / folder}: there are no files like cat_1.jpg.")
    names = [file.name.partition("_")[0] for file in files]
    classes = tuple(sorted(set(names)))
    pixels = [pil_to_tensor(Image.open(file).convert("RGB").resize((side, side))) for file in files]
    images = Images(torch.stack(pixels), torch.tensor([classes.index(name) for name in names]))
    rows = torch.arange(len(files))
    train, test = rows[rows % 5 != 0], rows[rows % 5 == 0]  # every fifth is a test image
    return ImageData(images[train], images[test], classes, rows=(train, test), draws_test=True)
