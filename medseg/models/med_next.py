"""MONAI's MedNeXt: a U-shape of ConvNeXt blocks: a large kernel for each channel, then a wide layer for each voxel.

Family: u-shape
Paper: Roy, Koehler, Ulrich, Baumgartner, Petersen, Isensee, Jaeger, Maier-Hein 2023, MedNeXt: transformer-driven scaling of ConvNets
    for medical image segmentation, arXiv:2303.09975
Needs: monai

Presets:
    s: S of table 1, with kernels of 3: 5,551,310 parameters for 1 channel and 14 classes in 3D (5.6 million in the paper).
    b: B: wider in the middle; 10.5 million.
    m: M: deeper too; 17.6 million.
    l: L: 61.8 million.
    s5: S with kernels of 5; 5.9 million. Others with `kernel_size`.
    tiny: two steps down, of 4 channels.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator
from torch import nn

from medseg.models._blocks import Positive, Times, check_lengths
from medseg.models._monai import Adapted, monai
from medseg.settings import Settings


class Config(Settings):
    """Options of a MedNeXt.

    Args:
        channels: of the finest stage; each coarser one doubles them.
        ratios: how many times its channels the wide layer of a stage has, from the finest to the coarsest.
        blocks: of a stage, on the way down as on the way up.
        kernel_size: of the convolutions of single channels.
        aux: in training also the scores of each coarser stage (deep supervision).
    """

    channels: Positive = 32
    ratios: tuple[Positive, ...] = (2, 2, 2, 2, 2)
    blocks: tuple[Times, ...] = (2, 2, 2, 2, 2)
    kernel_size: Literal[3, 5, 7] = 3
    aux: bool = False

    @model_validator(mode="after")
    def _fit(self) -> Self:
        check_lengths(len(self.ratios), blocks=self.blocks)
        return self


PRESETS = {
    "s": Config(),
    "b": Config(ratios=(2, 3, 4, 4, 4)),
    "m": Config(ratios=(2, 3, 4, 4, 4), blocks=(3, 4, 4, 4, 4)),
    "l": Config(ratios=(3, 4, 8, 8, 8), blocks=(3, 4, 8, 8, 8)),
    "s5": Config(kernel_size=5),
    "tiny": Config(channels=4, ratios=(2, 2, 2), blocks=(1, 1, 1)),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's MedNeXt, whose way up mirrors its way down."""
    (*ratios, middle_ratio), (*blocks, middle_blocks) = config.ratios, config.blocks
    net = monai("nets.mednext").MedNeXt(
        spatial_dims=spatial_dims,
        init_filters=config.channels,
        in_channels=in_channels,
        out_channels=out_channels,
        encoder_expansion_ratio=ratios,
        decoder_expansion_ratio=ratios[::-1],
        bottleneck_expansion_ratio=middle_ratio,
        kernel_size=config.kernel_size,
        deep_supervision=config.aux,
        use_residual_connection=True,
        blocks_down=blocks,
        blocks_bottleneck=middle_blocks,
        blocks_up=blocks[::-1],
    )
    return Adapted(net, spatial_dims, 2 ** len(blocks))
