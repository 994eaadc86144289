"""Residual-encoder U-Net: nnU-Net's network of many residual blocks down and one convolution a level up.

Family: u-shape
Paper: Isensee, Wald, Ulrich, Baumgartner, Roy, Maier-Hein, Jaeger 2024, nnU-Net revisited, arXiv:2404.09556

The paper's M, L and XL are windows for 10, 24 and 40 GB of memory. The network follows from the window: it has a stage more with
each time that the longest axis can be halved and still has four voxels.

Presets:
    L: six stages, for windows under 256 voxels, those of M too: 102,349,770 parameters for 1 channel and 2 classes in 3D, as
        nnU-Net's own with its heads for deep supervision.
    XL: seven stages, for windows of 256 voxels and more: 141,889,612 parameters.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Output, PerAxis, Positive, Size
from medseg.models._ushape import Levels, convs


class Config(Levels):
    """Options of a residual-encoder U-Net: levels, and

    Args:
        blocks: residual blocks of each level on the way down.
        deep_supervision: in training, logits of the coarser decoder stages too.
    """

    widths: tuple[Positive, ...] = (32, 64, 128, 256, 320, 320)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2, 2)
    norm: NormName = "instance"
    blocks: tuple[Positive, ...] = (1, 3, 4, 6, 6, 6)
    deep_supervision: bool = True

    @model_validator(mode="after")
    def _check_blocks(self) -> Self:
        _blocks.check_lengths(len(self.widths), blocks=self.blocks)
        return self


PRESETS = {
    "L": Config(),
    "XL": Config(widths=(32, 64, 128, 256, 320, 320, 320), strides=(2, 2, 2, 2, 2, 2), blocks=(1, 3, 4, 6, 6, 6, 6)),
    "tiny": Config(widths=(4, 6, 8), strides=(2, 2), blocks=(1, 1, 2)),
}


class Residual(nn.Module):
    """Two convolutions and a way past them, whose change of size or width is a mean and a 1x1 convolution (ResNet-D)."""

    def __init__(self, dims: int, inputs: int, outputs: int, stride: Size, config: Config) -> None:
        super().__init__()
        norm = partial(_blocks.norm, config.norm, outputs)
        self.body = nn.Sequential(
            _blocks.conv(dims, inputs, outputs, config.kernel, stride),
            norm(),
            _blocks.activation("leaky_relu", outputs),
            _blocks.conv(dims, outputs, outputs, config.kernel),
            norm(),
        )
        self.past = nn.Sequential()
        if any(s > 1 for s in _blocks.ntuple(stride, dims)):
            self.past.append(_blocks.mean_pool(dims, stride))
        if inputs != outputs:
            self.past.extend([_blocks.conv(dims, inputs, outputs, 1, bias=False), norm()])
        self.end = _blocks.activation("leaky_relu", outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.body(x) + self.past(x))


class ResEncUNet(nn.Module):
    """The network of given parts; the lists on the way up, heads among them, begin with the coarsest."""

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        heads: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.encoder, self.ups = nn.ModuleList(encoder), nn.ModuleList(ups)
        self.decoder, self.heads = nn.ModuleList(decoder), nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor | Output:
        skips, maps = [], []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.ups, self.decoder, strict=True):
            x = stage(_blocks.join(skips.pop(), up(x)))
            maps.append(x)
        if not self.training or len(self.heads) == 1:
            return self.heads[-1](x)
        logits, *auxiliary = (head(map_) for head, map_ in zip(reversed(self.heads), reversed(maps), strict=True))
        return Output(logits, tuple(auxiliary))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A residual-encoder U-Net of the given levels."""
    dims, widths = spatial_dims, config.widths
    row = partial(convs, dims, kernel=config.kernel, norm=config.norm, activation="leaky_relu")

    def stage(inputs: int, width: int, stride: Size, blocks: int) -> nn.Sequential:
        first = Residual(dims, inputs, width, stride, config)
        return nn.Sequential(first, *(Residual(dims, width, width, 1, config) for _ in range(blocks - 1)))

    encoder = [nn.Sequential(*row(in_channels, widths[0]), *stage(widths[0], widths[0], 1, config.blocks[0]))]
    ups, decoder, heads = (list[nn.Module]() for _ in range(3))
    for level, stride in enumerate(config.strides):
        fine, coarse = widths[level], widths[level + 1]
        encoder.append(stage(fine, coarse, stride, config.blocks[level + 1]))
        ups.insert(0, _blocks.transposed(dims, coarse, fine, stride))
        decoder.insert(0, row(2 * fine, fine))
        heads.insert(0, _blocks.conv(dims, fine, out_channels, 1))
    return _blocks.initialise(ResEncUNet(encoder, ups, decoder, heads if config.deep_supervision else heads[-1:]))
