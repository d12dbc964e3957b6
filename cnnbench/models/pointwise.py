"""A guard against a fault of the library that computes convolutions on processors."""

from torch import Tensor, nn
from torch.nn import functional

SMALLEST_SAFE = 16  # channels: a block of the widest kernels


class SubsampledConv2d(nn.Conv2d):
    """A 1x1 convolution with a stride that leaves pixels out first, which is the same, and then has none."""

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, O, H', W'] of [B, C, H, W]."""
        down, right = self.stride
        return functional.conv2d(images[:, :, ::down, ::right], self.weight, self.bias, groups=self.groups)


def guard_pointwise(network: nn.Module) -> nn.Module:
    """Replace how 1x1 convolutions with a stride and few channels compute; weights and names stay.

    For images with channels last, oneDNN writes past its workspace while it computes the gradient of their weights:
    the process dies, or the gradient is wrong without a word (oneDNN issue 6035; seen with torch 2.15).
    """
    for layer in network.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.kernel_size == (1, 1)
            and layer.stride != (1, 1)
            and layer.padding == (0, 0)
            and layer.in_channels // layer.groups < SMALLEST_SAFE
        ):
            layer.__class__ = SubsampledConv2d
    return network
