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

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones.vgg import vgg_channels
from medseg.models._mirror import Mirror, Options, mirrored_vgg


class Config(Options):
    """Options of a SegNet: those of `_mirror.Options`."""


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A SegNet on a VGG of the given depth."""
    scores = _blocks.conv(spatial_dims, vgg_channels(config.width)[0], out_channels)
    return _blocks.initialise(Mirror(*mirrored_vgg(spatial_dims, in_channels, scores, config)))
