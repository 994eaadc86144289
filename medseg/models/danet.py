"""DANet: attention over the voxels and attention over the channels, side by side on a dilated trunk, and summed.

Family: attention
Paper: Fu, Liu, Tian, Li, Bao, Fang, Lu 2019, Dual attention network for scene segmentation, arXiv:1809.02983
Without: torch.compile (blocks of attention are computed again)

Presets:
    resnet50: ResNet-50 of stride 8, whose last stage has the multi-grid 1, 2, 4; queries of 512 / 8 channels: 47,462,651 parameters
        for 3 channels and 19 classes in 2D, with the scores of each attention alone.
    resnet101: the deeper trunk: 66,454,779.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import ChannelAttention, PositionAttention
from medseg.models._backbones import Trunk
from medseg.models._blocks import Output, Positive
from medseg.models._convs import unit
from medseg.models._dilated import Options, dilated_resnet
from medseg.models._resizing import resize_like
from medseg.models._segmenter import with_auxiliary


class Config(Options):
    """Options of a DANet, besides those of `_dilated.Options`.

    Args:
        multi_grid: what each block of the last stage multiplies its dilation by, in turn; (1,) leaves it.
        channels: of each attention; queries and keys have an eighth.
        norm: after each 3x3 convolution.
        aux: in training also the scores of each attention alone: the paper trains with all three (figure 2).
    """

    multi_grid: tuple[Positive, ...] = (1, 2, 4)
    channels: Positive = 512
    aux: bool = True


PRESETS = {"resnet50": Config(), "resnet101": Config(depth=101), "tiny": Config(depth=10, width=1 / 16, channels=8)}


class DANet(nn.Module):
    """The network of given parts.

    Args:
        trunk: maps, of which the last is used.
        branches: the two attentions, each with its convolutions.
        scores: of the branches' sum, and where training has more outputs, of each branch.
    """

    def __init__(self, trunk: Trunk, branches: list[nn.Module], scores: list[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.branches = trunk, nn.ModuleList(branches)
        self.scores, *alone = scores
        self.alone = nn.ModuleList(alone)

    def forward(self, x: Tensor) -> Tensor | Output:
        last = self.trunk(x)[-1]
        position, channel = (branch(last) for branch in self.branches)
        logits = resize_like(self.scores(position + channel), x)
        return with_auxiliary(logits, self.alone, (position, channel))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet; each attention between two 3x3 units; scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config, config.multi_grid)
    branches: list[nn.Module] = [
        nn.Sequential(unit(dims, trunk.channels[-1], width, norm=norm), attention, unit(dims, width, width, norm=norm))
        for attention in (PositionAttention(dims, width, max(width // 8, 2)), ChannelAttention())
    ]
    scores: list[nn.Module] = [
        nn.Sequential(_blocks.dropout(dims, config.dropout), _blocks.conv(dims, width, out_channels, 1))
        for _ in range(3 if config.aux else 1)
    ]
    return _blocks.initialise(DANet(trunk, branches, scores))
