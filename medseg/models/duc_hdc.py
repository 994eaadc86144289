"""DUC-HDC: dilations that change from block to block, so that no voxel is left out, and scores of a block's voxels side by side.

Family: dilated
Paper: Wang, Chen, Yuan, Liu, Huang, Hou, Cottrell 2018, Understanding convolution for semantic segmentation, arXiv:1702.08502

Presets:
    resnet101: with the branches of DeepLab v2 and cells of 2 pixels: 65,038,464 parameters for 3 channels and 19 classes in 2D.
    resnet152: the deeper trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Positive, Width
from medseg.models._context import SumASPP
from medseg.models._resizing import PixelShuffle
from medseg.settings import Settings

STRIDE = 8
Turn = Annotated[tuple[Positive, ...], Field(min_length=1)]


class Config(Settings):
    """Options of a DUC-HDC.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        deep_stem: three 3x3 convolutions in place of the 7x7 (section 4.1).
        hybrid: of the trunk's last two stages: dilations that their blocks take in turn ("bigger", table 3).
        rates: dilations of the branches, whose scores are summed.
        cell: voxels an axis that share a score, which is then interpolated: 1, 2, 4 or 8.
        norm: after each convolution of the trunk.
    """

    depth: ResNetDepth = 101
    width: Width = 1.0
    deep_stem: bool = True
    hybrid: tuple[Turn, Turn] = ((1, 2, 5, 9), (5, 9, 17))
    rates: tuple[Positive, ...] = (6, 12, 18, 24)
    cell: Literal[1, 2, 4, 8] = 2
    norm: NormName = "batch"


PRESETS = {
    "resnet101": Config(),
    "resnet152": Config(depth=152),
    "tiny": Config(depth=10, width=1 / 16, hybrid=((1, 2), (2,)), rates=(1, 2), cell=4),
}


class DUC(nn.Module):
    """A trunk and a head that gives its last map the resolution of the image, or a little more, which is cut."""

    def __init__(self, trunk: Trunk, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> Tensor:
        return _blocks.crop_like(self.head(self.trunk(x)[-1]), x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet with hybrid dilated convolution (3.2) and dense upsampling convolution (3.1)."""
    dims, cells = spatial_dims, STRIDE // config.cell
    trunk = resnet(
        dims,
        in_channels,
        config.depth,
        width=config.width,
        norm=config.norm,
        output_stride=STRIDE,
        hybrid=config.hybrid,
        deep_stem=config.deep_stem,
    )
    head = nn.Sequential(
        SumASPP(dims, trunk.channels[-1], out_channels * cells**dims, config.rates),
        PixelShuffle(cells),
        _blocks.upsample(dims, config.cell, linear=True),
    )
    return _blocks.initialise(DUC(trunk, head))
