"""Planes of structures, laid one after the other onto a grid: one map of numbers as long as they exclude each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg import picture
from medseg.arrays import Array
from medseg.labels import Label, Labels


class Pile:
    """Structures on a grid `(I, J, K)`, numbered from 1.

    Args:
        shape: of the grid.
        count: of structures.
    """

    def __init__(self, shape: Sequence[int], count: int) -> None:
        self.count, self.overlap = count, 0  # voxels that lie in several structures, counted as often as one more came
        self._planes = np.zeros((1, *shape[::-1]), np.min_scalar_type(count))  # (C, K, J, I): planes are written whole

    def add(self, number: int, k: int, plane: Array) -> None:
        """Lay down where one structure is in slice k: booleans `(rows, columns)`, which are `(J, I)`."""
        if len(self._planes) == 1 and self.count > 1:
            there = self._planes[0, k][plane]
            if not ((there != 0) & (there != number)).any():
                self._planes[0, k][plane] = number
                return
            self._planes = np.stack([self._planes[0] == n for n in range(1, self.count + 1)]).astype(np.uint8)
        channel = number - 1 if len(self._planes) > 1 else 0
        self.overlap += int(
            np.count_nonzero(self._planes[:, k][:, plane].any(axis=0) & (self._planes[channel, k][plane] == 0))
        )
        self._planes[channel, k][plane] = 1

    @property
    def array(self) -> Array:
        """`(1, I, J, K)` of numbers, or `(count, I, J, K)` of 0 and 1 where structures overlap."""
        return self._planes.transpose(0, 3, 2, 1)


def labels(structures: Sequence[tuple[str, tuple[int, int, int] | None, str | None]], overlap: bool) -> Labels:
    """What the numbers mean: names, colours and codes in order; names that come twice are counted."""
    items: list[Label] = []
    for number, (name, colour, code) in enumerate(structures, 1):
        name, again = name or f"label {number}", 1
        while any(item.name == (name if again == 1 else f"{name} ({again})") for item in items):
            again += 1
        unique = name if again == 1 else f"{name} ({again})"
        items.append(Label(name=unique, values=(number,), colour=colour or picture.colour(number), code=code))
    return Labels(items=tuple(items), exclusive=not overlap)
