"""DeconvNet: VGG16 with its fully connected layers, and the mirror of it all, which puts values back where the pooling had found them.

Family: fcn
Paper: Noh, Hong, Han 2015, Learning deconvolution network for semantic segmentation, arXiv:1505.04366
Without: ONNX (max-unpooling by places has no ONNX of any size)

Presets:
    vgg16: 251,805,653 parameters for 3 channels and 21 classes in 2D, four fifths of them in the two layers of 7x7.
    tiny: one narrow convolution a stage, and 1x1 in place of 7x7.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import Hidden
from medseg.models._backbones.vgg import vgg_channels, vgg_stage
from medseg.models._blocks import Kernel, Positive
from medseg.models._convs import finished
from medseg.models._mirror import Mirror, Options, mirrored_vgg


class Config(Options):
    """Options of a DeconvNet, besides those of `_mirror.Options`.

    Args:
        hidden: channels of the convolutions in place of fully connected layers.
        reach: odd number of voxels that the first of these sees along an axis of the coarsest map, and the mirror of it.
    """

    hidden: Positive = 4096
    reach: Kernel = 7


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16, hidden=8, reach=1)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A DeconvNet on a VGG of the given depth (section 3.2 and figure 2).

    A deconvolution without a stride is a convolution with its kernel turned over: here all are convolutions. Those of 7x7 keep
    the size, so that the coarsest map may be of any; the paper's, of 224 pixels, is 7x7 and becomes a single element.
    """
    dims, norm, hidden = spatial_dims, config.norm, config.hidden
    first, *_, last = vgg_channels(config.width)
    mirror = vgg_stage(dims, first, first, 1, norm=norm).append(_blocks.conv(dims, first, out_channels, 1))
    encoder, decoder = mirrored_vgg(dims, in_channels, mirror, config)
    layers = [_blocks.conv(dims, last, hidden, config.reach), _blocks.conv(dims, hidden, hidden, 1)]
    middle = nn.Sequential(
        Hidden(*(finished(layer, hidden, norm) for layer in layers)),
        finished(_blocks.conv(dims, hidden, last, config.reach), last, norm),
    )
    return _blocks.initialise(Mirror(encoder, decoder, middle))
