"""Soft morphology: erosion and dilation of probabilities, and what is left of them as a skeleton."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def erode(values: Tensor) -> Tensor:
    """The least of each voxel `(B, K, *spatial)` and its neighbours along the axes."""
    eroded = [_along(values, axis, torch.minimum) for axis in range(2, values.ndim)]
    least = eroded[0]
    for other in eroded[1:]:
        least = torch.minimum(least, other)
    return least


def dilate(values: Tensor) -> Tensor:
    """The largest of each voxel `(B, K, *spatial)` and its neighbours, diagonal ones too."""
    for axis in range(2, values.ndim):
        values = _along(values, axis, torch.maximum)
    return values


def skeleton(values: Tensor, iterations: int) -> Tensor:
    """What opening takes away, after 0, 1, ... erosions (Shit et al., CVPR 2021, algorithm 1).

    Args:
        values: `(B, K, *spatial)`, 0 to 1.
        iterations: at least the largest radius of a structure in voxels, or its middle is lost.
    """
    found = torch.zeros_like(values)
    for _ in range(iterations + 1):
        eroded = erode(values)
        new = (values - dilate(eroded)).relu()
        found = found + (new - found * new).relu()
        values = eroded
    return found


def _along(values: Tensor, axis: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Of each element and its two neighbours along an axis; on a processor quicker than pooling."""
    size = values.shape[axis]
    if size == 1:
        return values
    pairs = pick(values.narrow(axis, 0, size - 1), values.narrow(axis, 1, size - 1))
    inner = pick(pairs.narrow(axis, 0, size - 2), pairs.narrow(axis, 1, size - 2))
    return torch.cat([pairs.narrow(axis, 0, 1), inner, pairs.narrow(axis, size - 2, 1)], axis)
