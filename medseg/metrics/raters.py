"""Several people's masks of one scan: what they agree on, and how well."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medseg.errors import DataError, MedsegError
from medseg.metrics._grid import Array, Spacing, number
from medseg.metrics._grid import masks as checked
from medseg.wording import brief


class Staple(NamedTuple):
    """What several masks say together.

    Args:
        probability: of the structure at each voxel, float64, of the masks' shape.
        sensitivity: of each rater.
        specificity: of each rater.
    """

    probability: Array
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]

    @property
    def consensus(self) -> Array:
        """The voxels that are likelier structure than not, as booleans."""
        return np.asarray(self.probability > 0.5)


def staple(masks: Sequence[Any], *, spacing_mm: Spacing = None, iterations: int = 1000) -> Staple:
    """The likeliest truth behind several masks, and how good each of them is, by expectation and maximisation (SimpleITK's).

    Args:
        masks: two or more boolean arrays or tensors of one shape, 2D or 3D.
        spacing_mm: not used: all metrics are called alike.
        iterations: at most.

    Returns:
        Where all masks are empty (or all full) so is the consensus; the sensitivity (specificity) is then NaN, for nobody could
        show any.

    Raises:
        ConfigError: no such number of iterations.
        DataError: fewer than two masks.
        GeometryError: masks that cannot be compared.
        MedsegError: SimpleITK is not installed.

    Reference: Warfield, Zou and Wells, IEEE Transactions on Medical Imaging 23 (2004) 903.
    """
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise MedsegError(
            "a consensus of raters needs SimpleITK, which is not installed. Run: pip install 'medseg[raters]'"
        ) from error

    given = _several(masks)
    steps = number(
        iterations, lambda n: 1 <= n < 2**31 and n.is_integer(), "iterations: a whole number above 0 is needed"
    )
    if given.all() or not given.any():
        some = 1.0 if given.any() else float("nan")
        none = float("nan") if given.any() else 1.0
        return Staple(given[0].astype(float), (some,) * len(given), (none,) * len(given))
    estimate = sitk.STAPLEImageFilter()
    estimate.SetMaximumIterations(int(steps))
    probability = estimate.Execute([sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in given])
    return Staple(sitk.GetArrayFromImage(probability), estimate.GetSensitivity(), estimate.GetSpecificity())


def inter_rater_dice(masks: Sequence[Any], *, spacing_mm: Spacing = None) -> float:
    """Mean Dice over all pairs of raters: what a model can reach before it agrees with them better than they do.

    A pair of which one mask is empty counts 0; pairs of empty masks are left out. NaN where all are empty. Arguments and errors
    as in `staple`.
    """
    given = _several(masks)
    sizes = np.count_nonzero(given.reshape(len(given), -1), axis=1)
    pairs = list(itertools.combinations(range(len(given)), 2))
    shared = np.array([2.0 * np.count_nonzero(given[a] & given[b]) for a, b in pairs])
    total = np.array([sizes[a] + sizes[b] for a, b in pairs])
    return float(np.mean(shared[total > 0] / total[total > 0])) if total.any() else float("nan")


def _several(masks: Sequence[Any]) -> Array:
    try:
        given = list(masks)
    except TypeError:
        raise DataError(f"agreement needs a list of the masks of two raters at least, got {brief(masks)}") from None
    if len(given) < 2:
        raise DataError(f"agreement needs the masks of two raters at least, got {len(given)}")
    return np.stack(checked(*given))
