"""From the places of planes to a grid: order and spacing by position and orientation alone, and what is wrong, with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.arrays import Array
from medseg.errors import GeometryError
from medseg.io import _common
from medseg.io.dicom._planes import Plane
from medseg.volume import Geometry

SAME = 1e-3  # how far the directions (and pixel sizes, in mm) of planes of one stack may differ: text has few digits
_SQUARE = 1e-3
_LENGTH = 0.02  # how far the length of a direction may be from one: text of two digits has 0.71 for the root of a half
_TILT_DEG = 0.1
_NEEDED = {"position": "position", "axes": "orientation", "pixel_mm": "pixel size"}
_MOST_FILLED = 4  # times as many slices as there are may a stack with gaps have once they are filled


@dataclass(frozen=True)
class Stack:
    """Planes in the order of their places.

    Args:
        planes: from one end to the other.
        at: the place of each on the grid, in slices: 0, 1, 2 ... where the stack is even.
        grid: that holds them, in RAS+ mm; None where there is none.
        notes: what was odd.
        uneven: what keeps the planes from being slices of the grid, in words with numbers; empty where they are.
        problem: why there is no grid.
    """

    planes: tuple[Plane, ...]
    at: tuple[float, ...] = ()
    grid: Geometry | None = None
    notes: tuple[str, ...] = ()
    uneven: str = ""
    problem: str = ""


def arrange(planes: Sequence[Plane]) -> Stack:
    """The stack of planes of one size, pixel size and orientation."""
    if problem := _fault(planes):
        return Stack(tuple(planes), problem=problem)
    normal = _normal(planes[0])
    positions = np.array([plane.position for plane in planes])
    order = np.argsort(positions @ normal, kind="stable")
    planes, positions = [planes[n] for n in order], positions[order]
    if len(planes) == 1:
        return _gridded(planes, positions, *_alone(planes[0], normal))
    at, step, uneven = _spread(positions, normal)
    if step is None:
        return Stack(tuple(planes), problem=uneven)
    return _gridded(planes, positions, step, _lean(step, normal), tuple(at.tolist()), uneven)


def _fault(planes: Sequence[Plane]) -> str:
    """Why planes can be no stack, wherever they lie; empty if they can."""
    if missing := [word for name, word in _NEEDED.items() if any(getattr(plane, name) is None for plane in planes)]:
        return f"has images without {' and '.join(missing)}: no volume can be made of them"
    first, (right, down) = planes[0], _axes(planes[0])
    if np.abs(np.linalg.norm(_directions(first), axis=1) - 1).max() > _LENGTH or abs(right @ down) > _SQUARE:
        words = " ".join(f"{v:g}" for v in first.axes or ())
        return f"has image directions ({words}) that are not two axes at right angles"
    if first.pixel_mm and min(first.pixel_mm) <= 0:
        return f"has pixels of {first.pixel_mm[0]:g} x {first.pixel_mm[1]:g} mm"
    if not np.isfinite([plane.rescale for plane in planes if plane.rescale]).all():
        return "has a RescaleSlope or RescaleIntercept that is not a number"
    if any(plane.rescale and plane.rescale[0] == 0 for plane in planes):
        return "has a RescaleSlope of 0, which makes all values one"
    scaled = sum(plane.rescale is not None for plane in planes)
    if 0 < scaled < len(planes):
        return f"has slope and intercept in {scaled} of {len(planes)} images alone: the others were cut off, or their values mean something else"
    return ""


def places(planes: Sequence[Plane]) -> Array:
    """For each plane the number of its place along the normal: planes in one place have one number."""
    along = np.array([plane.position for plane in planes]) @ _normal(planes[0])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    number = np.zeros(len(planes), int)
    number[order[1:]] = np.cumsum(gaps > _apart_mm(gaps))
    return number


def _directions(plane: Plane) -> Array:
    return np.reshape(plane.axes or (), (2, 3))


def _axes(plane: Plane) -> tuple[Array, Array]:
    """The directions of a row and of a column, of length one: what text with few digits says of it would stretch pixels."""
    stated = _directions(plane)
    right, down = stated / np.maximum(np.linalg.norm(stated, axis=1, keepdims=True), np.finfo(float).tiny)
    return right, down


def _normal(plane: Plane) -> Array:
    return np.cross(*_axes(plane))


def _apart_mm(gaps: Array) -> float:
    """How far planes must be apart to be in two places: a hundredth of the usual gap, but more than noise."""
    real = gaps[gaps > 1e-3 * gaps.max(initial=0)]
    return max(1e-4, 0.01 * float(np.median(real))) if real.size else 1e-4


def _spread(positions: Array, normal: Array) -> tuple[Array, Array | None, str]:
    """The place of each plane in slices, the step from slice to slice (None: there is none), and what is uneven."""
    along = positions @ normal
    gaps = np.diff(along)
    apart = gaps > _apart_mm(gaps)
    if not apart.any():
        return along, None, f"has {len(positions)} images in one place, {_where(positions[0], normal)}"
    way = positions[-1] - positions[0]
    gap = float(np.median(gaps[apart & (gaps <= 1.1 * gaps[apart].min())]))
    tolerance_mm = _common.rounding_mm(gap)
    share = (along - along[0]) / (along[-1] - along[0])
    aside = float(np.linalg.norm(positions - positions[0] - share[:, None] * way, axis=1).max())
    if aside > tolerance_mm:
        return along, None, f"has images that lie up to {aside:.2f} mm beside the line of the stack"
    steps = len(positions) - 1
    even = np.arange(len(positions)) / steps
    if np.abs(share - even).max() * np.linalg.norm(way) <= tolerance_mm:
        return np.arange(len(positions)), way / steps, ""
    count = round((along[-1] - along[0]) / gap)
    if count > _MOST_FILLED * len(positions):
        return along, None, _gap_words(gaps, positions, normal)
    at = share * count
    whole = np.rint(at)
    if np.abs(at - whole).max() * gap <= tolerance_mm:
        at = whole
    return at, way / count, _uneven(at, gaps, apart, positions, normal, way / count)


def _uneven(at: Array, gaps: Array, apart: Array, positions: Array, normal: Array, step: Array) -> str:
    """What is wrong with a stack whose planes are not one a slice."""
    if not apart.all():
        twice = np.flatnonzero(~apart)
        more = f" and {len(twice) - 1} more places" if len(twice) > 1 else ""
        return f"has two images in one place, {_where(positions[twice[0]], normal)}{more} ({len(at)} images)"
    missing = sorted(set(range(int(at[-1]) + 1)) - set(at.astype(int).tolist()))
    if (at != np.rint(at)).any() or not 0 < len(missing) < len(at) / 2:  # of more, some are rather too near to others
        return _gap_words(gaps, positions, normal)
    shown = ", ".join(str(n + 1) for n in missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    what = (
        f"slice {shown} of {{}} is missing at"
        if len(missing) == 1
        else f"slices {shown} of {{}} are missing, the first at"
    )
    where = _where(positions[0] + missing[0] * step, normal)
    return f"{what.format(int(at[-1]) + 1)} {where} (gaps of {gaps.min():.3f} to {gaps.max():.3f} mm)"


def _gap_words(gaps: Array, positions: Array, normal: Array) -> str:
    widest = int(gaps.argmax())
    return (
        f"gaps between its {len(positions)} slices run from {gaps.min():.3f} to {gaps.max():.3f} mm, the widest after slice "
        f"{widest + 1} at {_where(positions[widest], normal)}"
    )


def _where(position: Array, normal: Array) -> str:
    """A place in DICOM's own coordinates, as a viewer shows them: along the axis that the stack follows most."""
    axis = int(np.abs(normal).argmax())
    return f"{'xyz'[axis]} = {position[axis]:.1f} mm"


def _lean(step: Array, normal: Array) -> tuple[str, ...]:
    tilt = float(np.degrees(np.arccos(min(1.0, step @ normal / np.linalg.norm(step)))))
    note = f"the stack leans {tilt:.1f} degrees (tilted gantry); the grid is sheared"
    return (note,) if tilt > _TILT_DEG else ()


def _alone(plane: Plane, normal: Array) -> tuple[Array, tuple[str, ...]]:
    """The step of a single slice, whose extent along the normal is what its header says of it."""
    if plane.thickness_mm:
        length, name = plane.thickness_mm
        return normal * length, (f"one slice: its extent along k, {length:g} mm, is the {name}",)
    return normal, ("one slice of unknown thickness: its extent along k is taken as 1 mm",)


def _gridded(
    planes: Sequence[Plane],
    positions: Array,
    step: Array,
    notes: tuple[str, ...],
    at: tuple[float, ...] = (0.0,),
    uneven: str = "",
) -> Stack:
    first = planes[0]
    affine = np.eye(4)
    right, down = _axes(first)
    pixel_mm = first.pixel_mm or ()
    affine[:3] = np.column_stack((right * pixel_mm[1], down * pixel_mm[0], step, positions[0]))
    shape = (first.size[1], first.size[0], round(at[-1]) + 1)
    try:
        grid = Geometry(shape, _common.LPS_TO_RAS @ affine)
    except GeometryError as error:
        return Stack(tuple(planes), problem=f"has no usable grid: {error}")
    return Stack(tuple(planes), at, grid, notes, uneven)
