"""What an augmentation is, to the code that makes batches."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CropMargin:
    """How far a window can move: the image with its padding, less the window; and what the window is like."""

    down: int
    right: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class CropPlacement:
    """Where in its image the window of each sample lies, and how it is turned.

    top, left: int64 [B]. mirrored (left to right), vflipped (top to bottom): bool [B], or None for no.
    """

    top: Tensor
    left: Tensor
    mirrored: Tensor | None = None
    vflipped: Tensor | None = None


class Augmentation:
    """One augmentation with its settings; subclasses override one of `sample_crop`, `resize`, `apply` and `mix`.

    num_draws: uniform numbers that it wants for each sample.
    padding: black pixels that it wants around every image.
    moves: whether it moves the window, which else lies in the middle.
    resizes: whether it makes the window out of the whole image itself.
    changes_pixels: whether it changes pixels.
    mix_probability: of blending a sample with another one of its batch; each sample is blended at most once.
    """

    num_draws = 0
    padding = 0
    moves = False
    resizes = False
    changes_pixels = False
    mix_probability = 0.0

    def is_off(self) -> bool:
        """Tell whether the settings switch it off on purpose (a probability of 0)."""
        return False

    def problem(self, margin: CropMargin) -> str | None:
        """Say why it would change no image at all, or None where it does."""
        return None

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:
        """Return the windows moved. draws: float32 [B, num_draws] in [0, 1)."""
        return placement

    def resize(self, images: Tensor, draws: Tensor, window: tuple[int, int]) -> Tensor:
        """Return windows, float32 [B, C, *window] or larger, of whole images [B, C, H, W]; values in [0, 1]."""
        return images

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the images changed. images: float32 [B, C, H, W] in [0, 1]; the input may be overwritten."""
        return images

    def mix(self, images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return images blended with their partners (float32 [M, C, H, W], normalised), and their own share [M]."""
        return images, images.new_ones(len(images))


class Sometimes(Augmentation):
    """One that changes the pixels of each image with probability p; its first draw decides.

    Subclasses override `change`, or `apply` where it costs less to change nothing in the others.
    """

    changes_pixels = True

    def __init__(self, p: float) -> None:
        self.p = p

    def is_off(self) -> bool:  # noqa: D102
        return self.p == 0

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        rows = (draws[:, 0] < self.p).nonzero()[:, 0]
        if len(rows):
            images[rows] = self.change(images[rows], draws[rows, 1:])
        return images

    def change(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the chosen images changed. draws: float32 [M, num_draws - 1]; images as in `apply`."""
        return images
