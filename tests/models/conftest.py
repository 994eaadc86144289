from collections.abc import Callable

import pytest
import torch

from medseg.models import create_model


@pytest.fixture(autouse=True)
def seeded(one_thread: None) -> None:
    """Small maps gain nothing from more threads, and their sums come out in one order."""
    torch.manual_seed(0)


@pytest.fixture
def count() -> Callable[..., int]:
    """How many weights a model has, counted without making them."""

    def count(name: str, preset: str, dims: int, in_channels: int, out_channels: int) -> int:
        with torch.device("meta"):
            net = create_model(
                name, preset=preset, spatial_dims=dims, in_channels=in_channels, out_channels=out_channels
            )
        return sum(weight.numel() for weight in net.parameters())

    return count
