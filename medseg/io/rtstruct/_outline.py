"""The outline of a structure in a slice, along the edges of its pixels: polygons whose area is exactly that of the pixels."""

from __future__ import annotations

import numpy as np

from medseg.arrays import Array

Corner = tuple[
    int, int
]  # (column, row) of a corner of pixels: pixel (c, r) lies between the corners (c, r) and (c+1, r+1)
Cycle = list[Corner]
_BESIDE: dict[Corner, Corner] = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}  # a quarter turn


def outlines(plane: Array) -> list[Array]:
    """One polygon for each part of a structure.

    Pixels that touch at a corner alone are two parts. A hole is cut out by a keyhole: a slit of no width, from the hole to the
    left until the outline, along which the polygon runs in and out. So one rule fits all readers, even-odd or winding.

    Args:
        plane: booleans `(rows, columns)`.

    Returns:
        For each part the corners `(n, 2)` as (column, row) in pixels, where whole numbers are centres: pixel (c, r) reaches from
        c - 0.5 to c + 0.5. Nothing for an empty plane.
    """
    from scipy import ndimage

    parts, _ = ndimage.label(plane)
    boxes = ndimage.find_objects(parts)
    found = []
    for number, (rows, columns) in enumerate(boxes, 1):
        corners = np.array(_straightened(_keyholed(_cycles(parts[rows, columns] == number))), float)
        found.append(corners + np.array((columns.start - 0.5, rows.start - 0.5)))
    return found


def _cycles(part: Array) -> list[Cycle]:
    """The closed ways around one part and around its holes, with the part on the right-hand side as rows run down."""
    wide = np.pad(part, 1).astype(np.int8)
    across, down = np.diff(wide, axis=0)[:, 1:-1], np.diff(wide, axis=1)[1:-1]
    ways: dict[Corner, list[Corner]] = {}
    for (r, c), enters in _edges(across):  # above a pixel the way runs to the right, below it to the left
        ways.setdefault((c, r) if enters else (c + 1, r), []).append((1, 0) if enters else (-1, 0))
    for (r, c), enters in _edges(down):  # left of a pixel it runs up, right of it down
        ways.setdefault((c, r + 1) if enters else (c, r), []).append((0, -1) if enters else (0, 1))
    cycles = []
    while ways:
        cycles.append(_walk(ways, next(iter(ways))))
    return cycles


def _edges(steps: Array) -> list[tuple[Corner, bool]]:
    where = np.nonzero(steps)
    return list(zip(zip(*(axis.tolist() for axis in where), strict=True), (steps[where] > 0).tolist(), strict=True))


def _walk(ways: dict[Corner, list[Corner]], start: Corner) -> Cycle:
    """Go around once, and take the edges away. Where two ways leave a corner, turn so as to stay at the same pixel."""
    at, along, cycle = start, ways[start][0], []
    first = along
    while True:
        cycle.append(at)
        ways[at].remove(along)
        if not ways[at]:
            del ways[at]
        at = (at[0] + along[0], at[1] + along[1])
        turn = _BESIDE[along]
        if at == start and (at not in ways or turn == first):
            return cycle
        along = turn if turn in ways[at] else ways[at][0]


def _keyholed(cycles: list[Cycle]) -> Cycle:
    """One closed way out of that around a part and those around its holes; the leftmost hole first."""
    outer, *holes = sorted((_from_leftmost(cycle) for cycle in cycles), key=lambda cycle: cycle[0])
    corners, after = list(outer), [*range(1, len(outer)), -1]  # a chain, for there may be thousands of holes
    places = {corner: n for n, corner in enumerate(outer)}
    for hole in holes:
        column, row = hole[0]
        while (column, row) not in places:
            column -= 1
        slit = [(c, row) for c in range(column, hole[0][0] + 1)]
        way = [*slit[1:], *hole[1:], *slit[::-1]]
        first, at = len(corners), places[column, row]
        corners += way
        after += [*range(first + 1, len(corners)), after[at]]
        after[at] = first
        places.update({corner: first + n for n, corner in enumerate(way)})
    return _in_chain(corners, after)


def _in_chain(corners: list[Corner], after: list[int]) -> Cycle:
    way, at = [], 0
    while at >= 0:
        way.append(corners[at])
        at = after[at]
    return way


def _from_leftmost(cycle: Cycle) -> Cycle:
    at = cycle.index(min(cycle))
    return cycle[at:] + cycle[:at]


def _straightened(cycle: Cycle) -> Cycle:
    """Without the corners on a straight way."""
    before, after = cycle[-1:] + cycle[:-1], cycle[1:] + cycle[:1]
    return [
        b
        for a, b, c in zip(before, cycle, after, strict=True)
        if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])
    ]
