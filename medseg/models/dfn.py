"""DFN: from the mean of the image to fine maps, of which each channel is weighted by what coarser stages say of it.

Of the paper's two networks the smooth one makes the scores. The border one takes no part in them: with `border` it gives the trunk
a further task in training, by logits of boundaries in `Output.boundary`. The loss `dual_task` is for these; the paper has a focal loss.

Family: attention
Paper: Yu, Wang, Peng, Gao, Yu, Sang 2018, Learning a discriminative feature network for semantic segmentation,
    arXiv:1804.09337

Presets:
    resnet101: ResNet-101 of stride 32, 512 channels: 87,481,941 parameters for 3 channels and 21 classes in 2D.
    border: the same with the border network, of 21 channels.
    resnet50: a smaller trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Output, Positive
from medseg.models._context import ImagePooling
from medseg.models._convs import Residual, relu, unit
from medseg.models._dilated import OnResNet
from medseg.models._resizing import global_mean, resize_like
from medseg.models._segmenter import with_auxiliary

BORDER = 21  # channels of the border network


class Config(OnResNet):
    """Options of a DFN, besides those of `_dilated.OnResNet`.

    Args:
        channels: of all maps after the trunk.
        border: in training also logits of boundaries.
        aux: in training also the scores of the coarser stages (deep supervision, section 3.3).
    """

    depth: ResNetDepth = 101
    channels: Positive = 512
    border: bool = False
    aux: bool = False


PRESETS = {
    "resnet101": Config(),
    "border": Config(border=True),
    "resnet50": Config(depth=50),
    "tiny": Config(depth=10, width=1 / 13, channels=10),
}


def refinement_residual(dims: int, inputs: int, outputs: int, norm: NormName) -> nn.Sequential:
    """A 1x1 convolution to the channels, and a residual block of two of 3x3 (RRB, figure 2 b)."""
    first = _blocks.conv(dims, inputs, outputs, 1, bias=norm == "none")
    body = nn.Sequential(unit(dims, outputs, outputs, norm=norm), _blocks.conv(dims, outputs, outputs, bias=False))
    return nn.Sequential(first, Residual(body, act=relu))


class ChannelAttention(nn.Module):
    """A fine map, each channel weighted by the means of both maps, and the coarse one (CAB, figure 2 c; equations 3 and 4)."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            _blocks.conv(dims, 2 * channels, channels, 1),
            nn.ReLU(),
            _blocks.conv(dims, channels, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return fine * self.weigh(global_mean(torch.cat((fine, coarse), dim=1))) + coarse


class Border(nn.Module):
    """Where classes meet, at the size of the finest map: what is found there, and what each coarser map adds (figure 2 a)."""

    def __init__(self, dims: int, channels: Sequence[int], norm: NormName) -> None:
        super().__init__()
        self.before = nn.ModuleList([refinement_residual(dims, inputs, BORDER, norm) for inputs in channels])
        self.after = nn.ModuleList([refinement_residual(dims, BORDER, BORDER, norm) for _ in channels[1:]])
        self.scores = _blocks.conv(dims, BORDER, 1, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        y, *coarser = (before(map_) for before, map_ in zip(self.before, maps, strict=True))
        for x, after in zip(coarser, self.after, strict=True):
            y = after(y + resize_like(x, y))
        return self.scores(y)


class DFN(nn.Module):
    """The network of given parts. Those of the stages begin with the coarsest (figure 2 a).

    Args:
        trunk: from the image to maps.
        image: what the whole image says, from the coarsest map.
        before: of the trunk's maps.
        attention: of each with what came from coarser ones.
        after: of the answers.
        scores: of the finest stage.
        auxiliary: of the coarser stages, finest first, or none.
        border: the border network, if any.
    """

    def __init__(
        self,
        trunk: Trunk,
        image: nn.Module,
        before: Sequence[nn.Module],
        attention: Sequence[nn.Module],
        after: Sequence[nn.Module],
        scores: nn.Module,
        auxiliary: Sequence[nn.Module],
        border: nn.Module | None,
    ) -> None:
        super().__init__()
        self.trunk, self.image, self.scores, self.border = trunk, image, scores, border
        self.before, self.attention, self.after = map(nn.ModuleList, (before, attention, after))
        self.auxiliary = nn.ModuleList(auxiliary)

    def forward(self, x: Tensor) -> Tensor | Output:
        _, *maps = self.trunk(x)
        y = self.image(maps[-1])
        stages: list[Tensor] = []
        for map_, before, attention, after in zip(maps[::-1], self.before, self.attention, self.after, strict=True):
            fine = before(map_)
            y = after(attention(fine, resize_like(y, fine)))
            stages.insert(0, y)
        found = with_auxiliary(resize_like(self.scores(y), x), self.auxiliary, stages[1:])
        if self.border is None or not self.training:
            return found
        output = found if isinstance(found, Output) else Output(found)
        return output._replace(boundary=self.border(maps))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet, and from the mean of its last map up to stride 4."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm)
    _, *channels = trunk.channels
    before = [refinement_residual(dims, inputs, width, norm) for inputs in reversed(channels)]
    after = [refinement_residual(dims, width, width, norm) for _ in channels]
    attention = [ChannelAttention(dims, width) for _ in channels]
    scores = [_blocks.conv(dims, width, out_channels, 1) for _ in (channels if config.aux else channels[:1])]
    image = ImagePooling(dims, channels[-1], width, norm=norm)
    border = Border(dims, channels, norm) if config.border else None
    return _blocks.initialise(DFN(trunk, image, before, attention, after, scores[0], scores[1:], border))
