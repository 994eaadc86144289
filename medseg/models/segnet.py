"""SegNet: VGG16 and its mirror, which puts each value back where the pooling had found it.

Family: fcn
Paper: Badrinarayanan, Kendall, Cipolla 2017, SegNet: A deep convolutional encoder-decoder architecture, arXiv:1511.00561
Without: ONNX (max-unpooling by places has no ONNX of any size)

Presets:
    vgg16: 13 convolutions down and 13 up, the last of which makes the scores: 29,455,125 parameters for 3 channels and 21 classes
        in 2D.
    tiny: one narrow convolution a stage.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from medseg.models import _blocks
from medseg.models._backbones.vgg import vgg_channels
from medseg.models._blocks import NormName
from medseg.models._mirror import Mirror, mirrored_vgg
from medseg.settings import Settings


class Config(Settings):
    """Options of a SegNet. The way up mirrors the way down.

    Args:
        depth: of the VGG, its three fully connected layers included: 8 is smaller than any of that paper.
        width: of all stages, 1 for 64 to 512 channels.
        norm: after each convolution but the last.
    """

    depth: Literal[8, 11, 13, 16, 19] = 16
    width: Annotated[float, Field(gt=0)] = 1.0
    norm: NormName = "batch"


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A SegNet on a VGG of the given depth."""
    width = config.width
    scores = _blocks.conv(spatial_dims, vgg_channels(width)[0], out_channels)
    halves = mirrored_vgg(spatial_dims, in_channels, scores, depth=config.depth, width=width, norm=config.norm)
    return _blocks.initialise(Mirror(*halves))
