"""Where each voxel of the patch comes from.

Positions are numbered in voxels of the source, and held as one plane for each axis, the last axis first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.augment._draw import ELASTIC_POINTS, Array, Parameters
from medseg.augment._separable import groups, smooth, tensor


def resample(image: Tensor, target: Tensor, parameters: Parameters, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Cut the middle out of `(B, C, *spatial)` and `(B, T, *spatial)`; interpolate the samples that move, flip the mirrored.

    Returns:
        New contiguous tensors; linear for the image, nearest voxel for the target, 0 outside.
    """
    new_image, new_target = (batch.new_empty(*batch.shape[:2], *size) for batch in (image, target))
    moves = _moves(parameters)
    for row in np.flatnonzero(~moves):
        axes = (np.flatnonzero(parameters.mirror[row]) + 1).tolist()
        new_image[row], new_target[row] = (_middle(batch[row], size).flip(axes) for batch in (image, target))
    for rows in groups(np.flatnonzero(moves), new_image):
        sources = _sources(parameters, rows, image.shape[2:], size, image.device)
        new_target[rows] = _nearest(target[rows], sources)
        new_image[rows] = _linear(image[rows], sources)
    return new_image, new_target


def _middle(sample: Tensor, size: Sequence[int]) -> Tensor:
    for axis, length in enumerate(size, 1):
        sample = sample.narrow(axis, (sample.shape[axis] - length) // 2, length)
    return sample


def _moves(parameters: Parameters) -> Array:
    """Which samples are interpolated."""
    away = parameters.matrix - np.eye(parameters.matrix.shape[1])
    numbers = [values.reshape(len(values), -1) for values in (away, parameters.shift, parameters.elastic)]
    return np.asarray(np.concatenate(numbers, 1).any(1))


def _sources(
    parameters: Parameters, rows: slice | Array, source: Sequence[int], size: Sequence[int], device: torch.device
) -> Tensor:
    """Positions `(rows, D, *size)`.

    A cubic B-spline whose control points lie on a straight line is that line, so that the affine map and the elastic one
    are a single spline; a mirror is the reversed order of its points.
    """
    dims = len(size)
    lines = [(np.arange(ELASTIC_POINTS) - (ELASTIC_POINTS - 1) / 2) * n / (ELASTIC_POINTS - 3) for n in size]
    offsets = np.stack(np.meshgrid(*lines, indexing="ij"))
    centre = parameters.shift[rows] + (np.array(source) - size) // 2 + (np.array(size) - 1) / 2
    points = np.einsum("rab,b...->ra...", parameters.matrix[rows], offsets) + parameters.elastic[rows]
    points += centre.reshape(*centre.shape, *[1] * dims)
    for row, mirror in zip(points, parameters.mirror[rows], strict=True):
        row[:] = np.flip(row, tuple((np.flatnonzero(mirror) + 1).tolist()))
    return smooth(tensor(points[:, ::-1], device).flatten(0, 1), size).view(len(points), dims, *size)


def _nearest(target: Tensor, sources: Tensor) -> Tensor:
    """The class `(N, T, *size)` of the nearest voxel."""
    spatial = target.shape[2:]
    index = torch.zeros_like(sources[:, 0], dtype=torch.int32)
    for plane, length in zip(reversed(sources.unbind(1)), spatial, strict=True):
        index.mul_(length + 2).add_(plane.round().clamp_(-1, length).int()).add_(1)
    framed = F.pad(target, (1, 1) * len(spatial)).flatten(2)
    new = target.new_empty(*target.shape[:2], *sources.shape[2:])
    for row, at in enumerate(index.flatten(1)):
        for channel, classes in enumerate(framed[row]):
            torch.index_select(classes, 0, at, out=new[row, channel].view(-1))
    return new


def _linear(image: Tensor, sources: Tensor) -> Tensor:
    """Linear interpolation of `(N, C, *spatial)`; uses up the sources.

    torch's sampler of planes is three times as quick on a CPU as that of volumes. So a volume becomes one tall plane, slice
    under slice with rows of 0 between them. It is read in two slices at once, which leaves one step between the two. Single
    precision rounds positions along the second axis to 1/500 voxel in a volume of 166^3.
    """
    if image.ndim == 4:
        return F.grid_sample(image, _grid(sources, image.shape[2:]), "bilinear", "zeros", align_corners=False)
    depth, height, width = image.shape[2:]
    tall, slices = height + 2, depth + 2
    position = sources[:, 2].clamp_(-1, depth)
    below = position.floor()
    share = position.sub_(below)
    sources[:, 1].clamp_(-1, height).add_(below.add_(1), alpha=tall)
    grid = _grid(sources[:, :2], (slices * tall, width))
    new = image.new_empty(*image.shape[:2], *sources.shape[2:])
    for channel in range(image.shape[1]):
        framed = F.pad(image[:, channel], (0, 0, 0, 2, 1, 2))
        pair = framed.as_strided((len(image), 2, slices * tall, width), (framed.stride(0), tall * width, width, 1))
        upper, lower = F.grid_sample(pair, grid, "bilinear", "zeros", align_corners=False).unbind(1)
        torch.lerp(upper.view_as(share), lower.view_as(share), share, out=new[:, channel])
    return new


def _grid(sources: Tensor, plane: Sequence[int]) -> Tensor:
    """Positions `(N, 2, *size)` in a plane as `grid_sample` wants them, -1 to 1 from edge to edge; changes them in place."""
    for axis, length in enumerate(reversed(plane)):
        sources[:, axis].mul_(2 / length).add_(1 / length - 1)
    return sources.flatten(2, -2).permute(0, 2, 3, 1)
