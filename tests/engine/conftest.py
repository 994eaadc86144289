from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from lightning_fabric import Fabric


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit for bit, and no fight over cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")
