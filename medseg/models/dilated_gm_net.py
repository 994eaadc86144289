"""Dilated grey-matter net: dilated convolutions at full resolution, five pairs of them side by side with the image's mean.

Family: dilated
Paper: Perone, Calabrese, Cohen-Adad 2018, Spinal cord gray matter segmentation using deep dilated convolutions, arXiv:1710.01269

Presets:
    paper: 124,769 weights of convolutions, as the paper counts, and 1,408 of normalisations, for 1 channel and 1 class in 2D.
    tiny: few channels and small dilations.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Positive, Share
from medseg.models._context import Joined
from medseg.models._convs import relu
from medseg.models._resizing import global_mean
from medseg.settings import Settings


class Config(Settings):
    """Options of a dilated grey-matter net.

    Args:
        channels: of each convolution; those that join the branches have twice as many.
        rates: dilations of the branches with 3x3 convolutions; one more has a plain one.
        norm: after each rectifier.
        dropout: share of channels dropped after each normalisation, 0 to 1.
    """

    channels: Positive = 32
    rates: tuple[Positive, ...] = (6, 12, 18, 24)
    norm: NormName = "batch"
    dropout: Share = 0.4


PRESETS = {"paper": Config(), "tiny": Config(channels=8, rates=(2, 4), dropout=0.1)}


class Mean(nn.Module):
    """The mean of each channel, repeated at every place."""

    def forward(self, x: Tensor) -> Tensor:
        return global_mean(x).expand_as(x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of figure 2. Nothing is pooled: it has the resolution of the image throughout."""
    dims, channels = spatial_dims, config.channels

    def ended(width: int) -> list[nn.Module]:
        return [_blocks.norm(config.norm, width), _blocks.dropout(dims, config.dropout)]

    def layer(inputs: int, outputs: int, kernel: int = 3, rate: int = 1) -> nn.Sequential:
        conv = _blocks.conv(dims, inputs, outputs, kernel, dilation=rate)
        return nn.Sequential(conv, relu(), *ended(outputs))

    def pair(kernel: int, rate: int) -> nn.Sequential:
        return nn.Sequential(layer(channels, channels, rate=rate), layer(channels, channels, kernel, rate))

    branches = [pair(1, 1), *(pair(3, rate) for rate in config.rates), Mean()]
    net = nn.Sequential(
        layer(in_channels, channels),
        layer(channels, channels),
        pair(3, 2),
        Joined(branches),
        *ended(channels * len(branches)),
        layer(channels * len(branches), 2 * channels, 1),
        _blocks.conv(dims, 2 * channels, out_channels, 1),
    )
    return _blocks.initialise(net)
