"""Multi-scale guided attention: each scale of a trunk is seen beside all scales together, and attention refines it twice.

Family: u-shape
Paper: Sinha, Dolz 2021, Multi-scale self-guided attention for medical image segmentation, arXiv:1906.02849
Without: torch.compile (blocks of attention are computed again)

The paper's two further losses, which hold encoder and decoder of the guide to what they were given, are not part of a network
and are left out: the guide learns from the masks.

Presets:
    resnet101: figure 1 over a plain ResNet-101, where the paper's has grouped convolutions, with 64 channels a scale.
    resnet50: the shallower trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import ChannelAttention, PositionAttention
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Output, Positive, Width
from medseg.models._convs import unit
from medseg.models._resizing import resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a guided attention network.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        channels: of each scale after the trunk.
        norm: normalisation after each convolution.
        deep_supervision: in training, the scores of each scale before and after its attention too.
    """

    depth: ResNetDepth = 101
    width: Width = 1.0
    channels: Positive = 64
    norm: NormName = "batch"
    deep_supervision: bool = True


PRESETS = {"resnet101": Config(), "resnet50": Config(depth=50), "tiny": Config(depth=10, width=1 / 16, channels=6)}


class Attention(nn.Module):
    """The sum of attention over the voxels and over the channels, each between two convolutions (figure 2)."""

    def __init__(self, dims: int, inputs: int, outputs: int, norm: NormName) -> None:
        super().__init__()
        by_place = PositionAttention(dims, outputs, max(1, outputs // 8))
        self.ways = nn.ModuleList(
            nn.Sequential(unit(dims, inputs, outputs, norm=norm), attend, unit(dims, outputs, outputs, norm=norm))
            for attend in (by_place, ChannelAttention())
        )

    def forward(self, x: Tensor) -> Tensor:
        place, channel = (way(x) for way in self.ways)
        return place + channel


class Guided(nn.Module):
    """Two rounds of attention, each multiplied by what an encoder and decoder make of its input (equation 5).

    Args:
        dims: spatial axes.
        channels: of a scale, and of all scales together.
        norm: normalisation after each convolution.
    """

    def __init__(self, dims: int, channels: int, norm: NormName) -> None:
        super().__init__()

        def guide() -> nn.Module:
            down = [_blocks.max_pool(dims), unit(dims, 2 * channels, 2 * channels, norm=norm)]
            return nn.Sequential(*down, unit(dims, 2 * channels, channels, norm=norm), _blocks.upsample(dims))

        self.guides = nn.ModuleList(guide() for _ in range(2))
        self.attentions = nn.ModuleList(Attention(dims, 2 * channels, channels, norm) for _ in range(2))

    def forward(self, scale: Tensor, together: Tensor) -> Tensor:
        refined = together
        for guide, attention in zip(self.guides, self.attentions, strict=True):
            seen = torch.cat((scale, refined), dim=1)
            refined = attention(seen) * _blocks.crop_like(guide(seen), scale)
        return refined


class GuidedAttentionNet(nn.Module):
    """The network of given parts: a list has an item for each of the trunk's maps but the stem's, finest first."""

    def __init__(
        self,
        trunk: Trunk,
        scales: Sequence[nn.Module],
        together: nn.Module,
        guided: Sequence[nn.Module],
        before: Sequence[nn.Module],
        after: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.trunk, self.together = trunk, together
        self.scales, self.guided = nn.ModuleList(scales), nn.ModuleList(guided)
        self.before, self.after = nn.ModuleList(before), nn.ModuleList(after)

    def forward(self, x: Tensor) -> Tensor | Output:
        _, *maps = self.trunk(x)
        scales = [scale(map_) for scale, map_ in zip(self.scales, maps, strict=True)]
        scales = [resize_like(scale, maps[0]) for scale in scales]
        together = self.together(torch.cat(scales, dim=1))
        refined = (part(scale, together) for part, scale in zip(self.guided, scales, strict=True))
        answers = [score(map_) for score, map_ in zip(self.after, refined, strict=True)]
        logits = resize_like(torch.stack(answers).mean(0), x)
        if not self.training or not self.before:
            return logits
        return Output(logits, (*answers, *(score(scale) for score, scale in zip(self.before, scales, strict=True))))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A trunk, its four scales and their attention; what is predicted is the mean of the four refined answers."""
    dims, channels, norm = spatial_dims, config.channels, config.norm
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm)
    widths = trunk.channels[1:]

    def scores() -> list[nn.Module]:
        return [_blocks.conv(dims, channels, out_channels, 1) for _ in widths]

    scales = [unit(dims, width, channels, 1, norm=norm) for width in widths]
    together = unit(dims, len(widths) * channels, channels, norm=norm)
    guided = [Guided(dims, channels, norm) for _ in widths]
    before = scores() if config.deep_supervision else []
    return _blocks.initialise(GuidedAttentionNet(trunk, scales, together, guided, before, scores()))
