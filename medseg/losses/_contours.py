"""Energies of contours: how long they are, and how unlike each other the voxels are that they enclose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def length(values: Tensor, spacing: Sequence[float], valid: Tensor | None = None, epsilon: float = 1e-8) -> Tensor:
    """sqrt(|grad values|^2 + epsilon) at each voxel: its sum is the length (in 3D the area) of the contour of a mask.

    Args:
        values: `(B, K, *spatial)`, 0 to 1.
        spacing: distance between voxel centres along each spatial axis.
        valid: `(B, 1, *spatial)`, 0 where ignored: differences to such voxels are left out, and they cost nothing.
        epsilon: keeps the slope finite where values are alike.
    """
    squares = torch.full_like(values, epsilon)
    for axis, step in enumerate(spacing, 2):
        slope = values.diff(dim=axis) / step
        if valid is not None:
            size = valid.shape[axis] - 1
            slope = slope * valid.narrow(axis, 1, size) * valid.narrow(axis, 0, size)
        squares = squares + F.pad(slope.square(), (0,) * (2 * (values.ndim - 1 - axis)) + (0, 1))
    root = squares.sqrt()
    return root if valid is None else root * valid


def spread(image: Tensor, shares: Tensor) -> Tensor:
    """sum shares |image - c|^2 by sample and class, `(B, K)`, c being the mean of the image under the same shares.

    Several channels of an image are averaged.

    Args:
        image: `(B, C, *spatial)`.
        shares: `(B, K, *spatial)`, 0 or more.
    """
    pixels, weights = image.flatten(2), shares.flatten(2)
    pixels = pixels - pixels.mean(2, keepdim=True)  # for less is lost in the difference below
    total = weights.sum(2)
    first, second = (torch.einsum("bcx,bkx->bkc", power, weights) for power in (pixels, pixels.square()))
    return (second - first.square() / total[..., None].clamp(min=1e-12)).mean(2)
