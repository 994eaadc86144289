"""WideResNet-38 as a dense predictor: a wide trunk with dilations, and two convolutions that reach far.

Family: dilated
Paper: Wu, Shen, van den Hengel 2016, Wider or deeper: revisiting the ResNet model for visual recognition, arXiv:1611.10080

Presets:
    a: model A of stride 8, its classifier of 512 channels: 124,042,581 parameters for 3 channels and 21 classes in 2D.
    linear: one convolution for a classifier.
    tiny: one narrow block a stage.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride, wide_resnet38
from medseg.models._blocks import NormName, Positive, Share, Times, Width
from medseg.models._convs import relu
from medseg.models._segmenter import Pick, Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of a WideResNet-38.

    Args:
        width: of the trunk, 1 for 64 to 4096 channels.
        blocks: of each stage at most; none for the paper's.
        stride: of the trunk's last map, 8, 16 or 32.
        hidden: channels between the two convolutions of the classifier; 0 for a single one.
        rate: their dilation.
        norm: before each convolution of the trunk.
        dropout: share of the values of the last map dropped, 0 to 1.
    """

    width: Width = 1.0
    blocks: Times | None = None
    stride: OutputStride = 8
    hidden: Annotated[int, Field(ge=0)] = 512
    rate: Positive = 12
    norm: NormName = "batch"
    dropout: Share = 0.5


PRESETS = {
    "a": Config(),
    "linear": Config(hidden=0),
    "tiny": Config(width=3 / 128, blocks=1, hidden=6, rate=2, dropout=0.1),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The trunk and its classifier (section 4.2)."""
    dims, hidden, rate = spatial_dims, config.hidden, config.rate
    trunk = wide_resnet38(
        dims,
        in_channels,
        width=config.width,
        blocks=config.blocks,
        norm=config.norm,
        output_stride=config.stride,
    )
    head, last = nn.Sequential(Pick(-1), nn.Dropout(config.dropout)), trunk.channels[-1]
    if hidden:
        head.extend([_blocks.conv(dims, last, hidden, dilation=rate), relu()])
    head.append(_blocks.conv(dims, hidden or last, out_channels, dilation=rate))
    return _blocks.initialise(Segmenter(trunk, head))
