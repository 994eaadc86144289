"""U-Net with convolutional LSTMs: each slice is seen by a U-Net of its own plane, and slices speak at its bottom and at its end.

Family: recurrent
Paper: Novikov, Major, Wimmer, Lenis, Buehler 2019, Deep sequential segmentation of organs in volumetric medical scans,
    arXiv:1807.02437

Slices lie along the last axis, which is not coarsened. In 2D a slice is a column: of use for a time axis alone.

Presets:
    paper: figure 2 (Sensor3D): a U of four levels, 64 to 512 channels, at whose bottom and end stand bidirectional LSTMs, each
        way with half the channels.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, PerAxis, Positive, Size
from medseg.models._recurrent import BothWays, in_plane
from medseg.models._ushape import Levels, convs, u_shape


class Config(Levels):
    """Options of a U-Net with convolutional LSTMs: levels, whose strides and kernel hold within the slices."""

    widths: tuple[Positive, ...] = (64, 128, 256, 512)
    strides: tuple[PerAxis, ...] = (2, 2, 2)
    norm: NormName = "none"


PRESETS = {"paper": Config(), "tiny": Config(widths=(4, 6, 8), strides=(2, 2))}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A U-Net of the slices, and LSTMs across them."""
    dims, widths = spatial_dims, config.widths
    plane = in_plane(dims, config.kernel)
    levels = Levels(widths=widths, strides=tuple(in_plane(dims, stride) for stride in config.strides))

    def unit(inputs: int, outputs: int) -> nn.Module:
        return convs(dims, inputs, outputs, outputs, kernel=plane, norm=config.norm)

    def up(inputs: int, outputs: int, stride: Size) -> nn.Module:
        return _blocks.transposed(dims, inputs, outputs, stride)

    def lstm(width: int) -> nn.Module:
        half = max(1, width // 2)
        return nn.Sequential(BothWays(dims, width, half, plane), _blocks.conv(dims, 2 * half, width, 1), nn.ReLU())

    net = u_shape(levels, dims, in_channels, out_channels, unit=unit, up=up)
    net.encoder[-1] = nn.Sequential(net.encoder[-1], lstm(widths[-1]))
    net.head = nn.Sequential(lstm(widths[0]), net.head)
    return _blocks.initialise(net)
