"""Gradients of bfloat16 convolutions over thin maps, beside those of float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg import thin

CPU = torch.device("cpu")
LAYERS = (
    (nn.Conv2d(16, 32, 3, stride=2, padding=1), (16, 1)),
    (nn.Conv2d(8, 8, 5, padding=4, dilation=2), (9, 3)),
    (nn.Conv3d(16, 32, 3, padding=1), (2, 2, 2)),
    (nn.Conv3d(24, 48, (3, 3, 1), stride=(2, 2, 1), padding=(1, 1, 0)), (1, 8, 8)),
    (nn.ConvTranspose3d(16, 32, 8, stride=4, padding=2), (3, 1, 9)),
)


def gradient(layer: Any, x: Tensor, *, bf16: bool) -> Tensor:
    layer.zero_grad()
    with thin.in_full(CPU), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = layer(x).float()
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    made: Tensor = layer.weight.grad.clone()
    return made


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value).partition("(")[0])
def test_weights_of_thin_maps_get_the_gradients_of_float32(layer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn((2, layer.in_channels, *shape), generator=torch.Generator().manual_seed(0))
    assert torch.equal(gradient(layer, x, bf16=True), gradient(layer, x, bf16=False))


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)])
def test_other_maps_stay_in_bfloat16(layer: nn.Module) -> None:
    x = torch.randn(1, 4, 3, 8)
    with thin.in_full(CPU), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_without_autocast_nothing_is_cast() -> None:
    with thin.in_full(CPU):
        assert (
            nn.Conv2d(4, 4, 3, padding=1).double()(torch.ones(1, 4, 1, 1, dtype=torch.float64)).dtype == torch.float64
        )
