"""UPerNet: a feature pyramid whose coarsest map begins with pyramid pooling, and scores of all its maps joined.

Family: pyramid
Paper: Xiao, Liu, Zhou, Jiang, Sun 2018, Unified perceptual parsing for scene understanding, arXiv:1807.10221

Presets:
    resnet50: ResNet-50 of stride 32 with its plain 7x7 stem, 512 channels: with the auxiliary head 66,496,876 parameters for
        3 channels and 150 classes in 2D.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride
from medseg.models._blocks import Positive
from medseg.models._context import PyramidPooling
from medseg.models._convs import unit
from medseg.models._dilated import Options, dilated_resnet
from medseg.models._pyramids import FeaturePyramid, Join
from medseg.models._segmenter import segmenter


class Config(Options):
    """Options of a UPerNet, besides those of `_dilated.Options`.

    Args:
        channels: of the pyramid's maps.
        bins: elements an axis of the grids over which means are taken.
        dropout: share of values dropped before the scores, 0 to 1.
    """

    stride: OutputStride = 32
    channels: Positive = 512
    bins: tuple[Positive, ...] = (1, 2, 3, 6)


PRESETS = {"resnet50": Config(), "resnet101": Config(depth=101), "tiny": Config(depth=10, width=1 / 13, channels=10)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet, a feature pyramid of its maps of strides 4 to 32, all joined at stride 4, scores (figure 4)."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config)
    _, *finer, last = trunk.channels
    pooling = PyramidPooling(dims, last, config.bins, norm=norm, width=width)
    coarsest = nn.Sequential(pooling, unit(dims, pooling.outputs, width, norm=norm))
    laterals = [*(unit(dims, channels, width, 1, norm=norm) for channels in finer), coarsest]
    head = nn.Sequential(
        FeaturePyramid(laterals, [unit(dims, width, width, norm=norm) for _ in finer]),
        Join(),
        unit(dims, width * len(laterals), width, norm=norm),
        nn.Dropout(config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
