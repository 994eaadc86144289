"""MONAI's HighResNet: residual blocks at full resolution, whose dilations see far.

Family: dilated
Paper: Li, Wang, Fidon, Ourselin, Cardoso, Vercauteren 2017, On the compactness, efficiency, and representation of 3D convolutional
    networks: brain parcellation as a pretext task, arXiv:1707.01992
Needs: monai

Presets:
    paper: figure 2: 16, 32 and 64 channels of dilations 1, 2 and 4; 821,904 parameters for 1 channel and 160 classes in 3D
        (0.81 million in the paper).
    tiny: of 4, 6 and 8 channels, with one block each.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from torch import nn

from medseg.models._blocks import Positive, Share, Times
from medseg.models._monai import NORMS, Adapted, MonaiNorm, monai
from medseg.settings import Settings


class Config(Settings):
    """Options of a HighResNet.

    Args:
        channels: of each group of residual blocks, not falling; the dilation doubles from one to the next.
        blocks: residual blocks of a group.
        hidden: channels of the last layer but one, which sees single voxels.
        norm: before each convolution's rectifier.
        dropout: share of values dropped before the scores, 0 to 1.
    """

    channels: tuple[Positive, ...] = (16, 32, 64)
    blocks: Times = 3
    hidden: Positive = 80
    norm: MonaiNorm = "batch"
    dropout: Share = 0.0

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if list(self.channels) != sorted(self.channels):
            raise ValueError(f"expected channels that do not fall, got {self.channels}")
        return self


PRESETS = {"paper": Config(), "tiny": Config(channels=(4, 6, 8), blocks=1, hidden=8)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's HighResNet, without what it puts behind the scores."""
    first, *_ = config.channels
    groups = [{"n_features": width, "kernels": (3, 3), "repeat": config.blocks} for width in config.channels]
    ends = [{"n_features": config.hidden, "kernel_size": 1}, {"kernel_size": 1}]
    net = monai("nets.highresnet").HighResNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        norm_type=NORMS[config.norm],
        dropout_prob=config.dropout,
        layer_params=[{"n_features": first, "kernel_size": 3}, *groups, *ends],
    )
    after = net.blocks[-1].adn  # MONAI rectifies and drops the scores, which then are never below 0; the paper does not
    for name in {"A", "D"} & {name for name, _ in after.named_children()}:
        delattr(after, name)
    return Adapted(net, spatial_dims, 1)
