"""How much of two masks coincides, voxel by voxel.

The empty case, for every function here: NaN where both masks are empty, for there is nothing to measure. Where one is, a
structure was missed or invented: what counts the structure alone is then 0, the worst. `specificity`, `accuracy` and
`balanced_accuracy` count the background too and keep the value of their formula, `kappa` and `mcc` are 0, as by chance.
A structure of one voxel is a structure like any other. `spacing_mm` changes nothing: all metrics are called alike.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np

from medseg.metrics._grid import Spacing, masks


class Overlap(NamedTuple):
    """Numbers of voxels of two masks; what is made of them is described with the functions of the same names.

    Args:
        both: in both masks.
        predicted: in the prediction.
        true: in the reference.
        voxels: of the grid. Without it nothing is known of the background, and what counts it is NaN.
    """

    both: float
    predicted: float
    true: float
    voxels: float = math.nan

    @classmethod
    def between(cls, prediction: Any, reference: Any, voxels: int | None = None) -> Self:
        """Count the voxels of two boolean arrays, which may be cut out of a grid of so many `voxels`."""
        prediction, reference = masks(prediction, reference)
        both, predicted, true = (
            int(np.count_nonzero(mask)) for mask in (prediction & reference, prediction, reference)
        )
        return cls(both, predicted, true, prediction.size if voxels is None else voxels)

    @property
    def neither(self) -> float:
        """Voxels of the grid in neither mask."""
        return self.voxels - self.predicted - self.true + self.both

    def dice(self) -> float:
        """See the function of that name."""
        return self._share(2 * self.both, self.predicted + self.true)

    def iou(self) -> float:
        """See the function of that name."""
        return self._share(self.both, self.predicted + self.true - self.both)

    def precision(self) -> float:
        """See the function of that name."""
        return self._share(self.both, self.predicted)

    def recall(self) -> float:
        """See the function of that name."""
        return self._share(self.both, self.true)

    def specificity(self) -> float:
        """See the function of that name."""
        return self._share(self.neither, self.voxels - self.true, nothing=1.0)

    def accuracy(self) -> float:
        """See the function of that name."""
        return self._share(self.both + self.neither, self.voxels)

    def balanced_accuracy(self) -> float:
        """See the function of that name."""
        return (self.recall() + self.specificity()) / 2

    def kappa(self) -> float:
        """See the function of that name."""
        by_chance = self.predicted * self.true + (self.voxels - self.predicted) * (self.voxels - self.true)
        agreed = (self.both + self.neither) * self.voxels
        return self._share(agreed - by_chance, self.voxels**2 - by_chance, nothing=1.0)

    def mcc(self) -> float:
        """See the function of that name."""
        product = self.predicted * self.true * (self.voxels - self.predicted) * (self.voxels - self.true)
        alike = self.predicted == self.true == self.both
        return self._share(
            self.both * self.voxels - self.predicted * self.true, math.sqrt(product), nothing=float(alike)
        )

    def volumetric_similarity(self) -> float:
        """See the function of that name."""
        total = self.predicted + self.true
        return self._share(total - abs(self.predicted - self.true), total)

    def _share(self, part: float, whole: float, nothing: float = 0.0) -> float:
        """A part of a whole; NaN where there is no structure, `nothing` where there is one and the whole is 0."""
        if not (self.predicted or self.true):
            return math.nan
        return float(part / whole) if whole else nothing


def dice(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Dice coefficient, `2 |P and R| / (|P| + |R|)`.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: not used.

    Returns:
        0 to 1; NaN where both masks are empty.

    Reference: Dice, Ecology 26 (1945) 297.
    """
    return Overlap.between(prediction, reference).dice()


def iou(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Intersection over union (Jaccard index), `|P and R| / |P or R|`; arguments and empty case as in `dice`."""
    return Overlap.between(prediction, reference).iou()


def precision(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Share of the prediction that is right, `|P and R| / |P|`; arguments and empty case as in `dice`."""
    return Overlap.between(prediction, reference).precision()


def recall(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Share of the reference that was found, `|P and R| / |R|`; arguments and empty case as in `dice`."""
    return Overlap.between(prediction, reference).recall()


def specificity(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Share of the background that stayed background, `TN / (TN + FP)`; arguments as in `dice`.

    It rises with every slice of air around the structure. 1 for a missed structure, and where the reference fills the grid;
    NaN where both masks are empty.
    """
    return Overlap.between(prediction, reference).specificity()


def accuracy(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Share of all voxels that are right, `(TP + TN) / N`; arguments as in `dice`.

    High for small structures whatever the prediction: a missed one still has the background's share. NaN where both are empty.
    """
    return Overlap.between(prediction, reference).accuracy()


def balanced_accuracy(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Mean of `recall` and `specificity`; arguments as in `dice`. 0.5 for a missed structure, at most 0.5 for an invented one."""
    return Overlap.between(prediction, reference).balanced_accuracy()


def kappa(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Cohen's kappa, `(p_o - p_e) / (1 - p_e)`: the agreement of all voxels beyond that of chance; arguments as in `dice`.

    Returns:
        -1 to 1; 0 where one mask is empty, 1 where both fill the grid, NaN where both are empty.

    Reference: Cohen, Educational and Psychological Measurement 20 (1960) 37.
    """
    return Overlap.between(prediction, reference).kappa()


def mcc(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Matthews' correlation coefficient, `(TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN))`; arguments as in `dice`.

    Returns:
        -1 to 1; 0 where one mask is empty or fills the grid, 1 where both fill it, NaN where both are empty.

    Reference: Matthews, Biochimica et Biophysica Acta 405 (1975) 442.
    """
    return Overlap.between(prediction, reference).mcc()


def volumetric_similarity(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """`1 - ||P| - |R|| / (|P| + |R|)`: volumes alone, wherever they lie; arguments and empty case as in `dice`.

    Reference: Taha and Hanbury, BMC Medical Imaging 15 (2015) 29, equation 24.
    """
    return Overlap.between(prediction, reference).volumetric_similarity()
