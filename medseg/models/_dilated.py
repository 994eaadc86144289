"""What context networks share: a dilated ResNet, a head on its last map, and scores of the map before it beside that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk, resnet
from medseg.models._blocks import NormName
from medseg.models._segmenter import Segmenter, fcn_head
from medseg.settings import Settings


class Options(Settings):
    """Options of a network on a dilated ResNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the authors' code.
        stride: of the trunk's last map, 8, 16 or 32.
        norm: after each convolution.
        dropout: share of channels dropped before the scores, 0 to 1.
        aux: in training also the scores of the trunk's last map but one.
    """

    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    width: Annotated[float, Field(gt=0)] = 1.0
    deep_stem: bool = False
    stride: Literal[8, 16, 32] = 8
    norm: NormName = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    aux: bool = False


def dilated_resnet(dims: int, inputs: int, config: Options, multi_grid: Sequence[int] = ()) -> Trunk:
    """The trunk of a configuration."""
    return resnet(
        dims,
        inputs,
        config.depth,
        width=config.width,
        norm=config.norm,
        output_stride=config.stride,
        multi_grid=tuple(multi_grid),
        deep_stem=config.deep_stem,
    )


def segmenter(dims: int, trunk: Trunk, head: nn.Module, outputs: int, config: Options) -> nn.Module:
    """Trunk and head with their first weights, and with auxiliary scores where the configuration has them."""
    side = trunk.channels[-2]
    auxiliary = [fcn_head(dims, -2, side, outputs, norm=config.norm)] if config.aux else []
    return _blocks.initialise(Segmenter(trunk, head, auxiliary))
