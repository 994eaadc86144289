"""Pieces of two maps: how they overlap, and which go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from medseg.metrics._grid import Array

_TABLE = 1 << 24  # numbers up to here are counted in a table, larger ones are sorted


@dataclass(frozen=True)
class Overlaps:
    """Pieces that touch.

    Args:
        predicted: voxels of each piece of the prediction `(P,)`.
        true: voxels of each piece of the reference `(R,)`.
        pairs: positions in both, of the pieces that share voxels `(N, 2)`.
        shared: how many these are `(N,)`.
        names: the numbers of the prediction's pieces in its map `(P,)`.
    """

    predicted: Array
    true: Array
    pairs: Array
    shared: Array
    names: Array

    @classmethod
    def between(cls, prediction: Array, reference: Array) -> Self:
        """Count two maps of numbers; 0 is background."""
        (names, predicted), (others, true) = (_counted(array[array != 0]) for array in (prediction, reference))
        both = (prediction != 0) & (reference != 0)
        at = np.searchsorted(names, prediction[both]) * len(others) + np.searchsorted(others, reference[both])
        joint, shared = _counted(at)
        pairs = np.stack(np.divmod(joint, max(len(others), 1)), axis=1)
        return cls(predicted, true, pairs, shared, names)

    @property
    def iou(self) -> Array:
        """Intersection over union of each pair."""
        whole = self.predicted[self.pairs[:, 0]] + self.true[self.pairs[:, 1]]
        return np.asarray(self.shared / (whole - self.shared))

    def matched(self, allowed: Array) -> Array:
        """Positions in `pairs` of a choice in which no piece comes twice: as many pairs as can be, and of these choices the
        one with the largest sum of IoU.

        Args:
            allowed: which pairs may be chosen `(N,)`.
        """
        chosen = np.flatnonzero(allowed)
        rows, columns = self.pairs[chosen].T
        undisputed = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
        return np.concatenate([chosen[undisputed], self._assigned(chosen[~undisputed])])

    def _assigned(self, chosen: Array) -> Array:
        """Of some positions in `pairs`, those of the best choice."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import min_weight_full_bipartite_matching

        if not len(chosen):
            return chosen
        rows, columns = self.pairs[chosen].T
        used, rows = np.unique(rows, return_inverse=True)
        size, alone = len(used), np.arange(len(used))
        # Every piece may stay alone, at a price that is above all that the best IoU could save.
        costs = np.concatenate([1 - self.iou[chosen] / (2 * size), np.full(size, 2.0)])
        places = np.concatenate([rows, alone]), np.concatenate([columns, len(self.true) + alone])
        graph = coo_array((costs, places), shape=(size, len(self.true) + size)).tocsr()
        taken = np.empty(size, int)
        np.put(taken, *min_weight_full_bipartite_matching(graph))
        return np.asarray(chosen[taken[rows] == columns])


def _counted(values: Array) -> tuple[Array, Array]:
    """Different values, ascending, and how often each comes."""
    if values.size and values.min() >= 0 and values.max() < _TABLE:
        counts = np.bincount(values.astype(np.intp, copy=False))  # older NumPy takes no uint64
        return np.flatnonzero(counts), counts[counts > 0]
    return np.unique(values, return_counts=True)
