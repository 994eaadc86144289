"""V-Net: residual stages of large kernels, and strided convolutions in place of pooling.

Family: u-shape
Paper: Milletari, Navab, Ahmadi 2016, V-Net: fully convolutional neural networks for volumetric medical image segmentation,
    arXiv:1606.04797

Presets:
    paper: figure 2 and table 1: 65,175,316 parameters for 1 channel and 2 classes
        in 3D. There is no normalisation, and a rectifier follows every convolution, the last one too. On the way down its stages
        see 5, 22, 72, 172 and 372 voxels.
    common: what most code calls V-Net: batch normalisation, exponential rectifiers (ELU), fewer convolutions (1, 1, 2, 3, 2 down and
        2, 2, 1, 1 up), dropout, and a 5x5x5 convolution before the scores: 45,593,892 parameters for 1 channel and 1 class in 3D.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, PerAxis, Positive, Share, Times
from medseg.settings import Settings


class Config(Settings):
    """Options of a V-Net.

    Args:
        widths: channels of the stages on the way down, finest first; on the way up a stage has twice as many.
        convs: convolutions of each stage on the way down.
        up_convs: those on the way up, finest first; None mirrors the way down.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation after each convolution; the paper has none.
        rectifier: the rectifier.
        rectify_last: rectify the last convolution of a stage, but for the first stage's, before the stage's input is added too.
        bias: give a bias to convolutions that a normalisation may follow, but for those that double.
        dropout: share of channels dropped from each skip, 0 to 1.
        head: scores by a 1x1 convolution that is rectified, or by one after a large convolution.
    """

    widths: tuple[Positive, ...] = (16, 32, 64, 128, 256)
    convs: tuple[Times, ...] = (1, 2, 3, 3, 3)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2)
    kernel: Kernel = 5
    norm: NormName = "none"
    up_convs: tuple[Times, ...] | None = None
    rectifier: Literal["prelu", "elu"] = "prelu"
    rectify_last: bool = False
    bias: bool = True
    dropout: Share = 0.0
    head: Literal["rectified", "large"] = "rectified"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.widths), convs=self.convs)
        _blocks.check_lengths(len(self.widths) - 1, strides=self.strides)
        if self.up_convs is not None:
            _blocks.check_lengths(len(self.strides), up_convs=self.up_convs)
        return self


PRESETS = {
    "paper": Config(),
    "common": Config(
        convs=(1, 1, 2, 3, 2),
        up_convs=(1, 1, 2, 2),
        norm="batch",
        rectifier="elu",
        rectify_last=True,
        bias=False,
        dropout=0.5,
        head="large",
    ),
    "tiny": Config(widths=(4, 6, 8), convs=(1, 2, 2), strides=(2, 2), kernel=3),
}


def _rectify(config: Config, channels: int) -> nn.Module:
    return nn.ELU(inplace=True) if config.rectifier == "elu" else _blocks.activation("prelu", channels)


class Stage(nn.Module):
    """Convolutions whose sum with the stage's input is rectified last; an input of other width is repeated or cut to fit."""

    def __init__(self, dims: int, inputs: int, width: int, convs: int, config: Config, *, rectify_last: bool) -> None:
        super().__init__()
        self.width = width
        self.body = nn.Sequential()
        for index in range(convs):
            if index:
                self.body.append(_rectify(config, width))
            self.body.append(_blocks.conv(dims, width if index else inputs, width, config.kernel, bias=config.bias))
            self.body.append(_blocks.norm(config.norm, width))
        if rectify_last:
            self.body.append(_rectify(config, width))
        self.end = _rectify(config, width)

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
        dropout: nn.Module,
    ) -> None:
        super().__init__()
        self.dropout = dropout
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
            x = stage(_blocks.join(self.dropout(skips.pop()), up(x)))
        return self.head(x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A V-Net of the given widths and strides."""
    dims, widths = spatial_dims, config.widths

    def stage(inputs: int, width: int, convs: int, *, rectify_last: bool = config.rectify_last) -> nn.Module:
        return Stage(dims, inputs, width, convs, config, rectify_last=rectify_last)

    def step(resize: nn.Module, outputs: int) -> nn.Module:
        return nn.Sequential(resize, _blocks.norm(config.norm, outputs), _rectify(config, outputs))

    encoder, downs = [stage(in_channels, widths[0], config.convs[0], rectify_last=False)], []
    for level, stride in enumerate(config.strides, start=1):
        down = _blocks.strided(dims, widths[level - 1], widths[level], stride, bias=config.bias)
        downs.append(step(down, widths[level]))
        encoder.append(stage(widths[level], widths[level], config.convs[level]))
    inputs, ups, decoder = widths[-1], [], []
    for level in reversed(range(len(config.strides))):
        ups.append(step(_blocks.transposed(dims, inputs, widths[level], config.strides[level]), widths[level]))
        inputs = 2 * widths[level]
        decoder.append(stage(inputs, inputs, (config.up_convs or config.convs)[level]))
    head = _head(dims, inputs, out_channels, config)
    return _blocks.initialise(VNet(encoder, downs, ups, decoder, head, _blocks.dropout(dims, config.dropout)))


def _head(dims: int, inputs: int, classes: int, config: Config) -> nn.Module:
    scores = _blocks.conv(dims, inputs if config.head == "rectified" else classes, classes, 1)
    if config.head == "rectified":
        return nn.Sequential(scores, _rectify(config, classes))
    large = _blocks.conv(dims, inputs, classes, config.kernel, bias=config.bias)
    return nn.Sequential(large, _blocks.norm(config.norm, classes), _rectify(config, classes), scores)
