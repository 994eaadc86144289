"""Autofocus network: convolutions that look at several sizes of neighbourhood with the same weights, and choose at each voxel.

Family: u-shape
Paper: Qin, Kamnitsas, Ancha, Nanavati, Cottrell, Criminisi, Nori 2018, Autofocus layer for semantic segmentation,
    arXiv:1805.08403

There is no pooling: from the third convolution on, kernels are spread instead. Rectifiers and ways past are where the authors' code
has them; its convolutions are not padded.

Presets:
    afn6: the paper's eight convolutions, 30 to 50 channels, of which all but the first two are autofocus layers of the dilations
        2, 6, 10 and 14.
    afn1: the last one alone is.
    afn2: the last two are.
    afn3: the last three are.
    afn4: the last four are.
    afn5: the last five are.
    basic: none is.
    tiny: two autofocus layers and few channels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, Positive
from medseg.models._convs import Residual, finished, relu
from medseg.settings import Settings


class Config(Settings):
    """Options of an autofocus network.

    Args:
        widths: channels of each convolution: an even number of them, for two make a residual unit, but for the first two.
        autofocus: how many convolutions, counted from the last, are autofocus layers.
        spread: dilation of the others from the third one on.
        dilations: those that an autofocus layer chooses from.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation after each convolution, of each dilation for itself.
    """

    widths: tuple[Positive, ...] = (30, 30, 40, 40, 40, 40, 50, 50)
    autofocus: Annotated[int, Field(ge=0)] = 6
    spread: Positive = 2
    dilations: tuple[Positive, ...] = (2, 6, 10, 14)
    kernel: Kernel = 3
    norm: NormName = "batch"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.widths) % 2 or not self.widths or self.autofocus > len(self.widths):
            raise ValueError(
                "expected an even number of widths, and autofocus at most as many; "
                f"got {self.widths} and {self.autofocus}"
            )
        return self


PRESETS = {
    "afn6": Config(),
    **{f"afn{n}": Config(autofocus=n) for n in range(1, 6)},
    "basic": Config(autofocus=0),
    "tiny": Config(widths=(6, 6, 8, 8), autofocus=2, dilations=(1, 2, 3)),
}


class Autofocus(nn.Module):
    """The normalised answers of one convolution at several dilations, weighted at each voxel and summed (equations 2 and 3).

    Args:
        dims: spatial axes.
        inputs: channels in.
        outputs: channels out.
        config: kernel, dilations and normalisation.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, config: Config) -> None:
        super().__init__()
        self.conv = _blocks.conv(dims, inputs, outputs, config.kernel)
        self.norms = nn.ModuleList(_blocks.norm(config.norm, outputs) for _ in config.dilations)
        half = max(1, inputs // 2)
        look = _blocks.conv(dims, inputs, half, config.kernel)
        self.attention = nn.Sequential(look, nn.ReLU(), _blocks.conv(dims, half, len(config.dilations), 1))
        self.dilations = config.dilations
        self.convolve = nn.functional.conv2d if dims == 2 else nn.functional.conv3d

    def forward(self, x: Tensor) -> Tensor:
        shares = self.attention(x).softmax(dim=1).split(1, dim=1)  # of each dilation (B, 1, *spatial)
        maps = (norm(self.at(x, dilation)) for norm, dilation in zip(self.norms, self.dilations, strict=True))
        first, *others = (share * map_ for share, map_ in zip(shares, maps, strict=True))
        return sum(others, first)

    def at(self, x: Tensor, dilation: int) -> Tensor:
        """The convolution with its kernel spread by a dilation, which keeps the size."""
        weight: Tensor = self.conv.weight  # type: ignore[assignment]
        padding = tuple(dilation * (k // 2) for k in weight.shape[2:])
        return self.convolve(x, weight, self.conv.bias, padding=padding, dilation=dilation)  # type: ignore[arg-type]


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Two layers, residual units of two layers each, which are rectified after the sum, and scores."""
    dims, widths = spatial_dims, (in_channels, *config.widths)
    plain = len(config.widths) - config.autofocus

    def layer(index: int, inputs: int, outputs: int) -> nn.Module:
        if index >= plain:
            return Autofocus(dims, inputs, outputs, config)
        rate = config.spread if index > 1 else 1
        return finished(_blocks.conv(dims, inputs, outputs, config.kernel, dilation=rate), outputs, config.norm, None)

    def past(inputs: int, outputs: int) -> nn.Module | None:
        if inputs == outputs:
            return None
        return finished(_blocks.conv(dims, inputs, outputs, 1), outputs, config.norm, None)

    layers = [layer(index, *ends) for index, ends in enumerate(pairwise(widths))]
    net = nn.Sequential(layers[0], relu(), layers[1], relu())
    for n in range(2, len(layers), 2):
        body = nn.Sequential(layers[n], relu(), layers[n + 1])
        net.append(Residual(body, past(widths[n], widths[n + 2]), relu))
    return _blocks.initialise(net.append(_blocks.conv(dims, widths[-1], out_channels, 1)))
