"""U-Net: an encoder that halves, a decoder that doubles, and skip connections by concatenation.

Family: u-shape
Paper: Ronneberger, Fischer, Brox 2015, U-Net: convolutional networks for biomedical image segmentation, arXiv:1505.04597

Presets:
    residual: the default, planned from the data: residual units, normalised, deeply supervised, and its first stage at half
        resolution, where a CPU learns several times more per second. A last, narrow step at full resolution sees the image
        itself as its skip connection, so that fine borders are not lost.
    paper: figure 1 of the paper: 31,030,658 parameters for 1 channel and 2 classes in 2D.
        Convolutions are padded, so that the size is kept; the paper's are not, and its output is smaller than its input. Half of the
        values are dropped at the end of the way down, as in the authors' network.
    paper3d: Cicek et al. 2016, arXiv:1606.06650, figure 2: 19,069,955 parameters for 3 channels and 3 classes in 3D, scale and
        shift of the normalisation not counted, as in the paper. Padded too.
    nnunet: Isensee et al. 2021, arXiv:1904.08128: the network that nnU-Net plans for volumes, of six stages, which takes its weights
        (`--init`): 31,195,594 parameters for 1 channel and 2 classes in 3D.
    tiny: the residual topology with few channels.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator
from torch import nn

from medseg.models import _blocks
from medseg.models._blocks import ActivationName, Kernel, NormName, PerAxis, Positive, Share, Size, Times
from medseg.models._ushape import SupervisedU, residual
from medseg.settings import Settings


class Config(Settings):
    """Options of a U-Net; the first four have one item a stage, from the finest to the coarsest.

    Args:
        widths: channels.
        strides: by how much a stage coarsens what it gets, one number or one an axis. A first stride above 1 puts the first
            stage at a lower resolution and adds the narrow step at full resolution.
        kernels: odd sizes of convolutions, one number or one an axis: (3, 3, 1) where slices are thick.
        blocks: units of an encoder stage (a plain unit is one convolution, a residual unit two).
        decoder_blocks: units of a decoder stage.
        block: plain or residual units.
        downsample: by the stride of the first convolution, or by maximum pooling before it.
        full_width: channels of the step at full resolution.
        norm: normalisation after each convolution.
        activation: the rectifier.
        bias: give convolutions a bias although a normalisation follows.
        dropout: share of channels dropped after each unit, 0 to 1.
        bottom_dropout: share of values dropped after the two coarsest stages of the encoder, 0 to 1.
        deep_supervision: in training, logits of the coarser decoder stages too.
        narrow_first: plain units only: the first convolution of an encoder stage has half its width (3D U-Net: channels double
            before the pooling, not after).
        up_keeps_width: a doubling step keeps the number of channels and has no bias (3D U-Net); else it has the skip's.
    """

    widths: tuple[Positive, ...] = (24, 48, 96, 192)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2)
    kernels: tuple[Kernel, ...] = (3, 3, 3, 3)
    blocks: tuple[Times, ...] = (1, 1, 1, 1)
    decoder_blocks: Times = 1
    block: Literal["plain", "residual"] = "residual"
    downsample: Literal["conv", "pool"] = "conv"
    full_width: Positive = 8
    norm: NormName = "instance"
    activation: ActivationName = "leaky_relu"
    bias: bool = False
    dropout: Share = 0.0
    bottom_dropout: Share = 0.0
    deep_supervision: bool = True
    narrow_first: bool = False
    up_keeps_width: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        counts = {name: len(getattr(self, name)) for name in ("widths", "strides", "kernels", "blocks")}
        if len(set(counts.values())) > 1 or counts["widths"] < 2:
            raise ValueError(
                f"widths, strides, kernels and blocks need one item a stage, and two stages at least; got {counts}"
            )
        if self.narrow_first and (self.block == "residual" or min(self.blocks) < 2):
            raise ValueError("narrow_first needs plain units, two a stage at least: blocks=2, block=plain")
        return self


_PAPER: dict[str, Any] = {
    "block": "plain",
    "downsample": "pool",
    "activation": "relu",
    "bias": True,
    "deep_supervision": False,
}
PRESETS = {
    "residual": Config(),
    "paper": Config(
        widths=(64, 128, 256, 512, 1024),
        strides=(1, 2, 2, 2, 2),
        kernels=(3,) * 5,
        blocks=(2,) * 5,
        decoder_blocks=2,
        norm="none",
        bottom_dropout=0.5,
        **_PAPER,
    ),
    "paper3d": Config(
        widths=(64, 128, 256, 512),
        strides=(1, 2, 2, 2),
        kernels=(3,) * 4,
        blocks=(2,) * 4,
        decoder_blocks=2,
        norm="batch",
        narrow_first=True,
        up_keeps_width=True,
        **_PAPER,
    ),
    "nnunet": Config(
        widths=(32, 64, 128, 256, 320, 320),
        strides=(1, 2, 2, 2, 2, 2),
        kernels=(3,) * 6,
        blocks=(2,) * 6,
        decoder_blocks=2,
        block="plain",
        bias=True,
    ),
    "tiny": Config(widths=(4, 6, 8), strides=(2, 2, 2), kernels=(3,) * 3, blocks=(1,) * 3, full_width=4),
}


def _unit(dims: int, inputs: int, outputs: int, kernel: Size, stride: Size, config: Config) -> nn.Module:
    """A residual unit, or one of a single convolution."""
    bias = config.bias or config.norm == "none"
    if config.block == "plain":
        return _plain(dims, _blocks.conv(dims, inputs, outputs, kernel, stride, bias=bias), outputs, config)
    how: dict[str, Any] = {"norm": config.norm, "activation": config.activation, "dropout": config.dropout}
    return residual(dims, inputs, outputs, kernel, stride, bias=bias, **how)


def _full_step(dims: int, inputs: int, config: Config) -> nn.Sequential:
    bias = config.bias or config.norm == "none"
    conv = _blocks.narrow_conv(dims, inputs, config.full_width, config.kernels[0], bias=bias)
    return _plain(dims, conv, config.full_width, config)


def _plain(dims: int, conv: nn.Module, channels: int, config: Config) -> nn.Sequential:
    """Convolution, normalisation, rectifier, dropout."""
    return nn.Sequential(
        conv,
        _blocks.norm(config.norm, channels),
        _blocks.activation(config.activation, channels),
        _blocks.dropout(dims, config.dropout),
    )


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A U-Net of the given widths, strides and kernels."""
    dims, image_is_skip = spatial_dims, _coarsens(config.strides[0])
    inputs, encoder, ups, decoder = in_channels, [], [], []
    for width, stride, kernel, blocks in zip(config.widths, config.strides, config.kernels, config.blocks, strict=True):
        encoder.append(_encoder_stage(dims, inputs, width, kernel, stride, blocks, config))
        inputs = width
    for stage in encoder[-2:] if config.bottom_dropout else ():
        stage.append(nn.Dropout(config.bottom_dropout))
    for level in reversed(range(len(config.widths) - 1)):
        width, kernel = config.widths[level], config.kernels[level]
        up_width = inputs if config.up_keeps_width else width
        ups.append(_up(dims, inputs, up_width, config.strides[level + 1], config))
        units = [_unit(dims, up_width + width, width, kernel, 1, config)]
        units += [_unit(dims, width, width, kernel, 1, config) for _ in range(config.decoder_blocks - 1)]
        decoder.append(nn.Sequential(*units))
        inputs = width
    if image_is_skip:
        ups.append(_up(dims, inputs, config.full_width, config.strides[0], config))
        decoder.append(_full_step(dims, config.full_width + in_channels, config))
    outputs = ([config.full_width] if image_is_skip else []) + list(config.widths[:-1])
    heads = [_blocks.conv(dims, width, out_channels, 1) for width in outputs[: None if config.deep_supervision else 1]]
    return _blocks.initialise(SupervisedU(encoder, ups, decoder, heads, image_is_skip=image_is_skip))


def _coarsens(stride: Size) -> bool:
    return stride > 1 if isinstance(stride, int) else any(s > 1 for s in stride)


def _up(dims: int, inputs: int, outputs: int, stride: Size, config: Config) -> nn.Module:
    return _blocks.transposed(dims, inputs, outputs, stride, bias=not config.up_keeps_width)


def _encoder_stage(
    dims: int, inputs: int, width: int, kernel: Size, stride: Size, blocks: int, config: Config
) -> nn.Sequential:
    stage = nn.Sequential()
    if config.downsample == "pool" and _coarsens(stride):
        stage.append(_blocks.max_pool(dims, stride))
        stride = 1
    for index in range(blocks):
        outputs = width // 2 if config.narrow_first and index == 0 else width
        stage.append(_unit(dims, inputs, outputs, kernel, stride, config))
        inputs, stride = outputs, 1
    return stage
