"""Soft morphology: erosion and dilation of probabilities, and what is left of them as a skeleton."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Slices = tuple[slice, ...]


def erode(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """The least of each voxel `(B, K, *spatial)` and its neighbours along the axes.

    With `valid`, `(B, 1, *spatial)` in the type of values in 0 to 1, voxels that are ignored are nobody's neighbours, and 0.
    """
    around = values if valid is None else values + (1 - valid)
    least: Tensor = _Extreme.apply(around, range(2, values.ndim), torch.minimum)
    return least if valid is None else least * valid


def dilate(values: Tensor) -> Tensor:
    """The largest of each voxel `(B, K, *spatial)` and its neighbours, diagonal ones too."""
    for axis in range(2, values.ndim):
        values = _Extreme.apply(values, (axis,), torch.maximum)
    return values


def beside(values: Tensor, axis: int) -> Tensor:
    """Sum of both neighbours of each element along an axis; outside lies nothing."""
    size, behind = values.shape[axis], 2 * (values.ndim - 1 - axis)
    padded = F.pad(values, (0,) * behind + (1, 1))
    return padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size)


def skeleton(values: Tensor, iterations: int, valid: Tensor | None = None) -> Tensor:
    """What opening takes away, after 0, 1, ... erosions (Shit et al., CVPR 2021, algorithm 1).

    Args:
        values: `(B, K, *spatial)`, 0 to 1; whole numbers stay whole. 0 where ignored.
        iterations: at least the largest radius of a structure in voxels, or its middle is lost.
        valid: `(B, 1, *spatial)`, 0 where ignored: there a structure ends no more than at the edge of the patch.
    """
    found, valid = torch.zeros_like(values), None if valid is None else valid.to(values)
    for _ in range(iterations + 1):
        eroded = erode(values, valid)
        new = (values - dilate(eroded)).relu()
        found = found + new * (1 - found)
        values = eroded
    return found


class _Extreme(torch.autograd.Function):
    """The least or the largest of each element and its neighbours along some axes.

    As a single function, for the slopes of torch's own steps take most of the time. Of equal elements the first one has all of
    the slope: the element itself, then those before and after it along the first axis, and so on.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, axes: Sequence[int], pick: Callable[..., Tensor]) -> Tensor:
        found = values.clone()
        for here, there in _neighbours(axes):
            pick(found[here], values[there], out=found[here])
        ctx.axes = axes
        ctx.save_for_backward(values, found)
        return found

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        values, found = ctx.saved_tensors
        sought = values != found
        slopes = slope.masked_fill(sought, 0)
        for here, there in _neighbours(ctx.axes):
            hit = sought[here] & (values[there] == found[here])
            slopes[there].add_(slope[here] * hit.view(torch.uint8).to(slope))  # bytes are converted sooner than bool
            sought[here].logical_xor_(hit)
        return slopes, None, None


def _neighbours(axes: Sequence[int]) -> Iterator[tuple[Slices, Slices]]:
    """Places of elements, and of those before, then after them along each axis."""
    for axis in axes:
        before, after = ((slice(None),) * axis + (side,) for side in (slice(None, -1), slice(1, None)))
        yield after, before
        yield before, after
