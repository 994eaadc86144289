"""What every metric needs: the axes of a voxel in mm, and two arrays that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.errors import ConfigError, GeometryError
from medseg.wording import brief

Spacing = Sequence[float] | Array | None


def axes_mm(spacing_mm: Spacing, ndim: int) -> Array:
    """Steps in mm from a voxel to its next, one column an axis of the array.

    Args:
        spacing_mm: one size an axis; or a matrix with one column an axis, which may be sheared, such as
            `geometry.affine[:3, :3]`; None is 1 mm.
        ndim: number of the array's axes.

    Raises:
        GeometryError: no numbers, another number of sizes or columns than axes, sizes of 0 or less, or axes that span no voxel.
    """
    try:
        given = np.ones(ndim) if spacing_mm is None else np.asarray(spacing_mm, float)
    except (TypeError, ValueError):
        raise GeometryError(f"voxel sizes in mm are {ndim} numbers, got {spacing_mm!r}") from None
    if given.ndim not in (1, 2) or given.shape[-1] != ndim or len(given) > 3:
        raise GeometryError(f"an array of {ndim} axes needs {ndim} voxel sizes in mm, got {given.tolist()}")
    axes = np.diag(given) if given.ndim == 1 else given
    if not np.isfinite(given).all() or (given.ndim == 1 and (given <= 0).any()) or not measure(axes.T) > 0:
        raise GeometryError(f"voxel sizes in mm are finite and above 0, and axes span a voxel; got {given.tolist()}")
    return axes


def number(value: Any, fits: Callable[[float], bool], wanted: str) -> float:
    """A number that fits, which NaN never does.

    Raises:
        ConfigError: anything else; `wanted` says what was.
    """
    if not isinstance(value, Real | np.generic) or not fits(float(value)):
        raise ConfigError(f"{wanted}, got {brief(value)}")
    return float(value)


def annotated(reference: Array, ignore: int) -> Array:
    """Where a reference has another value than that of voxels which count nowhere.

    Raises:
        ConfigError: the value is no whole number.
    """
    return np.asarray(reference != number(ignore, float.is_integer, "ignore is one value, a whole number"))


def measure(edges: Array) -> Array:
    """Length, area or volume of the parallelepipeds that edges `(..., number of edges, frame)` span."""
    return np.asarray(np.sqrt(np.maximum(np.linalg.det(edges @ np.swapaxes(edges, -1, -2)), 0)))


def flat(axes: Array, *given: Array) -> tuple[Array, ...]:
    """Axes and arrays without the one axis of a volume that has a single slice: such a one is measured within its plane."""
    thin = thin_axis(given[0].shape)
    if thin is None:
        return axes, *given
    return np.delete(axes, thin, axis=1), *(array.squeeze(thin) for array in given)


def thin_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of a volume along which it has a single slice, if there is one alone."""
    return shape.index(1) if len(shape) == 3 and shape.count(1) == 1 else None


def arrays(*given: Any) -> tuple[Array, ...]:
    """NumPy arrays of arrays or of tensors on any device.

    Raises:
        GeometryError: something is neither, such as rows of unequal length, or a tensor without values or of sparse ones.
    """
    return tuple(_array(one) for one in given)


def _array(given: Any) -> Array:
    """Of half precision in single precision: NumPy has no bfloat16."""
    try:
        if not hasattr(given, "detach"):
            return np.asarray(given)
        tensor = given.detach().cpu()
        half = tensor.is_floating_point() and tensor.element_size() == 2
        return np.asarray(tensor.float() if half else tensor)
    except (TypeError, ValueError, RuntimeError):
        raise GeometryError(f"expected an array or a dense tensor, got {brief(given)}") from None


def of_cases(given: Any, patients: Sequence[str]) -> Array:
    """Numbers of cases `(cases, ...)` in double precision, from an array, a tensor or a list.

    Raises:
        GeometryError: no numbers, or not one for each patient named.
    """
    try:
        found = np.asarray(arrays(given)[0], float)
    except (TypeError, ValueError):
        raise GeometryError(f"expected a number a case, got {brief(given)}") from None
    if found.shape[:1] != (len(patients),):
        raise GeometryError(f"every case needs its patient: got numbers {found.shape} and {len(patients)} patients")
    return found


def masks(*given: Any) -> tuple[Array, ...]:
    """Boolean arrays of one shape, from arrays or tensors.

    Raises:
        GeometryError: other than boolean masks of one shape with two or three axes.
    """
    found = _of_one_shape("masks", given)
    if wrong := [str(mask.dtype) for mask in found if mask.dtype != bool]:
        raise GeometryError(f"masks must be boolean, got {' and '.join(wrong)}: compare one label")
    return found


def maps(*given: Any) -> tuple[Array, ...]:
    """Arrays of whole numbers of one shape (maps of labels or of instances), from arrays or tensors.

    Raises:
        GeometryError: other than maps of whole numbers of one shape with two or three axes.
    """
    found = _of_one_shape("maps", given)
    if wrong := [str(array.dtype) for array in found if array.dtype.kind not in "biu"]:
        raise GeometryError(
            f"maps hold whole numbers, got {' and '.join(wrong)}: round them, or take the likeliest class"
        )
    return found


def _of_one_shape(what: str, given: Sequence[Any]) -> tuple[Array, ...]:
    found = arrays(*given)
    shapes = [array.shape for array in found]
    if len(set(shapes)) != 1 or len(shapes[0]) not in (2, 3):
        raise GeometryError(f"2D or 3D {what} of one shape are needed, got {' and '.join(map(str, shapes))}")
    return found
