"""Where each voxel of the patch comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.augment._draw import Array, Parameters
from medseg.augment._separable import smooth, tensor


def resample(image: Tensor, target: Tensor, parameters: Parameters, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Cut the middle out of `(B, C, *spatial)` and `(B, T, *spatial)`, and interpolate the samples that move.

    Returns:
        New contiguous tensors; linear for the image, nearest voxel for the target, 0 outside.
    """
    image_patch, target_patch = _middle(image, size), _middle(target, size)
    rows = np.flatnonzero(_moves(parameters))
    if len(rows):
        grid = _grid(parameters, rows, image.shape[2:], size, image.device)
        image_patch[rows] = F.grid_sample(image[rows], grid, "bilinear", "zeros", align_corners=False)
        nearest = F.grid_sample(target[rows].float(), grid, "nearest", "zeros", align_corners=False)
        target_patch[rows] = nearest.to(target.dtype)
    return image_patch, target_patch


def mirror(image: Tensor, target: Tensor, parameters: Parameters) -> None:
    """Flip axes in place."""
    for axis in range(image.ndim - 2):
        rows = np.flatnonzero(parameters.mirror[:, axis])
        if len(rows):
            image[rows], target[rows] = image[rows].flip(axis + 2), target[rows].flip(axis + 2)


def _middle(batch: Tensor, size: Sequence[int]) -> Tensor:
    for axis, length in enumerate(size, 2):
        batch = batch.narrow(axis, (batch.shape[axis] - length) // 2, length)
    return batch.clone(memory_format=torch.contiguous_format)


def _moves(parameters: Parameters) -> Array:
    """Which samples are interpolated."""
    away = parameters.matrix - np.eye(parameters.matrix.shape[1])
    numbers = [values.reshape(len(values), -1) for values in (away, parameters.shift, parameters.elastic)]
    return np.asarray(np.concatenate(numbers, 1).any(1))


def _grid(
    parameters: Parameters, rows: Array, source: Sequence[int], size: Sequence[int], device: torch.device
) -> Tensor:
    """Sources `(rows, *size, D)` in the units of `grid_sample`: -1 to 1 from edge to edge, the last axis first."""
    dims = len(size)
    unit = 2 / np.array(source[::-1])
    patch_centre = (np.array(source) - size) // 2 + (np.array(size) - 1) / 2
    shift = parameters.shift[rows] + patch_centre - (np.array(source) - 1) / 2
    steps = tensor(parameters.matrix[rows][:, ::-1] * unit[:, None], device)  # of a voxel along each axis: the columns
    grid = tensor(shift[:, ::-1] * unit, device).view(-1, *[1] * dims, dims)
    for axis, length in enumerate(size):
        offset = torch.arange(length, device=device) - (length - 1) / 2
        line = offset[:, None] * steps[:, None, :, axis]
        grid = grid + line.view(len(rows), *(length if a == axis else 1 for a in range(dims)), dims)
    points = parameters.elastic[rows][:, ::-1] * unit.reshape(-1, *[1] * dims)
    bent = np.flatnonzero(points.reshape(len(rows), -1).any(1))
    if len(bent):
        field = smooth(tensor(points[bent], device).flatten(0, 1), size)
        grid[bent] += field.view(len(bent), dims, *size).movedim(1, -1)
    return grid
