"""What the U-shaped networks share: their levels, the way down and up, residual units and rows of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import ActivationName, Kernel, NormName, Output, PerAxis, Positive, Size
from medseg.models._convs import Residual
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


class SupervisedU(nn.Module):
    """The U of given parts, with logits of coarser stages too in training; `encoder`, `ups` and `decoder` are as of `UShape`.

    Args:
        encoder: stages from the finest to the coarsest.
        ups: doubling steps.
        decoder: stages that take the skip and the doubled map.
        heads: what makes logits of decoder stages, from the finest; those after the first serve deep supervision.
        image_is_skip: the first encoder stage is coarser than the image, which then is the last skip.
    """

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        *,
        image_is_skip: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.ups = nn.ModuleList(encoder), nn.ModuleList(ups)
        self.decoder, self.heads = nn.ModuleList(decoder), nn.ModuleList(heads)
        self.image_is_skip = image_is_skip

    def forward(self, x: Tensor) -> Tensor | Output:
        skips = [x] if self.image_is_skip else []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        maps = []
        for up, stage in zip(self.ups, self.decoder, strict=True):
            x = stage(_blocks.join(skips.pop(), up(x)))
            maps.append(x)
        if not self.training or len(self.heads) == 1:
            return self.heads[0](x)
        logits, *auxiliary = (head(map_) for head, map_ in zip(self.heads, reversed(maps), strict=False))
        return Output(logits, tuple(auxiliary))


def residual(
    dims: int,
    inputs: int,
    outputs: int,
    kernel: Size,
    stride: Size,
    *,
    norm: NormName,
    activation: ActivationName,
    bias: bool,
    dropout: float = 0.0,
) -> Residual:
    """Two convolutions and a way past them (He et al. 2016), whose change of size or width is a mean and a 1x1 convolution.

    Args:
        dims: spatial axes.
        inputs: channels in.
        outputs: channels out.
        kernel: of the two convolutions.
        stride: of the first.
        norm: after each convolution.
        activation: the rectifier.
        bias: of the two convolutions.
        dropout: share of channels dropped at the end, 0 to 1.
    """
    body = nn.Sequential(
        _blocks.conv(dims, inputs, outputs, kernel, stride, bias=bias),
        _blocks.norm(norm, outputs),
        _blocks.activation(activation, outputs),
        _blocks.conv(dims, outputs, outputs, kernel, bias=bias),
        _blocks.norm(norm, outputs),
    )
    past = nn.Sequential()
    if any(s > 1 for s in _blocks.ntuple(stride, dims)):
        past.append(_blocks.mean_pool(dims, stride))
    if inputs != outputs:
        past.extend([_blocks.conv(dims, inputs, outputs, 1, bias=norm == "none"), _blocks.norm(norm, outputs)])
    end = nn.Sequential(_blocks.activation(activation, outputs), _blocks.dropout(dims, dropout))
    return Residual(body, past, lambda: end)


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
