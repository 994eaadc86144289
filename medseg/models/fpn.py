"""Semantic FPN: a feature pyramid, each map of which goes up by steps to the finest; their sum makes the scores.

Family: pyramid
Paper: Kirillov, Girshick, He, Dollár 2019, Panoptic feature pyramid networks, arXiv:1901.02446

Presets:
    resnet50: ResNet-50, 256 channels in the pyramid and 128 on the way up: 28,478,675 parameters for 3 channels and 19 classes
        in 2D.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import resnet
from medseg.models._blocks import Positive
from medseg.models._convs import unit
from medseg.models._dilated import OnResNet
from medseg.models._pyramids import FeaturePyramid
from medseg.models._resizing import resize_like
from medseg.models._segmenter import Segmenter


class Config(OnResNet):
    """Options of a semantic FPN, besides those of `_dilated.OnResNet`.

    Args:
        channels: of the pyramid's maps; half of them on the way up.
        norm: after each convolution of the trunk and of the way up, where the paper has "group".
    """

    channels: Positive = 256


PRESETS = {"resnet50": Config(), "resnet101": Config(depth=101), "tiny": Config(depth=10, width=1 / 13, channels=10)}


class Ascent(nn.Module):
    """The sum of all maps at the size of the finest; each goes there in steps of 2, after a part of its path each (figure 3)."""

    def __init__(self, paths: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(nn.ModuleList(path) for path in paths)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        arrived = []
        for level, path in enumerate(self.paths):
            x = maps[level]
            for step, part in enumerate(path.children(), start=1):
                x = resize_like(part(x), maps[max(level - step, 0)])
            arrived.append(x)
        return sum(arrived[1:], arrived[0])


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet, a feature pyramid of its maps of strides 4 to 32, the way up, scores."""
    dims, norm, wide, narrow = spatial_dims, config.norm, config.channels, max(config.channels // 2, 1)
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm)
    laterals = [_blocks.conv(dims, channels, wide, 1) for channels in trunk.channels[1:]]
    smoothing = [_blocks.conv(dims, wide, wide) for _ in laterals]
    paths = [
        [unit(dims, narrow if step else wide, narrow, norm=norm) for step in range(max(level, 1))]
        for level in range(len(laterals))
    ]
    scores = _blocks.conv(dims, narrow, out_channels, 1)
    return _blocks.initialise(
        Segmenter(trunk, nn.Sequential(FeaturePyramid(laterals, smoothing), Ascent(paths), scores))
    )
