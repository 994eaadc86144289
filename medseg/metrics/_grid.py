"""What every metric needs of its grid: the axes of a voxel in mm, and two masks that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError

Array = npt.NDArray[Any]
Spacing = Sequence[float] | Array | None


def axes_mm(spacing_mm: Spacing, ndim: int) -> Array:
    """Steps in mm from a voxel to its next, one column an axis of the array.

    Args:
        spacing_mm: one size an axis; or a matrix with one column an axis, which may be sheared, such as
            `geometry.affine[:3, :3]`; None is 1 mm.
        ndim: number of the array's axes.

    Raises:
        GeometryError: another number of sizes or columns than axes.
    """
    given = np.ones(ndim) if spacing_mm is None else np.asarray(spacing_mm, float)
    if given.shape[-1:] != (ndim,) or given.ndim > 2:
        raise GeometryError(f"an array of {ndim} axes needs {ndim} voxel sizes in mm, got {given.tolist()}")
    return np.diag(given) if given.ndim == 1 else given


def measure(edges: Array) -> Array:
    """Length, area or volume of the parallelepipeds that edges `(..., number of edges, frame)` span."""
    return np.asarray(np.sqrt(np.maximum(np.linalg.det(edges @ np.swapaxes(edges, -1, -2)), 0)))


def check(prediction: Array, reference: Array) -> None:
    """Refuse what cannot be compared.

    Raises:
        GeometryError: other than two boolean arrays of one shape with two or three axes.
    """
    if prediction.shape != reference.shape or prediction.ndim not in (2, 3):
        raise GeometryError(f"two 2D or 3D masks of one shape are needed, got {prediction.shape} and {reference.shape}")
    if prediction.dtype != bool or reference.dtype != bool:
        raise GeometryError(f"masks must be boolean, got {prediction.dtype} and {reference.dtype}: compare one label")
