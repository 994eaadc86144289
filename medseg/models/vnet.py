"""V-Net: residual stages of large kernels, and strided convolutions in place of pooling.

Family: u-shape
Paper: Milletari, Navab, Ahmadi 2016, V-Net: fully convolutional neural networks for volumetric medical image segmentation,
    arXiv:1606.04797

Presets:
    paper: figure 2 and table 1: 65,175,316 parameters for 1 channel and 2 classes
        in 3D. There is no normalisation, and a rectifier follows every convolution, the last one too. On the way down its stages
        see 5, 22, 72, 172 and 372 voxels.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, PerAxis, Positive, Size
from medseg.settings import Settings


class Config(Settings):
    """Options of a V-Net. The way up mirrors the way down.

    Args:
        widths: channels of the stages on the way down, finest first; on the way up a stage has twice as many.
        convs: convolutions of each stage.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation after each convolution; the paper has none.
    """

    widths: tuple[Positive, ...] = (16, 32, 64, 128, 256)
    convs: tuple[Positive, ...] = (1, 2, 3, 3, 3)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2)
    kernel: Kernel = 5
    norm: NormName = "none"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.widths), convs=self.convs)
        _blocks.check_lengths(len(self.widths) - 1, strides=self.strides)
        return self


PRESETS = {"paper": Config(), "tiny": Config(widths=(4, 6, 8), convs=(1, 2, 2), strides=(2, 2), kernel=3)}


class Stage(nn.Module):
    """Convolutions whose sum with the stage's input is rectified last; an input of other width is repeated or cut to fit."""

    def __init__(self, dims: int, inputs: int, width: int, convs: int, kernel: Size, norm: NormName) -> None:
        super().__init__()
        self.width = width
        self.body = nn.Sequential()
        for index in range(convs):
            if index:
                self.body.append(_blocks.activation("prelu", width))
            self.body.append(_blocks.conv(dims, width if index else inputs, width, kernel))
            self.body.append(_blocks.norm(norm, width))
        self.end = _blocks.activation("prelu", width)

    def forward(self, x: Tensor) -> Tensor:
        repeats = -(-self.width // x.shape[1])
        past = x.repeat(1, repeats, *[1] * (x.ndim - 2))[:, : self.width] if x.shape[1] != self.width else x
        return self.end(self.body(x) + past)


class VNet(nn.Module):
    """The V of given parts; the lists on the way up begin with the coarsest."""

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        downs: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder, self.downs = nn.ModuleList(encoder), nn.ModuleList(downs)
        self.ups, self.decoder, self.head = nn.ModuleList(ups), nn.ModuleList(decoder), head

    def forward(self, x: Tensor) -> Tensor:
        first, *coarser = self.encoder
        x = first(x)
        skips = []
        for down, stage in zip(self.downs, coarser, strict=True):
            skips.append(x)
            x = stage(down(x))
        for up, stage in zip(self.ups, self.decoder, strict=True):
            x = stage(_blocks.join(skips.pop(), up(x)))
        return self.head(x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A V-Net of the given widths and strides."""
    dims, widths = spatial_dims, config.widths

    def stage(inputs: int, width: int, convs: int) -> nn.Module:
        return Stage(dims, inputs, width, convs, config.kernel, config.norm)

    def step(way: Literal["down", "up"], inputs: int, outputs: int, stride: Size) -> nn.Module:
        resize = _blocks.strided if way == "down" else _blocks.transposed
        norm, rectify = _blocks.norm(config.norm, outputs), _blocks.activation("prelu", outputs)
        return nn.Sequential(resize(dims, inputs, outputs, stride), norm, rectify)

    encoder, downs = [stage(in_channels, widths[0], config.convs[0])], []
    for level, stride in enumerate(config.strides, start=1):
        downs.append(step("down", widths[level - 1], widths[level], stride))
        encoder.append(stage(widths[level], widths[level], config.convs[level]))
    inputs, ups, decoder = widths[-1], [], []
    for level in reversed(range(len(config.strides))):
        ups.append(step("up", inputs, widths[level], config.strides[level]))
        inputs = 2 * widths[level]
        decoder.append(stage(inputs, inputs, config.convs[level]))
    head = nn.Sequential(_blocks.conv(dims, inputs, out_channels, 1), _blocks.activation("prelu", out_channels))
    return _blocks.initialise(VNet(encoder, downs, ups, decoder, head))
