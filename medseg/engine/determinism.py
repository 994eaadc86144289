"""The same numbers each time, to the last bit, on one machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, cast

import torch


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Compute with deterministic algorithms alone, until the block ends; nothing changes where it is not wanted.

    An operator for which torch has none on this device says so in a warning, and is computed as usual.
    """
    if not wanted:
        yield
        return
    # cuBLAS reads it when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn, filling = torch.backends.cudnn, cast(Any, torch.utils.deterministic)  # torch declares no more of it
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        (cudnn.deterministic, cudnn.benchmark, filling.fill_uninitialized_memory),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    # memory that nobody reads need not be filled
    cudnn.deterministic, cudnn.benchmark, filling.fill_uninitialized_memory = True, False, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark, filling.fill_uninitialized_memory = before[2]
