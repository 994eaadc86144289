"""Dense V-network: stacks of features at three resolutions, seen together at the finest of them in one last convolution.

Family: u-shape
Paper: Gibson, Giganti, Hu, Bonmati, Bandula, Gurusamy, Davidson, Pereira, Clarkson, Barratt 2018, Automatic multi-organ
    segmentation on abdominal CT with dense V-networks, IEEE Transactions on Medical Imaging 37

Presets:
    paper: figure 2 without the spatial prior, which needs images that all show the same part of the body: 866,978 parameters for
        1 channel and 2 classes in 3D.
    prior: with it, 12 elements an axis, as published.
    tiny: the same topology with few channels, the finest stack at full resolution.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._dense_v import DenseV, Encoder
from medseg.models._resizing import resize_like


class Config(DenseV):
    """Options of a dense V-network: those of its way down, and

    Args:
        prior: elements an axis of a map of logits that is learned for itself and stretched over whatever image comes; 0 for none.
            It says where a class is to be expected, and makes sense where a window shows the whole of each image.
    """

    prior: Annotated[int, Field(ge=0)] = 0


PRESETS = {
    "paper": Config(),
    "prior": Config(prior=12),
    "tiny": Config(first=6, growth=(3, 4), layers=(2, 2), sides=(6, 6), strides=(1, 2), dropout=0.0),
}


class DenseVNet(nn.Module):
    """The network of given parts; the prior has a batch axis of 1."""

    def __init__(self, encoder: nn.Module, head: nn.Module, prior: Tensor | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.prior = None if prior is None else nn.Parameter(prior)

    def forward(self, x: Tensor) -> Tensor:
        small, sides = self.encoder(x)
        logits = self.head(torch.cat((small, *(resize_like(side, small) for side in sides)), dim=1))
        if self.prior is not None:
            logits = logits + resize_like(self.prior, logits)
        return resize_like(logits, x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dense V-network of the given stacks. The prior begins without preference."""
    encoder = Encoder(config, spatial_dims, in_channels)
    head = _blocks.conv(spatial_dims, in_channels + sum(config.sides), out_channels, config.kernel)
    prior = torch.zeros(1, out_channels, *(config.prior,) * spatial_dims) if config.prior else None
    return _blocks.initialise(DenseVNet(encoder, head, prior))
