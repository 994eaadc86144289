"""MONAI's UNETR: a vision transformer sees the image as blocks of 16 voxels an axis; convolutions go up from four of its layers.

Every block sees every other, which costs memory by the square of their number: a volume of 96 voxels an axis has 216 blocks,
one of 256 has 4,096.

Family: transformer
Paper: Hatamizadeh, Tang, Nath, Yang, Myronenko, Landman, Roth, Xu 2022, UNETR: transformers for 3D medical image segmentation,
    arXiv:2103.10504
Needs: monai
Without: strategy=fsdp (blocks of the transformer run one by one)

Presets:
    paper: ViT-B16 for images of 96 voxels an axis, and 16 channels at full resolution: 92,784,046 parameters for 1 channel and
        14 classes in 3D (92.58 million in the paper).
    large: the same with 32 channels at full resolution.
    tiny: 16 values a block, and 2 channels at full resolution.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from medseg.models._blocks import Positive, Share
from medseg.models._monai import Adapted, monai
from medseg.models._resizing import resize_like
from medseg.settings import Settings

_BLOCK = 16  # voxels an axis, MONAI's and the paper's


class Config(Settings):
    """Options of a UNETR.

    Args:
        size: voxels an axis of the images for which positions are learned; for others they are interpolated.
        channels: at full resolution.
        hidden: values of a block, a multiple of the heads.
        wide: values between the two layers that follow an attention.
        heads: of an attention.
        dropout: share of values dropped in the transformer, 0 to 1.
    """

    size: Annotated[int, Field(ge=_BLOCK, multiple_of=_BLOCK)] = 96
    channels: Positive = 16
    hidden: Positive = 768
    wide: Positive = 3072
    heads: Positive = 12
    dropout: Share = 0.0

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"expected hidden to be a multiple of heads, got {self.hidden} and {self.heads}")
        return self


PRESETS = {
    "paper": Config(),
    "large": Config(channels=32),
    "tiny": Config(size=32, channels=2, hidden=16, wide=32, heads=2),
}


class UNETR(nn.Module):
    """MONAI's parts, for images of any number of blocks.

    Args:
        net: MONAI's network, made for one size.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        net, embedding = self.net, self.net.vit.patch_embedding
        blocks = embedding.patch_embeddings(x)  # (B, hidden, *grid)
        grid = blocks.shape[2:]
        positions = embedding.position_embeddings.movedim(1, 2).unflatten(2, net.feat_size)
        tokens = embedding.dropout((blocks + resize_like(positions, blocks)).flatten(2).movedim(2, 1))
        maps = []
        for layer in net.vit.blocks:
            tokens = layer(tokens)
            maps.append(tokens.movedim(1, 2).unflatten(2, grid))
        up = net.decoder5(net.vit.norm(tokens).movedim(1, 2).unflatten(2, grid), net.encoder4(maps[9]))
        up = net.decoder4(up, net.encoder3(maps[6]))
        up = net.decoder3(up, net.encoder2(maps[3]))
        return net.out(net.decoder2(up, net.encoder1(x)))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's UNETR."""
    net = monai("nets.unetr").UNETR(
        in_channels,
        out_channels,
        config.size,
        feature_size=config.channels,
        hidden_size=config.hidden,
        mlp_dim=config.wide,
        num_heads=config.heads,
        dropout_rate=config.dropout,
        spatial_dims=spatial_dims,
    )
    for layer in net.vit.blocks:
        for idle in {"norm_cross_attn", "cross_attn"} & {name for name, _ in layer.named_children()}:
            delattr(layer, idle)  # made and never asked; what learns nothing would be stored and waited for
    return Adapted(UNETR(net), spatial_dims, _BLOCK)
