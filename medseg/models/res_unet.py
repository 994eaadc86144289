"""ResU-Net: a U-Net whose two convolutions of a stage add to what the stage was given.

Family: u-shape
Paper: Alom, Hasan, Yakopcic, Taha, Asari 2018, Recurrent residual convolutional neural network based on U-Net (R2U-Net),
    arXiv:1802.06955

Presets:
    paper: figure 4c in the U of 2015, 64 to 1024 channels: 32,439,297 parameters for 3 channels and 1 class in 2D.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Size
from medseg.models._ushape import Levels, convs, u_shape


class Config(Levels):
    """Options of a ResU-Net: levels alone."""


PRESETS = {"paper": Config(), "tiny": Config(widths=(4, 6, 8), strides=(2, 2))}


class Residual(nn.Module):
    """Two convolutions and a way past them, which is a 1x1 convolution where the width changes."""

    def __init__(self, dims: int, inputs: int, outputs: int, kernel: Size, norm: NormName) -> None:
        super().__init__()
        self.past = nn.Identity() if inputs == outputs else _blocks.conv(dims, inputs, outputs, 1)
        self.body = convs(dims, inputs, outputs, kernel=kernel, norm=norm)
        self.body.append(_blocks.conv(dims, outputs, outputs, kernel)).append(_blocks.norm(norm, outputs))
        self.end = _blocks.activation("relu", outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.body(x) + self.past(x))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResU-Net of the given levels."""

    def unit(inputs: int, outputs: int) -> nn.Module:
        return Residual(spatial_dims, inputs, outputs, config.kernel, config.norm)

    def up(inputs: int, outputs: int, stride: Size) -> nn.Module:
        return _blocks.transposed(spatial_dims, inputs, outputs, stride)

    return _blocks.initialise(u_shape(config, spatial_dims, in_channels, out_channels, unit=unit, up=up))
