"""Dense U-Net: a DenseNet as the way down, and a way up that adds what it finds there.

Family: u-shape
Paper: Li, Chen, Qi, Dou, Fu, Heng 2018, H-DenseUNet: hybrid densely connected UNet for liver and tumor segmentation from CT
    volumes, arXiv:1709.07330

Presets: a variant's number is its count of convolutions.
    167: table 1, the 2D network over DenseNet-161: growth 48, blocks of 6, 12, 36 and 24 layers.
    65: table 1, the 3D network: growth 32, blocks of 3, 4, 12 and 8 layers. There slices, which are few, are not coarsened beyond
        a quarter: `strides=[2, 2, [2, 2, 1], [2, 2, 1], [2, 2, 1]]`.
    tiny: the same topology with few channels, the first convolution at full resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, PerAxis, Positive, Share, Times
from medseg.models._convs import DenseLayer, ahead, unit
from medseg.models._ushape import convs
from medseg.settings import Settings


class Config(Settings):
    """Options of a Dense U-Net.

    Args:
        first: channels of the first convolution.
        growth: new maps of each dense layer.
        blocks: layers of the dense blocks, finest first.
        last: channels at the image's own resolution.
        strides: by how much the first convolution, the pooling after it, and each step between blocks coarsens, one number or one
            an axis.
        kernel: odd size of convolutions, one number or one an axis; the first one reaches two voxels further.
        norm: normalisation before each convolution on the way down, and after each on the way up.
        dropout: share of values dropped after the last 3x3 convolution, 0 to 1.
    """

    first: Positive = 96
    growth: Positive = 48
    blocks: tuple[Times, ...] = (6, 12, 36, 24)
    last: Positive = 64
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2, 2)
    kernel: Kernel = 3
    norm: NormName = "batch"
    dropout: Share = 0.3

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.blocks) + 1, strides=self.strides)
        return self


PRESETS = {
    "167": Config(),
    "65": Config(growth=32, blocks=(3, 4, 12, 8)),
    "tiny": Config(first=6, growth=4, blocks=(1, 2), last=6, strides=(1, 2, 2), dropout=0.1),
}


class DenseUNet(nn.Module):
    """The network of given parts; the lists on the way up begin with the coarsest, and the last of them has no side."""

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        doubles: Sequence[nn.Module],
        sides: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder, self.doubles = nn.ModuleList(encoder), nn.ModuleList(doubles)
        self.sides, self.decoder, self.head = nn.ModuleList(sides), nn.ModuleList(decoder), head

    def forward(self, image: Tensor) -> Tensor:
        x, maps = image, []
        for stage in self.encoder:
            x = stage(x)
            maps.append(x)
        maps.pop()
        for double, side, stage in zip(self.doubles, self.sides, self.decoder, strict=False):
            skip = side(maps.pop())
            x = stage(_blocks.crop_like(double(x), skip) + skip)
        return self.head(self.decoder[-1](_blocks.crop_like(self.doubles[-1](x), image)))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A Dense U-Net of the given blocks."""
    dims, growth = spatial_dims, config.growth

    layer = partial(ahead, dims, norm=config.norm)

    def dense(inputs: int, layers: int) -> list[nn.Module]:
        starts = (inputs + n * growth for n in range(layers))
        return [DenseLayer(layer(n, 4 * growth, 1).extend(layer(4 * growth, growth, config.kernel))) for n in starts]

    further = tuple(k + 4 if k > 1 else 1 for k in _blocks.ntuple(config.kernel, dims))
    stem = unit(dims, in_channels, config.first, further, config.strides[0], norm=config.norm)
    channels, encoder, widths = config.first, [stem], [config.first]
    for level, (layers, stride) in enumerate(zip(config.blocks, config.strides[1:], strict=True)):
        stage = nn.Sequential() if level else nn.Sequential(_blocks.max_pool(dims, stride))
        if level:
            stage.extend(layer(channels, channels // 2, 1)).append(_blocks.mean_pool(dims, stride))
            channels //= 2
        encoder.append(stage.extend(dense(channels, layers)))
        channels += layers * growth
        widths.append(channels)
    encoder[-1].append(_blocks.norm(config.norm, channels)).append(nn.ReLU())
    widths.pop()

    doubles = [_blocks.upsample(dims, stride, linear=True) for stride in reversed(config.strides)]
    sides, decoder = [], []
    for width, narrower in zip(reversed(widths), (*reversed(widths[:-1]), widths[0]), strict=True):
        sides.append(nn.Identity() if width == channels else _blocks.conv(dims, width, channels, 1))
        decoder.append(convs(dims, channels, narrower, kernel=config.kernel, norm=config.norm))
        channels = narrower
    last, *after = convs(dims, channels, config.last, kernel=config.kernel, norm=config.norm)
    decoder.append(nn.Sequential(last, nn.Dropout(config.dropout), *after))
    head = _blocks.conv(dims, config.last, out_channels, 1)
    return _blocks.initialise(DenseUNet(encoder, doubles, sides, decoder, head))
