"""ParseNet: each place sees the mean of the whole image beside its own map, both brought to one length.

Family: fcn
Paper: Liu, Rabinovich, Berg 2016, ParseNet: Looking wider to see better, arXiv:1506.04579

Presets:
    vgg16: on the VGG16 of DeepLab v1: 20,528,981 parameters for 3 channels and 21 classes in 2D.
    tiny: one narrow convolution a stage.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._large_fov import Options, large_fov
from medseg.models._resizing import global_mean
from medseg.models._segmenter import Pick, Segmenter

LENGTH = 10.0  # of each place's values at the beginning, as in the authors' code


class Config(Options):
    """Options of a ParseNet, besides those of `_large_fov.Options`.

    Args:
        stride: of the trunk's last map, 8 or 16.
    """

    stride: Literal[8, 16] = 8


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16, hidden=16, rate=2, dropout=0.1)}


class OneLength(nn.Module):
    """Divides the channels of each place by their Euclidean length, and scales each (section 3.3, equations 1 to 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.scale.view(-1, *[1] * (x.ndim - 2))


class WithGlobal(nn.Module):
    """The map and its mean, which is repeated at every place: joined (figure 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local, self.whole = OneLength(channels), OneLength(channels)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(global_mean(x)).expand_as(x)
        return torch.cat((self.local(x), whole), dim=1)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """DeepLab's VGG, the global mean, scores."""
    dims, hidden = spatial_dims, config.hidden
    trunk, view = large_fov(dims, in_channels, config, config.stride)
    scores = (nn.Conv2d if dims == 2 else nn.Conv3d)(2 * hidden, out_channels, 1)
    head = nn.Sequential(Pick(-1), view, WithGlobal(hidden), scores)
    net = _blocks.initialise(Segmenter(trunk, head))
    nn.init.normal_(scores.weight, std=0.01)  # what it sees is not of variance 1, but of a length
    return net
