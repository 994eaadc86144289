"""Maps of classes compared voxel by voxel: one confusion matrix, and what is made of it.

Background (0) is a class here, so that two empty maps agree: their accuracy is 1. A class that neither map holds is left out
of a mean. One that only the prediction holds has an IoU of 0, and lowers the accuracy of the classes whose voxels it took; one
that only the reference holds has 0 in both. `spacing_mm` changes nothing: all metrics are called alike.

Reference: Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation (CVPR 2015), section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from medseg.errors import ConfigError, GeometryError
from medseg.metrics._grid import Array, Spacing, annotated, arrays, maps
from medseg.wording import brief

# What `of_matrix` gives, with headings for tables.
MAPS = {
    "pixel_accuracy": "Pixel accuracy",
    "mean_pixel_accuracy": "Mean pixel accuracy",
    "mean_iou": "Mean IoU",
    "frequency_weighted_iou": "Frequency-weighted IoU",
}
_PART = 1 << 20  # voxels that are counted at once, for numbers of eight bytes are made of them; and entries of a table


def confusion_matrix(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    labels: Sequence[int] | None = None,
    ignore: int | None = None,
) -> Array:
    """Number of voxels of each class (row) that were predicted as each class (column).

    Args:
        prediction: map of whole numbers, array or tensor, 2D or 3D.
        reference: likewise, of the same shape.
        spacing_mm: not used.
        labels: the classes in order; otherwise all values of either map, ascending.
        ignore: voxels of this value in the reference are not counted.

    Returns:
        `(K, K)` int64.

    Raises:
        ConfigError: `labels` or `ignore` are no whole numbers.
        GeometryError: the shapes differ, or a map holds a value that `labels` lacks.
    """
    prediction, reference = (array.reshape(-1) for array in maps(prediction, reference))
    if ignore is not None:
        known = annotated(reference, ignore)
        prediction, reference = prediction[known], reference[known]
    found = np.union1d(_values(prediction), _values(reference))
    classes = found if labels is None else arrays(labels)[0]
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise ConfigError(f"labels are whole numbers, one a class, got {brief(labels)}")
    if missing := sorted(set(found.tolist()) - set(classes.tolist())):
        raise GeometryError(
            f"the maps hold {missing}, which is none of the labels {classes.tolist()}: name all, with 0"
        )
    position = _positions(classes)
    parts = zip(_parts(reference), _parts(prediction), strict=True)
    return _summed(((position(true), position(predicted)) for true, predicted in parts), len(classes))


def of_classes(prediction: Array, reference: Array, size: int) -> Array:
    """`confusion_matrix` of arrays of any shape that hold the numbers below `size`, which nobody needs to look up."""
    return _summed(zip(_parts(reference.reshape(-1)), _parts(prediction.reshape(-1)), strict=True), size)


def pixel_accuracy(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, **which: Any) -> float:
    """Share of the voxels that have the right class; arguments as in `confusion_matrix`. NaN where no voxel counts."""
    return of_matrix(confusion_matrix(prediction, reference, **which))["pixel_accuracy"]


def mean_pixel_accuracy(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, **which: Any) -> float:
    """Mean over the classes of the reference of the share that was found; arguments as in `confusion_matrix`."""
    return of_matrix(confusion_matrix(prediction, reference, **which))["mean_pixel_accuracy"]


def mean_iou(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, **which: Any) -> float:
    """Mean over classes, background among them, of intersection over union; arguments as in `confusion_matrix`."""
    return of_matrix(confusion_matrix(prediction, reference, **which))["mean_iou"]


def frequency_weighted_iou(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, **which: Any) -> float:
    """Mean IoU with each class weighted by its share of the reference; arguments as in `confusion_matrix`."""
    return of_matrix(confusion_matrix(prediction, reference, **which))["frequency_weighted_iou"]


def of_matrix(matrix: Array) -> dict[str, float]:
    """The four means of one confusion matrix `(K, K)`, by the names of their functions; NaN where it counts no voxel."""
    right, true, predicted = np.diagonal(matrix), matrix.sum(1), matrix.sum(0)
    either, total = true + predicted - right, true.sum()
    if not total:
        return dict.fromkeys(MAPS, np.nan)
    shares = right / np.maximum(either, 1)
    return {
        "pixel_accuracy": float(right.sum() / total),
        "mean_pixel_accuracy": float(np.mean(right[true > 0] / true[true > 0])),
        "mean_iou": float(shares[either > 0].mean()),
        "frequency_weighted_iou": float(true @ shares / total),
    }


def _summed(parts: Iterable[tuple[Array, Array]], size: int) -> Array:
    """The matrix of voxels whose classes, true and predicted, come in parts."""
    counts = np.zeros(size**2, np.int64)
    for true, predicted in parts:
        counts += np.bincount(true * size + predicted, minlength=size**2)
    return counts.reshape(size, size)


def _parts(array: Array) -> Iterator[Array]:
    return (array[start : start + _PART].astype(np.int64) for start in range(0, len(array), _PART))


def _values(array: Array) -> Array:
    """Values of a map, ascending; marked in a table, for sorting takes many times as long."""
    if not array.size or int(array.max()) - int(array.min()) >= _PART:
        return np.unique(array).astype(np.int64)
    low = int(array.min())
    seen = np.zeros(int(array.max()) - low + 1, bool)
    for part in _parts(array):
        seen[part - low] = True
    return np.flatnonzero(seen) + low


def _positions(classes: Array) -> Callable[[Array], Array]:
    """A function that finds values among classes."""
    order = np.argsort(classes)
    if not len(classes) or classes.max() - classes.min() >= _PART:
        return lambda values: order[np.searchsorted(classes[order], values)]
    low, table = classes.min(), np.zeros(int(classes.max() - classes.min()) + 1, np.int64)
    table[classes - low] = np.arange(len(classes))
    return lambda values: table[values - low]
