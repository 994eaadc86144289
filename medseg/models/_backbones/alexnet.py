"""AlexNet: five convolutions, the first two with large kernels.

Krizhevsky, Sutskever, Hinton 2012, ImageNet classification with deep convolutional neural networks, NeurIPS, figure 2: the
second, fourth and fifth see the half of the channels that lay on the same GPU.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones._trunk import Trunk, scaled
from medseg.models._convs import relu, sliding_max


def alexnet(dims: int, inputs: int, *, width: float = 1.0) -> Trunk:
    """Three maps before the poolings, of strides 4, 8 and 16. The width is 1 for 96 to 384 channels."""
    a, b, c = (2 * scaled(channels // 2, width) for channels in (96, 256, 384))  # two groups: even numbers

    def layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
        return nn.Sequential(_blocks.conv(dims, inputs, outputs, kernel, stride, groups=groups), relu())

    def pool() -> nn.Module:
        return sliding_max(dims, 2)

    rivals = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)  # section 3.3
    stages = [
        layer(inputs, a, 11, 4),
        nn.Sequential(rivals, pool(), layer(a, b, 5, groups=2)),
        nn.Sequential(rivals, pool(), layer(b, c, 3), layer(c, c, 3, groups=2), layer(c, b, 3, groups=2)),
    ]
    return Trunk(stages, (a, b, b), (4, 8, 16))
