"""Where a network sees a class: Grad-CAM and saliency, computed by captum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.explanation.layers import NotPossible, convolutions, layers_with_maps

Score = Callable[[Tensor], Tensor]  # from images [B, C, H, W] to the score of every class, float32 [B, K]


def captum() -> Any:
    """Return captum's attributions. Raises NotPossible if it is not installed."""
    try:
        from captum import attr
    except ImportError as error:
        raise NotPossible("needs a library that is not installed: pip install 'cnnbench[explain]'") from error
    return attr


def gradcam(score: Score, layer: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return how much the maps of a layer support a class, everywhere in each image: float32 [N, H, W], at least 0.

    labels: int64 [N], the class for each image. A map is weighted by the mean of the score's gradient; evidence
    against the class is left out. Source: Selvaraju et al. 2017, arXiv:1610.02391.
    """
    library = captum()
    explainer = library.LayerGradCam(score, layer)
    # One at a time: the memory of gradients grows with the number of images.
    maps = [
        explainer.attribute(_with_grad(image), target=label, relu_attributions=True).detach()
        for image, label in zip(torch.split(images, 1), labels.tolist(), strict=True)
    ]
    enlarged: Tensor = library.LayerAttribution.interpolate(torch.cat(maps), tuple(images.shape[2:]), "bilinear")
    return enlarged[:, 0]


def saliency(score: Score, images: Tensor, labels: Tensor) -> Tensor:
    """Return how much each pixel changes the score of a class: the channels' largest |gradient|, float32 [N, H, W].

    labels: int64 [N], the class for each image. Source: Simonyan, Vedaldi, Zisserman 2014, arXiv:1312.6034.
    """
    explainer = captum().Saliency(score)
    gradients = [
        explainer.attribute(_with_grad(image), target=label, abs=True)
        for image, label in zip(torch.split(images, 1), labels.tolist(), strict=True)
    ]
    return torch.cat(gradients).amax(1)


def _with_grad(image: Tensor) -> Tensor:
    return image.detach().clone().requires_grad_()


def last_with_maps(network: nn.Module, image: Tensor) -> str:
    """Return the last convolution with maps of more than one pixel, or the last layer after it with maps as large.

    Pooling would only blur them. Raises NotPossible if there is none. image: float32 [1, C, H, W].
    """
    sizes = layers_with_maps(network, image)
    large = [name for name in convolutions(network, image) if max(sizes[name]) > 1]
    if not large:
        raise NotPossible("no convolution of the network has maps of more than one pixel")
    last = large[-1]
    for name in list(sizes)[list(sizes).index(last) + 1 :]:
        if sizes[name] == sizes[last]:
            last = name  # a nonlinearity, a block, all blocks
        elif max(sizes[name]) > 1:  # maps of one pixel only weigh the others, as in squeeze-and-excitation
            break
    return last
