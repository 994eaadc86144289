"""Exact Euclidean distance in mm on anisotropic grids, for arrays (metrics) and for tensors on any device (losses)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medseg.arrays import Array

if TYPE_CHECKING:
    from torch import Tensor

# Cosine of the angle between two axes from which on a grid counts as sheared; .006 degrees are rounding in a header.
_SHEARED = 1e-4
_STEPS = 2000  # places around an element that are looked at one by one: on a cubic grid all within eight voxels
# What takes as long as a distance transform of so many voxels:
_PREPARED = 8000  # to prepare for looks
_CALL = 125  # a step for any number of elements
_LOOK = 0.25  # a step for one element
_SEARCH = 5000  # a search in a tree where it is slow


def to_mask(mask: Array, spacing_mm: Sequence[float] | None = None) -> Array:
    """Distance of every voxel to the nearest voxel of a mask, centre to centre.

    Args:
        mask: bool, 2D or 3D.
        spacing_mm: distance between voxel centres along each axis; 1 by default.

    Returns:
        float32 of the mask's shape: 0 in the mask, inf everywhere when the mask is empty.
    """
    import edt

    outside = (~mask.astype(bool)).view(np.uint8)  # a sixth quicker than bool
    distance: Array = edt.edt(outside, anisotropy=_spacing(mask.ndim, spacing_mm))
    return distance


def between(here: Array, there: Array, axes_mm: Array) -> Array:
    """Distance of each true element of one array to the nearest true element of another one.

    Surfaces that are compared mostly lie close together. So ever farther places around each element are looked at, until it has
    its nearest one or a distance transform of the whole grid would take as long.

    Args:
        here: bool, 2D or 3D.
        there: likewise.
        axes_mm: steps of the grid in mm, one column per axis; may be sheared, and a 2D grid may lie in space.

    Returns:
        float64, one value per element of `here` in C order; inf when `there` is empty.
    """
    found = np.full(np.count_nonzero(here), np.inf)
    left = np.arange(len(found)) if there.any() else np.arange(0)
    if there.ndim == 3 and there.size > _PREPARED and len(left):
        left = _look_around(here, there, axes_mm, found)
    if len(left):
        found[left] = _far(here, there, axes_mm, left)
    return found


def _look_around(here: Array, there: Array, axes_mm: Array, found: Array) -> Array:
    """Note the distances of those elements that have a nearest one close by; the positions of the others."""
    steps, mm, ends = _shells(axes_mm.tobytes())
    margin = [(n, n) for n in steps.max(0)]
    wide, at = np.ascontiguousarray(np.pad(there, margin)), np.flatnonzero(np.pad(here, margin))
    places, there_flat = steps @ np.array(wide.strides), wide.reshape(-1)
    left, voxels = np.arange(len(at)), float(there.size)
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        voxels -= (len(at) * _LOOK + _CALL) * (end - first)
        if not len(at) or voxels < 0:
            break
        hit = there_flat.take(at + places[first])
        for place in places[first + 1 : end]:
            hit |= there_flat.take(at + place)
        found[left[hit]] = mm[first]
        away = ~hit
        left, at = left[away], at[away]
    return left


@functools.lru_cache(maxsize=8)
def _shells(axes: bytes) -> tuple[Array, Array, Array]:
    """The nearest steps on a 3D grid `(N, 3)` in order, their lengths in mm, and where each group of one length ends."""
    axes_mm = np.frombuffer(axes).reshape(3, 3)
    radius = (_STEPS * abs(np.linalg.det(axes_mm)) * 3 / 4 / np.pi) ** (1 / 3)
    most = np.floor(radius * np.linalg.norm(np.linalg.inv(axes_mm), axis=1)).astype(int)
    steps = np.moveaxis(np.indices(2 * most + 1), 0, -1).reshape(-1, 3) - most
    mm = np.linalg.norm(steps @ axes_mm.T, axis=1)
    whole = min(_STEPS, np.count_nonzero(mm <= radius))  # of longer steps the box holds some and lacks others
    order = np.argsort(mm, kind="stable")[:whole]
    steps, mm = steps[order], mm[order]
    # The last group may lack some of its steps.
    ends = np.flatnonzero(np.diff(mm) > 1e-9 * radius) + 1
    return steps[: ends[-1]], mm[: ends[-1]], ends


def _far(here: Array, there: Array, axes_mm: Array, left: Array) -> Array:
    """Distances of some elements by a transform of the whole grid; by a search tree if they are few, and on sheared grids."""
    lengths = np.linalg.norm(axes_mm, axis=0)
    cosines = (axes_mm / lengths).T @ (axes_mm / lengths) - np.eye(len(lengths))
    if len(left) * _SEARCH > there.size and np.abs(cosines).max() < _SHEARED:
        return to_mask(there, tuple(lengths))[here][left]
    from scipy.spatial import cKDTree

    tree = cKDTree(np.argwhere(there) @ axes_mm.T, balanced_tree=False, compact_nodes=False)  # quicker to build
    return np.asarray(tree.query(np.argwhere(here)[left] @ axes_mm.T)[0])


def to_boundary(mask: Array, spacing_mm: Sequence[float] | None = None) -> Array:
    """Distance of every voxel to the nearest voxel on the other side of a mask's boundary, inside and outside alike.

    Args:
        mask: bool, 2D or 3D.
        spacing_mm: distance between voxel centres along each axis; 1 by default.

    Returns:
        float32 of the mask's shape. An empty or full mask has no boundary, and 0 everywhere: a loss that weighs errors by
        this distance then takes no notice of it.
    """
    import edt

    sides = mask.astype(np.uint8) + 1  # with two labels, edt measures both sides in one pass
    distance: Array = edt.edt(sides, anisotropy=_spacing(mask.ndim, spacing_mm))
    return np.zeros_like(distance) if np.isinf(distance.flat[0]) else distance


def to_boundary_batch(mask: Tensor, spacing_mm: Sequence[float] | None = None, counted: Tensor | None = None) -> Tensor:
    """`to_boundary` of each mask of a batch, on its own device.

    Args:
        mask: bool, `(B, K, *spatial)`, 2D or 3D.
        spacing_mm: distance between voxel centres along each spatial axis; 1 by default.
        counted: bool, `(B, 1, *spatial)`: other voxels are on neither side of a boundary, and their own distances mean nothing.

    Returns:
        float32 of the mask's shape; 0 for an empty or full mask.
    """
    import torch

    spacing = _spacing(mask.ndim - 2, spacing_mm)
    if not mask.is_cpu:
        return _to_boundary_tensor(mask, spacing, counted)
    if counted is None:  # compiled code, several times faster than tensor operations; one pass for both sides
        distances = [to_boundary(one.numpy(), spacing) for one in mask.flatten(0, 1)]
        return torch.from_numpy(np.stack(distances)).view(mask.shape)
    inside, outside = (to_mask_batch(side, spacing) for side in _sides(mask, counted))
    return _bounded(inside + outside)


def to_mask_batch(mask: Tensor, spacing_mm: Sequence[float] | None = None) -> Tensor:
    """`to_mask` of each mask of a batch, on its own device.

    Args:
        mask: bool, `(B, K, *spatial)`, 2D or 3D.
        spacing_mm: distance between voxel centres along each spatial axis; 1 by default.

    Returns:
        float32 of the mask's shape; inf for an empty mask.
    """
    import torch

    spacing = _spacing(mask.ndim - 2, spacing_mm)
    if mask.is_cpu:
        distances = [to_mask(one.numpy(), spacing) for one in mask.flatten(0, 1)]
        return torch.from_numpy(np.stack(distances)).view(mask.shape)
    return _squared_to_mask(mask, spacing).sqrt_()


def _to_boundary_tensor(mask: Tensor, spacing: Sequence[float], counted: Tensor | None = None) -> Tensor:
    """By tensor operations alone."""
    inside, outside = (_squared_to_mask(side, spacing) for side in _sides(mask, counted))
    return _bounded((inside + outside).sqrt_())


def _sides(mask: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    return (mask, ~mask) if counted is None else (mask & counted, ~mask & counted)


def _bounded(distance: Tensor) -> Tensor:
    """Of a voxel's distances to either side, of which one is 0; without a boundary, the other is inf."""
    return distance.masked_fill_(distance.isinf(), 0)


def _squared_to_mask(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    """Squared distance to the nearest voxel of each mask `(B, K, *spatial)`, one axis after the other.

    Along an axis, the squared distance is the lowest of the parabolas that stand on every voxel (Felzenszwalb and
    Huttenlocher, Theory of Computing 2012, eq. 3). All voxels take one step of the search together, so that the work is
    the same for each and memory stays at a few arrays of the mask's size.
    """
    import torch

    squared = torch.where(mask, 0.0, torch.inf)
    for axis, step in enumerate(spacing, 2):
        base, size = squared.clone(), mask.shape[axis]
        for shift in range(1, size):
            raised = base + (shift * step) ** 2
            ahead, behind = (squared.narrow(axis, start, size - shift) for start in (0, shift))
            torch.minimum(ahead, raised.narrow(axis, shift, size - shift), out=ahead)
            torch.minimum(behind, raised.narrow(axis, 0, size - shift), out=behind)
    return squared


def _spacing(dims: int, spacing_mm: Sequence[float] | None) -> tuple[float, ...]:
    return (1.0,) * dims if spacing_mm is None else tuple(float(s) for s in spacing_mm)
