"""Filters and smooth fields as one small matrix along each axis, and how many rows of a batch are changed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BLOCK = 16  # voxels along an axis that a CPU computes at once, from those alone that they depend on
_CPU, _GPU = 2**20, 2**26  # voxels changed at once: what a CPU's cache holds, and what fills a GPU but not its memory


def filtered(image: Tensor, reach: int, weights: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """Replace every voxel of `(N, *spatial)` by weighted sums along one axis after the other.

    Args:
        image: rows.
        reach: voxels on either side that take part.
        weights: `(axis, out, into)` -> `(N, blocks, out, into)`, how much of each voxel `into` goes to `out`; they are scaled
            to a sum of 1. Both are numbered along the axis, in blocks. On a GPU a whole axis is one block.
    """
    for axis in reversed(range(image.ndim - 1)):
        length = image.shape[-1]
        block = min(length, _BLOCK) if image.device.type == "cpu" else length
        wide = min(length, block + 2 * reach)
        first = torch.arange(0, length, block).clamp(max=length - block)
        begin = (first - reach).clamp(0, length - wide)
        out, into = (first[:, None] + torch.arange(block))[..., None], (begin[:, None] + torch.arange(wide))[:, None]
        shares = normalised(weights(axis, *(n.to(image.device, non_blocking=True) for n in (out, into))))
        lines, result = image.flatten(1, -2), image.new_empty(len(image), length, image[0, ..., 0].numel())
        for matrix, to, at in zip(shares.unbind(1), first.tolist(), begin.tolist(), strict=True):
            torch.bmm(matrix, lines[:, :, at : at + wide].mT, out=result[:, to : to + block])
        image = result.view(len(image), length, *image.shape[1:-1])  # this axis first: after the last, all are in order
    return image


def smooth(points: Tensor, size: Sequence[int]) -> Tensor:
    """Cubic B-spline field `(N, *size)` from control points `(N, n, ...)`, the outermost of which lie outside."""
    for length in reversed(size):
        count = points.shape[-1]
        position = (torch.arange(length, device=points.device) + 0.5) / length * (count - 3) + 1
        t = (position[:, None] - torch.arange(count, device=points.device)).abs()
        weights = torch.where(t < 1, 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp(min=0) ** 3 / 6)
        points = (weights @ points.flatten(1, -2).mT).view(len(points), length, *points.shape[1:-1])
    return points


def normalised(weights: Tensor) -> Tensor:
    """Weights `(..., out, in)` that sum to 1 for each output."""
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-7)


def tensor(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Drawn numbers as float32 on the device."""
    return torch.as_tensor(np.ascontiguousarray(values, np.float32)).to(device, non_blocking=True)


def groups(rows: npt.NDArray[Any], image: Tensor) -> Iterator[slice | npt.NDArray[Any]]:
    """Some rows of a batch, as many at once as its device is quickest with: a slice, which needs no copy, or their indices."""
    many = max(1, (_CPU if image.device.type == "cpu" else _GPU) // image[0].numel())
    for first in range(0, len(rows), many):
        some = rows[first : first + many]
        begin, end = int(some[0]), int(some[-1]) + 1
        yield slice(begin, end) if end - begin == len(some) else some
