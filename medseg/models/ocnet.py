"""OCNet: each voxel joined with the mean of those like it: the object that it is part of.

Family: attention
Paper: Yuan, Huang, Guo, Zhang, Chen, Wang 2018, OCNet: Object context network for scene parsing, arXiv:1809.00916
Without: torch.compile (blocks of attention are computed again)

Presets:
    base: one attention over all voxels, on a ResNet-101 of stride 8: 52,869,203 parameters for 3 channels and 19 classes in 2D.
    pyramid: attentions within the cells of grids of 1, 2, 3 and 6 an axis, side by side: 57,730,643.
    asp: an attention beside dilations of 12, 24 and 36: 57,688,531.
    tiny: asp with a dilation of 2 on a narrow ResNet-10.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import attend, listed, thinned
from medseg.models._backbones import ResNetDepth
from medseg.models._blocks import NormName, Positive, Share
from medseg.models._context import Joined
from medseg.models._convs import finished, unit
from medseg.models._dilated import StemOptions, dilated_resnet
from medseg.models._segmenter import Pick, segmenter


class Config(StemOptions):
    """Options of an OCNet, besides those of `_dilated.StemOptions`.

    Args:
        channels: of the map that is attended to, and of the head's last.
        grids: cells an axis of each attention; voxels see those of their cell.
        rates: of 3x3 branches beside one attention with half the channels; none for no such branches.
        norm: after each convolution but those of values and scores.
    """

    depth: ResNetDepth = 101
    channels: Annotated[int, Field(ge=4)] = 512
    grids: tuple[Positive, ...] = (1,)
    rates: tuple[Positive, ...] = ()
    dropout: Share = 0.05


PRESETS = {
    "base": Config(),
    "pyramid": Config(grids=(1, 2, 3, 6)),
    "asp": Config(rates=(12, 24, 36), dropout=0.1),
    "tiny": Config(depth=10, width=1 / 16, channels=16, rates=(2,)),
}


class ObjectPooling(nn.Module):
    """The mean of the voxels that are like each one, within the cells of a grid (equations 1 to 3).

    Queries and keys are one map. In a cell of many voxels the keys are means of some (`thinned`), which bounds the memory.

    Args:
        dims: spatial axes.
        channels: of the map, and of the answer.
        values: channels of what is averaged.
        cells: of the grid, an axis.
        norm: of the keys.
    """

    def __init__(self, dims: int, channels: int, values: int, cells: int, norm: NormName) -> None:
        super().__init__()
        self.width, self.cells = channels // 2, cells
        self.key = biased(dims, channels, self.width, norm)
        self.value = _blocks.conv(dims, channels, values, 1)
        self.last = _blocks.conv(dims, values, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self._by_cells(torch.cat((self.key(x), self.value(x)), dim=1), axis=2))

    def _by_cells(self, x: Tensor, axis: int) -> Tensor:
        if axis == x.ndim:
            return self._seen(x)
        cells = (cell for cell in x.tensor_split(self.cells, axis) if cell.shape[axis])
        return torch.cat([self._by_cells(cell, axis + 1) for cell in cells], axis)

    def _seen(self, x: Tensor) -> Tensor:
        few, width = listed(thinned(x)), self.width
        seen = attend(listed(x)[..., :width], few[..., :width], few[..., width:], width**-0.5)
        return seen.transpose(1, 2).unflatten(2, x.shape[2:])


def biased(dims: int, inputs: int, outputs: int, norm: NormName, kernel: int = 1) -> nn.Sequential:
    """A unit whose convolution has a bias before the normalisation too, as the authors' have."""
    return finished(_blocks.conv(dims, inputs, outputs, kernel), outputs, norm)


def context(dims: int, channels: int, config: Config) -> nn.Sequential:
    """The attentions, joined with the map or with dilated branches, to the channels of the map."""
    norm, half = config.norm, channels // 2
    if config.rates:
        own = nn.Sequential(
            biased(dims, channels, half, norm, 3),
            ObjectPooling(dims, half, half, 1, norm),
            biased(dims, half, half, norm),
        )
        dilated = [unit(dims, channels, half, dilation=rate, norm=norm) for rate in config.rates]
        joined: list[nn.Module] = [own, unit(dims, channels, half, 1, norm=norm), *dilated]
        return nn.Sequential(Joined(joined), unit(dims, half * len(joined), channels, 1, norm=norm))
    count = len(config.grids)
    values, same = (half, nn.Identity()) if count == 1 else (channels, biased(dims, channels, count * channels, norm))
    attentions = [ObjectPooling(dims, channels, values, cells, norm) for cells in config.grids]
    return nn.Sequential(Joined([same, *attentions]), biased(dims, 2 * count * channels, channels, norm))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, one 3x3 unit, the context of objects, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config)
    last = trunk.channels[-1]
    head = nn.Sequential(
        Pick(-1),
        biased(dims, last, width, norm, 3),
        context(dims, width, config),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
