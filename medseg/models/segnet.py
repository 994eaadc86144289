"""SegNet: VGG16 and its mirror, which puts each value back where the pooling had found it.

Family: fcn
Paper: Badrinarayanan, Kendall, Cipolla 2017, SegNet: A deep convolutional encoder-decoder architecture, arXiv:1511.00561

Presets:
    vgg16: 13 convolutions down and 13 up, the last of which makes the scores: 29,455,125 parameters for 3 channels and 21 classes
        in 2D.
    tiny: one narrow convolution a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones.vgg import DEPTHS, vgg_channels, vgg_stage
from medseg.models._blocks import NormName
from medseg.models._resizing import max_pool_where, unpool
from medseg.settings import Settings


class Config(Settings):
    """Options of a SegNet. The way up mirrors the way down.

    Args:
        depth: of the VGG, its three fully connected layers included: 8 is smaller than any of that paper.
        width: of all stages, 1 for 64 to 512 channels.
        norm: after each convolution but the last.
    """

    depth: Literal[8, 11, 13, 16, 19] = 16
    width: Annotated[float, Field(gt=0)] = 1.0
    norm: NormName = "batch"


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16)}


class SegNet(nn.Module):
    """The network of given stages: of the encoder from the finest, of the decoder from the coarsest."""

    def __init__(self, encoder: Sequence[nn.Module], decoder: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, where = max_pool_where(x)
            pooled.append((where, size))
        for stage in self.decoder:
            x = stage(unpool(x, *pooled.pop()))
        return x


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A SegNet on a VGG of the given depth."""
    dims, norm, convs = spatial_dims, config.norm, DEPTHS[config.depth]
    widths = (in_channels, *vgg_channels(config.width))
    encoder: list[nn.Module] = []
    decoder: list[nn.Module] = []
    for level, count in enumerate(convs):
        inputs, width = widths[level], widths[level + 1]
        encoder.append(vgg_stage(dims, inputs, width, count, norm=norm))
        back = vgg_stage(dims, width, width, count - 1, norm=norm)
        last = vgg_stage(dims, width, inputs, 1, norm=norm) if level else [_blocks.conv(dims, width, out_channels)]
        decoder.insert(0, back.extend(last))
    return _blocks.initialise(SegNet(encoder, decoder))
