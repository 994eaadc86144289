"""Maps of where a voxel lies: how far from a boundary, beside one, between two objects. None of them has a slope."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import torch
from torch import Tensor

from medseg.distance import to_boundary_batch, to_mask_batch
from medseg.losses._level import Level
from medseg.losses._morphology import erode

_REACH = 6.0  # in sigmas: beyond it a Gaussian is below 2e-8


def masks(level: Level) -> Tensor:
    """The truth as bool, `(B, K, *spatial)`: memberships of more than one half."""
    return level.truth > 0.5


def to_boundary(mask: Tensor, level: Level) -> Tensor:
    """Distance of each voxel to the nearest one on the other side of each mask's boundary, `(B, K, *spatial)`.

    In mm where the spacing is known, in voxels otherwise; 0 where there is no other side. What is ignored is on no side.
    """
    counted = None if level.valid is None else level.valid.bool()
    return to_boundary_batch(mask, level.spacing_mm, counted).to(level.truth)


def to_other_side(level: Level) -> Tensor:
    """`to_boundary` of each voxel's own class, `(B, 1, *spatial)`, with sigmoid of each structure, `(B, K, *spatial)`."""
    mask = masks(level)
    distance = to_boundary(mask, level)
    return (distance * mask).sum(1, keepdim=True) if level.exclusive else distance


def beside_boundary(level: Level) -> Tensor:
    """1 for voxels with another class (with sigmoid, the other side) beside them along an axis, else 0; shape as in `to_other_side`.

    A voxel that is ignored is of no class, and nobody's neighbour.
    """
    mask = masks(level).to(level.truth)
    inner = mask * (1 - erode(mask, level.valid))
    if level.exclusive:
        return inner.amax(1, keepdim=True)
    outside = level.keep(1 - mask)
    return inner + outside * (1 - erode(outside, level.valid))


def between_objects(level: Level, sigma: float) -> Tensor:
    """exp(-(d1 + d2)^2 / (2 sigma^2)), d1 and d2 the distances to the two nearest objects; 0 inside objects.

    An object is a connected part of a class that is not background (with sigmoid, of a channel); corners connect. Objects are
    found on the host, distances on the device of the logits. Shape as in `to_other_side`.
    """
    maps = level.truth.argmax(1, keepdim=True) if level.exclusive else masks(level).long()
    closeness = [_closeness(one, level.spacing_mm, sigma) for one in maps.flatten(0, 1)]
    return torch.stack(closeness).view(maps.shape).to(level.truth)


def objects_in(labels: Tensor) -> tuple[Tensor, list[tuple[slice, ...]]]:
    """Connected parts of equal labels over 0, numbered from 1, and the box of each."""
    found = cc3d.connected_components(labels.to(torch.int32).cpu().numpy(), connectivity=26 if labels.ndim == 3 else 8)
    boxes = cc3d.statistics(found, no_slice_conversion=False)["bounding_boxes"][1:]
    return torch.from_numpy(found.astype("int32")).to(labels.device), [box[: labels.ndim] for box in boxes]


def _closeness(labels: Tensor, spacing: Sequence[float], sigma: float) -> Tensor:
    objects, boxes = objects_in(labels)
    nearest, second = (torch.full(labels.shape, torch.inf, device=labels.device) for _ in range(2))
    for number, box in enumerate(boxes if len(boxes) > 1 else [], 1):
        around = tuple(
            slice(max(0, side.start - reach), side.stop + reach)
            for side, reach in zip(box, (int(_REACH * sigma / step) + 1 for step in spacing), strict=True)
        )
        away = to_mask_batch((objects[around] == number)[None, None], spacing)[0, 0]
        second[around] = torch.minimum(second[around], torch.maximum(nearest[around], away))
        nearest[around] = torch.minimum(nearest[around], away)
    return torch.where(objects > 0, 0, torch.exp(-((nearest + second) ** 2) / (2 * sigma**2)))
