"""PDV-Net: a dense V-network that answers three times, from coarse to fine, and sees each answer when it gives the next.

Family: u-shape
Paper: Imran, Hatamizadeh, Ananth, Ding, Terzopoulos, Tajbakhsh 2018, Automatic segmentation of pulmonary lobes using a
    progressive dense V-network, arXiv:1902.06362

Presets:
    paper: the dense V-network's three stacks, of which each has a way to an output of its own.
    tiny: the same topology with few channels, the finest stack at full resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Output
from medseg.models._dense_v import DenseV, Encoder
from medseg.models._resizing import resize_like


class Config(DenseV):
    """Options of a PDV-Net: those of its way down alone."""


PRESETS = {
    "paper": Config(),
    "tiny": Config(first=6, growth=(3, 4), layers=(2, 2), sides=(6, 6), strides=(1, 2), dropout=0.0),
}


class PDVNet(nn.Module):
    """The network of given parts; heads begin with the coarsest, which sees its stack alone, and the last sees the image too."""

    def __init__(self, encoder: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor | Output:
        small, sides = self.encoder(x)
        seen = [(side,) for side in sides[:0:-1]] + [(small, sides[0])]
        answers: list[Tensor] = []
        for head, maps in zip(self.heads, seen, strict=True):
            before = [resize_like(answer, maps[0]) for answer in answers[-1:]]
            answers.append(head(torch.cat((*maps, *before), dim=1)))
        logits = resize_like(answers.pop(), x)
        return Output(logits, tuple(reversed(answers))) if self.training and answers else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A PDV-Net of the given stacks."""
    encoder = Encoder(config, spatial_dims, in_channels)
    seen = [*config.sides[:0:-1], config.sides[0] + in_channels]
    widths = [side + (out_channels if n else 0) for n, side in enumerate(seen)]
    heads = [_blocks.conv(spatial_dims, width, out_channels, config.kernel) for width in widths]
    return _blocks.initialise(PDVNet(encoder, heads))
