"""Windows of many sizes and shapes, resized to the one that the network sees."""

import torch
from pydantic import PositiveInt
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, CropMargin
from cnnbench.augmentation.boxes import BOX_DRAWS, drawn_sides, first_fit
from cnnbench.augmentation.settings import Areas, Factors
from cnnbench.registry import AUGMENTATIONS


@AUGMENTATIONS.register("resized_crop", order=12, excludes=("crop",))
class ResizedCrop(Augmentation):
    """Cut a rectangle of any size and shape out of the image and resize it to the window.

    scale: its share of the image's area. ratio: width / height. side: resized to that first, so that what acts after
    it (a rotation, say) has a margin; the window is the middle; None: to the window. Bilinear, antialiased; drawn as
    torchvision's RandomResizedCrop draws: where ten rectangles in turn do not fit, the largest in the middle is taken.
    Source: Szegedy et al. 2015, arXiv:1409.4842.
    """

    num_draws = BOX_DRAWS
    resizes = True

    def __init__(self, *, scale: Areas, ratio: Factors, side: PositiveInt | None = None) -> None:
        self.scale, self.ratio, self.side = scale, ratio, side

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if self.side is not None and self.side < max(margin.height, margin.width):
            return f"side={self.side} is smaller than the window, {margin.height}x{margin.width}"
        return "takes whole images only; let scale begin below 1" if self.scale[0] == 1 else None

    def resize(self, images: Tensor, draws: Tensor, window: tuple[int, int]) -> Tensor:  # noqa: D102
        window = window if self.side is None else (self.side, self.side)
        height, width = images.shape[2:]
        widths, heights = drawn_sides(draws[:, 2:], self.scale, self.ratio, (height, width))
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        largest = min(height, round(width / self.ratio[0])) or 1, min(width, round(height * self.ratio[1])) or 1
        top, left, tall, wide = first_fit(draws[:, :2], heights, widths, fits, (height, width), largest)
        rows, columns = resizing(top, tall, height, window[0]), resizing(left, wide, width, window[1])
        # Channels last, so that each image is one matrix and not one a channel: two large products for many small ones.
        number, channels, (high, far) = len(images), images.shape[1], window
        lines = rows @ images.permute(0, 2, 3, 1).reshape(number, height, width * channels)
        lines = lines.view(number, high, width, channels).transpose(1, 2).reshape(number, width, high * channels)
        return (columns @ lines).view(number, far, high, channels).permute(0, 3, 2, 1)


def resizing(start: Tensor, length: Tensor, size: int, wanted: int) -> Tensor:
    """Return matrices, float32 [B, wanted, size], that make `wanted` pixels of those from `start` on.

    start, length: int64 [B], in pixels of a line of `size` pixels. A pixel made is a mean of pixels near its place,
    weighted by a triangle as wide as the two next pixels, or as two pixels made where those are farther apart.
    """
    step = (length / wanted).view(-1, 1, 1)
    pixels = torch.arange(size, device=start.device)
    places = start.view(-1, 1, 1) + (torch.arange(wanted, device=start.device).view(-1, 1) + 0.5) * step
    weights = (1 - (pixels + 0.5 - places).abs() / step.clamp(min=1)).clamp(min=0)
    outside = (pixels < start.view(-1, 1, 1)) | (pixels >= (start + length).view(-1, 1, 1))
    weights = weights.masked_fill(outside, 0)
    return weights / weights.sum(2, keepdim=True)
