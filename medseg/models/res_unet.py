"""ResU-Net: a U-Net whose two convolutions of a stage add to what the stage was given.

Family: u-shape
Paper: Alom, Hasan, Yakopcic, Taha, Asari 2018, Recurrent residual convolutional neural network based on U-Net (R2U-Net),
    arXiv:1802.06955

Presets:
    paper: figure 4c in the U of 2015, 64 to 1024 channels: 32,439,297 parameters for 3 channels and 1 class in 2D.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._blocks import Size
from medseg.models._convs import Residual, relu
from medseg.models._ushape import Levels, convs, u_shape


class Config(Levels):
    """Options of a ResU-Net: levels alone."""


PRESETS = {"paper": Config(), "tiny": Config(widths=(4, 6, 8), strides=(2, 2))}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResU-Net of the given levels."""

    def unit(inputs: int, outputs: int) -> nn.Module:
        first = convs(spatial_dims, inputs, outputs, kernel=config.kernel, norm=config.norm)
        second = (_blocks.conv(spatial_dims, outputs, outputs, config.kernel), _blocks.norm(config.norm, outputs))
        past = None if inputs == outputs else _blocks.conv(spatial_dims, inputs, outputs, 1)
        return Residual(nn.Sequential(*first, *second), past, relu)

    def up(inputs: int, outputs: int, stride: Size) -> nn.Module:
        return _blocks.transposed(spatial_dims, inputs, outputs, stride)

    return _blocks.initialise(u_shape(config, spatial_dims, in_channels, out_channels, unit=unit, up=up))
