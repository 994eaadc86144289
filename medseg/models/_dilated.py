"""What networks on a ResNet share, plain or dilated: options, and the trunk that they describe."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.models._backbones import OutputStride, ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Share, Width
from medseg.settings import Settings


class OnResNet(Settings):
    """Options of a network on a ResNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        norm: after each convolution.
    """

    depth: ResNetDepth = 50
    width: Width = 1.0
    norm: NormName = "batch"


class Options(OnResNet):
    """Those, and what a network on a dilated ResNet has besides.

    Args:
        stride: of the trunk's last map, 8, 16 or 32.
        dropout: share of channels dropped before the scores, 0 to 1.
        aux: in training also the scores of the trunk's last map but one.
    """

    stride: OutputStride = 8
    dropout: Share = 0.1
    aux: bool = False


class StemOptions(Options):
    """Those, and the choice between two stems.

    Args:
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the authors' code.
    """

    deep_stem: bool = False


def dilated_resnet(
    dims: int, inputs: int, config: Options, multi_grid: Sequence[int] = (), *, further: int = 0
) -> Trunk:
    """The trunk of a configuration."""
    return resnet(
        dims,
        inputs,
        config.depth,
        width=config.width,
        norm=config.norm,
        output_stride=config.stride,
        multi_grid=multi_grid,
        deep_stem=isinstance(config, StemOptions) and config.deep_stem,
        further=further,
    )
