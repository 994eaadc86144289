"""Bayesian SegNet: SegNet with dropout where it is deepest, so that many answers to one image show where it is unsure.

Family: fcn
Paper: Kendall, Badrinarayanan, Cipolla 2017, Bayesian SegNet: Model uncertainty in deep convolutional encoder-decoder architectures,
    arXiv:1511.02680
Without: ONNX (max-unpooling by places has no ONNX of any size)

Presets:
    vgg16: SegNet, with half of the values dropped after the central six stages, three down and three up: 29,455,125 parameters
        for 3 channels and 21 classes in 2D.
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
    """Options of a Bayesian SegNet. The way up mirrors the way down.

    Args:
        depth: of the VGG, its three fully connected layers included: 8 is smaller than any of that paper.
        width: of all stages, 1 for 64 to 512 channels.
        norm: after each convolution but the last.
        dropout: share of values dropped after each of the central six stages, 0 to 1.
    """

    depth: Literal[8, 11, 13, 16, 19] = 16
    width: Annotated[float, Field(gt=0)] = 1.0
    norm: NormName = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16, dropout=0.1)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A SegNet on a VGG of the given depth, with dropout after the poolings 3 to 5 and after their mirrors."""
    width = config.width
    scores = _blocks.conv(spatial_dims, vgg_channels(width)[0], out_channels)
    encoder, decoder = mirrored_vgg(
        spatial_dims, in_channels, scores, depth=config.depth, width=width, norm=config.norm
    )
    for stage in encoder[-2:]:
        stage.insert(0, nn.Dropout(config.dropout))
    for stage in decoder[:3]:
        stage.append(nn.Dropout(config.dropout))
    return _blocks.initialise(Mirror(encoder, decoder, nn.Dropout(config.dropout)))
