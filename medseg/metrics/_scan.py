"""All structures of a scan in one pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from medseg.errors import GeometryError
from medseg.extent import bounding_box
from medseg.labels import Labels
from medseg.metrics._grid import Array, Spacing, arrays, maps
from medseg.metrics._measures import NAMES, Grid, of_structure, pick
from medseg.metrics.confusion import of_classes, of_matrix
from medseg.wording import counted


class ScanScores(dict[Any, dict[str, float]]):
    """Metrics of each structure of a scan, by its label and their names; `overall` holds those of the whole map of classes."""

    overall: dict[str, float]


def evaluate(
    prediction: Any,
    reference: Any,
    labels: Labels | Mapping[str, Any] | Iterable[int],
    spacing_mm: Spacing = None,
    *,
    tolerance_mm: float = 1.0,
    diagonal_mm: float | None = None,
    names: Collection[str] = NAMES,
) -> ScanScores:
    """All metrics of all structures of a scan, in one pass.

    Args:
        prediction: map of labels, array or tensor, 2D or 3D; or `(C, I, J, K)` as `Volume.array` holds it, with a channel for each
            label where they overlap.
        reference: likewise, of the same spatial shape. Voxels that the labels say to ignore are background in both.
        labels: the structures: values, names to values, or `Labels`. Other values count as background, and 0 is no structure.
        spacing_mm: as in `scores`.
        tolerance_mm: as in `scores`.
        diagonal_mm: as in `scores`.
        names: which, of `NAMES`; `USUAL` are the quick ones that most papers report.

    Returns:
        What `scores` gives of each structure, by its value, or by its name where labels have names. `overall` holds
        `pixel_accuracy`, `mean_pixel_accuracy`, `mean_iou` and `frequency_weighted_iou` of the map of all these classes with
        background; nothing where labels overlap.

    Raises:
        ConfigError: labels that contradict themselves, or no such metric.
        GeometryError: maps that cannot be compared, or of other channels than the labels'.

    Example:
        >>> found = evaluate([[0, 1, 2]], [[0, 1, 1]], (1, 2), names=("dice",))
        >>> found[1], round(found.overall["pixel_accuracy"], 3)
        ({'dice': 0.6666666666666666}, 0.667)
    """
    named = labels if isinstance(labels, Labels) else Labels.of(labels)
    keys = named.names if isinstance(labels, Labels | Mapping) else [item.values[0] for item in named]
    given = [array[None] if array.ndim < 4 else array for array in arrays(prediction, reference)]
    if wrong := [len(array) for array in given if len(array) not in named.allowed_channels]:
        fit = " or ".join(counted(n, "channel") for n in named.allowed_channels)
        raise GeometryError(
            f"the labels ask for a map of {fit}, got {wrong[0]}: take the likeliest class of each voxel"
        )
    maps(*(array[0] for array in given))
    wanted, grid = pick(names), Grid.of(given[0].shape[1:], spacing_mm, tolerance_mm, diagonal_mm)
    # Most of a scan is background: from here on only the box that holds all structures is looked at.
    box = (slice(None), *bounding_box((given[0] != 0).any(0) | (given[1] != 0).any(0), margin=1))
    predicted, true = (array[box] for array in given)
    known = named.known(true)
    grid = grid._replace(voxels=grid.voxels - int(np.count_nonzero(~known)))
    found, classes = ScanScores(), np.zeros((2, *known.shape), np.min_scalar_type(len(keys)))
    for number, (key, item) in enumerate(zip(keys, named, strict=True), 1):
        pair = [named.mask(array, item) & known for array in (predicted, true)]
        found[key] = of_structure(pair[0], pair[1], grid, wanted)
        for all_classes, mask in zip(classes, pair, strict=True):
            np.copyto(all_classes, number, where=mask)
    found.overall = _overall(classes, len(keys) + 1, grid.voxels) if named.exclusive else {}
    return found


def _overall(classes: Array, number: int, voxels: int) -> dict[str, float]:
    """Metrics of maps that were cut out of a grid on which so many voxels count: all others, and what is to be ignored among
    these, are background in both."""
    matrix = of_classes(classes[0], classes[1], number)
    matrix[0, 0] += voxels - matrix.sum()
    return of_matrix(matrix)
