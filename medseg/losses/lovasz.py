"""Lovasz-Softmax and Lovasz-hinge: the convex extension of the Jaccard loss, which counts whole voxels.

Formula: 1/|C| sum_c <m_c, dJ_c(m_c)>, m_c the errors of class c in falling order, J_c the Jaccard loss of the first of them
Paper: Berman et al. 2018, The Lovasz-Softmax loss, CVPR
Equation: 15 of Taghanaki et al. 2021, where the overline of the extension is lost
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import StructureOptions
from medseg.losses._regions import class_mean


class Config(StructureOptions):
    """Options of the loss.

    Args:
        errors: "probability" (Lovasz-Softmax): |t - p|; "hinge" (Lovasz-hinge): how far the margin of a structure against
            all else falls short of 1.
        include_background: as in the paper, background is one of the classes.
        batch: take the batch as one image, as the paper's tables do, instead of sample by sample. Processes that train
            together do so each for its own part.
        classes: "present" leaves out those of which an image has no voxel, as the authors' code does.
    """

    errors: Literal["probability", "hinge"] = "probability"
    include_background: bool = True
    batch: bool = False
    classes: Literal["all", "present"] = "all"


class Lovasz(Loss[Config]):
    """Mean over samples and classes. Where every error is 0 or 1, it is 1 - IoU of each class."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution. Of a class that is absent it is the largest error; 0 where nothing counts."""
        errors, truth = (values.flatten(2) for values in (level.keep(self._errors(level)), level.truth))
        if self.config.batch:
            errors, truth = (values.transpose(0, 1).flatten(1)[None] for values in (errors, truth))
        errors, order = errors.sort(dim=2, descending=True)
        losses = (errors * _steps(truth.gather(2, order))).sum(2)
        present = truth.amax(2) > 0 if self.config.classes == "present" else None
        return class_mean(losses, level, self.config, present)

    def _errors(self, level: Level) -> Tensor:
        if self.config.errors == "probability":
            return (level.truth - level.p).abs()
        margin = level.log_p - level.log_not_p if level.exclusive else level.logits
        return (1 - margin * (2 * level.truth - 1)).relu()


def _steps(truth: Tensor) -> Tensor:
    """By how much the Jaccard loss rises when one voxel after the other is wrong, `(B, K, N)`.

    Written without the difference of two ratios, of which nothing would be left in single precision.
    """
    true = truth.sum(2, keepdim=True)
    both, either = true - truth.cumsum(2) + truth, true + (1 - truth).cumsum(2)
    before = either - (1 - truth)
    step = (both * (1 - truth) + truth * before) / (before * either).clamp(min=1e-12)
    return torch.where(before > 0, step, 1.0)  # the first voxel that is invented where there is nothing to find


build = Lovasz
