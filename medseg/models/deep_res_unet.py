"""Deep ResUNet: three levels of pre-activated residual units, strides in place of pooling, and a bridge.

Family: u-shape
Paper: Zhang, Liu, Wang 2018, Road extraction by deep residual U-Net, arXiv:1711.10684

Presets:
    paper: table 1, 7.8 M parameters as the paper says, which leaves nothing for weights on the way past a unit: it passes
        what it can, at every second voxel, with channels cut or filled with zeros (He et al. 2016, option A).
    projection: the form that most code has: a 1x1 convolution with normalisation on the way past, 8.2 M parameters.
    tiny: the paper's topology with few channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import PerAxis, Positive, Size
from medseg.models._convs import Residual, finished
from medseg.models._ushape import Levels, UShape


class Config(Levels):
    """Options of a Deep ResUNet: levels, and

    Args:
        past: what goes past a unit that changes size or width: the map itself, or a projection of it.
    """

    widths: tuple[Positive, ...] = (64, 128, 256, 512)
    strides: tuple[PerAxis, ...] = (2, 2, 2)
    past: Literal["identity", "projection"] = "identity"


PRESETS = {
    "paper": Config(),
    "projection": Config(past="projection"),
    "tiny": Config(widths=(4, 6, 8), strides=(2, 2)),
}


class Fit(nn.Module):
    """A map at every stride-th voxel, its channels cut or filled with zeros to the given number."""

    def __init__(self, dims: int, outputs: int, stride: Size) -> None:
        super().__init__()
        self.outputs, self.steps = outputs, tuple(slice(None, None, s) for s in _blocks.ntuple(stride, dims))

    def forward(self, x: Tensor) -> Tensor:
        x = x[(slice(None), slice(self.outputs), *self.steps)]
        return nn.functional.pad(x, [0, 0] * len(self.steps) + [0, self.outputs - x.shape[1]])


def residual(dims: int, inputs: int, outputs: int, stride: Size, config: Config, *, first: bool = False) -> Residual:
    """A residual unit, of which the very first of a network sees the image without normalisation and rectifier."""
    past: nn.Module = Fit(dims, outputs, stride)
    if config.past == "projection":
        past = finished(_blocks.conv(dims, inputs, outputs, 1, stride), outputs, config.norm, None)
    before = [] if first else [_blocks.norm(config.norm, inputs), nn.ReLU()]
    body = nn.Sequential(
        *before,
        _blocks.conv(dims, inputs, outputs, config.kernel, stride),
        _blocks.norm(config.norm, outputs),
        nn.ReLU(),
        _blocks.conv(dims, outputs, outputs, config.kernel),
    )
    return Residual(body, past)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A Deep ResUNet of the given levels, the last of which is the bridge."""
    dims, widths = spatial_dims, config.widths
    encoder: list[nn.Module] = [residual(dims, in_channels, widths[0], 1, config, first=True)]
    ups: list[nn.Module] = []
    decoder: list[nn.Module] = []
    for fine, coarse, stride in zip(widths, widths[1:], config.strides, strict=False):
        encoder.append(residual(dims, fine, coarse, stride, config))
        ups.insert(0, _blocks.upsample(dims, stride))
        decoder.insert(0, residual(dims, fine + coarse, fine, 1, config))
    head = _blocks.conv(dims, widths[0], out_channels, 1)
    return _blocks.initialise(UShape(encoder, ups, decoder, head))
