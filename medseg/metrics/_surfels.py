"""Where the surface of a mask passes, and how much of it there is.

The voxel centres around a corner of a voxel form a cell; which of them lie inside the mask is a code of one bit each, in
the order of `corners`. Within the cell the surface cuts every edge that leaves the mask at its middle: marching cubes
(Lorensen and Cline, SIGGRAPH 1987). The polygons are derived here rather than tabulated.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from medseg.metrics._grid import Array, measure

Point = tuple[float, ...]
Loop = list[Point]
Corner = tuple[int, ...]
Ring = tuple[Corner, ...]
Inside = dict[Corner, bool]
_RING: Ring = ((0, 0), (1, 0), (1, 1), (0, 1))


def corners(ndim: int) -> list[Corner]:
    """Corners of a cell in the order of the bits of its code."""
    return list(itertools.product((0, 1), repeat=ndim))


def surface_of_codes(axes: Array) -> Array:
    """Area in mm2 (in 2D: length in mm) of the surface within a cell, for each of its 256 (16) codes.

    Args:
        axes: steps of the grid in mm, one column an axis; may be sheared, and a 2D grid may lie in space.
    """
    ndim = axes.shape[1]
    codes, simplices = _simplices(ndim)
    points = simplices @ axes.T
    sizes = measure(points[:, 1:] - points[:, :1]) / (ndim - 1)
    return np.bincount(codes, sizes, minlength=2 ** len(corners(ndim)))


def areas_within(mask: Array, areas: Array) -> tuple[Array, Array]:
    """Where a surface passes, as a boolean array one larger than the mask, and the areas there in C order.

    Args:
        mask: boolean, 2D or 3D; it is closed at the border of the array.
        areas: of each code, from `surface_of_codes`.
    """
    codes = np.pad(np.ascontiguousarray(mask), 1).view(np.uint8)
    for axis in reversed(range(mask.ndim)):  # codes of two neighbours make one of twice as many corners
        before, after = (codes[(slice(None),) * axis + (part,)] for part in (slice(-1), slice(1, None)))
        codes = before | after << np.uint8(2 ** (mask.ndim - 1 - axis))
    passes = codes - np.uint8(1) < len(areas) - 2  # neither all outside nor all inside
    return passes, areas[codes[passes]]


def centres_within(mask: Array) -> tuple[Array, Array]:
    """Voxels of a mask with a neighbour across a face outside of it, as a boolean array, and a weight of 1 for each."""
    closed, surrounded = np.pad(mask, 1), mask.copy()
    for axis in range(mask.ndim):
        along = np.moveaxis(closed[_inner(mask.ndim, axis)], axis, 0)
        surrounded &= np.moveaxis(along[:-2] & along[2:], 0, axis)
    edge = mask & ~surrounded
    return edge, np.ones(np.count_nonzero(edge))


def _inner(ndim: int, axis: int) -> tuple[slice, ...]:
    """All of an axis of a padded array, and of the others what lies within the padding."""
    return tuple(slice(None) if other == axis else slice(1, -1) for other in range(ndim))


@functools.cache
def _simplices(ndim: int) -> tuple[Array, Array]:
    """Triangles (in 2D: segments) of all codes as `(N, ndim, ndim)` points in steps of the grid, and their codes."""
    pieces = []
    for code in range(2 ** len(corners(ndim))):
        inside = {corner: bool(code >> bit & 1) for bit, corner in enumerate(corners(ndim))}
        pieces += [(code, piece) for piece in (_triangles(inside) if ndim == 3 else _cut_face(_RING, inside, True))]
    return np.array([code for code, _ in pieces]), np.array([piece for _, piece in pieces])


def _triangles(inside: Inside) -> list[Loop]:
    # Where a face is cut in two ways, the corners that are fewer in the whole cell are kept apart.
    apart = sum(inside.values()) <= 4
    faces = [
        tuple((*corner[:axis], side, *corner[axis:]) for corner in _RING)
        for axis, side in itertools.product(range(3), (0, 1))
    ]
    loops = _join([segment for face in faces for segment in _cut_face(face, inside, apart)])
    return [triangle for loop in loops for triangle in _largest(loop)]


def _cut_face(ring: Ring, inside: Inside, apart: bool) -> list[Loop]:
    """Segments between the middles of the edges of a square that leave the mask."""
    middle = [tuple((a + b) / 2 for a, b in zip(ring[n - 1], ring[n], strict=True)) for n in range(4)]
    cut = [n for n in range(4) if inside[ring[n - 1]] != inside[ring[n]]]
    if len(cut) < 4:
        return [[middle[n] for n in cut]] if cut else []
    return [[middle[n], middle[(n + 1) % 4]] for n in range(4) if inside[ring[n]] == apart]


def _join(segments: list[Loop]) -> list[Loop]:
    """Closed loops from segments: every end is shared by two."""
    left, loops = list(segments), []
    while left:
        loop = left.pop()
        while len(loop) < 3 or loop[0] != loop[-1]:
            following = next(segment for segment in left if loop[-1] in segment)
            left.remove(following)
            loop.append(following[following[0] == loop[-1]])
        loops.append(loop[:-1])
    return loops


def _largest(loop: Loop) -> list[Loop]:
    """The triangles of a loop. One that is not flat is bent so as to have the most area on a cubic grid.

    That choice gives, code by code, the areas of the package surface-distance, so that results can stand beside
    published ones.
    """
    return max(_triangulations(loop), key=lambda triangles: round(sum(map(_area, triangles)), 9))


def _triangulations(loop: Loop) -> list[list[Loop]]:
    if len(loop) < 3:
        return [[]]
    return [
        [[loop[0], loop[n], loop[-1]], *before, *after]
        for n in range(1, len(loop) - 1)
        for before in _triangulations(loop[: n + 1])
        for after in _triangulations(loop[n:])
    ]


def _area(triangle: Loop) -> float:
    points = np.array(triangle)
    return float(measure(points[1:] - points[0])) / 2
