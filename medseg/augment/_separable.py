"""Filters and smooth fields as one small matrix along each axis: fast on a GPU, and no worse on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def along(image: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply every line of `(N, *spatial)` along one spatial axis by its row's matrix `(N, out, in)`."""
    before, after = image.shape[1 : axis + 1], image.shape[axis + 2 :]
    lines = image.reshape(len(image), before.numel(), -1, after.numel())
    return torch.einsum("nij,najb->naib", matrix, lines).reshape(len(image), *before, -1, *after)


def smooth(points: Tensor, size: Sequence[int]) -> Tensor:
    """Cubic B-spline field `(N, *size)` from control points `(N, n, ...)`, the outermost of which lie outside."""
    for axis, length in enumerate(size):
        count = points.shape[axis + 1]
        position = (torch.arange(length, device=points.device) + 0.5) / length * (count - 3) + 1
        t = (position[:, None] - torch.arange(count, device=points.device)).abs()
        weights = torch.where(t < 1, 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp(min=0) ** 3 / 6)
        points = along(points, axis, weights.expand(len(points), -1, -1))
    return points


def normalised(weights: Tensor) -> Tensor:
    """Weights `(..., out, in)` that sum to 1 for each output."""
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-7)


def tensor(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Drawn numbers as float32 on the device."""
    return torch.as_tensor(np.ascontiguousarray(values, np.float32)).to(device, non_blocking=True)
