"""Dual-task loss: of the classes, of the boundaries that a network gives beside them, and of how well the two agree.

Formula: boundary_weight B(s, b) + 1/N sum [ce_weight CE + contour_weight |z(p) - z(t)| + agreement_weight (s > threshold) CE], s the network's boundaries, b the true ones, B balanced cross entropy, z(t) = |grad (G * t)| / sqrt(axes), G a small Gaussian
Paper: Takikawa et al. 2019, Gated-SCNN: gated shape CNNs for semantic segmentation, ICCV
Equation: none in Taghanaki et al. 2021; 3 to 7 of the paper, whose sums are means here, and whose argmax is p itself, as in its slopes (8), without noise
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses._common import Loss, known
from medseg.losses._context import LossContext
from medseg.losses._contours import length
from medseg.losses._level import Level
from medseg.losses._maps import beside_boundary
from medseg.losses._morphology import beside
from medseg.losses._options import Options, Share, Weight
from medseg.losses._voxels import answers, balance, each_voxel


class Config(Options):
    """Options of the loss; the weights are lambda 1 to 4 of the paper.

    Args:
        boundary_weight: of the network's boundaries against the true ones: voxels beside another class.
        ce_weight: of cross entropy. With 0 another loss of the classes should stand beside this one.
        contour_weight: of the edges of the predicted probabilities against those of the truth.
        agreement_weight: of cross entropy once more, where the network is sure of a boundary.
        threshold: from which probability on it is.
    """

    boundary_weight: Weight = 20.0
    ce_weight: Weight = 1.0
    contour_weight: Weight = 1.0
    agreement_weight: Weight = 1.0
    threshold: Share = 0.8


class DualTask(Loss[Config]):
    """Mean over voxels (cross entropy with "sigmoid", and channels); contours are summed over classes.

    Boundaries are `output.boundary`, logits `(B, 1, *spatial)` of any resolution, or `context.extras["boundary"]`. What they
    choose for `agreement_weight` is taken as given.
    """

    def forward(self, output: Any, target: Tensor, context: LossContext | None = None) -> Tensor:
        """As in every loss.

        Raises:
            ConfigError: the network gives no boundaries, and the context has none.
        """
        context = known(context)
        extras = {**(context.extras or {})}
        if getattr(output, "boundary", None) is not None:
            extras["boundary"] = output.boundary
        if "boundary" not in extras:
            raise ConfigError(
                "loss 'dual_task' needs a network that also gives boundaries, and this one gives classes alone: "
                'use model=gated_scnn, or give LossContext(extras={"boundary": logits})'
            )
        return super().forward(output, target, replace(context, extras=extras))

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        config, boundary = self.config, _boundary(level)
        sure = boundary.sigmoid() > config.threshold
        costs = each_voxel(level, torch.neg, balance(level)) * (config.ce_weight + config.agreement_weight * sure)
        apart = (potential(level.p, level.valid) - potential(level.truth, level.valid)).abs()
        contours = (apart * level.by_channel(level.weights)).sum() / level.voxels
        found = detection(boundary, level)
        return config.boundary_weight * found + costs.sum() / answers(level) + config.contour_weight * contours


def _boundary(level: Level) -> Tensor:
    """Logits of boundaries at this resolution, `(B, 1, *spatial)`."""
    assert level.context.extras is not None
    boundary = level.fit(level.context.extras["boundary"])
    if boundary.shape[1] != 1:
        raise ConfigError(f"boundaries need one channel, whatever the classes are, got {boundary.shape[1]}")
    return boundary


def detection(boundary: Tensor, level: Level) -> Tensor:
    """Cross entropy of boundaries (equation 3), each side weighted by the other's share in the batch; 0 where one is missing."""
    true = beside_boundary(level).amax(1, keepdim=True)
    edges, voxels = level.context.total(torch.stack([true.sum(), level.sizes.sum()]))
    share = edges / voxels.clamp(min=1)
    weights = torch.where(true > 0, 1 - share, share)
    costs = F.binary_cross_entropy_with_logits(boundary, true, weights, reduction="none")
    return level.keep(costs).sum() / level.voxels


def potential(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """How much a boundary of each class each voxel is, 0 to 1 (equation 4): the slope of blurred values, in voxels.

    Args:
        values: `(B, K, *spatial)`, 0 to 1.
        valid: `(B, 1, *spatial)`, 0 where ignored: what is there takes no part, no more than what lies outside.
    """
    axes = values.ndim - 2
    counted = torch.ones_like(values[:, :1]) if valid is None else valid
    near = _blurred(counted).clamp(min=0.5**axes)  # less is only where ignored
    return length(_blurred(values * counted) / near, (1.0,) * axes, valid) / axes**0.5


def _blurred(values: Tensor) -> Tensor:
    """Sums over neighbours, weighed by (1, 2, 1) / 4 along each axis; outside lies nothing."""
    for axis in range(2, values.ndim):
        values = (beside(values, axis) + 2 * values) / 4
    return values


build = DualTask
