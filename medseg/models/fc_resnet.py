"""FC-ResNet: a small U-Net that learns to normalise the image, then a residual network down and up, whose skips are sums.

Family: u-shape
Paper: Drozdzal, Chartrand, Vorontsov, Shakeri, Di Jorio, Tang, Romero, Bengio, Pal, Kadoury 2018, Learning normalized inputs for
    iterative estimation in medical image segmentation, arXiv:1702.05174

Presets:
    paper: the normaliser, 16 to 256 channels, before the FC-ResNet of 2016 (Drozdzal et al., The importance of skip connections in
        biomedical image segmentation, arXiv:1608.04117, table 1).
    plain: that FC-ResNet alone.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import PerAxis, Positive, Size, Times
from medseg.models._convs import Residual
from medseg.models._ushape import Levels, convs, u_shape


class Config(Levels):
    """Options of an FC-ResNet: levels of the residual network, whose first has plain convolutions and whose second pairs of them, and

    Args:
        blocks: bottleneck blocks of each level from the third on; the last number is of those across the bottom, which keep size.
        bottom: channels across the bottom.
        normaliser: channels of the small U-Net's levels, one more than there are strides; None leaves it out.
    """

    widths: tuple[Positive, ...] = (32, 32, 128, 256, 512)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2)
    blocks: tuple[Times, ...] = (3, 8, 10, 3)
    bottom: Positive = 1024
    normaliser: tuple[Positive, ...] | None = (16, 32, 64, 128, 256)

    @model_validator(mode="after")
    def _check_blocks(self) -> Self:
        _blocks.check_lengths(len(self.widths) - 1, blocks=self.blocks)
        if self.normaliser is not None:
            _blocks.check_lengths(len(self.widths), normaliser=self.normaliser)
        return self


PRESETS = {
    "paper": Config(),
    "plain": Config(normaliser=None),
    "tiny": Config(widths=(4, 4, 8), strides=(2, 2), blocks=(1, 1), bottom=12, normaliser=(3, 4, 6)),
}


def residual(dims: int, inputs: int, outputs: int, stride: Size, config: Config, *, bottleneck: bool) -> Residual:
    """Pre-activated convolutions and a way past them, a 1x1 convolution where size or width changes.

    Args:
        dims: spatial axes.
        inputs: channels in.
        outputs: channels out.
        stride: by how much the first convolution coarsens.
        config: kernel and normalisation.
        bottleneck: three convolutions of 1, 3 and 1 voxels with a quarter of the channels within, else a pair of 3.
    """
    inner = max(1, outputs // 4) if bottleneck else outputs
    kernels: list[Size] = [1, config.kernel, 1] if bottleneck else [config.kernel] * 2
    widths = [inputs, *[inner] * (len(kernels) - 1), outputs]
    body = nn.Sequential()
    for index, (a, b, kernel) in enumerate(zip(widths, widths[1:], kernels, strict=False)):
        body.append(_blocks.norm(config.norm, a)).append(nn.ReLU())
        body.append(_blocks.conv(dims, a, b, kernel, 1 if index else stride))
    same = inputs == outputs and set(_blocks.ntuple(stride, dims)) == {1}
    return Residual(body, None if same else _blocks.conv(dims, inputs, outputs, 1, stride))


class FCResNet(nn.Module):
    """The network of given parts; `sides` and `ups` begin with the coarsest, and a side gives a skip the width that it is added to."""

    def __init__(
        self,
        normaliser: nn.Module,
        encoder: Sequence[nn.Module],
        bottom: nn.Module,
        doubles: Sequence[nn.Module],
        sides: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.normaliser, self.bottom, self.head = normaliser, bottom, head
        self.encoder, self.doubles = nn.ModuleList(encoder), nn.ModuleList(doubles)
        self.sides, self.decoder = nn.ModuleList(sides), nn.ModuleList(decoder)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.normaliser(x), []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        x = self.bottom(x)
        for double, side, stage in zip(self.doubles, self.sides, self.decoder, strict=True):
            skip = skips.pop()
            x = side(skip) + _blocks.crop_like(double(stage(x)), skip)
        return self.head(x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A normaliser and an FC-ResNet of the given levels."""
    dims, widths = spatial_dims, config.widths

    def row(inputs: int, outputs: int, count: int, stride: Size, *, bottleneck: bool = True) -> nn.Sequential:
        first = residual(dims, inputs, outputs, stride, config, bottleneck=bottleneck)
        more = (residual(dims, outputs, outputs, 1, config, bottleneck=bottleneck) for _ in range(count - 1))
        return nn.Sequential(first, *more)

    counts = (1, *config.blocks[:-1])
    encoder: list[nn.Module] = [_blocks.conv(dims, in_channels, widths[0], config.kernel)]
    doubles, sides, decoder, inputs = [], [], [], config.bottom
    for level, (stride, count) in enumerate(zip(config.strides, counts, strict=True), start=1):
        encoder.append(row(widths[level - 1], widths[level], count, stride, bottleneck=level > 1))
    for level in reversed(range(1, len(widths))):
        fine = widths[level - 1]
        decoder.append(row(inputs, widths[level], counts[level - 1], 1, bottleneck=level > 1))
        doubles.append(_blocks.upsample(dims, config.strides[level - 1]))
        sides.append(nn.Identity() if fine == widths[level] else _blocks.conv(dims, fine, widths[level], 1))
        inputs = widths[level]
    head = nn.Sequential(
        *convs(dims, inputs, widths[0], kernel=config.kernel, norm=config.norm),
        _blocks.conv(dims, widths[0], out_channels, 1),
    )
    bottom = row(widths[-1], config.bottom, config.blocks[-1], 1)
    normaliser: nn.Module = nn.Identity()
    if config.normaliser:
        normaliser = _normaliser(config, config.normaliser, dims, in_channels)
    # torch's own initialisation, in which sums over so many blocks stay small
    return FCResNet(normaliser, encoder, bottom, doubles, sides, decoder, head)


def _normaliser(config: Config, widths: tuple[int, ...], dims: int, channels: int) -> nn.Module:
    """A U-Net from the image to an image."""

    def unit(inputs: int, outputs: int) -> nn.Module:
        return convs(dims, inputs, outputs, outputs, kernel=config.kernel, norm=config.norm)

    def up(inputs: int, outputs: int, stride: Size) -> nn.Module:
        return nn.Sequential(_blocks.upsample(dims, stride), _blocks.conv(dims, inputs, outputs, config.kernel))

    levels = Levels(widths=widths, strides=config.strides)
    return u_shape(levels, dims, channels, channels, unit=unit, up=up)
