"""MONAI's SegResNet: pre-activated residual blocks, more of them on the way down than on the way up, and skips by addition.

Family: u-shape
Paper: Myronenko 2018, 3D MRI brain tumor segmentation using autoencoder regularization, arXiv:1810.11654
Needs: monai

Presets:
    monai: MONAI's default, of 8 channels.
    paper: of 32 channels, with a dropout of 0.2 behind the first convolution (section 2.2); its autoencoder branch, which takes
        images of one size alone, is left out, as in MONAI's class.
    ds: MONAI's SegResNetDS, with transposed convolutions, a fifth stage, and scores of four levels in training.
    tiny: of 8 channels with one block a stage and one stage less.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import nn

from medseg.models._blocks import Share, Times
from medseg.models._monai import NORMS, Adapted, monai
from medseg.settings import Settings


class Config(Settings):
    """Options of a SegResNet.

    Args:
        channels: of the finest stage, a multiple of 8; each coarser one doubles them.
        blocks: residual blocks of each stage on the way down, finest first.
        up_blocks: residual blocks of every stage on the way up.
        dropout: share of values dropped behind the first convolution, 0 to 1; without levels alone.
        levels: 0 for SegResNet; else SegResNetDS, and of how many levels it gives scores in training.
    """

    channels: Annotated[int, Field(ge=8, multiple_of=8)] = 8
    blocks: tuple[Times, ...] = (1, 2, 2, 4)
    up_blocks: Times = 1
    dropout: Share = 0.0
    levels: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.levels and self.dropout:
            raise ValueError(f"expected a dropout of 0 beside levels: SegResNetDS has none; got {self.dropout}")
        return self


PRESETS = {
    "monai": Config(),
    "paper": Config(channels=32, dropout=0.2),
    "ds": Config(channels=32, blocks=(1, 2, 2, 4, 4), levels=4),
    "tiny": Config(blocks=(1, 1, 1)),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's SegResNet, or SegResNetDS, with normalisation of groups of channels."""
    steps = len(config.blocks) - 1
    options = {
        "spatial_dims": spatial_dims,
        "init_filters": config.channels,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "norm": NORMS["group"],
        "blocks_down": config.blocks,
        "blocks_up": (config.up_blocks,) * steps,
    }
    if config.levels:
        net = monai("nets.segresnet_ds").SegResNetDS(**options, dsdepth=config.levels)
    else:
        net = monai("nets.segresnet").SegResNet(**options, dropout_prob=config.dropout or None)
    return Adapted(net, spatial_dims, 2**steps)
