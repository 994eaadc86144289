"""Contours filled on a grid: a voxel belongs to a structure where its centre lies inside of an odd number of contours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.arrays import Array

_ON = 0.1  # slices: a contour within a tenth of a slice belongs to it
_THICKEST_MM = 10.0  # planes farther apart than any scan's slices are separate, and not one thick structure


def fill(contours: Sequence[Array], shape: tuple[int, int]) -> Array:
    """Even-odd filling of the pixels' centres: holes, keyholes and several parts need nothing else.

    A centre on the left or upper edge of a contour lies inside, on the right or lower edge outside.

    Args:
        contours: corners `(n, 2)` of closed polygons as (column, row), where whole numbers are centres.
        shape: rows and columns.

    Returns:
        Booleans `(rows, columns)`.
    """
    toggles = np.zeros((shape[0], shape[1] + 1), np.int32)
    for corners in contours:
        first, second = corners, np.roll(corners, -1, axis=0)
        upper = np.where(
            (first[:, 1] <= second[:, 1])[:, None], first, second
        )  # an edge and its reverse must round alike
        lower = np.where((first[:, 1] <= second[:, 1])[:, None], second, first)
        top = np.clip(np.ceil(upper[:, 1]), 0, shape[0]).astype(int)
        count = np.maximum(np.clip(np.ceil(lower[:, 1]), 0, shape[0]).astype(int) - top, 0)
        edge = np.repeat(np.arange(len(count)), count)  # one entry for each edge and row that it crosses
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + top[edge]
        slope = (lower[edge] - upper[edge])[:, 0] / (lower[edge] - upper[edge])[:, 1]
        column = np.ceil(upper[edge, 0] + (row - upper[edge, 1]) * slope)
        np.add.at(toggles, (row, np.clip(column, 0, shape[1]).astype(int)), 1)
    return np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1


def slices(heights: Array, count: int, gap_mm: float) -> list[list[int]]:
    """Which contour planes a slice shows.

    Where all planes lie on slices, each belongs to its slice alone, and slices without a plane are empty, for nobody drew there.
    Otherwise the contours were drawn on other slices: each slice takes the nearest plane, if that lies no farther than half the
    distance of planes, or half a slice where slices are thicker; midway the lower one.

    Args:
        heights: of all contours of the file, in slices; equal ones are one plane.
        count: number of slices.
        gap_mm: between slices.

    Returns:
        For each slice the positions in `heights` of what it shows.
    """
    if (np.abs(heights - np.rint(heights)) <= _ON).all():
        nearest = np.rint(heights).astype(int)
        return [np.flatnonzero(nearest == k).tolist() for k in range(count)]
    planes = np.unique(np.round(heights, 2))
    apart = np.diff(planes)
    thick = float(apart[apart > _ON].min()) if (apart > _ON).any() else 1.0
    reach = max(1.0, min(thick, _THICKEST_MM / gap_mm)) / 2
    found = []
    for k in range(count):
        plane = planes[np.argmin(np.abs(planes - k))]  # of two as near the first, which is the lower
        near = abs(plane - k) <= reach + 1e-6
        found.append(np.flatnonzero(np.abs(heights - plane) <= 0.011).tolist() if near else [])
    return found
