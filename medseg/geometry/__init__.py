"""Moving volumes between grids. Reorient, crop and pad never interpolate; resampling maps voxel centres in world space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from medseg.arrays import Array
from medseg.errors import GeometryError
from medseg.geometry import resampling
from medseg.volume import Geometry, Volume

Mode = Literal["linear", "nearest", "one_hot"]
_DRIFT = 0.05


def difference(a: Geometry, b: Geometry) -> str:
    """How grid `b` departs from grid `a`, in words with millimetres; empty when it does not by more than 1e-6 mm."""
    if a.shape != b.shape:
        return f"{'x'.join(map(str, b.shape))} voxels instead of {'x'.join(map(str, a.shape))}"
    distance = a.apart_mm(b)
    if distance <= 1e-6:
        return ""
    shift = a.to_index(b.affine[:3, 3]) * a.spacing_mm
    if np.abs(a.affine[:3, :3] - b.affine[:3, :3]).max() < 1e-6:
        return f"{distance:.3g} mm off (origin differs along {_axes(shift)})"
    if np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-4):
        return f"up to {distance:.3g} mm off (axes point elsewhere: {a.axcodes} and {b.axcodes})"
    spacings = [" x ".join(f"{s:.4g}" for s in g.spacing_mm) for g in (a, b)]
    return f"up to {distance:.3g} mm off (spacing {spacings[1]} instead of {spacings[0]} mm)"


def same_space(a: Geometry, b: Geometry, tolerance_mm: float | None = None) -> bool:
    """Whether two grids have one shape and no voxel centre lies farther than `tolerance_mm` from its twin.

    The default is 5 % of the finest spacing: what is written by different programs drifts by less, and no mask moves.
    """
    tolerance_mm = _DRIFT * min(a.spacing_mm) if tolerance_mm is None else tolerance_mm
    return a.shape == b.shape and a.apart_mm(b) <= tolerance_mm


def _axes(shift_mm: Array) -> str:
    return ", ".join(name for name, s in zip("ijk", shift_mm, strict=True) if abs(s) > 1e-6)


def reorient(volume: Volume, axcodes: str = "RAS") -> Volume:
    """Permute and flip axes until each points to the given direction (R/L, A/P, S/I); values are not changed."""
    from nibabel import orientations as ornt

    checked_axcodes(axcodes)
    change = ornt.ornt_transform(ornt.io_orientation(volume.geometry.affine), ornt.axcodes2ornt(axcodes))
    array = np.moveaxis(ornt.apply_orientation(np.moveaxis(volume.array, 0, -1), change), -1, 0)
    affine = volume.geometry.affine @ ornt.inv_ornt_aff(change, volume.geometry.shape)
    return volume.replace(array=array, geometry=Geometry(array.shape[1:], affine))


def checked_axcodes(axcodes: str) -> str:
    """The orientation itself, if it is one.

    Raises:
        GeometryError: it does not name one of R/L, A/P and S/I for each axis.
    """
    sides = {"L": "R", "P": "A", "I": "S"}
    if sorted(sides.get(code, code) for code in axcodes) != ["A", "R", "S"]:
        raise GeometryError(f"an orientation names one of R/L, A/P and S/I for each axis, such as RAS; got '{axcodes}'")
    return axcodes


def crop(volume: Volume, start_ijk: Sequence[int], stop_ijk: Sequence[int]) -> Volume:
    """The voxels from `start_ijk` up to, without, `stop_ijk`; they keep their place in the world."""
    if any(not 0 <= a < b <= n for a, b, n in zip(start_ijk, stop_ijk, volume.geometry.shape, strict=True)):
        raise GeometryError(
            f"a crop from {tuple(start_ijk)} to {tuple(stop_ijk)} is empty or leaves {volume.geometry.shape}"
        )
    box = (slice(None), *(slice(a, b) for a, b in zip(start_ijk, stop_ijk, strict=True)))
    array = volume.array[box]
    return volume.replace(array=array, geometry=part(volume.geometry, start_ijk, array.shape[1:]))


def pad(volume: Volume, before_ijk: Sequence[int], after_ijk: Sequence[int], fill: float = 0) -> Volume:
    """Add voxels of one value around; the others keep their place in the world."""
    width = [(0, 0), *zip(before_ijk, after_ijk, strict=True)]
    array = np.pad(volume.array, width, constant_values=fill)
    return volume.replace(array=array, geometry=part(volume.geometry, [-n for n in before_ijk], array.shape[1:]))


def part(geometry: Geometry, start_ijk: Sequence[int], shape: Sequence[int]) -> Geometry:
    """The grid of so many of a grid's voxels from an index on, which may also lie before or go beyond it."""
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_world(start_ijk)
    return Geometry(tuple(shape), affine)  # type: ignore[arg-type]


def with_spacing(geometry: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The grid on the same axes and over the same extent (rounded up to whole voxels, centred) with another spacing."""
    scale = np.array(spacing_mm) / geometry.spacing_mm
    shape = np.maximum(1, np.ceil(np.array(geometry.shape) / scale - 1e-3)).astype(int)  # nothing is left uncovered
    affine = geometry.affine.copy()
    affine[:3, :3] *= scale
    affine[:3, 3] = geometry.to_world((np.array(geometry.shape) - 1) / 2) - affine[:3, :3] @ ((shape - 1) / 2)
    return Geometry(tuple(shape), affine)


def upright(geometry: Geometry) -> Geometry:
    """The smallest grid with right angles, spacing as fine and axes along i and j, that holds a sheared grid."""
    basis, upper = np.linalg.qr(geometry.affine[:3, :3])
    axes = basis * np.diag(upper)
    index = geometry.corners_world @ np.linalg.inv(axes).T
    low, high = index.min(0), index.max(0)
    i, j, k = (int(n) + 1 for n in np.ceil(high - low - 1e-6))
    return Geometry((i, j, k), np.vstack([np.column_stack([axes, axes @ low]), [0, 0, 0, 1]]))


def resample(volume: Volume, spacing_mm: Sequence[float], mode: Mode | None = None) -> Volume:
    """Resample to another spacing on the same axes; see `resample_to`."""
    return resample_to(volume, with_spacing(volume.geometry, spacing_mm), mode)


def resample_to(volume: Volume, geometry: Geometry, mode: Mode | None = None, fill: float = 0.0) -> Volume:
    """Values of a volume on another grid, by world position.

    Args:
        volume: any grid, oblique and sheared ones included.
        geometry: the grid wanted.
        mode: "linear" (images; triangular anti-aliasing along axes that become coarser), "nearest" (labels), "one_hot"
            (labels: each value's indicator is interpolated and the largest wins, the smoother choice, which keeps structures
            as thick, along each axis, as a voxel of both grids together, and may lose thinner ones). Default: by the volume's
            kind. On a finer grid with the same axes and back "nearest" loses nothing. On grids with the same axes, linear
            values are off by at most the sum, over axes, of h^2/8 times the second derivative along it in mm, where h is the
            larger of both spacings.
        fill: value outside the volume.

    Returns:
        Volume of the same kind; images are float32 unless nothing moved.
    """
    mode = mode or ("linear" if volume.kind == "image" else "nearest")
    if volume.geometry == geometry:
        return volume
    matrix = np.linalg.inv(volume.geometry.affine) @ geometry.affine
    if mode == "linear":
        array = resampling.linear(volume.array, matrix, geometry.shape, fill, antialias=volume.kind == "image")
    elif mode == "nearest":
        array = resampling.nearest(volume.array, matrix, geometry.shape, fill)
    else:
        array = resampling.vote(volume.array, matrix, geometry.shape)
    return volume.replace(array=array, geometry=geometry)
