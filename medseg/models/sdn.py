"""SDN: shallow ways down and up, one after the other, of which the first begins with a DenseNet and all see its early maps.

Family: dense
Paper: Fu, Liu, Wang, Zhou, Wang, Lu 2019, Stacked deconvolutional network for semantic segmentation, arXiv:1708.04943

Presets:
    densenet161: three units between the strides 4 and 16.
    densenet121: the smaller trunk.
    tiny: two units, one layer a block, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import DenseNetDepth, Trunk, densenet
from medseg.models._blocks import NormName, Output, Positive, Times, Width
from medseg.models._convs import DenseLayer, finished, unit
from medseg.models._resizing import resize_like
from medseg.models._segmenter import with_auxiliary
from medseg.settings import Settings


class Config(Settings):
    """Options of an SDN. The paper's text sets `units` and the trunk; channels and layers are a choice.

    Args:
        depth: layers of the DenseNet: 13 is smaller than any of that paper.
        width: of the trunk, 1 for the published one.
        units: ways down and up; the first way down is the trunk.
        layers: convolutions of a block, each of which sees the block's input and all before it.
        growth: channels that each of them adds.
        channels: to which a block's last convolution takes it all.
        norm: after each convolution.
        aux: in training also scores of the other maps on the ways up ("hierarchical supervision", section 3.3).
    """

    depth: DenseNetDepth = 161
    width: Width = 1.0
    units: Times = 3
    layers: Times = 2
    growth: Positive = 48
    channels: Positive = 256
    norm: NormName = "batch"
    aux: bool = False


PRESETS = {
    "densenet161": Config(),
    "densenet121": Config(depth=121),
    "tiny": Config(depth=13, width=1 / 8, units=2, layers=1, growth=4, channels=8),
}


class Block(nn.Module):
    """A step down or up, what is linked to it, dense layers, and the convolution that compresses them (figure 2 b, c).

    Args:
        step: to the size of the links.
        layers: of which each sees all before it.
        compress: the last convolution.
    """

    def __init__(self, step: nn.Module, layers: Sequence[nn.Module], compress: nn.Module) -> None:
        super().__init__()
        self.step, self.layers, self.compress = step, nn.Sequential(*map(DenseLayer, layers)), compress

    def forward(self, x: Tensor, links: Sequence[Tensor]) -> Tensor:
        x = torch.cat((_blocks.crop_like(self.step(x), links[0]), *links), dim=1)
        return self.compress(self.layers(x))


class SDN(nn.Module):
    """The network of given parts.

    Args:
        trunk: maps of strides 2, 4, 8, 16 and 16.
        entry: from its last map to the first way up.
        downs8: for each unit but the first, the block to stride 8.
        downs16: the same, to stride 16.
        ups8: for each unit, the block to stride 8.
        ups4: the same, to stride 4.
        scores: of the last map.
        auxiliary: scores of all other maps of the ways up: of stride 4 from the first unit, then of stride 8; or none.
    """

    def __init__(
        self,
        trunk: Trunk,
        entry: nn.Module,
        downs8: Sequence[nn.Module],
        downs16: Sequence[nn.Module],
        ups8: Sequence[nn.Module],
        ups4: Sequence[nn.Module],
        scores: nn.Module,
        auxiliary: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.trunk, self.entry, self.scores = trunk, entry, scores
        self.downs8, self.downs16 = nn.ModuleList(downs8), nn.ModuleList(downs16)
        self.ups8, self.ups4 = nn.ModuleList(ups8), nn.ModuleList(ups4)
        self.auxiliary = nn.ModuleList(auxiliary)

    def forward(self, x: Tensor) -> Tensor | Output:
        _, early4, early8, _, last = self.trunk(x)
        map16 = self.entry(last)
        coarse = [self.ups8[0](map16, [early8])]
        fine = [self.ups4[0](coarse[0], [early4])]
        for to8, to16, up8, up4 in zip(self.downs8, self.downs16, self.ups8[1:], self.ups4[1:], strict=True):
            map8 = to8(fine[-1], [coarse[-1]])
            map16 = to16(map8, [map16])
            coarse.append(up8(map16, [map8, early8]))
            fine.append(up4(coarse[-1], [fine[-1], early4]))
        return with_auxiliary(resize_like(self.scores(fine.pop()), x), self.auxiliary, fine + coarse)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """An SDN on a DenseNet of stride 16."""
    dims, norm, width, growth = spatial_dims, config.norm, config.channels, config.growth
    trunk = densenet(dims, in_channels, config.depth, width=config.width, norm=norm, output_stride=16)
    _, early4, early8, _, last = trunk.channels

    def block(step: nn.Module, inputs: int) -> Block:
        layers = [unit(dims, inputs + n * growth, growth, norm=norm) for n in range(config.layers)]
        return Block(step, layers, unit(dims, inputs + config.layers * growth, width, norm=norm))

    def down() -> Block:
        return block(_blocks.max_pool(dims), 2 * width)

    def up(links: int) -> Block:
        layer = _blocks.transposed(dims, width, width, 2, 3, bias=norm == "none")
        return block(finished(layer, width, norm), width + links)

    later = range(1, config.units)
    ups8, ups4 = ([up(early), *(up(width + early) for _ in later)] for early in (early8, early4))
    heads = [_blocks.conv(dims, width, out_channels) for _ in range(2 * config.units if config.aux else 1)]
    downs8, downs16 = ([down() for _ in later] for _ in range(2))
    entry = unit(dims, last, width, norm=norm)
    return _blocks.initialise(SDN(trunk, entry, downs8, downs16, ups8, ups4, heads[0], heads[1:]))
