"""Shape without size: pieces, tunnels and cavities, and the centre lines of tubes.

Voxels of a structure hang together by faces, edges or corners (26 neighbours, in 2D 8), those of the background by faces (6,
in 2D 4), so that every tunnel and cavity is closed by what is around it. `spacing_mm` changes nothing: all metrics are called alike.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from medseg import distance
from medseg.errors import ConfigError
from medseg.extent import bounding_box, components
from medseg.metrics._grid import Array, Spacing, flat, masks


def betti_numbers(mask: Any) -> tuple[int, ...]:
    """Pieces, tunnels and cavities of a 3D mask; pieces and holes of a 2D one. All 0 where it is empty.

    Args:
        mask: boolean array or tensor.

    Example:
        A hollow ball has `(1, 0, 1)`, a ring `(1, 1, 0)`.
    """
    (mask,) = masks(mask)
    closed = np.pad(mask[bounding_box(mask)], 1)
    count, enclosed = int(components(closed).max()), int(components(~closed, faces=True).max()) - 1
    if mask.ndim == 2:
        return count, enclosed
    return count, count + enclosed - _euler(closed), enclosed


def betti_error(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, dimension: int | None = None) -> float:
    """How far the numbers of pieces, tunnels and cavities are off: the sum of the absolute differences of Betti numbers.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: not used.
        dimension: 0 for pieces alone, 1 for tunnels (in 2D: holes), 2 for cavities; None is their sum.

    Returns:
        0 or more, without an end; NaN where both masks are empty. Where one is, the numbers of the other: 1 or more, 0 perhaps of
            tunnels or cavities alone. So a missed structure may be less far off than one that was drawn in pieces.

    Raises:
        ConfigError: no such dimension.

    Reference: Hu et al., Topology-Preserving Deep Image Segmentation (NeurIPS 2019), who take the mean over patches.
    """
    prediction, reference = masks(prediction, reference)
    if dimension is not None and dimension not in range(prediction.ndim):
        raise ConfigError(f"dimension: 0 to {prediction.ndim - 1}, or None for all, got {dimension}")
    if not (prediction.any() or reference.any()):
        return float("nan")
    off = [abs(p - r) for p, r in zip(betti_numbers(prediction), betti_numbers(reference), strict=True)]
    return float(sum(off) if dimension is None else off[dimension])


def cl_dice(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Centre line Dice of tubes: the harmonic mean of the shares of each centre line that lie within the other mask.

    Centre lines are scikit-image's (Lee et al. 1994 in 3D, Zhang and Suen 1984 in 2D), as in the authors' program. That thinning
    leaves nothing of some round pieces: of those the deepest voxel counts.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: not used.

    Returns:
        0 to 1; NaN where both masks are empty, 0 where one is.

    Reference: Shit et al., clDice (CVPR 2021), equations 1 and 2.
    """
    prediction, reference = masks(prediction, reference)
    if not (prediction.any() and reference.any()):
        return 0.0 if prediction.any() or reference.any() else float("nan")
    _, prediction, reference = flat(np.eye(prediction.ndim), prediction, reference)
    box = bounding_box(prediction | reference)
    prediction, reference = prediction[box], reference[box]
    lines = centre_lines(prediction), centre_lines(reference)
    within, covered = (float(mask[line].mean()) for line, mask in zip(lines, (reference, prediction), strict=True))
    return 2 * within * covered / (within + covered) if within + covered else 0.0


def centre_lines(mask: Array) -> Array:
    """Centre lines of a boolean array, at least one voxel of each piece."""
    from skimage.morphology import skeletonize

    lines = np.asarray(skeletonize(mask), bool)
    numbers = components(mask)
    if lost := set(range(1, int(numbers.max()) + 1)) - set(np.unique(numbers[lines]).tolist()):
        depth = distance.to_mask(np.pad(~mask, 1, constant_values=True))[(slice(1, -1),) * mask.ndim]
        for number in lost:
            lines.flat[np.where(numbers == number, depth, 0).argmax()] = True
    return lines


def _euler(mask: Array) -> int:
    """Vertices less edges plus faces less cubes of the voxels of a mask that does not touch its array's border."""
    total = 0
    for axes in itertools.chain.from_iterable(
        itertools.combinations(range(mask.ndim), n) for n in range(mask.ndim + 1)
    ):
        touched = mask
        for axis in axes:  # what lies between two voxels belongs to either
            along = np.moveaxis(touched, axis, 0)
            touched = np.moveaxis(along[:-1] | along[1:], 0, axis)
        total += (-1) ** (mask.ndim - len(axes)) * int(np.count_nonzero(touched))
    return total
