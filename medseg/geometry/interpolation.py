"""Values of a tensor between its elements: linear, axis by axis where the grids allow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medseg.arrays import Array

if TYPE_CHECKING:
    from torch import Tensor

_HALF_VOXEL = 0.5 + 1e-4  # a voxel reaches half a step around its centre; the rest is rounding of affines


def pull(
    source: Tensor,
    matrix: Array,
    shape: Sequence[int],
    fill: float | Sequence[float] = 0.0,
    *,
    antialias: bool = False,
) -> Tensor:
    """Sample a tensor linearly on a grid given in its own indices.

    Args:
        source: `(C, I, J, K)`, floating, on any device.
        matrix: (4, 4) index of the result -> fractional index of the source.
        shape: spatial shape of the result.
        fill: value more than half a voxel outside the source; one for all channels, or one per channel.
        antialias: widen the linear kernel along axes where the result is coarser.

    Returns:
        `(C, *shape)`, same type and device; its axes lie in memory as those of the source do.
    """
    order, empty = source_axes(matrix), source.new_tensor(fill).reshape(-1, 1, 1, 1)
    if order is None:
        return _pull_oblique(source, matrix, shape, empty, antialias)
    result = source.permute(0, *(axis + 1 for axis in order))
    # Axes that shrink go first: the others then have less to do.
    for axis in sorted(range(3), key=lambda a: shape[a] / result.shape[a + 1]):
        step, start = matrix[order[axis], axis], matrix[order[axis], 3]
        positions = start + step * np.arange(shape[axis])
        result = _pull_axis(result, axis + 1, positions, empty, reach(step, antialias))
    return result


def between_boxes(matrix: Array, result_start: Sequence[float], source_start: Sequence[float]) -> Array:
    """The matrix from a box of the result to a box of the source, from that of the whole (see `pull`) and their first indices."""
    part = matrix.copy()
    part[:3, 3] += matrix[:3, :3] @ np.asarray(result_start) - source_start
    return part


def source_axes(matrix: Array) -> list[int] | None:
    """For each axis of the result the axis of the source it runs along; None when they are oblique to each other."""
    linear = np.abs(matrix[:3, :3])
    order = [int(axis) for axis in linear.argmax(0)]
    rest = linear.copy()
    rest[order, range(3)] = 0
    # 1e-5 of a voxel per step stays below a hundredth of a voxel over a thousand steps.
    return order if sorted(order) == [0, 1, 2] and rest.max() < 1e-5 * linear.max() else None


def reach(step: float, antialias: bool) -> float:
    """How far, in voxels of the source, a value looks along an axis on either side."""
    return max(1.0, abs(step)) if antialias else 1.0


def outside(positions: Array, size: int) -> Array:
    """Which positions along an axis lie more than half a voxel beyond its voxels."""
    return (positions < -_HALF_VOXEL) | (positions > size - 1 + _HALF_VOXEL)


def _pull_axis(x: Tensor, dim: int, positions: Array, empty: Tensor, support: float) -> Tensor:
    import torch

    size = x.shape[dim]
    beyond, positions = outside(positions, size), positions.clip(0, size - 1)
    whole = np.rint(positions).astype(np.int64)
    exact = bool(np.abs(positions - whole).max() < 1e-6)
    if exact and len(whole) == size and (whole == np.arange(size)).all():
        result = x
    elif exact and support == 1:
        result = x.index_select(dim, torch.as_tensor(whole, device=x.device))
    else:
        first = np.floor(positions - support).astype(np.int64) + 1
        taps = first[:, None] + np.arange(math.ceil(2 * support))
        result = _sums(x, dim, taps.clip(0, size - 1), _triangle(taps - positions[:, None], support))
    if not beyond.any():
        return result
    lines = torch.as_tensor(beyond, device=x.device).view([-1 if axis == dim else 1 for axis in range(x.ndim)])
    return torch.where(lines, empty, result)


def _sums(x: Tensor, dim: int, taps: Array, weights: Array) -> Tensor:
    """Weighted sums of elements along an axis, `taps` and `weights` of which are `(size of the result, elements of a sum)`."""
    strides = x.stride()
    order = sorted(range(x.ndim), key=lambda axis: (x.shape[axis] > 1, -strides[axis]))
    x, at = x.permute(order), order.index(dim)
    size, last = x.shape[at], x.ndim - 1
    if at == last:  # the sums run along the rows of memory: turn them, and turn them back
        turned = x.reshape(-1, size).T.contiguous().view(1, size, -1, max(x.shape[:-1]))
        sums = _sums_of_rows(turned, taps, weights).view(len(taps), -1).T.contiguous()
    else:
        sums = _sums_of_rows(x.reshape(math.prod(x.shape[:at]), size, -1, x.shape[-1]), taps, weights)
    return sums.view(*x.shape[:at], len(taps), *x.shape[at + 1 :]).permute([order.index(n) for n in range(x.ndim)])


def _sums_of_rows(x: Tensor, taps: Array, weights: Array) -> Tensor:
    """Sums along the second axis of `(before, size, after, row)`, one row each, in this order.

    torch's kernel for bags of words adds weighted rows in one pass over memory. It compiles itself for every length of a row, and
    keeps what it compiled: so a row must be no longer than one axis of an image.
    """
    import torch
    from torch.nn.functional import embedding_bag

    before, size, after, row = x.shape
    places = (np.arange(before)[:, None, None, None] * size + taps[:, None]) * after + np.arange(after)[:, None]
    scale = np.array(np.broadcast_to(weights[:, None], places.shape)).reshape(-1, taps.shape[1])
    return embedding_bag(
        torch.as_tensor(places.reshape(scale.shape), device=x.device),
        x.reshape(-1, row),
        per_sample_weights=torch.as_tensor(scale, dtype=x.dtype, device=x.device),
        mode="sum",
    )


def _triangle(offsets: Array, support: float) -> Array:
    """Weights of a triangle of half-width `support`, adjusted so that a linear function is reproduced exactly."""
    weights = np.maximum(0, 1 - np.abs(offsets) / support)
    weights /= weights.sum(1, keepdims=True)
    first, second = ((weights * offsets**n).sum(1, keepdims=True) for n in (1, 2))
    weights *= 1 - first / np.maximum(second, 1e-12) * offsets
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _pull_oblique(source: Tensor, matrix: Array, shape: Sequence[int], empty: Tensor, antialias: bool) -> Tensor:
    import torch
    from torch.nn.functional import grid_sample

    if antialias:
        source, matrix = _smoothed(source, matrix)
    size = torch.tensor(source.shape[1:], dtype=torch.float64)
    m = torch.as_tensor(matrix, dtype=torch.float64)
    result = source.new_empty((source.shape[0], *shape))
    jk = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape[1:]], indexing="ij"), -1)
    for i in range(shape[0]):  # one slice at a time: a grid of coordinates takes three times the memory of its values
        at = i * m[:3, 0] + jk @ m[:3, 1:3].T + m[:3, 3]
        beyond = ((at < -_HALF_VOXEL) | (at > size - 1 + _HALF_VOXEL)).any(-1).to(source.device)
        # grid_sample counts axes backwards and from -1 to 1; an axis of one voxel has no length to divide by.
        grid = (2 * at / (size - 1).clamp(min=1) - 1).flip(-1).to(source)[None, None]
        part = grid_sample(source[None], grid, padding_mode="border", align_corners=True)[0, :, 0]
        result[:, i] = torch.where(beyond, empty[..., 0], part)
    return result


def _smoothed(source: Tensor, matrix: Array) -> tuple[Tensor, Array]:
    """The source coarsened along its own axes to the result's step, and the matrix into it."""
    wanted = np.maximum(1, 1 / np.linalg.norm(np.linalg.inv(matrix[:3, :3]), axis=0))
    last = np.array(source.shape[1:]) - 1
    shape = np.ceil(last / wanted).astype(int) + 1
    steps = np.where(last > 0, last / np.maximum(shape - 1, 1), 1)  # first and last voxel stay the ends
    down = np.diag([*steps, 1.0])
    return pull(source, down, shape, antialias=True), np.linalg.inv(down) @ matrix
