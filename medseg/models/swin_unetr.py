"""MONAI's SwinUNETR: a transformer whose attention is kept to windows, shifted from layer to layer; convolutions go up from its stages.

Family: transformer
Paper: Hatamizadeh, Nath, Tang, Yang, Roth, Xu 2022, Swin UNETR: Swin transformers for semantic segmentation of brain tumors in MRI
    images, arXiv:2201.01266
Needs: monai

Presets:
    paper: of 48 channels: 62,191,941 parameters for 4 channels and 3 classes in 3D (61.98 million in the paper).
    24: of 24 channels, MONAI's default.
    v2: of 48 channels, with residual convolutions before each stage (He et al. 2023, SwinUNETR-V2).
    tiny: of 2 channels, with windows of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import model_validator
from torch import Tensor, nn

from medseg.models._blocks import Positive, Share
from medseg.models._monai import Adapted, Plain, monai
from medseg.settings import Settings

_Four = tuple[Positive, Positive, Positive, Positive]


class Config(Settings):
    """Options of a SwinUNETR.

    Args:
        channels: at full resolution; each of the four stages doubles them, so that heads must divide them there.
        layers: of each stage; every second one has its windows shifted.
        heads: of the attentions of each stage.
        window: elements an axis of a window.
        convolutions: a residual block before each stage (V2).
        dropout: share of values dropped in the transformer, 0 to 1.
        drop_path: share of residual branches dropped in its last layer, rising from 0 in its first, 0 to 1.
    """

    channels: Positive = 48
    layers: _Four = (2, 2, 2, 2)
    heads: _Four = (3, 6, 12, 24)
    window: Positive = 7
    convolutions: bool = False
    dropout: Share = 0.0
    drop_path: Share = 0.0

    @model_validator(mode="after")
    def _fit(self) -> Self:
        widths = [self.channels * 2**stage for stage in range(4)]
        if any(width % heads for width, heads in zip(widths, self.heads, strict=True)):
            raise ValueError(f"expected heads that divide the stages' channels {widths}, got {self.heads}")
        return self


PRESETS = {
    "paper": Config(),
    "24": Config(channels=24),
    "v2": Config(convolutions=True),
    "tiny": Config(channels=2, layers=(2, 1, 1, 1), heads=(1, 1, 2, 2), window=4),
}


class SwinUNETR(nn.Module):
    """MONAI's parts under MONAI's names, so that its weights fit; its own class takes multiples of 12 channels alone.

    Args:
        trunk: from the image to maps of strides 2, 4, 8, 16 and 32, their channels normalised.
        encoders: of the image and of the maps but that of stride 16, finest first.
        decoders: steps up with a skip, coarsest first.
        scores: from the finest map to logits.
    """

    def __init__(
        self, trunk: nn.Module, encoders: Sequence[nn.Module], decoders: Sequence[nn.Module], scores: nn.Module
    ) -> None:
        super().__init__()
        self.swinViT, self.out = trunk, scores
        self.encoder1, self.encoder2, self.encoder3, self.encoder4, self.encoder10 = encoders
        self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1 = decoders

    def forward(self, x: Tensor) -> Tensor:
        half, quarter, eighth, sixteenth, last = self.swinViT(x, True)
        up = self.decoder5(self.encoder10(last), sixteenth)
        up = self.decoder4(up, self.encoder4(eighth))
        up = self.decoder3(up, self.encoder3(quarter))
        up = self.decoder2(up, self.encoder2(half))
        return self.out(self.decoder1(up, self.encoder1(x)))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's Swin transformer, a residual block for each of its maps, and steps up."""
    dims, width = spatial_dims, config.channels
    parts = monai("blocks.dynunet_block"), monai("blocks.unetr_block")
    options: dict[str, Any] = {"kernel_size": 3, "norm_name": "instance", "res_block": True}
    encoders = [
        parts[1].UnetrBasicBlock(dims, inputs, outputs, stride=1, **options)
        for inputs, outputs in ((in_channels, width), *((width * n, width * n) for n in (1, 2, 4, 16)))
    ]
    decoders = [
        parts[1].UnetrUpBlock(dims, width * n, width * m, upsample_kernel_size=2, **options)
        for n, m in ((16, 8), (8, 4), (4, 2), (2, 1), (1, 1))
    ]
    scores = parts[0].UnetOutBlock(dims, width, out_channels)
    return Adapted(SwinUNETR(_trunk(config, dims, in_channels), encoders, decoders, scores), dims, 32)


def _trunk(config: Config, dims: int, inputs: int) -> nn.Module:
    with Plain():
        trunk: nn.Module = monai("nets.swin_unetr").SwinTransformer(
            inputs,
            config.channels,
            (config.window,) * dims,
            (2,) * dims,
            config.layers,
            config.heads,
            drop_rate=config.dropout,
            drop_path_rate=config.drop_path,
            spatial_dims=dims,
            use_v2=config.convolutions,
        )
    return trunk
