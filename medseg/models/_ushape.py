"""What the U-shaped networks share: their levels, the way down and up, and rows of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import ActivationName, Kernel, NormName, PerAxis, Positive, Size
from medseg.settings import Settings


class Levels(Settings):
    """Options of every U-shape.

    Args:
        widths: channels of the levels, finest first.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation beside each convolution.
    """

    widths: tuple[Positive, ...] = (64, 128, 256, 512, 1024)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2)
    kernel: Kernel = 3
    norm: NormName = "batch"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.widths) - 1, strides=self.strides)
        return self


class UShape(nn.Module):
    """The U of given parts; the lists on the way up begin with the coarsest.

    Args:
        encoder: stages from the finest to the coarsest; each coarsens what it gets.
        ups: doubling steps.
        decoder: stages that take the skip and the doubled map.
        head: what makes logits of the finest stage.
        skips: what a skip passes through on its way across; nothing where absent.
    """

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        head: nn.Module,
        skips: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.encoder, self.ups = nn.ModuleList(encoder), nn.ModuleList(ups)
        self.decoder, self.head = nn.ModuleList(decoder), head
        self.skips = nn.ModuleList(skips or [nn.Identity() for _ in ups])

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, skip, stage in zip(self.ups, self.skips, self.decoder, strict=True):
            x = stage(_blocks.join(skip(skips.pop()), up(x)))
        return self.head(x)


def u_shape(
    levels: Levels,
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    unit: Callable[[int, int], nn.Module],
    up: Callable[[int, int, Size], nn.Module],
) -> UShape:
    """The U of 2015, of any units: pooling between the levels, skips by concatenation, a 1x1 convolution at the end.

    Args:
        levels: widths and strides.
        dims: spatial axes.
        in_channels: of the image.
        out_channels: of the logits.
        unit: makes a stage from its channels in and out.
        up: makes a doubling step from its channels in and out and its stride.
    """
    widths = levels.widths
    encoder = [unit(in_channels, widths[0])]
    ups, decoder = list[nn.Module](), list[nn.Module]()
    for fine, coarse, stride in zip(widths, widths[1:], levels.strides, strict=False):
        encoder.append(nn.Sequential(_blocks.max_pool(dims, stride), unit(fine, coarse)))
        ups.insert(0, up(coarse, fine, stride))
        decoder.insert(0, unit(2 * fine, fine))
    return UShape(encoder, ups, decoder, _blocks.conv(dims, widths[0], out_channels, 1))


def convs(
    dims: int,
    inputs: int,
    *outputs: int,
    kernel: Size = 3,
    norm: NormName = "batch",
    activation: ActivationName = "relu",
    bias: bool = True,
) -> nn.Sequential:
    """Convolutions of the given widths one after the other, each with normalisation and rectifier."""
    row = nn.Sequential()
    for width in outputs:
        row.append(_blocks.conv(dims, inputs, width, kernel, bias=bias))
        row.append(_blocks.norm(norm, width)).append(_blocks.activation(activation, width))
        inputs = width
    return row
