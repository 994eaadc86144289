"""R2U-Net: a U-Net of residual units whose convolutions run several times over their own answer.

Family: u-shape
Paper: Alom, Hasan, Yakopcic, Taha, Asari 2018, Recurrent residual convolutional neural network based on U-Net (R2U-Net),
    arXiv:1802.06955

Presets:
    paper: t = 2, figures 3 and 4d, in its common form with 64 to 1024 channels: 39,091,393 parameters for 3 channels and 1 class
        in 2D. Returns share their weights: t = 3, of which the paper speaks too, is `returns=3` and has no more of them.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Size, Times
from medseg.models._convs import Residual
from medseg.models._ushape import Levels, convs, u_shape


class Config(Levels):
    """Options of an R2U-Net: levels, and

    Args:
        returns: how often a convolution sees its own answer beside what it was given (t in the paper).
    """

    returns: Times = 2


PRESETS = {"paper": Config(), "tiny": Config(widths=(4, 6, 8), strides=(2, 2))}


class Recurrent(nn.Module):
    """One convolution of x, then of x plus its last answer, as often as it returns; weights are the same each time."""

    def __init__(self, conv: nn.Module, returns: int) -> None:
        super().__init__()
        self.conv, self.returns = conv, returns

    def forward(self, x: Tensor) -> Tensor:
        answer = self.conv(x)
        for _ in range(self.returns):
            answer = self.conv(x + answer)
        return answer


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """An R2U-Net of the given levels."""

    def row(inputs: int, outputs: int) -> nn.Sequential:
        return convs(spatial_dims, inputs, outputs, kernel=config.kernel, norm=config.norm)

    def unit(inputs: int, outputs: int) -> nn.Module:
        body = nn.Sequential(*(Recurrent(row(outputs, outputs), config.returns) for _ in range(2)))
        return nn.Sequential(_blocks.conv(spatial_dims, inputs, outputs, 1), Residual(body))

    def up(inputs: int, outputs: int, stride: Size) -> nn.Module:
        return nn.Sequential(_blocks.upsample(spatial_dims, stride), *row(inputs, outputs))

    # torch's own initialisation, in which sums over so many returns stay small
    return u_shape(config, spatial_dims, in_channels, out_channels, unit=unit, up=up)
