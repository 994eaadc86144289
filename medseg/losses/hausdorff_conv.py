"""Hausdorff loss by convolution with balls: an error costs most where a large ball around it lies on one side.

Formula: 1/N sum_r r^alpha sum [(f(B_r * (1 - t)) + f(B_r * p)) (t - p)^2 p + (f(B_r * t) + f(B_r * (1 - p))) (t - p)^2 t]
    + dice_weight (1 - 2 <t, p> / (|t|^2 + |p|^2)), B_r a ball of sum 1, f(x) = max(x - threshold, 0)
Paper: Karimi and Salcudean 2020, Reducing the Hausdorff distance in medical image segmentation, IEEE TMI
Equation: 24 and 28 of Taghanaki et al. 2021, which gives neither radii nor threshold
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses import _hausdorff
from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Positive, Share
from medseg.losses._regions import structures

_FARTHEST = 200  # voxels: transforms of larger balls would take gigabytes
_EDGE = 1 + 1e-6  # a voxel on a ball's edge is in it, whatever rounding says (.6 mm are three steps of .2)


class Config(_hausdorff.Config):
    """Options of the loss.

    Args:
        radii: of the balls, in mm where the context knows the spacing and in voxels otherwise.
        threshold: of the soft threshold f: the share of a ball that may lie on the other side.
    """

    radii: Annotated[tuple[Positive, ...], Field(min_length=1)] = (3.0, 6.0, 9.0)
    threshold: Share = 0.5


class HausdorffConv(Loss[Config]):
    """Mean over voxels and classes. Outside the patch lies nothing. Convolutions are products of Fourier transforms."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        config = self.config
        p, truth = structures(level, config)
        invented, missed = ((p - truth).square() * side for side in (p, truth))
        total = torch.zeros_like(p)
        means = _means(torch.stack([p, truth]), level.spacing_mm, config.radii)
        for radius, (near_p, near_t) in zip(config.radii, means, strict=True):
            apart = (1 - near_t - config.threshold).relu() + (near_p - config.threshold).relu()
            within = (near_t - config.threshold).relu() + (1 - near_p - config.threshold).relu()
            total = total + radius**config.alpha * (apart * invented + within * missed)
        return _hausdorff.composite(total, level, config)


def _means(maps: Tensor, spacing: Sequence[float], radii: Sequence[float]) -> list[Tensor]:
    """Means over balls of each radius around each voxel of `(..., *spatial)`.

    Raises:
        ConfigError: a ball of too many voxels.
    """
    dims = len(spacing)
    size, axes = maps.shape[-dims:], tuple(range(-dims, 0))
    if max(radii) > _FARTHEST * min(spacing):
        allowed = f"at most {_FARTHEST} voxels, which are {_FARTHEST * min(spacing):g} here"
        raise ConfigError(f"loss.radii: expected {allowed}, got {max(radii):g}")
    reach = [int(max(radii) * _EDGE / step) for step in spacing]
    padded = [max(n, r + 1) + r for n, r in zip(size, reach, strict=True)]
    spectra = torch.fft.rfftn(maps, padded, axes)
    # as frequencies are: 0, 1, 2 ... and then those that are negative
    steps = [torch.fft.fftfreq(n, 1 / (n * step)).to(maps) for n, step in zip(padded, spacing, strict=True)]
    away = torch.stack(torch.meshgrid(*steps, indexing="ij")).square().sum(0).sqrt()
    means = []
    for radius in radii:
        ball = (away <= radius * _EDGE).to(maps)
        mean = torch.fft.irfftn(spectra * torch.fft.rfftn(ball / ball.sum()), padded, axes)
        means.append(mean[(..., *(slice(n) for n in size))])
    return means


build = HausdorffConv
