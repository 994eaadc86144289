"""DeepLab v1: VGG16 of stride 8, whose first fully connected layer became a dilated 3x3 convolution with a large field of view.

Family: dilated
Paper: Chen, Papandreou, Kokkinos, Murphy, Yuille 2015, Semantic image segmentation with deep convolutional nets and fully connected
    CRFs, arXiv:1412.7062

Presets:
    large_fov: 20,505,429 parameters for 3 channels and 21 classes in 2D. The paper's dense CRF is a step after any network.
    multi_scale: also the image and the maps after the first four poolings are seen by the scores (section 4.2).
    tiny: multi_scale with one narrow convolution a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk
from medseg.models._convs import sliding_max, unit
from medseg.models._large_fov import STRIDE, Options, large_fov
from medseg.models._resizing import resize_like


class Config(Options):
    """Options of a DeepLab v1, besides those of `_large_fov.Options`.

    Args:
        side: channels that the scores see of the image and of each of the first four maps, 0 for none.
    """

    side: Annotated[int, Field(ge=0)] = 0


PRESETS = {
    "large_fov": Config(),
    "multi_scale": Config(side=128),
    "tiny": Config(depth=8, width=1 / 16, hidden=8, rate=2, side=4, dropout=0.1),
}


class DeepLabV1(nn.Module):
    """The network of given parts.

    Args:
        trunk: maps of strides 1, 2, 4, 8 and 8.
        view: of the last map, the convolutions in place of fully connected layers.
        sides: from the image and from the trunk's finest maps to stride 8; none, or one more than there are such maps.
        scores: of all that is seen, joined.
    """

    def __init__(self, trunk: Trunk, view: nn.Module, sides: Sequence[nn.Module], scores: nn.Module) -> None:
        super().__init__()
        self.trunk, self.view, self.scores = trunk, view, scores
        self.sides = nn.ModuleList(sides)

    def forward(self, x: Tensor) -> Tensor:
        *finer, last = self.trunk(x)
        seen = [self.view(last), *(side(each) for side, each in zip(self.sides, (x, *finer), strict=False))]
        return resize_like(self.scores(torch.cat(seen, dim=1)), x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A DeepLab v1 on a VGG of the given depth."""
    dims, side = spatial_dims, config.side
    trunk, view = large_fov(dims, in_channels, config)
    sides = []
    if side:
        sides = [_side(dims, in_channels, side, STRIDE)]
        for inputs, stride in zip(trunk.channels[:-1], trunk.strides[:-1], strict=True):
            step = min(2, STRIDE // stride)
            sides.append(nn.Sequential(sliding_max(dims, step), _side(dims, inputs, side, STRIDE // (stride * step))))
    scores = _blocks.conv(dims, config.hidden + side * len(sides), out_channels, 1)
    return _blocks.initialise(DeepLabV1(trunk, view, sides, scores))


def _side(dims: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        unit(dims, inputs, outputs, 3, stride, norm="none"), unit(dims, outputs, outputs, 1, norm="none")
    )
