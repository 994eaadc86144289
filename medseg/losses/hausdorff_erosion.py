"""Hausdorff loss by erosion: errors that outlive many erosions are thick, and cost most.

Formula: 1/N sum_k (k s)^alpha sum ((t - p)^2 eroded k times) + dice_weight (1 - 2 <t, p> / (|t|^2 + |p|^2)), s the step
Paper: Karimi and Salcudean 2020, Reducing the Hausdorff distance in medical image segmentation, IEEE TMI
Equation: 24, 26 and 27 of Taghanaki et al. 2021
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.losses import _hausdorff
from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._morphology import beside
from medseg.losses._options import Times
from medseg.losses._regions import structures


class Config(_hausdorff.Config):
    """Options of the loss.

    Args:
        erosions: how many; thicker errors cost no more.
    """

    erosions: Times = 10


class HausdorffErosion(Loss[Config]):
    """Mean over voxels and classes.

    A soft erosion takes the mean of a voxel and its neighbours along the axes (a fifth each in 2D, a seventh in 3D), what of
    it is over one half, and stretches that to 0 to 1, as the authors' and Kornia's code do. A step is the smallest spacing
    wide; along an axis with a wider one only those erosions act that complete a voxel.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts, and where every error is thinner than an erosion."""
        config, step = self.config, min(level.spacing_mm)
        p, truth = structures(level, config)
        errors = (p - truth).square()
        total = torch.zeros_like(errors)
        for k in range(1, config.erosions + 1):
            axes = [n for n, wide in enumerate(level.spacing_mm, 2) if _completed(k, step / wide)]
            errors = _erode(errors, axes)
            total = total + (k * step) ** config.alpha * errors
        return _hausdorff.composite(total, level, config)


def _completed(k: int, share: float) -> bool:
    """Whether the k-th step, a share of a voxel wide, completes one."""
    return int(k * share + 1e-6) > int((k - 1) * share + 1e-6)


def _erode(errors: Tensor, axes: Sequence[int]) -> Tensor:
    """Soft erosion of `(B, K, *spatial)` along some axes; nothing lies outside."""
    around = errors
    for axis in axes:
        around = around + beside(errors, axis)
    eroded = (around / (1 + 2 * len(axes)) - 0.5).relu()
    spatial = tuple(range(2, errors.ndim))
    least, most = eroded.amin(spatial, keepdim=True), eroded.amax(spatial, keepdim=True)
    return torch.where(most > least, (eroded - least) / (most - least).clamp(min=1e-12), eroded)


build = HausdorffErosion
