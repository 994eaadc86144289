"""Values of a tensor between its elements: linear and nearest, axis by axis where the grids allow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
Mode = Literal["linear", "nearest", "one_hot"]
_HALF_VOXEL = 0.5 + 1e-4  # a voxel reaches half a step around its centre; the rest is rounding of affines


def pull(
    source: Tensor,
    matrix: Array,
    shape: Sequence[int],
    mode: Mode = "linear",
    fill: float | Sequence[float] = 0.0,
    *,
    antialias: bool = False,
) -> Tensor:
    """Sample a tensor on a grid given in its own indices.

    Args:
        source: `(C, I, J, K)` on any device; floating where `mode` is linear.
        matrix: (4, 4) index of the result -> fractional index of the source.
        shape: spatial shape of the result.
        mode: "linear" or "nearest".
        fill: value more than half a voxel outside the source; one for all channels, or one a channel.
        antialias: widen the linear kernel along axes where the result is coarser.

    Returns:
        `(C, *shape)`, same type and device.
    """
    order, empty = _source_axes(matrix), source.new_tensor(fill).reshape(-1, 1, 1, 1)
    if order is None:
        return _pull_oblique(source, matrix, shape, mode, empty, antialias)
    result = source.permute(0, *(axis + 1 for axis in order))
    # Axes that shrink go first: the others then have less to do.
    for axis in sorted(range(3), key=lambda a: shape[a] / result.shape[a + 1]):
        step, start = matrix[order[axis], axis], matrix[order[axis], 3]
        positions = start + step * np.arange(shape[axis])
        result = _pull_axis(result, axis + 1, positions, mode, empty, max(1.0, abs(step)) if antialias else 1.0)
    return result.contiguous()


def between_boxes(matrix: Array, result_start: Sequence[float], source_start: Sequence[float]) -> Array:
    """The matrix of a box of the result into a box of the source, from that of the whole (as of `pull`) and their first indices."""
    part = matrix.copy()
    part[:3, 3] += matrix[:3, :3] @ np.asarray(result_start) - source_start
    return part


def _source_axes(matrix: Array) -> list[int] | None:
    """For each axis of the result the axis of the source it runs along; None when they are oblique to each other."""
    linear = np.abs(matrix[:3, :3])
    order = [int(axis) for axis in linear.argmax(0)]
    rest = linear.copy()
    rest[order, range(3)] = 0
    # 1e-5 of a voxel per step stays below a hundredth of a voxel over a thousand steps.
    return order if sorted(order) == [0, 1, 2] and rest.max() < 1e-5 * linear.max() else None


def _pull_axis(x: Tensor, dim: int, positions: Array, mode: Mode, empty: Tensor, support: float) -> Tensor:
    import torch

    size, view = x.shape[dim], [-1 if axis == dim else 1 for axis in range(x.ndim)]
    outside = (positions < -_HALF_VOXEL) | (positions > size - 1 + _HALF_VOXEL)
    positions = np.clip(positions, 0, size - 1)
    if mode == "nearest":
        result = x.index_select(dim, _indices(np.floor(positions + 0.5), size, x))
    elif len(positions) == size and np.abs(positions - np.arange(size)).max() < 1e-6:
        result = x
    else:
        first = np.floor(positions - support).astype(int) + 1
        taps = first[:, None] + np.arange(math.ceil(2 * support))
        weights = _triangle(taps - positions[:, None], support)
        scale = torch.as_tensor(weights, dtype=x.dtype, device=x.device)
        result = x.index_select(dim, _indices(taps[:, 0], size, x)).mul_(scale[:, 0].view(view))
        for tap in range(1, taps.shape[1]):
            result.addcmul_(x.index_select(dim, _indices(taps[:, tap], size, x)), scale[:, tap].view(view))
    return torch.where(torch.as_tensor(outside, device=x.device).view(view), empty, result) if outside.any() else result


def _triangle(offsets: Array, support: float) -> Array:
    """Weights of a triangle of half-width `support`, adjusted so that a linear function is reproduced exactly."""
    weights = np.maximum(0, 1 - np.abs(offsets) / support)
    weights /= weights.sum(1, keepdims=True)
    first, second = ((weights * offsets**n).sum(1, keepdims=True) for n in (1, 2))
    weights *= 1 - first / np.maximum(second, 1e-12) * offsets
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _indices(values: Array, size: int, like: Tensor) -> Tensor:
    import torch

    return torch.as_tensor(np.clip(values, 0, size - 1).astype(np.int64), device=like.device)


def _pull_oblique(
    source: Tensor, matrix: Array, shape: Sequence[int], mode: Mode, empty: Tensor, antialias: bool
) -> Tensor:
    import torch
    from torch.nn.functional import grid_sample

    if antialias:
        source, matrix = _smoothed(source, matrix)
    size = torch.tensor(source.shape[1:], dtype=torch.float64)
    m = torch.as_tensor(matrix, dtype=torch.float64)
    values = source[None] if mode == "linear" else source[None].double()
    result = source.new_empty((source.shape[0], *shape))
    jk = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape[1:]], indexing="ij"), -1)
    for i in range(shape[0]):  # one slice at a time: a grid of coordinates takes three times the memory of its values
        at = i * m[:3, 0] + jk @ m[:3, 1:3].T + m[:3, 3]
        outside = ((at < -_HALF_VOXEL) | (at > size - 1 + _HALF_VOXEL)).any(-1).to(source.device)
        # grid_sample counts axes backwards and from -1 to 1; an axis of one voxel has no length to divide by.
        grid = (2 * at / (size - 1).clamp(min=1) - 1).flip(-1).to(values)[None, None]
        kind = "bilinear" if mode == "linear" else "nearest"
        part = grid_sample(values, grid, kind, padding_mode="border", align_corners=True)[0, :, 0]
        result[:, i] = torch.where(outside, empty[..., 0], part.to(source.dtype))
    return result


def _smoothed(source: Tensor, matrix: Array) -> tuple[Tensor, Array]:
    """The source coarsened along its own axes to the result's step, and the matrix into it."""
    wanted = np.maximum(1, 1 / np.linalg.norm(np.linalg.inv(matrix[:3, :3]), axis=0))
    last = np.array(source.shape[1:]) - 1
    shape = np.ceil(last / wanted).astype(int) + 1
    steps = np.where(last > 0, last / np.maximum(shape - 1, 1), 1)  # first and last voxel stay the ends
    down = np.diag([*steps, 1.0])
    return pull(source, down, shape, antialias=True), np.linalg.inv(down) @ matrix
