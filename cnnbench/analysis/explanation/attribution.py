"""Where a network sees a class: Grad-CAM and saliency, computed by captum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.explanation.activations import convolutions, layers_with_maps
from cnnbench.analysis.explanation.subject import NotPossible, Subject

Score = Callable[[Tensor], Tensor]  # from images [B, C, H, W] to the score of every class, float32 [B, K]


def captum() -> Any:
    """Return the library's attributions. Raises NotPossible where it is not installed."""
    try:
        from captum import attr
    except ImportError as error:
        raise NotPossible("needs a library that is not installed: pip install 'cnnbench[explain]'") from error
    return attr


def gradcam(score: Score, layer: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return how much the maps of a layer speak for a class, everywhere in each image: float32 [N, H, W], at least 0.

    labels: int64 [N], the class for each image. A map counts by the mean of the score's gradient; what speaks against
    the class is left out. Source: Selvaraju et al. 2017, arXiv:1610.02391.
    """
    library = captum()
    explainer = library.LayerGradCam(score, layer)
    # One at a time: what gradients take of memory would be the more, the more images there are.
    found = [
        explainer.attribute(with_grad(image), target=label, relu_attributions=True).detach()
        for image, label in zip(torch.split(images, 1), labels.tolist(), strict=True)
    ]
    enlarged: Tensor = library.LayerAttribution.interpolate(torch.cat(found), tuple(images.shape[2:]), "bilinear")
    return enlarged[:, 0]


def saliency(score: Score, images: Tensor, labels: Tensor) -> Tensor:
    """Return how much each pixel changes the score of a class: the channels' largest |gradient|, float32 [N, H, W].

    labels: int64 [N], the class for each image. Source: Simonyan, Vedaldi, Zisserman 2014, arXiv:1312.6034.
    """
    explainer = captum().Saliency(score)
    found = [
        explainer.attribute(with_grad(image), target=label, abs=True)
        for image, label in zip(torch.split(images, 1), labels.tolist(), strict=True)
    ]
    return torch.cat(found).amax(1)


def with_grad(image: Tensor) -> Tensor:
    """Return a copy of an image that wants a gradient."""
    return image.detach().clone().requires_grad_()


def last_with_maps(subject: Subject) -> str:
    """Return the last convolution with maps of more than one pixel, or what comes after it while they are as large.

    Pooling would only blur them. Raises NotPossible where there is none.
    """
    sizes = layers_with_maps(subject)
    large = [name for name in convolutions(subject) if max(sizes[name]) > 1]
    if not large:
        raise NotPossible("no convolution of the network has maps of more than one pixel")
    found = large[-1]
    for name in list(sizes)[list(sizes).index(found) + 1 :]:
        if sizes[name] == sizes[found]:
            found = name  # a nonlinearity, a block, all blocks
        elif max(sizes[name]) > 1:  # others only weigh the maps
            break
    return found
