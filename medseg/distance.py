"""Exact Euclidean distance in mm on anisotropic grids, for arrays (metrics) and for tensors on any device (losses)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]


def to_mask(mask: Array, spacing_mm: Sequence[float] | None = None) -> Array:
    """Distance of every voxel to the nearest voxel of a mask, centre to centre.

    Args:
        mask: bool, 2D or 3D.
        spacing_mm: distance between voxel centres along each axis; 1 by default.

    Returns:
        float32 of the mask's shape: 0 in the mask, inf everywhere when the mask is empty.
    """
    import edt

    distance: Array = edt.edt(~mask.astype(bool), anisotropy=_spacing(mask.ndim, spacing_mm))
    return distance


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


def to_boundary_batch(mask: Tensor, spacing_mm: Sequence[float] | None = None) -> Tensor:
    """`to_boundary` of each mask of a batch, on its own device.

    Args:
        mask: bool, `(B, K, *spatial)`, 2D or 3D.
        spacing_mm: distance between voxel centres along each spatial axis; 1 by default.

    Returns:
        float32 of the mask's shape; 0 for an empty or full mask.
    """
    import torch

    spacing = _spacing(mask.ndim - 2, spacing_mm)
    if mask.is_cpu:  # compiled code, several times faster than tensor operations
        distances = [to_boundary(one.numpy(), spacing) for one in mask.flatten(0, 1)]
        return torch.from_numpy(np.stack(distances)).view(mask.shape)
    return _to_boundary_tensor(mask, spacing)


def _to_boundary_tensor(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    """By tensor operations alone. Of the distances to either side one is 0; without a boundary, the other is inf."""
    distance = (_squared_to_mask(mask, spacing) + _squared_to_mask(~mask, spacing)).sqrt_()
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
