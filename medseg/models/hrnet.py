"""HRNet: a trunk that never leaves the fine resolution, and scores of all its streams joined.

Family: pyramid
Paper: Wang, Sun, Cheng, Jiang, Deng, Zhao, Liu, Mu, Tan, Wang, Liu, Xiao 2020, Deep high-resolution representation learning
    for visual recognition, arXiv:1908.07919

Presets:
    w18: 18 channels in the finest stream: 9,641,119 parameters for 3 channels and 19 classes in 2D.
    w18_small_v2: the same streams with few blocks: 3.9 M parameters.
    w18_small_v1: 16 channels and still fewer blocks: 1.5 M parameters.
    w32: 32 channels.
    w48: 48 channels, the paper's for segmentation: 65,859,379 parameters for 19 classes.
    tiny: w18_small_v1, narrow.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import HRNetSize, hrnet
from medseg.models._blocks import NormName, Width
from medseg.models._convs import finished
from medseg.models._pyramids import Join
from medseg.models._segmenter import Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of an HRNet.

    Args:
        trunk: channels of its finest stream.
        width: of all streams, 1 for those in the trunk's name; the head follows.
        norm: after each convolution.
    """

    trunk: HRNetSize = "w18"
    width: Width = 1.0
    norm: NormName = "batch"


PRESETS = {
    "w18": Config(),
    "w18_small_v2": Config(trunk="w18_small_v2"),
    "w18_small_v1": Config(trunk="w18_small_v1"),
    "w32": Config(trunk="w32"),
    "w48": Config(trunk="w48"),
    "tiny": Config(trunk="w18_small_v1", width=1 / 8),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """HRNetV2: four streams, joined at the finest one's size, a 1x1 unit with a bias, scores (figure 4 b)."""
    dims = spatial_dims
    trunk = hrnet(dims, in_channels, config.trunk, width=config.width, norm=config.norm)
    total = sum(trunk.channels)
    mixed = finished(_blocks.conv(dims, total, total, 1), total, config.norm)
    head = nn.Sequential(Join(), mixed, _blocks.conv(dims, total, out_channels, 1))
    return _blocks.initialise(Segmenter(trunk, head))
