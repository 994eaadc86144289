from __future__ import annotations

import pytest
from lightning_fabric import Fabric


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread: None) -> None:
    """All tests of the engine compare bit for bit."""


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")
