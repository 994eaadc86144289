"""Multi-scale guided attention: each scale of a trunk is seen beside all scales together, and attention refines it twice.

Family: u-shape
Paper: Sinha, Dolz 2021, Multi-scale self-guided attention for medical image segmentation, arXiv:1906.02849
Without: torch.compile (blocks of attention are computed again)

The paper's two further losses, which hold encoder and decoder of a guide to what they were given, are not part of a network
and are left out: the guides learn from the masks. Layers that the text leaves open are those of the authors' code.

Presets:
    resnext101: figure 1 over a ResNeXt-101 32x4d, with 64 channels a scale.
    resnet101: over a plain ResNet-101.
    resnet50: the shallower trunk.
    tiny: ResNet-10, narrow, guides of one step down.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import ChannelAttention, PositionAttention
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Output, Positive, Times
from medseg.models._convs import unit
from medseg.models._dilated import OnResNet
from medseg.models._resizing import resize_like
from medseg.models._segmenter import with_auxiliary
from medseg.models._ushape import convs


class Config(OnResNet):
    """Options of a guided attention network, besides those of `_dilated.OnResNet`.

    Args:
        groups: of the trunk's 3x3 convolutions, 1 for a plain ResNet.
        channels: of each scale after the trunk.
        steps: of a guide, down and up; each doubles its channels.
        deep_supervision: in training, the scores of each scale before and after its attention too.
    """

    depth: ResNetDepth = 101
    groups: Positive = 32
    channels: Positive = 64
    steps: Times = 2
    deep_supervision: bool = True


PRESETS = {
    "resnext101": Config(),
    "resnet101": Config(groups=1),
    "resnet50": Config(depth=50, groups=1),
    "tiny": Config(depth=10, width=1 / 16, groups=1, channels=5, steps=1),
}


class Attention(nn.Module):
    """The sum of attention over the voxels and over the channels, each between two convolutions (figure 2)."""

    def __init__(self, dims: int, inputs: int, outputs: int, norm: NormName) -> None:
        super().__init__()
        layer = partial(unit, norm=norm, act=nn.PReLU)
        by_place = PositionAttention(dims, outputs, max(1, outputs // 8))
        self.ways = nn.ModuleList(
            nn.Sequential(layer(dims, inputs, outputs), attend, layer(dims, outputs, outputs))
            for attend in (by_place, ChannelAttention())
        )

    def forward(self, x: Tensor) -> Tensor:
        place, channel = (way(x) for way in self.ways)
        return place + channel


class Refinement(nn.Module):
    """One scale in one round: attention times what it takes of the round's guide (equation 5), mixed by a 1x1 convolution."""

    def __init__(self, dims: int, channels: int, norm: NormName) -> None:
        super().__init__()
        self.attention = Attention(dims, 2 * channels, channels, norm)
        self.guided, self.mix = _blocks.conv(dims, 2 * channels, channels), _blocks.conv(dims, channels, channels, 1)

    def forward(self, seen: Tensor, guide: Tensor) -> Tensor:
        return self.mix(self.attention(seen) * self.guided(guide))


def guide(dims: int, channels: int, steps: int, norm: NormName) -> nn.Sequential:
    """An encoder and a decoder, which all scales of a round share: a map of as many channels, of its size or a little more."""
    widths, down, up = [channels * 2**n for n in range(steps + 1)], nn.Sequential(), nn.Sequential()
    for a, b in pairwise(widths):
        down.extend([convs(dims, a, b, b, norm=norm), _blocks.max_pool(dims)])
    for b, a in pairwise(reversed(widths)):
        up.extend([convs(dims, b, a, a, norm=norm), _blocks.transposed(dims, a, a)])
    return nn.Sequential(down, up)


class GuidedAttentionNet(nn.Module):
    """The network of given parts: the last three have an item for each of the trunk's maps but the stem's, finest first.

    Args:
        trunk: from the image to maps.
        scales: of each map.
        together: of all scales.
        guides: of the rounds.
        rounds: for each round, the scales' refinements.
        before: scores of the scales, or none.
        after: scores of what was refined.
    """

    def __init__(
        self,
        trunk: Trunk,
        scales: Sequence[nn.Module],
        together: nn.Module,
        guides: Sequence[nn.Module],
        rounds: Sequence[Sequence[nn.Module]],
        before: Sequence[nn.Module],
        after: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.trunk, self.scales, self.together = trunk, nn.ModuleList(scales), together
        self.guides, self.rounds = nn.ModuleList(guides), nn.ModuleList(map(nn.ModuleList, rounds))
        self.before, self.after = nn.ModuleList(before), nn.ModuleList(after)

    def forward(self, x: Tensor) -> Tensor | Output:
        _, *maps = self.trunk(x)
        scales = [resize_like(scale(map_), maps[0]) for scale, map_ in zip(self.scales, maps, strict=True)]
        together = self.together(torch.cat(scales, dim=1))
        refined: list[Tensor] = []
        for guiding, refinements in zip(self.guides, self.rounds, strict=True):
            shown = [each * together for each in refined] or [together] * len(scales)
            seen = [torch.cat(both, dim=1) for both in zip(scales, shown, strict=True)]
            refined = [
                refine(each, _blocks.crop_like(guiding(each), each))
                for refine, each in zip(refinements.children(), seen, strict=True)
            ]
        answers = [score(each) for score, each in zip(self.after, refined, strict=True)]
        found = with_auxiliary(resize_like(torch.stack(answers).mean(0), x), self.before, scales)
        return found._replace(auxiliary=(*answers, *found.auxiliary)) if isinstance(found, Output) else found


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A trunk, its four scales and their attention; what is predicted is the mean of the four refined answers."""
    dims, channels, norm = spatial_dims, config.channels, config.norm
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm, groups=config.groups)
    widths = trunk.channels[1:]

    def point(inputs: int) -> nn.Module:
        return unit(dims, inputs, channels, 1, norm=norm, act=nn.PReLU)

    def scores() -> list[nn.Module]:
        return [_blocks.conv(dims, channels, out_channels, 1) for _ in widths]

    together = nn.Sequential(
        unit(dims, len(widths) * channels, channels, norm=norm, act=nn.PReLU),
        unit(dims, channels, channels, norm=norm, act=nn.PReLU),
        point(channels),
    )
    guides = [guide(dims, 2 * channels, config.steps, norm) for _ in range(2)]
    rounds = [[Refinement(dims, channels, norm) for _ in widths] for _ in guides]
    before = scores() if config.deep_supervision else []
    parts = [point(width) for width in widths], together, guides, rounds, before, scores()
    return _blocks.initialise(GuidedAttentionNet(trunk, *parts))
