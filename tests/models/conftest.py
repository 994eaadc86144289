from collections.abc import Callable, Iterator

import pytest
import torch

from medseg.models import create_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small maps gain nothing from more, and their sums come out in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


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
