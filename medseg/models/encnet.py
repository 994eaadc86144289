"""EncNet: how far the voxels lie from learned codewords says which channels matter in this image.

The paper's second loss, on which classes an image contains, is left out: it compares images, and the losses here compare voxels.

Family: attention
Paper: Zhang, Dana, Shi, Zhang, Wang, Tyagi, Agrawal 2018, Context encoding for semantic segmentation, arXiv:1803.08904

Presets:
    resnet50: ResNet-50 of stride 8, 32 codewords of 512 channels: 33,498,291 parameters for 3 channels and 19 classes in 2D.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow, 4 codewords.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import listed
from medseg.models._blocks import NormName, Positive
from medseg.models._convs import relu, unit
from medseg.models._dilated import StemOptions, dilated_resnet
from medseg.models._segmenter import Pick, segmenter


class Config(StemOptions):
    """Options of an EncNet, besides those of `_dilated.StemOptions`.

    Args:
        channels: of the map that is encoded.
        codewords: their number.
        norm: after each convolution, and of the encoding.
    """

    channels: Positive = 512
    codewords: Positive = 32


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "tiny": Config(depth=10, width=1 / 16, channels=8, codewords=4),
}


class Encoding(nn.Module):
    """For each codeword, what the voxels that are near it differ from it by on average (equation 1): `(B, C, N)` to `(B, K, C)`.

    Nearness is a softmax over the codewords of minus the squared distance times a learned factor. The paper's sum is a mean
    here: the normalisation that follows takes the factor away, and images of other sizes mean the same.
    """

    def __init__(self, channels: int, codewords: int) -> None:
        super().__init__()
        spread = (channels * codewords) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codewords, channels).uniform_(-spread, spread))
        self.scale = nn.Parameter(torch.empty(codewords).uniform_(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        voxels, words = listed(x), self.codewords
        squares = voxels.square().sum(2, keepdim=True) + words.square().sum(1)
        distances = squares - 2 * voxels @ words.transpose(0, 1)  # (B, N, K), without all differences at once
        near = (-self.scale * distances).softmax(2) / voxels.shape[1]
        return near.transpose(1, 2) @ voxels - near.sum(1)[:, :, None] * words


class ContextEncoding(nn.Module):
    """The map with its channels raised by what the encoding says (figure 2)."""

    def __init__(self, dims: int, channels: int, codewords: int, norm: NormName) -> None:
        super().__init__()
        self.encoding = nn.Sequential(
            unit(dims, channels, channels, 1, norm=norm),
            Encoding(channels, codewords),
            _blocks.norm(norm, codewords),
            relu(),
        )
        self.gate = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(self.encoding(x).mean(1))  # (B, C)
        return (x + x * gates.view(*gates.shape, *[1] * (x.ndim - 2))).relu()


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, one 3x3 unit, the context encoding, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config)
    last = trunk.channels[-1]
    head = nn.Sequential(
        Pick(-1),
        unit(dims, last, width, norm=norm),
        ContextEncoding(dims, width, config.codewords, norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
