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

from typing import Any, Self

from pydantic import model_validator
from torch import nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, PerAxis, Positive, Size, Times
from medseg.models._ushape import Levels, SupervisedU, convs, residual


class Config(Levels):
    """Options of a residual-encoder U-Net: levels, and

    Args:
        blocks: residual blocks of each level on the way down.
        deep_supervision: in training, logits of the coarser decoder stages too.
    """

    widths: tuple[Positive, ...] = (32, 64, 128, 256, 320, 320)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2, 2)
    norm: NormName = "instance"
    blocks: tuple[Times, ...] = (1, 3, 4, 6, 6, 6)
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


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A residual-encoder U-Net of the given levels."""
    dims, widths = spatial_dims, config.widths
    how: dict[str, Any] = {"norm": config.norm, "activation": "leaky_relu"}

    def row(inputs: int, width: int) -> nn.Sequential:
        return convs(dims, inputs, width, kernel=config.kernel, **how)

    def stage(inputs: int, width: int, stride: Size, blocks: int) -> nn.Sequential:
        ends = [(inputs, stride), *[(width, 1)] * (blocks - 1)]
        return nn.Sequential(*(residual(dims, n, width, config.kernel, step, bias=True, **how) for n, step in ends))

    encoder = [nn.Sequential(*row(in_channels, widths[0]), *stage(widths[0], widths[0], 1, config.blocks[0]))]
    ups, decoder, heads = (list[nn.Module]() for _ in range(3))
    for level, stride in enumerate(config.strides):
        fine, coarse = widths[level], widths[level + 1]
        encoder.append(stage(fine, coarse, stride, config.blocks[level + 1]))
        ups.insert(0, _blocks.transposed(dims, coarse, fine, stride))
        decoder.insert(0, row(2 * fine, fine))
        heads.append(_blocks.conv(dims, fine, out_channels, 1))
    return _blocks.initialise(SupervisedU(encoder, ups, decoder, heads if config.deep_supervision else heads[:1]))
