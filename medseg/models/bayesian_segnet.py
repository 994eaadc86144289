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

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones.vgg import vgg_channels
from medseg.models._blocks import Share
from medseg.models._mirror import Mirror, Options, mirrored_vgg


class Config(Options):
    """Options of a Bayesian SegNet, besides those of `_mirror.Options`.

    Args:
        dropout: share of values dropped after each of the central six stages, 0 to 1.
    """

    dropout: Share = 0.5


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16, dropout=0.1)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A SegNet on a VGG of the given depth, with dropout after the poolings 3 to 5 and after their mirrors."""
    scores = _blocks.conv(spatial_dims, vgg_channels(config.width)[0], out_channels)
    encoder, decoder = mirrored_vgg(spatial_dims, in_channels, scores, config)
    for stage in encoder[-2:]:
        stage.insert(0, nn.Dropout(config.dropout))
    for stage in decoder[:3]:
        stage.append(nn.Dropout(config.dropout))
    return _blocks.initialise(Mirror(encoder, decoder, nn.Dropout(config.dropout)))
